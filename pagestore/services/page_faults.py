"""What the disk fails to read is told in the log, whoever has asked for it.

Who asks is answered UNAVAILABLE, and asks again by himself with pauses that grow: computes,
clients, ingest, compaction, uploads. With an object store he is answered from there instead.
"""

from __future__ import annotations

import asyncio

import structlog

from pagestore._native import layer_faults

LOOK_SECONDS = 5.0
_log = structlog.get_logger(__name__)


async def tell_faults() -> None:
    """Until cancelled."""
    told, _ = layer_faults()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        faults, last = layer_faults()
        if faults > told:
            _log.error("the disk fails to read layer files", times=faults - told, error=last)
        told = faults
