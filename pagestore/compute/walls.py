"""The walls around a server: what it sees of its machine, and what it can do to it.

A database's superuser is a real superuser. He runs programs (COPY ... PROGRAM), loads libraries of
his own, and so is whoever his server runs as. So each server is executed in a *sandbox* of its own,
by bubblewrap, and is harmless there:

- *Files*: the system, read-only; its own directory, where only what was always the server's can be
  written; a /tmp and a /dev/shm of its own, in memory and bounded. No other data directory, no log,
  no home is there to be named.
- *Processes*: a pid namespace of its own. Nobody else's process can be seen, signalled or traced;
  when its first process ends, the kernel ends all of them, whatever they have forked.
- *Shared memory*: an ipc namespace of its own, gone with its last process.
- *Network*: one of its own, unless told otherwise, with nobody else in it. Page server,
  safekeepers, proxy and agent are met by Unix sockets in directories that it sees.
- *Rank*: no capabilities, and none to be had (no_new_privs): set-user-id programs are programs.
  Where we are root, a user that nobody else is; else our own, in a user namespace.
- *System calls*: none by which the kernel is more often attacked than used
  (:mod:`pagestore.compute.syscalls`); no further namespace is to be had.

Whose processes are whose is told in :mod:`pagestore.compute.sandbox`.

Nothing here decides what the server may read of its database: that is Postgres's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pagestore.compute import syscalls
from pagestore.errors import FailedPrecondition
from pagestore.postgres.datadir import Owner

BUBBLEWRAP: Final = "bubblewrap"
"""What a setting says that wants walls."""
PROGRAM = "bwrap"
TMP_BYTES = 256 << 20
SHARED_MEMORY_BYTES = 1 << 30
"""Of /dev/shm, where parallel queries have what they share."""
_SYSTEM = ("/usr", "/etc")
_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Links into /usr, or directories of old."""
_OF_THE_SYSTEM = (*_SYSTEM, *_MERGED)
_RESOLVER = Path("/etc/resolv.conf")
_PROBE_SECONDS = 20.0
_NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_NO_RANK = ("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")


@dataclass(frozen=True, slots=True)
class Room:
    """What one server has of the machine, besides the system.

    Args:
        writable: directories that are the server's.
        readable: what else it has to see; the writable may lie within.
        network: whether it has the machine's, or one of its own with nobody else in it.
        accounts: what it sees as /etc/passwd; None for the machine's.
        outlives: whether it goes on when its starter ends.
    """

    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    network: bool = True
    accounts: Path | None = None
    outlives: bool = True


def walled(
    argv: Sequence[str],
    room: Room,
    owner: Owner | None,
    bounds: Sequence[str] = (),
    denying: int | None = None,
) -> list[str]:
    """The command that executes `argv` within walls, as `owner`; None for our own user, who needs
    a user namespace for the others.

    Args:
        bounds: words before the command within, by which it bounds itself.
        denying: a descriptor of :func:`syscalls.opened`, which bubblewrap inherits; None for no
            filter.
    """
    command = [PROGRAM, *_NAMESPACES, *_system(), *_own(room)]
    if denying is not None:
        command += ["--seccomp", str(denying)]
    if not room.network:
        command.append("--unshare-net")
    if room.accounts is not None:
        command += ["--ro-bind", str(room.accounts), "/etc/passwd"]
    if not room.outlives:
        command.append("--die-with-parent")
    for place in ("/", "/dev"):  # where our own user could write into memory without bound
        command += ["--remount-ro", place]
    if owner is None:
        return [*command, "--unshare-user", "--cap-drop", "ALL", "--", *bounds, *argv]
    identity = [f"--reuid={owner.uid}", f"--regid={owner.gid}", "--clear-groups"]
    return [*command, "--", *bounds, "setpriv", *identity, *_NO_RANK, "--", *argv]


def check(uid: int, *, network: bool) -> None:
    """That this machine lets walls be built.

    Args:
        uid: of a compute, where we are root.
        network: whether computes have the machine's.

    Raises:
        FailedPrecondition: WALLS_FORBIDDEN.
    """
    owner = Owner(uid, uid) if os.geteuid() == 0 else None
    with syscalls.opened(io_uring=False) as denying:
        command = walled(["true"], Room(network=network), owner, denying=denying)
        fault = _fault(command, descriptors(denying))
    if fault is not None:
        raise FailedPrecondition(
            "WALLS_FORBIDDEN",
            f"No walls can be built around databases here: {fault}.",
            "apt-get install bubblewrap, and allow user namespaces where pagestore is not root. To "
            'run without, where every superuser of a database is trusted: walls = "none" in '
            "[computes] of pagestore.toml.",
        )


def descriptors(denying: int | None) -> tuple[int, ...]:
    """What a command of :func:`walled` is to inherit."""
    return () if denying is None else (denying,)


def names(*, own_user: bool, network: bool) -> list[str]:
    """Names of the walls, as `pagestore status` says them."""
    names = ["files", "processes", "shared memory", "rank"]
    names += ["system calls"] if syscalls.is_known() else []
    names += ["user"] if own_user else []
    return names if network else [*names, "network"]


def installed_beside(program: Path) -> list[Path]:
    """What one of Postgres's programs has to see: all that is installed with it."""
    return [program.parents[1], program.parent.resolve().parent]


def _fault(command: Sequence[str], inherited: Sequence[int]) -> str | None:
    try:
        done = subprocess.run(
            command,
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return "bubblewrap is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return " ".join(done.stderr.split()) or f"{PROGRAM} ends with status {done.returncode}"


def _system() -> Iterator[str]:
    for place in _SYSTEM:
        yield from ("--ro-bind", place, place)
    for place in _MERGED:
        path = Path(place)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), place)
        elif path.exists():
            yield from ("--ro-bind", place, place)
    yield from ("--proc", "/proc", "--dev", "/dev")
    sizes = {"/tmp": TMP_BYTES, "/dev/shm": SHARED_MEMORY_BYTES}  # noqa: S108
    for place, size in sizes.items():
        yield from ("--perms", "1777", "--size", str(size), "--tmpfs", place)
    # It is often a link to what another program keeps.
    resolver = _RESOLVER.resolve()
    if not _is_within(str(resolver), _OF_THE_SYSTEM) and resolver.exists():
        yield from ("--ro-bind", str(resolver), str(resolver))


def _own(room: Room) -> Iterator[str]:
    """The readable first: what is writable may lie in it. Directories on the way there are made
    for the walls alone, where anybody may pass, and have nothing else in them."""
    # In strings: each start asks some two hundred times what lies in what.
    asked = dict.fromkeys(map(str, room.readable))
    readable = [path for path in asked if not _is_within(path, _OF_THE_SYSTEM)]
    writable = [str(path) for path in room.writable]
    ways = {str(way) for path in (*readable, *writable) for way in Path(path).parents}
    for way in sorted(ways - {"/"}):
        if not _is_within(way, (*_OF_THE_SYSTEM, *readable)):
            yield from ("--perms", "0755", "--dir", way)
    for path in readable:
        yield from ("--ro-bind", path, path)
    for path in writable:
        yield from ("--bind", path, path)


def _is_within(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)
