"""A Postgres server process: started directly, watched by pidfd, found again later.

A compute outlives the process that started it, so a handle is either of a child or of a
process that was *adopted*: named by its pid, its start time and the boot that both count from,
which together are never reused. A pid from a data directory names nothing: whoever is inside the
server writes there. Only whether it says that it is ready is read from ``postmaster.pid``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

from pagestore.errors import DeadlineExceeded, FailedPrecondition
from pagestore.postgres.datadir import Owner
from pagestore.postgres.server_log import ServerFailed, ServerLog, open_log
from pagestore.postgres.untrusted import open_root, read_regular

POLL_SECONDS = 0.002
GONE = -1
"""In place of a pidfd: the process has ended already."""
_KILL_GRACE_SECONDS = 3.0
_PID_FILE_BYTES = 4_096
_STATUS_LINE = 7
_START_TIME_FIELD = 19
"""Of /proc/<pid>/stat, counted behind the command's closing parenthesis."""


def account(run_as: str | None) -> Owner | None:
    """The user that the server runs as; None for our own.

    Raises:
        FailedPrecondition: there is no such user, or the server would run as root.
    """
    if run_as is None:
        if os.geteuid() == 0:
            raise FailedPrecondition(
                "RUNS_AS_ROOT",
                "Postgres refuses to run as root.",
                "Name an unprivileged user to run it as, for example postgres.",
            )
        return None
    try:
        entry = pwd.getpwnam(run_as)
    except KeyError as error:
        raise FailedPrecondition(
            "USER_MISSING", f"There is no user {run_as!r} to run Postgres as."
        ) from error
    if entry.pw_uid == 0:
        raise FailedPrecondition(
            "RUNS_AS_ROOT",
            f"Postgres refuses to run as {run_as!r}.",
            "Name an unprivileged user to run it as, for example postgres.",
        )
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise FailedPrecondition(
            "CANNOT_CHANGE_USER",
            f"Only root can run Postgres as {run_as!r}.",
            "Run pagestore as root, or as that user.",
        )
    return Owner(entry.pw_uid, entry.pw_gid)


def own_user() -> str:
    """The name of the user that this process is, as a server asks for it.

    Raises:
        FailedPrecondition: USER_MISSING.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as error:
        raise FailedPrecondition(
            "USER_MISSING",
            f"The user {os.geteuid()} has no name on this machine, and Postgres asks for one.",
            "Run pagestore as a user that /etc/passwd lists.",
        ) from error


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    owner: Owner | None,
    stdin: int = subprocess.DEVNULL,
    inherited: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts a server in a session of its own, so that it survives its starter.

    Args:
        inherited: descriptors that it keeps.

    The user is changed by setpriv(1), not between fork and exec: that would take a real
    fork, and in a process with gRPC's threads the forked copy crashes every so often.
    Without it, subprocess uses vfork.
    """
    if owner is not None:
        identity = [f"--reuid={owner.uid}", f"--regid={owner.gid}", "--clear-groups"]
        argv = ["setpriv", *identity, "--", *argv]
    with open_log(log) as output:
        try:
            return subprocess.Popen(
                argv,
                stdin=stdin,
                pass_fds=inherited,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        except OSError as error:
            raise FailedPrecondition(
                "POSTGRES_MISSING",
                f"{argv[0]} cannot be started: {error.strerror}.",
                "Install Postgres's packages, or set the directory of its programs.",
            ) from error


class Identity(NamedTuple):
    """Which process: never another one, whatever has happened since."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """That of a process which runs now."""
        ticks = start_ticks(pid)
        return None if ticks is None else cls(pid, ticks, boot_id())

    @property
    def alive(self) -> bool:
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks

    def open(self) -> int | None:
        """A pidfd of it; None when it is gone, or never was."""
        if not self.alive:
            return None
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive:
            return descriptor
        os.close(descriptor)
        return None

    def send(self, number: signal.Signals) -> None:
        """A signal to this process and no other; nothing, if it is gone."""
        descriptor = self.open()
        if descriptor is not None:
            try:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command stands in parentheses, and is any bytes that the process likes.
    fields = text.rpartition(b")")[2].split()
    return None if fields[0] in b"ZX" else int(fields[_START_TIME_FIELD])


@cache
def boot_id() -> str:
    """Of the running kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class ServerProcess:
    """A running postmaster. Belongs to the event loop in which it was made."""

    def __init__(
        self,
        pid: int,
        child: subprocess.Popen[bytes] | None = None,
        pidfd: int | None = None,
    ) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        self._child = child
        self._exited = asyncio.Event()
        self._pidfd = os.pidfd_open(pid) if pidfd is None else pidfd
        if self._pidfd == GONE:
            self._exited.set()
        else:
            asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    @classmethod
    def find(cls, identity: Identity) -> Self | None:
        """One that runs already; None when it is gone."""
        pidfd = identity.open()
        return None if pidfd is None else cls(identity.pid, pidfd=pidfd)

    @property
    def alive(self) -> bool:
        return not self._exited.is_set()

    async def wait(self) -> int | None:
        """Until it is gone. Its exit code, or None when it is not our child."""
        await self._exited.wait()
        return self.exit_code

    def release(self) -> None:
        """Stops watching, and lets the server live."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = GONE

    def send(self, number: signal.Signals) -> None:
        """A signal; nothing, if the process is gone."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def kill(self) -> None:
        """Ends the server and its backends at once, as a crash would."""
        if not self.alive:
            return  # its number may be another's by now
        backends = children(self.pid)
        self.send(signal.SIGQUIT)
        try:
            await asyncio.wait_for(self._exited.wait(), _KILL_GRACE_SECONDS)
        except TimeoutError:
            backends += children(self.pid)
            self.send(signal.SIGKILL)
            await self._exited.wait()
        for backend in backends:
            backend.send(signal.SIGKILL)

    def _on_exit(self) -> None:
        if self._child is not None:
            self.exit_code = self._child.wait()
        self.release()
        self._exited.set()


def children(pid: int) -> list[Identity]:
    """Of a process, as far as there are any."""
    try:
        names = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [child for child in map(Identity.of, map(int, names)) if child is not None]


async def wait_accepting(server: ServerProcess, data: Path, log: ServerLog, seconds: float) -> None:
    """Until the postmaster says in its pid file that it accepts connections.

    Raises:
        ServerFailed: COMPUTE_FAILED; it exited instead.
        DeadlineExceeded: it did neither in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    root = open_root(data)
    try:
        while not _says_ready(root):
            if not server.alive:
                raise ServerFailed(log, server.exit_code)
            if loop.time() > deadline:
                said = f" It says: {log.complaint}" if log.complaint else ""
                raise DeadlineExceeded(
                    "COMPUTE_START_TIMEOUT",
                    f"Postgres accepted no connections within {seconds:.0f} s.{said}",
                    log.place,
                )
            await asyncio.sleep(POLL_SECONDS)
    finally:
        os.close(root)


def _says_ready(root: int) -> bool:
    lines = (read_regular(root, "postmaster.pid", _PID_FILE_BYTES) or b"").splitlines()
    return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == b"ready"
