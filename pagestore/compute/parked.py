"""A server that was executed before its directory is made, and waits for whoever makes it.

It has what takes long and asks for nothing of a database: walls, a user, a process with all its
libraries, and of a data directory what the shim's ``_PG_init`` is reached with. There it waits at
its line (:mod:`pagestore.compute.parking`).

So it can be executed before anybody knows for which database (a *spare*,
:mod:`pagestore.agent.spare`). :meth:`Parked.dedicate` makes it a database's. Its directory stays
where it is: paths are the same within its walls and outside. What the compute is called stands in
its record.

From its first moment there is a record of it, so that whoever comes after us ends it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pagestore.compute import page_access, shared_memory
from pagestore.compute.certificate import make_certificate
from pagestore.compute.execution import Execution, execute
from pagestore.compute.hydrating import HydratingDirectory
from pagestore.compute.parking import SETTINGS, Line
from pagestore.compute.places import make_outer, socket_directory
from pagestore.compute.record import ComputeRecord
from pagestore.compute.removal import remove
from pagestore.pgformat import versions
from pagestore.postgres import majors
from pagestore.postgres.checkpoint import any_control_file
from pagestore.postgres.datadir import Owner
from pagestore.postgres.process import ServerProcess
from pagestore.postgres.settings import ServerPlace, command_line

if TYPE_CHECKING:
    from pagestore.compute.start import ComputeSpec

_END_SECONDS = 2.0
_LOOK_SECONDS = 0.01


class Parked:
    """Belongs to one event loop; `begin` may run beside it.

    Args:
        spec: of which nothing that is a timeline's, nor its settings, is of any effect before
            `dedicate`.
        owner: the server's user; None for our own.
    """

    def __init__(self, spec: ComputeSpec, owner: Owner | None) -> None:
        self.spec = spec
        self.owner = owner
        self.group = owner.gid if owner is not None else os.getegid()
        self.line = Line()
        self.server: ServerProcess | None = None
        self._tree: HydratingDirectory | None = None
        self._record: ComputeRecord | None = None
        self._execution: Execution | None = None
        self._made_directory = False
        self._has_other_log = False

    @property
    def tree(self) -> HydratingDirectory:
        """Its data directory, to be laid."""
        assert self._tree is not None, "it was not begun"
        return self._tree

    @property
    def record(self) -> ComputeRecord:
        assert self._record is not None, "it was not begun"
        return self._record

    @property
    def begun(self) -> bool:
        return self._execution is not None

    @property
    def waits(self) -> bool:
        return self._execution is not None and self._execution.child.poll() is None

    def begin(self, authority: Path | None) -> None:
        """Executes it.

        Args:
            authority: whose certificates it believes, where the page server is on another machine.

        Raises:
            FailedPrecondition: DIRECTORY_EXISTS, POSTGRES_MISSING, AUTHORITY_UNREADABLE.
            OSError.
        """
        spec = self.spec
        make_outer(spec.directory, self.owner)
        self._made_directory = True
        if authority is not None:
            page_access.write_authority(spec.directory, authority, self.group)
        sockets = socket_directory(spec.directory, self.owner)
        memory = None if spec.walls else shared_memory.make_directory(self.owner)
        self._record = self._first_record(sockets, memory)
        self._record.save(spec.directory)
        self._tree = HydratingDirectory(spec.directory / "data", self.owner)
        version = versions.of_major(spec.major)
        self._tree.write("PG_VERSION", version.version_file)
        self._tree.write("global/pg_control", any_control_file(version))
        self._tree.write("postgresql.conf", b"")
        if memory is not None:
            self._tree.replace_by_link(shared_memory.DYNSHMEM, memory)
        self._execution = execute(
            spec,
            self._command(sockets, encrypted=authority is not None),
            self._record,
            data=spec.directory / "data",
            owner=self.owner,
            stdin=self.line.theirs.fileno(),
        )
        self._record = self._execution.record
        self._record.save(spec.directory)

    def dedicate(self, spec: ComputeSpec) -> None:
        """It is for this from now on.

        Args:
            spec: with the same of all that `begin` asks for.
        """
        before, self.spec = self.spec, spec
        if spec is not before:
            self._has_other_log = spec.log_path != before.log_path
            record = replace(
                self.record,
                name=spec.name,
                tenant=spec.tenant,
                timeline=spec.timeline,
                log=str(spec.log_path),
                wal_password=spec.wal_password,
            )
            self.keep(record)
        if spec.signer is not None:
            page_access.write_token(
                spec.directory, spec.tenant, spec.timeline, spec.signer, self.group
            )

    def settings(self, values: Mapping[str, str]) -> None:
        """As :meth:`Line.settings`; with the log of whom it is for."""
        self.line.settings(values, self.spec.log_path if self._has_other_log else None)

    async def enter(self) -> ServerProcess | None:
        """The server, as soon as it is within its walls, if it has any; None when it ended."""
        assert self._execution is not None
        self.server = await self._execution.enter()
        self._record = self._execution.of_server(self.record)
        return self.server

    async def exit_code(self) -> int | None:
        """Of a server that ended before it was within its walls, as those around it pass it on: by
        it one that refuses its settings is told from one that was killed. None: not in time."""
        assert self._execution is not None
        deadline = asyncio.get_running_loop().time() + _END_SECONDS
        while (code := self._execution.child.poll()) is None:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return code

    def keep(self, record: ComputeRecord) -> None:
        """That is its record from now on."""
        record.save(self.spec.directory)
        self._record = record

    def close(self) -> None:
        """Lets go of the line, and of the directory's files; a server that still waits ends."""
        self.line.close()
        if self._tree is not None:
            self._tree.close()

    async def end(self) -> None:
        """Ends the server."""
        self.close()
        if self.server is None and self._execution is not None:
            self.server = await self._execution.enter()
        if self.server is not None:
            await self.server.kill()

    def remove(self) -> None:
        """The directory, once the server has ended; nothing where `begin` has not made it."""
        if self._made_directory:
            remove(self.spec.directory, self._record)

    def _first_record(self, sockets: Path, memory: Path | None) -> ComputeRecord:
        """What is known before the server is executed."""
        spec = self.spec
        inner = [sockets] if sockets.parent != spec.directory else []
        inner += [memory] if memory is not None else []
        place = (spec.directory, spec.host, self.group)
        return ComputeRecord(
            name=spec.name,
            tenant=spec.tenant,
            timeline=spec.timeline,
            port=spec.port,
            socket_directory=str(sockets),
            log=str(spec.log_path),
            outside=tuple(str(directory.parent) for directory in inner),
            host=spec.host,
            wal_password=spec.wal_password,
            certificate=make_certificate(*place) if spec.host else "",
            uid=spec.uid or 0,
        )

    def _command(self, sockets: Path, *, encrypted: bool) -> list[str]:
        spec = self.spec
        place = ServerPlace(
            spec.port,
            sockets,
            spec.page_server,
            spec.shim_library,
            spec.directory,
            spec.host,
            encrypted=encrypted,
        )
        settings = command_line(place, versions.of_major(spec.major)) | SETTINGS
        settings |= shared_memory.WALLED_SETTINGS if spec.walls else shared_memory.SETTINGS
        program = majors.programs(spec.bindir, spec.major) / "postgres"
        argv = [str(program), "-D", str(spec.directory / "data")]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return argv
