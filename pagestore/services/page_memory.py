"""How a page server divides the memory it may take, and keeps to it.

One bound, in five parts. The *program* is the interpreter, its libraries, what requests and WAL
need on their way through (bounded by flow control and by piece), and the allocator's slack.
*Responses* are those in flight, over all streams (page_responses). The rest is shared: half for
open layers, a quarter each for decompressed blocks and for the indexes of layers. Each share is a
limit of the native store, enforced where memory is taken; only a value of many megabytes can pass
the bound, and for that moment.

At rest, when nothing is read or written, what nothing uses goes back to the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from dataclasses import dataclass

from pagestore import _native
from pagestore.services import allocator

PROGRAM_BYTES = 100 << 20
RESPONSE_BYTES = 44 << 20
"""Two of the largest responses at a time, and a fifth for small ones."""
LEAST_BYTES = PROGRAM_BYTES + RESPONSE_BYTES + (16 << 20)
DEFAULT_BYTES = 272 << 20
REST_SECONDS = 5.0
OPEN_LAYERS = 1024
"""Files of layers. Of a branch of many, a scan meets those of hundreds."""


@dataclass(frozen=True)
class Shares:
    """Bytes."""

    open_layers: int
    blocks: int
    indexes: int
    responses: int

    @classmethod
    def of(cls, memory_bytes: int, open_layer_bytes: int | None = None) -> Shares:
        """
        Args:
            memory_bytes: the bound of the whole process.
            open_layer_bytes: of that, for open layers, if not half of what can be shared.
        """
        shared = memory_bytes - PROGRAM_BYTES - RESPONSE_BYTES
        open_layers = shared // 2 if open_layer_bytes is None else open_layer_bytes
        return cls(open_layers, shared // 4, shared // 4, RESPONSE_BYTES)


def keep_within(shares: Shares) -> None:
    """Sets the limits of this process."""
    allocator.set_limits()
    _native.set_store_limits(
        block_cache_bytes=shares.blocks,
        index_bytes=shares.indexes,
        chunk_bytes=shares.open_layers,
        open_files=open_layers(),
    )


def open_layers() -> int:
    """How many files of layers this process may hold open, once it may open what it can: a
    quarter of that at most."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(most, max(soft, 4 * OPEN_LAYERS))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        soft = wanted
    return min(OPEN_LAYERS, soft // 4)


async def trim_at_rest() -> None:
    """Once after each time of work, when it has been over for a while; until cancelled."""
    before: dict[str, int] = {}
    trimmed = False
    while True:
        await asyncio.sleep(REST_SECONDS)
        now = _native.store_stats()
        if now != before:
            before, trimmed = now, False
        elif not trimmed:
            await asyncio.to_thread(_native.trim_memory)
            before, trimmed = _native.store_stats(), True
