"""Where redo helpers live: their runtime directory, and the command that starts one.

The pool itself is native (``_native.RedoPool``, native/core/redo): it starts a helper when
one is first needed, replaces one that dies, and does the work. Here is what it cannot know:
which binary and library, as which user, and a directory which that user can reach. A helper
is the stock server binary on a *tiny* data directory that holds just enough for it to load a
library (native/postgres/redo/helper.c); it never writes there but for its lock file.

A runtime directory is locked (flock) as long as its page server lives, so that one which a
killed page server left behind is known as such, and removed by the next.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from pagestore import locks
from pagestore._native import RedoPool
from pagestore.errors import FailedPrecondition
from pagestore.pgformat import layout, versions
from pagestore.pgformat.pg_control import PgControl
from pagestore.pgformat.versions import Version
from pagestore.postgres import majors
from pagestore.v1.page_pb2 import ControlCounters, ControlSettings

LIBRARY = majors.library("redo")
LOG_HINTS = 1
"""Flag of a request: the source logs hint bits (``ps_redo_flag``)."""

DEADLINE_SECONDS = 3.0
START_MS = 10_000
MOST_HELPERS = 64
"""Of a pool, spares included."""

_PREFIX = "pagestore-redo-"
_SETTINGS = {
    # Small: a helper holds one page at a time, and the few others that one record names.
    "shared_buffers": "512kB",
    "max_connections": "1",
    "autovacuum_max_workers": "1",
    "max_worker_processes": "0",
    "max_wal_senders": "0",
    "max_locks_per_transaction": "10",
    "max_pred_locks_per_transaction": "10",
    "wal_buffers": "32kB",
    "wal_level": "minimal",
    "huge_pages": "off",
    # Its standard error is for last words only, with nothing that would need a system call.
    "log_min_messages": "error",
    "log_error_verbosity": "default",
    "log_line_prefix": "",
    "lc_messages": "C",
}


def find_library(major: int) -> Path:
    """The module for a major: of PAGESTORE_LIB_DIR, the source tree, or the package.

    Raises:
        FailedPrecondition: it is in none of them.
    """
    name = majors.place(Path(LIBRARY), major)
    package = Path(__file__).resolve().parent.parent
    folders = [package.parent / "native" / "postgres", package / "_lib"]
    if configured := os.environ.get("PAGESTORE_LIB_DIR"):
        folders.insert(0, Path(configured))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise FailedPrecondition(
        "LIBRARY_MISSING",
        f"{name} is in none of {', '.join(map(str, folders))}.",
        "Build it with `make setup`, or say where it is in PAGESTORE_LIB_DIR.",
    )


class RedoHelpers:
    """A pool of ``size`` helpers that work at a time, and the directory they live in.

    There is room for as many again: what a hung helper was to do waits for the deadline, and
    nothing else does.

    Args:
        major: of Postgres, the newest if not given; `postgres_bindir` and `library` may be places
            for each.
        run_as: user of the helpers when the caller is root, which Postgres refuses to be.
        deadline: seconds after which a helper that gives no answer is killed; its request is
            tried once more on another.
        parent: where to make the runtime directory; ``run_as`` must be able to reach it.

    Raises:
        FailedPrecondition: no such binary, library or user. Nothing is started yet: that a
            helper cannot start is only known when the first page needs one.
    """

    def __init__(
        self,
        postgres_bindir: Path,
        *,
        major: int | None = None,
        library: Path | None = None,
        size: int = 2,
        run_as: str | None = None,
        deadline: float = DEADLINE_SECONDS,
        parent: Path | None = None,
    ) -> None:
        if major is None:
            major = max(majors.installed(postgres_bindir), default=versions.ALL[-1].major)
        postgres = (majors.programs(postgres_bindir, major) / "postgres").resolve()
        source = majors.place(library, major) if library else find_library(major)
        spares = _spares(size)
        user = _user(run_as)
        parent = parent or _runtime_parent(user)
        _remove_abandoned(parent)
        self.directory, self._lock = _make_locked(parent)
        try:
            self.directory.chmod(0o711)
            copy = self.directory / source.name
            shutil.copyfile(source, copy)
            copy.chmod(0o644)
            self.most = size + spares
            """How many helpers there may be at a time."""
            homes = [self.directory / f"helper-{number}" for number in range(self.most)]
            for home in homes:
                _make_home(home, user, versions.of_major(major))
            self.pool = RedoPool(
                _command(postgres, copy, user, versions.of_major(major)),
                [str(home) for home in homes],
                size=size,
                start_ms=START_MS,
                deadline_ms=max(1, round(deadline * 1000)),
            )
        except BaseException:
            self._remove()
            raise

    def close(self) -> None:
        """Ends the helpers and removes the runtime directory. Repeatable."""
        self.pool.close()
        self._remove()

    def _remove(self) -> None:
        if self._lock is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RedoPools:
    """One pool a major, made when it is first needed.

    Args as of :class:`RedoHelpers`; `size` is each one's.

    Raises:
        FailedPrecondition: POSTGRES_MISSING; there is no Postgres here at all.
    """

    def __init__(
        self, postgres_bindir: Path, *, library: Path | None, size: int, run_as: str | None
    ) -> None:
        if not majors.installed(postgres_bindir):
            majors.programs(postgres_bindir, versions.ALL[-1].major)
        self._bindir = postgres_bindir
        self._library = library
        self._size = size
        self._run_as = run_as
        self._made: dict[int, RedoHelpers] = {}
        self.most = size + _spares(size)
        """How many helpers there may be of a major at a time."""

    def of(self, major: int) -> RedoPool | None:
        """None where that major is not installed: pages that need no redo can be read."""
        helpers = self._made.get(major)
        if helpers is None:
            if major not in majors.installed(self._bindir):
                return None
            helpers = self._made[major] = RedoHelpers(
                self._bindir,
                major=major,
                library=self._library,
                size=self._size,
                run_as=self._run_as,
            )
        return helpers.pool

    def stats(self) -> dict[str, float]:
        """As of a pool, of all together."""
        total = dict.fromkeys(("pages", "records", "busy_seconds", "started", "deaths"), 0.0)
        for helpers in list(self._made.values()):
            stats = helpers.pool.stats()
            total = {name: value + stats[name] for name, value in total.items()}
        return total

    def stop_idle(self, seconds: float) -> None:
        for helpers in list(self._made.values()):
            helpers.pool.stop_idle(seconds)

    def close(self) -> None:
        while self._made:
            self._made.popitem()[1].close()


def _spares(size: int) -> int:
    return min(size, MOST_HELPERS - size)


def _user(run_as: str | None) -> pwd.struct_passwd | None:
    """Whom to become, or None to stay who we are."""
    if os.geteuid() != 0:
        return None
    name = run_as or "postgres"
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise FailedPrecondition(
            "USER_MISSING",
            f"There is no user {name!r} to run Postgres as.",
            "Set run_as to an unprivileged user of this machine.",
        ) from None


def _runtime_parent(user: pwd.struct_passwd | None) -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if user is None and runtime is not None and os.access(runtime, os.W_OK):
        return Path(runtime)
    return Path("/var/tmp")  # noqa: S108 - mkdtemp makes the name in it


def _lock(directory: Path) -> int | None:
    """A descriptor that holds the directory's lock; None when somebody else does."""
    try:
        return locks.take(directory) if directory.is_dir() else None
    except OSError:
        return None


