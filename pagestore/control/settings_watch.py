"""What ALTER SYSTEM sets is kept while its compute runs, not only when that stops.

A compute's directory is thrown away, and lost when its machine dies; the setting was acknowledged
by Postgres, so it must not go with it. Nothing tells of an ALTER SYSTEM, which is in no WAL: the
file is looked at every few seconds, as untrusted as ever, and written to the control state only
when it says something new. 50 running databases cost 10 calls of their agent a second, each a look
at a small file.
"""

from __future__ import annotations

import asyncio

import lmdb
import structlog

from pagestore.control.computes import Computes
from pagestore.errors import PagestoreError

NOTED_WITHIN_SECONDS = 5.0
"""An ALTER SYSTEM that is older than this survives everything."""
_log = structlog.get_logger(__name__)


async def note_settings(computes: Computes) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(NOTED_WITHIN_SECONDS)
        for name in computes.names():
            try:
                await computes.note_new_settings(name)
            except (OSError, PagestoreError, lmdb.Error) as error:
                # A control state that cannot be written now is written by and by.
                _log.warning("settings not noted", name=name[1], error=str(error))
