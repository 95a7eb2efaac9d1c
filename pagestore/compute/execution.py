"""Executes a server, within walls or without."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pagestore.compute import syscalls
from pagestore.compute.record import ComputeRecord
from pagestore.compute.sandbox import WalledServer, entered
from pagestore.compute.walls import Room, descriptors, installed_beside, walled
from pagestore.postgres.datadir import Owner
from pagestore.postgres.process import ServerProcess, spawn

if TYPE_CHECKING:
    from pagestore.compute.start import ComputeSpec


@dataclass(slots=True)
class Execution:
    """One under way.

    Args:
        record: says what is to be ended if we die before it is known more exactly.
    """

    record: ComputeRecord
    child: subprocess.Popen[bytes]
    walled: bool
    server: ServerProcess | None = None
    _entering: asyncio.Task[WalledServer | None] | None = None

    async def enter(self) -> ServerProcess | None:
        """The server, as soon as it is within its walls, if it has any; None when it ended."""
        if not self.walled:
            self.server = self.server or ServerProcess(self.child.pid, self.child)
        elif self._entering is None:
            self._entering = asyncio.create_task(entered(self.child))
        if self._entering is not None:
            self.server = await asyncio.shield(self._entering)
        return self.server

    def of_server(self, record: ComputeRecord) -> ComputeRecord:
        """The record with the processes that are known since `enter`."""
        return record.of_server(self.server) if isinstance(self.server, WalledServer) else record


def execute(
    spec: ComputeSpec,
    argv: Sequence[str],
    record: ComputeRecord,
    *,
    data: Path,
    owner: Owner | None,
    stdin: int,
) -> Execution:
    """
    Args:
        argv: of the server by itself.
        record: its compute's, which knows its socket's directory.

    Raises:
        OSError: of its control groups.
        FailedPrecondition: POSTGRES_MISSING.
    """
    if not spec.walls:
        child = spawn(argv, log=spec.log_path, owner=owner, stdin=stdin)
        return Execution(record.of_process(child.pid), child, walled=False)
    limits = spec.limits
    room = room_of(spec, Path(argv[0]), data, Path(record.socket_directory))
    with syscalls.opened(io_uring=spec.major >= syscalls.FIRST_WITH_IO_URING) as denying:
        bounds = limits.inside() if limits is not None else ()
        command = walled(argv, room, owner, bounds, denying)
        if limits is not None:
            groups = limits.make_groups(spec.directory.name)
            record = replace(record, groups=tuple(map(str, groups)))
            command = limits.outside(groups, command)
        kept = descriptors(denying)
        child = spawn(command, log=spec.log_path, owner=None, stdin=stdin, inherited=kept)
    return Execution(record.of_outer(child.pid), child, walled=True)


def room_of(spec: ComputeSpec, program: Path, data: Path, sockets: Path) -> Room:
    """What a compute's server has to see: its program with all that is installed beside it, too."""
    readable = [spec.directory, *installed_beside(program), spec.shim_library]
    readable += [spec.session.path] if spec.session is not None else []
    if spec.page_server.startswith("unix:"):
        readable.append(Path(spec.page_server.removeprefix("unix:")).parent)
    return Room((data, sockets), tuple(readable), spec.network)
