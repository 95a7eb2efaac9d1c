"""Computes that have stopped answering, found and ended.

A server can hang and not end: its postmaster is stopped, frozen, or waits for what never comes.
Then whoever comes waits in vain, and nothing else would ever tell, since its process is there. So
each compute is asked now and then what costs it least and needs neither pages nor safekeepers:
whether it speaks TLS, over its Unix socket. The process that its postmaster makes for that answers
with a byte before it has read anything. A server that is full, recovers or shuts down answers as
well, and one that cannot make a process closes the connection, which is an answer, too.

What gives none several times in a row is ended, with a reason, and the next who comes starts
another; commits that it had acknowledged are at the WAL service, and a new start has a higher term,
below which nothing is taken any more. They have to be in a row, and each is waited for, so that a
machine that stood still, or an agent that did, blames nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from pagestore.agent.watched import WatchedCompute
from pagestore.pgwire.startup import TLS_REQUEST

ASK_SECONDS = 15.0
ANSWER_SECONDS = 8.0
MOST_UNANSWERED = 3
_NOBODY_LISTENS = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.ENOTCONN)
"""The last two where its queue is full."""
_log = structlog.get_logger(__name__)


class AnswerWatch:
    """
    Args:
        ask_seconds: between two questions to a compute that answers; one that does not is asked
            again at once.
        answer_seconds: that an answer is waited for.
    """

    def __init__(
        self, ask_seconds: float = ASK_SECONDS, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._ask_seconds, self._answer_seconds = ask_seconds, answer_seconds
        self._unanswered: dict[WatchedCompute, int] = {}
        """Those that did not answer when they were asked last, and how often before that."""

    async def run(self, computes: Callable[[], Iterable[WatchedCompute]]) -> None:
        while True:
            await asyncio.sleep(0 if self._unanswered else self._ask_seconds)
            await self.ask(list(computes()))

    async def ask(self, computes: Sequence[WatchedCompute]) -> None:
        """All at once, and ends those that have been silent for too long."""
        answered = await asyncio.gather(*map(self._answers, computes))
        silent = [compute for compute, heard in zip(computes, answered, strict=True) if not heard]
        self._unanswered = {item: self._unanswered.get(item, 0) + 1 for item in silent}
        for compute, times in list(self._unanswered.items()):
            _log.warning("a compute does not answer", name=compute.name, times=times)
            if times >= MOST_UNANSWERED:
                del self._unanswered[compute]
                await self._end(compute)

    async def _answers(self, compute: WatchedCompute) -> bool:
        """One that somebody stops already is left to him, who has his own patience."""
        if not compute.alive or compute.lock.locked():
            return True
        return await answers(compute.running.record.socket, self._answer_seconds)

    async def _end(self, compute: WatchedCompute) -> None:
        seconds = MOST_UNANSWERED * self._answer_seconds
        why = f"it was ended: Postgres did not answer for {seconds:.0f} s"
        _log.warning("a compute is ended", name=compute.name, why=why)
        if compute.alive:
            await compute.end(why)


async def answers(socket: Path, seconds: float) -> bool:
    """Whether a server is there that answers within so many seconds. Where nobody listens all of
    them are waited for: it may be on its way. What hinders only us, as too many open files, says
    nothing of the server, which has the benefit of the doubt."""
    try:
        async with asyncio.timeout(seconds):
            try:
                await _ask(socket)
            except OSError as error:
                if error.errno in _NOBODY_LISTENS:
                    await asyncio.sleep(seconds)
            return True
    except TimeoutError:
        return False


async def _ask(socket: Path) -> None:
    """Returns when there is an answer, which a close is, too."""
    reader, writer = await asyncio.open_unix_connection(socket)
    with contextlib.closing(writer):
        writer.write(TLS_REQUEST)
        await reader.read(1)
