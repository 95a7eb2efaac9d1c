"""Makes a cleanly stopped cluster of one that is not: recovers a *copy* with stock Postgres.

What a base backup, a file-system snapshot or a crash leaves behind is not yet the truth: WAL
must be replayed. Postgres knows how; and since the original is the user's, and perhaps the
only one, it does it on a copy (a reflink where the file system can), which is removed
afterwards. Settings of the original play no part: its libraries may be missing here, and its
recovery commands may do anything. What is replayed may be anybody's, too: Postgres runs on it
within the walls of a compute, without a network, where computes do.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pagestore.compute import syscalls
from pagestore.compute.places import make_private
from pagestore.compute.sandbox import entered
from pagestore.compute.walls import Room, descriptors, installed_beside, walled
from pagestore.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    PagestoreError,
    ResourceExhausted,
)
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.oracle.scratch import scratch_directory
from pagestore.pgformat.pg_control import PgControl
from pagestore.postgres import majors
from pagestore.postgres.cluster import (
    check_not_running,
    is_cleanly_stopped,
    named_read_errors,
    read_control,
    refuse_tablespaces,
)
from pagestore.postgres.datadir import Owner
from pagestore.postgres.process import ServerProcess, account, spawn, wait_accepting
from pagestore.postgres.server_log import ServerFailed, ServerLog, log_tail
from pagestore.postgres.settings import control_settings
from pagestore.transfer.pgdata import import_header

_RECOVERY_SECONDS = 24 * 3600.0
_STOP_SECONDS = 600.0
_NOT_COPIED = (
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf",
    "recovery.signal",
    "standby.signal",
)
_HBA = "local all all reject\n"


@dataclass(frozen=True, slots=True)
class Walls:
    """That Postgres runs within walls on copies, too.

    Args:
        uid: a user that no compute has, where we are root.
    """

    uid: int | None


@dataclass(frozen=True, slots=True)
class Runner:
    """By which programs, as whom, and within what Postgres runs on copies."""

    bindir: Path
    owner: Owner | None
    walled: bool

    @classmethod
    def of(cls, bindir: Path, run_as: str | None, walls: Walls | None) -> Self:
        if walls is not None and walls.uid is not None:
            return cls(bindir, Owner(walls.uid, walls.uid), walled=True)
        return cls(bindir, account(run_as), walled=walls is not None)

    async def execute(
        self, argv: Sequence[str], log: Path, writable: tuple[Path, ...], major: int
    ) -> ServerProcess:
        """
        Raises:
            ServerFailed: it did not come to be within its walls.
        """
        if not self.walled:
            child = spawn(argv, log=log, owner=self.owner)
            return ServerProcess(child.pid, child)
        seen = (log.parent, *installed_beside(Path(argv[0])))
        room = Room(writable, seen, network=False, outlives=False)
        with syscalls.opened(io_uring=major >= syscalls.FIRST_WITH_IO_URING) as denying:
            command = walled(argv, room, self.owner, denying=denying)
            child = spawn(command, log=log, owner=None, inherited=descriptors(denying))
        server = await entered(child)
        if server is None:
            raise ServerFailed(ServerLog(log), child.returncode)
        return server


@asynccontextmanager
async def stopped_cluster(
    directory: Path,
    *,
    run_as: str | None = None,
    bindir: Path = majors.BINDIR,
    scratch: Path = Path("/var/tmp"),  # noqa: S108
    walls: Walls | None = None,
) -> AsyncIterator[Path]:
    """A cleanly stopped cluster with the content of `directory`: itself, or a recovered copy
    that lives until the block ends.

    Raises:
        FailedPrecondition: CLUSTER_RUNNING, RECOVERY_FAILED, TABLESPACE_UNSUPPORTED, ...
        ResourceExhausted: no room for the copy in `scratch`.
    """
    directory = directory.absolute()
    with named_read_errors():
        control = read_control(directory)
        check_not_running(directory)
    if is_cleanly_stopped(directory, control):
        yield directory
        return
    refuse_tablespaces(directory)
    runner = Runner.of(bindir, run_as, walls)
    async with scratch_directory("pagestore-recovery", scratch, runner.owner) as root:
        copy = root / "data"
        await copy_cluster(directory, copy, runner.owner)
        await _recover(copy, control, runner)
        yield copy


async def copy_cluster(source: Path, target: Path, owner: Owner | None) -> None:
    """Copies a data directory without its settings, for the owner to run.

    Raises:
        ResourceExhausted: NO_SPACE_FOR_RECOVERY.
    """
    needed = await asyncio.to_thread(_bytes_below, source)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise ResourceExhausted(
            "NO_SPACE_FOR_RECOVERY",
            f"Recovering a copy of {source} needs {needed >> 20} MiB in {target.parent.parent}; "
            f"{free >> 20} MiB are free.",
            "Free some space, or start and stop the cluster once with its Postgres yourself.",
        )
    await _run("cp", "-a", "--reflink=auto", "--", str(source), str(target))
    wal = target / "pg_wal"
    if wal.is_symlink():
        elsewhere = (source / "pg_wal").resolve()
        wal.unlink()
        await _run("cp", "-a", "--reflink=auto", "--", str(elsewhere), str(wal))
    for name in _NOT_COPIED:
        (target / name).unlink(missing_ok=True)
    for name, text in {"postgresql.conf": "", "pg_hba.conf": _HBA, "pg_ident.conf": ""}.items():
        (target / name).unlink(missing_ok=True)
        (target / name).write_text(text)
    target.chmod(0o700)
    if owner is not None:
        await _run("chown", "-R", "-h", f"{owner.uid}:{owner.gid}", str(target))


def _bytes_below(directory: Path) -> int:
    return sum(
        (Path(folder) / name).lstat().st_blocks * 512
        for folder, _, names in os.walk(directory)
        for name in names
    )


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, complaint = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise FailedPrecondition(
            "COPY_FAILED", f"{command[0]} failed: {complaint.decode(errors='replace').strip()}"
        )


async def _recover(data: Path, control: PgControl, runner: Runner) -> None:
    try:
        await recover(data, control, runner, {"port": "5432", "archive_mode": "off"})
    except (PagestoreError, TimeoutError) as error:
        kind = DeadlineExceeded if isinstance(error, TimeoutError) else FailedPrecondition
        raise kind(
            "RECOVERY_FAILED",
            f"Stock Postgres could not recover a copy of the cluster. Its log ends:\n"
            f"{log_tail(log_of(data))}",
            "Where WAL is missing, take the backup with pg_basebackup -X stream, or stop the "
            "cluster cleanly before copying it.",
        ) from error


async def recover(
    data: Path,
    control: PgControl,
    runner: Runner,
    settings: Mapping[str, str],
) -> None:
    """Starts Postgres on a copy, and stops it cleanly as soon as it has recovered. Nobody can
    connect to it.

    Args:
        settings: besides those that the control file asks for.

    Raises:
        Unavailable: COMPUTE_FAILED; it exited instead.
        DeadlineExceeded, TimeoutError: it neither recovered nor ended in time.
    """
    log, sockets = log_of(data), data.parent / "run"
    make_private(sockets, runner.owner)
    settings = {
        **control_settings(import_header(control, DEFAULT_TENANT, _NOBODY).settings),
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "hot_standby": "off",
        "allow_in_place_tablespaces": "on",
        "autovacuum": "off",
        "fsync": "off",
        **settings,
    }
    programs = majors.programs(runner.bindir, control.version.major)
    argv = [str(programs / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    server = await runner.execute(argv, log, (data, sockets), control.version.major)
    try:
        await wait_accepting(server, data, ServerLog(log), _RECOVERY_SECONDS)
        server.send(signal.SIGINT)
        await asyncio.wait_for(server.wait(), _STOP_SECONDS)
    finally:
        if server.alive:
            await server.kill()


def log_of(data: Path) -> Path:
    """Where a copy's server writes its log."""
    return data.parent / "postgres.log"


_NOBODY = TimelineId(bytes(16))
