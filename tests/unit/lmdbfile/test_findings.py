"""The native check of an LMDB file, held against the one in plain Python, whole and damaged."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import lmdb
import pytest

from pagestore._native import crc32c
from pagestore.lmdbfile.findings import Findings, Seal, check_file
from pagestore.lmdbfile.pages import Damaged, Pages
from pagestore.lmdbfile.whole import entry_hash

WHOLE = (b"", b"g")


def by_hand(data: bytes, left_out: tuple[bytes, bytes]) -> tuple[int, int, frozenset[bytes], int]:
    """Transaction, entries, tables and sum, by the plain reader."""
    pages = Pages(data)
    entries = pages.entries()
    counted = [entry for entry in entries if (entry.table, entry.key) != left_out]
    total = sum(entry_hash(*entry) for entry in counted) % (1 << 128)
    return pages.transaction, len(entries), frozenset(pages.tables()), total


def by_hand_and_before(data: bytes, left_out: tuple[bytes, bytes]) -> None:
    """With what is looked up in the older transaction, which is one entry."""
    by_hand(data, left_out)
    Pages(data).before(*left_out)


def told(found: Findings) -> tuple[int, int, frozenset[bytes], int]:
    return found.transaction, found.entries, found.tables, found.total


def build(
    path: Path, entries: int, tables: tuple[bytes, ...], value_bytes: tuple[int, ...]
) -> None:
    """With what LMDB makes of many transactions: branch pages, long values, a free list."""
    rng = random.Random(entries)
    with lmdb.open(str(path), subdir=False, max_dbs=8, map_size=1 << 28) as env:
        handles = [env.open_db(name) for name in tables] or [None]
        for begin in range(0, entries, 50):
            with env.begin(write=True) as txn:
                for number in range(begin, min(begin + 50, entries)):
                    key = b"%s%06d" % (rng.randbytes(rng.randrange(1, 60)), number)
                    value = rng.randbytes(rng.choice(value_bytes))
                    txn.put(key, value, db=rng.choice(handles))
                if not tables:
                    txn.put(b"g", b"%d" % begin)
        with env.begin(write=True) as txn:
            for handle in handles:
                for key in list(txn.cursor(db=handle).iternext(values=False))[::3]:
                    if key not in tables:
                        txn.delete(key, db=handle)


SHAPES = {
    "one page": (20, (), (0, 30)),
    "branches": (900, (), (10, 200)),
    "long values": (60, (), (10, 2500, 9000)),
    "tables": (300, (b"a", b"b", b"meta"), (10, 900, 3000)),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "some.lmdb"
    build(path, *request.param)
    return path


def test_both_find_the_same(built: Path) -> None:
    found = check_file(built, Seal.NONE, [WHOLE])
    assert found is not None
    assert told(found) == by_hand(built.read_bytes(), WHOLE)


def test_what_one_refuses_the_other_refuses(built: Path) -> None:
    """A flipped bit or an exchanged word anywhere; where both pass they have found the same."""
    rng = random.Random(11)
    original = built.read_bytes()
    damaged = built.with_name("damaged.lmdb")
    pages = len(original) // 4096
    refused = 0
    for _ in range(200):
        raw = bytearray(original)
        if rng.random() < 0.7:  # among heads and nodes, where the structure lies
            at = rng.randrange(pages) * 4096 + rng.randrange(60)
        else:
            at = rng.randrange(len(raw) - 8)
        raw[at] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            raw[at : at + 8] = rng.randbytes(8)
        damaged.write_bytes(raw)
        try:
            found = check_file(damaged, Seal.NONE, [WHOLE])
        except Damaged:
            refused += 1
            with pytest.raises(Damaged):
                by_hand_and_before(bytes(raw), WHOLE)
        else:
            assert found is not None
            assert told(found) == by_hand(bytes(raw), WHOLE), f"offset {at}"
    assert refused >= 5


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 8191, 8192, 12288])
def test_a_truncated_file_is_refused_by_both(tmp_path: Path, size: int) -> None:
    path = tmp_path / "some.lmdb"
    build(path, 500, (), (10, 200))
    path.write_bytes(path.read_bytes()[:size])
    if size == 0:
        assert check_file(path, Seal.NONE, [WHOLE]) is None
        return
    with pytest.raises(Damaged):
        by_hand(path.read_bytes(), WHOLE)
    with pytest.raises(Damaged):
        check_file(path, Seal.NONE, [WHOLE])


@pytest.mark.parametrize("length", [0, 1, 120, 121, 122, 249, 250, 378, 5000])
def test_the_sum_is_that_of_the_written_rule(tmp_path: Path, length: int) -> None:
    """Around the ends of the hash's blocks."""
    path = tmp_path / "some.lmdb"
    value = random.Random(length).randbytes(length)
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"key", value)
    found = check_file(path, Seal.NONE, [WHOLE])
    assert found is not None
    assert found.total == entry_hash(b"", b"key", value)


def test_a_broken_seal_is_found_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "some.lmdb"
    with lmdb.open(str(path), subdir=False, max_dbs=2) as env:
        table = env.open_db(b"some")
        for number in range(200):
            with env.begin(write=True) as txn:
                key, body = b"%03d" % number, b"body %d" % number
                right = zlib.crc32(body, zlib.crc32(key, zlib.crc32(b"some")))
                crc = 7 if number == 150 else right
                txn.put(key, b"\2" + crc.to_bytes(4, "little") + body, db=table)
    found = check_file(path, Seal.CRC32_BEFORE, [(b"some", b"000")], 2)
    assert found is not None
    assert found.unsealed == (b"some", b"150")
    assert found.values[0] is not None
    newer = check_file(path, Seal.CRC32_BEFORE, [(b"some", b"none")], 3)
    assert newer is not None
    assert newer.unsealed == (b"some", b"000")


def test_a_seal_behind_the_body_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "some.lmdb"
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as txn:
        for key in (b"a", b"b", b"c"):
            txn.put(key, b"body" + crc32c(b"body", crc32c(key)).to_bytes(4, "little"))
    found = check_file(path, Seal.CRC32C_BEHIND, [(b"", b"none"), (b"", b"b")])
    assert found is not None
    assert (found.unsealed, found.entries, found.loose) == (None, 3, 3)
    assert found.values == [None, b"body" + crc32c(b"bbody").to_bytes(4, "little")]
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"b", b"")
    found = check_file(path, Seal.CRC32C_BEHIND, [WHOLE])
    assert found is not None
    assert found.unsealed == (b"", b"b")


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert check_file(tmp_path / "none", Seal.NONE, [WHOLE]) is None


def test_what_cannot_be_read_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        check_file(tmp_path, Seal.NONE, [WHOLE])
