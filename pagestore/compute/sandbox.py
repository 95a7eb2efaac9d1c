"""The processes of a sandbox, seen from outside: who they are, and how they end.

::

    bwrap          *outer*: our child; ends with the server's exit status, as soon as that ends
    └ bwrap        *first*: the namespace's process 1, which reaps; with it all of them end
      └ postgres   the postmaster, to whom signals for Postgres go

The first outlives the postmaster as long as anybody is left inside: a program of a superuser's that
went into the background. So it is ended with the server, by the kernel's own rule: whoever kills
a namespace's process 1 kills everybody in it. None of them ends with us: a compute outlives its
agent, and is found again by these three.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from signal import SIGKILL, SIGQUIT, Signals
from typing import NamedTuple, Self

from pagestore.postgres.process import GONE, Identity, ServerProcess, children

NOBODY = Identity(0, 0, "")
_POLL_SECONDS = 0.001
_GRACE_SECONDS = 3.0
_TELL_SECONDS = 1.0
_ENTER_SECONDS = 30.0
_SIGNALLED = 128
"""Behind it, bubblewrap says the signal that ended what it executed."""


class Sandbox(NamedTuple):
    """See above. The first is nobody as long as it is not known."""

    outer: Identity
    first: Identity = NOBODY

    def end(self) -> None:
        """Kills everybody inside."""
        firsts = [self.first]
        if self.first == NOBODY and self.outer.alive:
            firsts = children(self.outer.pid)
        for first in (*firsts, self.outer):
            first.send(SIGKILL)


class WalledServer(ServerProcess):
    """A server in its sandbox: what is watched is the outer process; signals are the postmaster's.

    Belongs to the event loop in which it was made.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        server: Identity,
        child: subprocess.Popen[bytes] | None = None,
    ) -> None:
        pidfd = None if child is not None else sandbox.outer.open() or GONE
        super().__init__(sandbox.outer.pid, child, pidfd)
        self.sandbox = sandbox
        self.server = server
        self._server_fd = server.open()
        if self._server_fd is not None:
            asyncio.get_running_loop().add_reader(self._server_fd, self._see_server_end)

    @classmethod
    def of(cls, sandbox: Sandbox, server: Identity) -> Self | None:
        """One that runs already, whole; None when the server or its outer process is gone."""
        if not (server.alive and sandbox.outer.alive):
            return None
        return cls(sandbox, server)

    def send(self, number: Signals) -> None:
        self.server.send(number)

    async def kill(self) -> None:
        """Ends the server at once, as a crash would, and whatever else there is inside; until
        nobody is left."""
        if self.alive:
            self.send(SIGQUIT)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), _GRACE_SECONDS)
        self.sandbox.end()
        await self.wait()
        while self.sandbox.first.alive:
            await asyncio.sleep(_POLL_SECONDS)

    def release(self) -> None:
        self._forget_server()
        super().release()

    def _see_server_end(self) -> None:
        """The outer process ends with it, unless the first one is kept from telling."""
        self._forget_server()
        asyncio.get_running_loop().call_later(_TELL_SECONDS, self.sandbox.first.send, SIGKILL)

    def _forget_server(self) -> None:
        if self._server_fd is not None:
            asyncio.get_running_loop().remove_reader(self._server_fd)
            os.close(self._server_fd)
            self._server_fd = None

    def _on_exit(self) -> None:
        self.sandbox.first.send(SIGKILL)
        super()._on_exit()
        if self.exit_code is not None and self.exit_code > _SIGNALLED:
            self.exit_code = _SIGNALLED - self.exit_code


def inside(outer: int) -> tuple[Identity, Identity] | None:
    """The first process and the server of a sandbox; None as long as they are not there."""
    for first in children(outer):
        for server in children(first.pid):
            return first, server
    return None


async def entered(child: subprocess.Popen[bytes]) -> WalledServer | None:
    """The server that a command of :func:`pagestore.compute.walls.walled` executes, as soon as
    it is inside; None when the command has ended instead."""
    outer = Identity.of(child.pid)
    clock = asyncio.get_running_loop().time
    deadline = clock() + _ENTER_SECONDS
    while outer is not None:
        if found := inside(child.pid):
            return WalledServer(Sandbox(outer, found[0]), found[1], child)
        if child.poll() is not None:
            return None
        if clock() > deadline:
            Sandbox(outer).end()
        await asyncio.sleep(_POLL_SECONDS)
    return None
