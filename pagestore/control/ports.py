"""One loopback port a database, kept for its life, so that its URL does not change.

Each process begins its search somewhere else, so that several installations on one machine
seldom want the same port at the same moment.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from pagestore.errors import ResourceExhausted
from pagestore.postgres.listening import is_free

FIRST_PORT = 10_432
LAST_PORT = 32_000
"""Below the range from which Linux takes the ports of outgoing connections."""
_LISTENING = "0A"
"""The state in /proc/net/tcp."""


class Ports:
    def __init__(self, taken: Iterable[int], first: int = FIRST_PORT, last: int = LAST_PORT):
        self._taken = set(taken)
        self._first = first
        self._last = last
        self._next = secrets.choice(range(first, last + 1))

    def choose(self) -> int:
        """A port that no database has and nobody listens on.

        Raises:
            ResourceExhausted: NO_PORT_LEFT.
        """
        for _ in range(self._last - self._first + 1):
            port = self._next
            self._next = self._first if port == self._last else port + 1
            if port not in self._taken and is_free(port):
                self._taken.add(port)
                return port
        raise ResourceExhausted(
            "NO_PORT_LEFT",
            f"Every port from {self._first} to {self._last} is taken.",
            "Remove databases that are no longer needed: pagestore rm NAME.",
        )

    def release(self, port: int) -> None:
        self._taken.discard(port)


def listener(port: int) -> str:
    """The program that listens on a port of this machine, as ``name (pid N)``; empty where it
    cannot be found, as another user's."""
    inodes = set(_listening_inodes(port))
    for entry in Path("/proc").iterdir() if inodes else ():
        if not entry.name.isdigit():
            continue
        try:
            links = [str(descriptor.readlink()) for descriptor in (entry / "fd").iterdir()]
            name = (entry / "comm").read_text().strip()
        except OSError:
            continue
        if any(f"socket:[{inode}]" in links for inode in inodes):
            return f"{name} (pid {entry.name})"
    return ""


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, rows):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
