"""Programs that work on a database's own files: within walls, as its servers are, and heard.

Whoever owns the database decides what its catalogs hold, and so what a server does that is started
on them: a trigger on login, say, runs what he likes. So such a program has the walls of a compute,
and sees no more of the machine than its own directory; with its end, or ours, the kernel ends all
that it has started. Without walls it runs as the user of all servers.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pagestore.compute import cgroups, syscalls
from pagestore.compute.limits import Limits
from pagestore.compute.sandbox import NOBODY, Sandbox
from pagestore.compute.walls import Room, descriptors, walled
from pagestore.errors import FailedPrecondition
from pagestore.postgres.datadir import Owner
from pagestore.postgres.process import Identity, children

KEPT_CHARACTERS = 1 << 18
"""Of what a program says: the end."""
_CHUNK = 1 << 16
_POLL_SECONDS = 0.002
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


class Done(NamedTuple):
    """How a program ended; `output` is what it said at last, on either channel."""

    status: int
    output: str


def _nobody(text: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Confined:
    """
    Args:
        work: where the programs run; theirs, in a directory that is ours.
        programs: directories of what they execute.
        owner: whom they run as; None for our own user.
        walls: whether there are any.
        accounts: what they see as /etc/passwd there; None for the machine's.
        limits: what they may take together; None for whatever there is.
    """

    work: Path
    programs: tuple[Path, ...]
    owner: Owner | None
    walls: bool = False
    accounts: Path | None = None
    limits: Limits | None = None

    async def run(
        self,
        argv: Sequence[str],
        *,
        said: bytes = b"",
        heard: Callable[[str], None] = _nobody,
    ) -> Done:
        """Returns when the program has ended, and within walls all that it has started.

        Args:
            said: to its standard input.
            heard: called with what it says, as it says it.

        Raises:
            FailedPrecondition: POSTGRES_MISSING.
        """
        if not Path(argv[0]).exists():
            raise FailedPrecondition(
                "POSTGRES_MISSING",
                f"There is no {argv[0]}.",
                "Install Postgres's packages: apt-get install postgresql.",
            )
        limits = self.limits if self.walls else None
        groups = limits.make_groups(self.work.parent.name) if limits is not None else []
        try:
            with syscalls.opened(io_uring=False) as denying:
                command = self._command(["env", f"--chdir={self.work}", *argv], denying)
                if limits is not None:
                    command = limits.outside(groups, command)
                child = await _executed(command, descriptors(denying))
            return await self._heard(child, said, heard)
        finally:
            for group in groups:
                cgroups.remove(group)

    def _command(self, argv: list[str], denying: int | None) -> list[str]:
        if self.walls:
            around = [each for path in self.programs for each in (path.parent, path.resolve())]
            room = Room((self.work,), tuple(around), False, accounts=self.accounts, outlives=False)
            inside = self.limits.inside() if self.limits is not None else ()
            return walled(argv, room, self.owner, inside, denying)
        if self.owner is None:
            return argv
        identity = [f"--reuid={self.owner.uid}", f"--regid={self.owner.gid}", "--clear-groups"]
        return ["setpriv", *identity, "--", *argv]

    async def _heard(
        self, child: asyncio.subprocess.Process, said: bytes, heard: Callable[[str], None]
    ) -> Done:
        outer = Identity.of(child.pid) or NOBODY
        first = NOBODY
        try:
            if self.walls:
                first = await _first(child)
            output = await _conversation(child, said, heard)
            return Done(await child.wait(), output)
        finally:
            if child.returncode is None:
                self._end(outer, first)
                await asyncio.shield(child.wait())
            while first.alive:
                await asyncio.sleep(_POLL_SECONDS)

    def _end(self, outer: Identity, first: Identity) -> None:
        if self.walls:
            Sandbox(outer, first).end()
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(outer.pid, signal.SIGKILL)


async def _executed(command: list[str], inherited: Sequence[int]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        env=_ENVIRONMENT,
        start_new_session=True,
        pass_fds=inherited,
    )


async def _first(child: asyncio.subprocess.Process) -> Identity:
    """The process with which everybody inside ends; nobody, where it has ended already."""
    while child.returncode is None:
        for found in children(child.pid):
            return found
        await asyncio.sleep(_POLL_SECONDS)
    return NOBODY


async def _conversation(
    child: asyncio.subprocess.Process, said: bytes, heard: Callable[[str], None]
) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(ConnectionError):  # it need not listen to the end
        child.stdin.write(said)
        child.stdin.close()
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    output = ""
    while chunk := await child.stdout.read(_CHUNK):
        text = decoder.decode(chunk)
        heard(text)
        output = (output + text)[-KEPT_CHARACTERS:]
    return output
