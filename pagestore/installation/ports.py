"""The addresses of parts: which ones a new installation takes, and who holds one that is taken.

A new installation has ten ports in a row, chosen by its data directory among three hundred such
blocks: so two installations seldom want the same ports, also while one of them is down. The default
data directory has the first block. Where somebody listens in it, the next free one is taken. The
choice is written into ``pagestore.toml`` and stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from pagestore.client.credentials import standard_data_dir
from pagestore.errors import FailedPrecondition, ResourceExhausted
from pagestore.installation.layout import Installation
from pagestore.postgres.listening import is_free

FIRST_PORT = 7430
BLOCK = 10
"""Ports of one installation: a control plane, a page server, a proxy's service, up to seven
safekeepers."""
CLIENTS_PORT = 5432
"""Where clients connect, or at the next free port."""
BLOCKS = 300
_LISTEN = "0A"
"""TCP_LISTEN, as /proc/net/tcp writes it."""


def choose_ports(data: Path, count: int) -> list[int]:
    """For a new installation on `data`.

    Raises:
        ResourceExhausted: NO_PORT_LEFT.
    """
    first = _block_of(data)
    for step in range(BLOCKS):
        begin = FIRST_PORT + (first + step) % BLOCKS * BLOCK
        ports = list(range(begin, begin + count))
        if all(is_free(port) for port in ports):
            return ports
    raise ResourceExhausted(
        "NO_PORT_LEFT", f"Ports {FIRST_PORT} to {FIRST_PORT + BLOCKS * BLOCK} are all taken."
    )


def one_more(taken: Iterable[int]) -> int:
    """A free port for a part that an installation gets later, near those that it has."""
    have = set(taken)
    begin = min(have, default=FIRST_PORT)
    for port in range(begin, begin + BLOCKS * BLOCK):
        if port not in have and is_free(port):
            return port
    raise ResourceExhausted("NO_PORT_LEFT", f"No port from {begin} on is free.")


def first_free(port: int) -> int:
    """This port, or else the next one on which nobody listens.

    Raises:
        ResourceExhausted: NO_PORT_LEFT.
    """
    for number in range(port, port + 1000):
        if is_free(number):
            return number
    raise ResourceExhausted("NO_PORT_LEFT", f"Ports {port} to {port + 999} are all taken.")


def _block_of(data: Path) -> int:
    if data == standard_data_dir():
        return 0
    digest = hashlib.sha256(os.fsencode(data)).digest()
    return 1 + int.from_bytes(digest[:4], "big") % (BLOCKS - 1)


def check_free(installation: Installation, part: str) -> None:
    """
    Raises:
        FailedPrecondition: ADDRESS_IN_USE, naming who has the part's port.
    """
    for address in installation.listens(part):
        _check_free(installation, part, address)


def _check_free(installation: Installation, part: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not port.isdigit() or port == "0" or not 0 < int(port) < 65536:
        return
    if is_free(int(port), host.strip("[]") or "0.0.0.0"):  # noqa: S104
        return
    raise FailedPrecondition(
        "ADDRESS_IN_USE",
        f"The {part} cannot listen on {address}: {holder(int(port))}.",
        f"Stop that, or give the {part} another address in {installation.config_file} and "
        "`pagestore up` again.",
    )


def holder(port: int) -> str:
    """Who listens on a TCP port of this machine, in words."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    if not inodes:
        return "it is no address of this machine, or one that we may not listen on"
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        # Other users' descriptors are not ours to see, and processes end while we look.
        with contextlib.suppress(OSError):
            descriptors = (process / "fd").iterdir() if process.name.isdigit() else ()
            if any(_link(descriptor) in links for descriptor in descriptors):
                return f"process {process.name} ({_command(process)}) does"
    return "another program does"


def _listening(table: str, port: int) -> Iterable[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _link(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


def _command(process: Path) -> str:
    words = os.fsdecode((process / "cmdline").read_bytes()).replace("\0", " ").strip()
    return ascii(words)[1:-1][:120] or (process / "comm").read_text().strip()
