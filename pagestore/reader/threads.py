"""Where reads wait, so that the event loop does not.

Most reads find all they need in memory, which takes microseconds: the event loop makes those
pages itself, for handing one to a thread and back costs as much as the page. What would have to
wait for a file, or longer than some hundred microseconds for a redo helper, goes on in threads of
the core (native/core/store/readers.h), which wake the event loop by one descriptor. Files and
redo have their own, so a helper that hangs holds up no read that needs none.

Other reads than those of pages are few, and go to threads of Python. Base backups, each of which
is many reads one after another, have their own, so that starts of computes and reads do not wait
for each other. None of these threads ever syncs a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from pagestore._native import NativeError, PageReaders
from pagestore.errors import native_error

P = ParamSpec("P")
T = TypeVar("T")

DISK_THREADS = 4
BULK_THREADS = 4
REMOTE_THREADS = 32
"""Where files may be elsewhere: a read that waits for one takes longer, and no processor."""


class ReadThreads:
    """The threads of one page server, to be made on its event loop. `close` waits for what they
    do.

    Args:
        helpers: how many redo helpers there may be.
        files: how many reads of pages may wait for files.
    """

    def __init__(self, helpers: int, files: int = DISK_THREADS) -> None:
        self._disk = ThreadPoolExecutor(DISK_THREADS, "read")
        self._redo = ThreadPoolExecutor(helpers, "redo")
        self._bulk = ThreadPoolExecutor(BULK_THREADS, "backup")
        self._pages = PageReaders(files, helpers)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pages.fileno(), self._take)
        self.serve_pages = self._pages.serve_pages
        """A response, or a ticket for `served`."""

    def close(self) -> None:
        self._loop.remove_reader(self._pages.fileno())
        self._pages.close()
        self._take()
        for threads in (self._disk, self._redo, self._bulk):
            threads.shutdown(cancel_futures=True)

    async def served(self, ticket: int) -> bytes:
        """The response of a read that has to wait; to be awaited before anything else is.

        When it is cancelled, it ends when its read does: until then its memory is in use.
        """
        done: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[ticket] = done
        try:
            return await done
        except asyncio.CancelledError:
            if ticket in self._waiting:
                self._waiting[ticket] = done = self._loop.create_future()
                self._pages.cancel(ticket)
                await done
            raise

    def _take(self) -> None:
        for ticket, response in self._pages.take():
            done = self._waiting.pop(ticket, None)
            if done is not None and not done.done():
                done.set_result(response)

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
    """A call that is cancelled ends when its thread does: until then its memory is in use. What
    the core raises comes out in words of pagestore.errors."""

    def called() -> T:
        try:
            return function(*args, **more)
        except NativeError as error:
            raise native_error(error) from error

    call = threads.submit(called)
    done = asyncio.wrap_future(call)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        if not call.cancel():
            await asyncio.wait([done])
        raise
    finally:
        # They have what is raised here, which has this frame: what was to be read would stay
        # until the garbage is collected.
        del call, done
