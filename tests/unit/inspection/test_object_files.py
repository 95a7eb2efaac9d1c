"""Objects are shown as text, damage in them is named, and no secret is shown."""

from __future__ import annotations

from pathlib import Path

from pagestore.control.state import TABLES
from pagestore.control.storage import Storage
from pagestore.ids import Lsn, TenantId, TimelineId
from pagestore.inspection.files import inspect
from pagestore.objects.archived_wal import Archived, ArchivedWal, put
from pagestore.objects.claims import RECORD, claim
from pagestore.objects.mirror import Mirror
from pagestore.objects.store import ObjectStore
from pagestore.timeline.catalog import Catalog
from pagestore.timeline.entries import TimelineEntry

KEY = TenantId(b"t" * 16), TimelineId(b"l" * 16)


def fill(root: Path) -> Path:
    """A store with every kind of object, and the directory that claimed it."""
    store = ObjectStore.open(f"file://{root}/objects", {})
    mine = claim(store, "pageserver", root)
    catalog, state = Catalog(root / "catalog.lmdb"), Storage(root, TABLES)
    first, second = Mirror(catalog), Mirror(state)
    first.begin(mine, "catalog")
    second.begin(mine, "state")
    first.step(), second.step()
    entry = TimelineEntry(None, Lsn(0), Lsn(0x2000000), Lsn(0), 1)
    catalog.update(lambda to: to.put_timeline(*KEY, entry))
    with state.writing() as writer:
        writer.put("databases", bytes(15) + b"\1app", b'{"sealed_password": "AbCd"}')
        writer.put("databases", bytes(15) + b"\1no", b"{}")
        writer.delete("databases", bytes(15) + b"\1no")
    first.step(), second.step()
    put(store, mine.store_id, KEY, 1, Archived(0x2000000, b"WAL", 7, 42))
    ArchivedWal(store, mine.store_id).fence(1, {KEY: 0x2000003})
    catalog.close()
    state.close()
    return root / "objects"


def only(root: Path, pattern: str) -> Path:
    (found,) = root.rglob(pattern)
    return found


def test_every_kind_of_object_is_shown(tmp_path: Path) -> None:
    root = fill(tmp_path)
    said = inspect(only(root / "pageserver/catalog", "*.changes"), 100)
    assert (said.kind, said.facts["sequence"]) == ("part of a journal", 2)
    ((_, kind, of, words),) = said.rows
    assert (kind, of) == ("timeline", f"{KEY[0]} {KEY[1]}")
    assert "durable to 0/2000000" in words
    said = inspect(only(root / "pageserver/state", "*.changes"), 100)
    assert "AbCd" not in str(said.rows)
    assert [row[3] for row in said.rows] == ['{"sealed_password": "(not shown)"}', "{}", "deleted"]
    assert len(inspect(only(root / "pageserver/state", "*.changes"), 1).rows) == 1
    said = inspect(only(root / "wal", "*-*-*"), 100)
    assert (said.facts["start"], said.facts["end"], said.facts["term"]) == (
        "0/2000000",
        "0/2000003",
        7,
    )
    said = inspect(root / "wal/fences/00000001", 100)
    assert said.rows == [(str(KEY[0]), str(KEY[1]), "0/2000003")]
    for path in (root / "store", tmp_path / RECORD, only(root / "pageserver/claims", "*")):
        said = inspect(path, 100)
        assert said.facts["store"] == inspect(root / "store", 1).facts["store"]


def test_damage_anywhere_is_named(tmp_path: Path) -> None:
    root = fill(tmp_path)
    paths = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size]
    for path in [*paths, tmp_path / RECORD]:
        assert inspect(path, 100).damage == []
        whole = path.read_bytes()
        path.write_bytes(whole[:-6] + bytes([whole[-6] ^ 4]) + whole[-5:])
        assert inspect(path, 100).damage, path
