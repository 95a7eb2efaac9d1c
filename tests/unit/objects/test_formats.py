"""docs/formats/object-store.md is what is written."""

from __future__ import annotations

from pathlib import Path

from pagestore.lmdbfile.changes import Batch
from pagestore.lmdbfile.whole import Change, Whole
from pagestore.objects import claims, records, sealed
from pagestore.objects.claims import claim
from pagestore.objects.journal import Journal
from pagestore.objects.records import Kind, Link, Piece
from pagestore.objects.store import ObjectStore

PAGE = (Path(__file__).parents[3] / "docs/formats/object-store.md").read_text()


def test_names_are_those_of_the_page(store: ObjectStore, tmp_path: Path) -> None:
    mine = claim(store, "control", tmp_path)
    kept = Journal(mine, "state")
    kept.snapshot(Whole(1, bytes(16), 0), [])
    kept.append([Batch(Whole(2, bytes(16), 0), [])])
    mine.put_boundary(1)
    assert [found.name for found in store.list("control/")] == [
        "control/boundary/00000001-0000000000000001",
        "control/claims/00000001",
        "control/state/00000001/0000000000000001.snapshot",
        "control/state/00000001/0000000000000002.changes",
    ]
    assert store.exists("store")


def test_magics_and_sizes_are_those_of_the_page(store: ObjectStore, tmp_path: Path) -> None:
    mine = claim(store, "part", tmp_path)
    framed = 8 + 4 + 4
    assert len(store.get("store")) == framed + 16
    assert len(store.get("part/claims/00000001")) == framed + 16 + 16 + 4 + 8
    assert len((tmp_path / claims.RECORD).read_bytes()) == framed + 16 + 16 + 4
    for raw in (
        store.get("store"),
        store.get("part/claims/00000001"),
        (tmp_path / claims.RECORD).read_bytes(),
        records.MAGIC,
    ):
        assert f"`{raw[:7].decode()}\\0`" in PAGE
    assert mine.generation == 1


def test_an_object_of_a_journal_is_laid_out_as_on_the_page() -> None:
    piece = Piece(Link(0x11, 0x22), 0x33, True, [Batch(Whole(5, b"s" * 16, 7), [])])
    raw = records.encode(b"S" * 16, Link(0x44, 0x55), Kind.SNAPSHOT, piece)
    assert raw[:16] == b"PSJOURN\0" + b"\x01\0\0\0" + b"\x01\x01\0\0"
    assert raw[16:32] == b"S" * 16
    numbers = (raw[32:36], raw[36:44], raw[44:48], raw[48:56], raw[56:60])
    assert [int.from_bytes(number, "little") for number in numbers] == [
        0x44,
        0x55,
        0x11,
        0x22,
        0x33,
    ]
    changes = [Change(b"t", b"k", b"v"), Change(b"", b"", None), Change(b"t", b"", b"")]
    piece = piece._replace(batches=[Batch(Whole(5, b"s" * 16, 7), changes)])
    raw = records.encode(b"S" * 16, Link(1, 2), Kind.CHANGES, piece)
    assert records.decode(raw, "here", b"S" * 16, Link(1, 2), Kind.CHANGES) == piece
    assert sealed.VERSION == 1
