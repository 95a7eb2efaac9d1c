"""Of archived WAL that counts which leads on without a gap, and that nobody superseded wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.errors import DataLoss
from pagestore.ids import TenantId, TimelineId
from pagestore.objects.archived_wal import Archived, ArchivedWal, Key, put
from pagestore.objects.claims import establish
from pagestore.objects.store import ObjectStore

KEY: Key = (TenantId(b"t" * 16), TimelineId(b"l" * 16))
OTHER: Key = (TenantId(b"t" * 16), TimelineId(b"o" * 16))


def made(store: ObjectStore, start: int, data: bytes, generation: int = 1, key: Key = KEY) -> None:
    put(store, establish(store), key, generation, Archived(start, data, 7, 99))


def listed(store: ObjectStore) -> ArchivedWal:
    return ArchivedWal(store, establish(store))


def read(store: ObjectStore, begin: int, key: Key = KEY) -> bytes:
    pieces = list(listed(store).read(key, begin))
    at = begin
    for piece in pieces:
        assert piece.start == at
        at = piece.end
    assert at == listed(store).end(key, begin)
    return b"".join(piece.data for piece in pieces)


def test_what_leads_on_is_read_in_order_and_nothing_twice(store: ObjectStore) -> None:
    made(store, 100, b"abcdef")
    made(store, 103, b"defghi", 2)
    made(store, 109, b"jk", 2)
    made(store, 109, b"JK", 3, OTHER)
    assert read(store, 100) == b"abcdefghijk"
    assert read(store, 104) == b"efghijk"
    assert read(store, 111) == b""
    assert read(store, 109, OTHER) == b"JK"
    (first, *_) = listed(store).read(KEY, 100)
    assert (first.term, first.system_id) == (7, 99)


def test_what_is_behind_a_gap_counts_for_nothing(store: ObjectStore) -> None:
    made(store, 100, b"abc")
    made(store, 104, b"efg")
    assert read(store, 100) == b"abc"
    assert read(store, 50) == b""
    assert (listed(store).resumes(KEY, 103), listed(store).resumes(KEY, 50)) == (104, 100)
    assert (listed(store).resumes(KEY, 107), listed(store).resumes(OTHER, 50)) == (0, 0)
    # What was given up is no gap.
    listed(store).fence(3, {KEY: 103})
    assert listed(store).resumes(KEY, 103) == 0


def test_what_a_replaced_page_server_archives_counts_for_nothing(any_store: ObjectStore) -> None:
    made(any_store, 100, b"abc", 1)
    listed(any_store).fence(3, {KEY: 103})
    # Its own safekeepers commit on.
    made(any_store, 103, b"XXXX", 1)
    made(any_store, 101, b"bcXXX", 2)
    made(any_store, 500, b"XXXX", 2, OTHER)
    assert read(any_store, 100) == b"abc"
    assert read(any_store, 500, OTHER) == b""
    made(any_store, 103, b"def", 3)
    assert read(any_store, 100) == b"abcdef"
    listed(any_store).fence(5, {KEY: 105})
    made(any_store, 106, b"YYYY", 3)
    assert read(any_store, 100) == b"abcde"
    made(any_store, 105, b"fgh", 6)
    assert read(any_store, 100) == b"abcdefgh"


def test_a_damaged_object_is_named(store: ObjectStore, tmp_path: Path) -> None:
    made(store, 100, b"abc")
    listed(store).fence(1, {KEY: 103})
    for path in (tmp_path / "objects/wal").rglob("*"):
        if path.is_file():
            whole = path.read_bytes()
            for at in range(len(whole)):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
                with pytest.raises(DataLoss) as told:
                    read(store, 100)
                assert path.name in told.value.message
            path.write_bytes(whole)
    assert read(store, 100) == b"abc"
