"""Where reads wait, so that the event loop does not.

Most reads find all they need in memory, which takes microseconds: the event loop makes those
pages itself, for handing one to a thread and back costs as much as the page. It asks the core
without patience (native/core/layer/patience.h). What would have to wait for a file goes to one
set of threads, what needs a redo helper to another: a helper that hangs keeps a thread until its
deadline, and reads that need none do not queue behind it. Base backups, each of which is many
reads one after another, have their own, so that starts of computes and reads do not wait for
each other. None of these threads ever syncs a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from pagestore._native import RedoPool, Snapshot

P = ParamSpec("P")
T = TypeVar("T")

DISK_THREADS = 4
BULK_THREADS = 4
INLINE_BLOCKS = 64
"""More blocks than that are never made on the event loop: each may take ten microseconds."""


# What a thread that reads may wait for; ``ps_patience`` of the core.
NO_PATIENCE = 0
DISK_PATIENCE = 1
REDO_PATIENCE = 2


class ReadThreads:
    """The threads of one page server. `close` waits for what they do.

    Args:
        redo: how many wait for redo helpers at a time; as many as there may be helpers.
    """

    def __init__(self, redo: int) -> None:
        self._disk = ThreadPoolExecutor(DISK_THREADS, "read")
        self._redo = ThreadPoolExecutor(redo, "redo")
        self._bulk = ThreadPoolExecutor(BULK_THREADS, "backup")

    def close(self) -> None:
        for threads in (self._disk, self._redo, self._bulk):
            threads.shutdown(cancel_futures=True)

    async def serve_pages(
        self,
        snapshot: Snapshot,
        request: bytes,
        lsn: int,
        redo: RedoPool | None,
        patience: int = DISK_PATIENCE,
    ) -> bytes:
        """A serialized GetPagesResponse to a GetPagesRequest that needs so much patience."""
        while True:
            threads = self._redo if patience >= REDO_PATIENCE else self._disk
            answer = await _run(threads, snapshot.serve_pages, request, lsn, redo, patience)
            if isinstance(answer, bytes):
                return answer
            patience = answer

    async def read(self, function: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Calls what reads files."""
        return await _run(self._disk, function, *args, **more)

    async def read_with_redo(self, function: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Calls what reads files and may need redo."""
        return await _run(self._redo, function, *args, **more)

    async def read_much(self, function: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Calls a step of a base backup."""
        return await _run(self._bulk, function, *args, **more)


async def _run(
    threads: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **more: P.kwargs
) -> T:
    """A call that is cancelled ends when its thread does: until then its memory is in use."""
    call = threads.submit(function, *args, **more)
    done = asyncio.wrap_future(call)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        if not call.cancel():
            await asyncio.wait([done])
        raise