def _make_locked(parent: Path) -> tuple[Path, int | None]:
    """A new directory, and its lock. Another process may take a new one for abandoned before
    it is locked, and remove it: then the next."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        descriptor = _lock(directory)
        if descriptor is None:
            continue
        if directory.exists():
            return directory, descriptor
        os.close(descriptor)


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        descriptor = _lock(directory)
        if descriptor is None:
            continue
        if os.fstat(descriptor).st_uid == os.geteuid():
            shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def _make_home(home: Path, user: pwd.struct_passwd | None, version: Version) -> None:
    """A data directory that a server accepts until it loads libraries."""
    control = PgControl.at_shutdown(
        ControlCounters(full_page_writes=False),
        ControlSettings(system_id=1, max_connections=1, catalog_version=version.catalog_version),
        checkpoint_lsn=layout.WAL_SEGMENT_SIZE,
        time=0,
    )
    home.mkdir(mode=0o700)
    (home / "global").mkdir(mode=0o700)
    contents = {
        "PG_VERSION": version.version_file,
        "postgresql.conf": b"",
        "postgresql.auto.conf": b"",
        "global/pg_control": control.pack(),
    }
    for name, data in contents.items():
        (home / name).write_bytes(data)
        (home / name).chmod(0o600)
    if user is not None:
        # From within: what the user has, he may replace.
        for path in (*(home / name for name in contents), home / "global", home):
            os.chown(path, user.pw_uid, user.pw_gid)


def _command(
    postgres: Path, library: Path, user: pwd.struct_passwd | None, version: Version
) -> list[str]:
    """What starts a helper; ``{dir}`` is its home."""
    command: list[str] = []
    if user is not None:
        setpriv = shutil.which("setpriv") or "/usr/bin/setpriv"
        identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        command += [setpriv, *identity, "--no-new-privs", "--"]
    command += [str(postgres), "--single", "-D", "{dir}"]
    settings = {"shared_preload_libraries": str(library), **_SETTINGS}
    for name, value in (*settings.items(), *version.redo_settings):
        command += ["-c", f"{name}={value}"]
    return [*command, "postgres"]
