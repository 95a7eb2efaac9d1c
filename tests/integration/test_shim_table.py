"""Another server binary than expected: the shim refuses it rather than run half-hooked.

Each test patches a copy of the distribution's server: in the table of storage functions, or
in the code that should call through it.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.page_source import HydratingPostgres, PageSource, serving
from tests.plain_postgres import BINDIR, MAJOR, PlainPostgres, plain_postgres, unprivileged

RELATIVE = 8  # R_X86_64_RELATIVE: the loader stores base + addend
LOAD = 1  # PT_LOAD


class ServerBinary:
    """A copy of the postgres program, to be patched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = bytearray((BINDIR / "postgres").read_bytes())
        listing = subprocess.run(
            ["nm", "-D", BINDIR / "postgres"], capture_output=True, text=True, check=True
        )
        words = [line.split() for line in listing.stdout.splitlines()]
        self.symbols = {name.split("@")[0]: int(at, 16) for at, _, name in filter(_whole, words)}

    def save(self) -> None:
        self.path.write_bytes(self.content)
        self.path.chmod(0o755)

    def relocations_to(self, symbol: str) -> list[int]:
        """Offsets in the file of the relocation entries whose result is a symbol's address."""
        wanted = struct.pack("<QQ", RELATIVE, self.symbols[symbol])
        found = []
        at = self.content.find(wanted)
        while at >= 0:
            found.append(at)
            at = self.content.find(wanted, at + 1)
        return found

    def redirect(self, symbol: str, other: str) -> None:
        """Lets every table entry for a function name another one."""
        places = self.relocations_to(symbol)
        assert places
        for place in places:
            struct.pack_into("<Q", self.content, place + 8, self.symbols[other])

    def offset_of(self, address: int) -> int:
        """Where a virtual address lies in the file."""
        [headers_at] = struct.unpack_from("<Q", self.content, 32)
        size, count = struct.unpack_from("<HH", self.content, 54)
        for index in range(count):
            fields = struct.unpack_from("<IIQQQQ", self.content, headers_at + index * size)
            kind, _, offset, virtual, _, length = fields
            if kind == LOAD and virtual <= address < virtual + length:
                return int(offset + address - virtual)
        raise AssertionError(hex(address))

    def jump_directly(self, caller: str, callee: str) -> None:
        """Lets a function begin with a direct jump, as a compiler that folded the table would."""
        at = self.symbols[caller]
        jump = b"\xe9" + struct.pack("<i", self.symbols[callee] - (at + 5))
        offset = self.offset_of(at)
        self.content[offset : offset + 5] = jump


FOLDED = {
    15: [("smgrread", "mdread", 9), ("smgrwrite", "mdwrite", 10), ("smgrcreate", "mdcreate", 4)],
    17: [
        ("smgrreadv", "mdreadv", 10),
        ("smgrwritev", "mdwritev", 11),
        ("smgrcreate", "mdcreate", 4),
    ],
    18: [
        ("smgrreadv", "mdreadv", 11),
        ("smgrstartreadv", "mdstartreadv", 12),
        ("smgrwritev", "mdwritev", 13),
        ("smgrcreate", "mdcreate", 4),
    ],
}


def _whole(words: list[str]) -> bool:
    return len(words) == 3


@pytest.fixture(scope="module")
def source() -> Iterator[PlainPostgres]:
    with plain_postgres("--wal-segsize=1", autovacuum="off") as cluster:
        cluster.stop()
        yield cluster


@pytest.fixture(scope="module")
def pages(source: PlainPostgres) -> Iterator[PageSource]:
    with serving(source) as server:
        yield server


@pytest.fixture(scope="module")
def laid(source: PlainPostgres, pages: PageSource) -> Iterator[HydratingPostgres]:
    cluster = HydratingPostgres(source, pages)
    yield cluster
    shutil.rmtree(cluster.root)


def last_words(binary: ServerBinary, cluster: HydratingPostgres) -> str:
    """What a patched server says when it refuses to start."""
    binary.save()
    done = subprocess.run(
        [
            *(binary.path, "-D", cluster.data, "-c", f"port={cluster.port}"),
            *("-c", f"unix_socket_directories={cluster.root}"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        **unprivileged(),
    )
    assert done.returncode == 1
    return done.stderr


@pytest.fixture
def binary(laid: HydratingPostgres) -> ServerBinary:
    return ServerBinary(laid.root / "postgres")


def test_another_table_is_refused(binary: ServerBinary, laid: HydratingPostgres) -> None:
    binary.redirect("mdread" if MAJOR < 17 else "mdreadv", "mdwriteback")
    assert "storage manager's table 0 times" in last_words(binary, laid)


@pytest.mark.parametrize(
    ("caller", "callee", "slot"),
    FOLDED[MAJOR],
)
def test_a_direct_call_is_refused(
    binary: ServerBinary, laid: HydratingPostgres, caller: str, callee: str, slot: int
) -> None:
    binary.jump_directly(caller, callee)
    words = last_words(binary, laid)
    assert f"bypasses slot {slot} of the storage manager's table" in words
    assert (
        f"HINT:  Run the computes on the distribution's own PostgreSQL {MAJOR} packages." in words
    )
