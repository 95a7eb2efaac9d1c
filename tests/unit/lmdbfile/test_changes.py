"""What follows an LMDB file sees every transaction, in order, and never holds one up."""

from __future__ import annotations

import threading
from pathlib import Path

from pagestore.control.storage import Storage
from pagestore.lmdbfile.changes import Batch, Changes
from pagestore.lmdbfile.whole import Change, Whole, entry_hash
from pagestore.timeline.catalog import Catalog


def whole(number: int) -> Whole:
    return Whole(number, bytes(16), 0)


def test_what_waits_is_taken_in_order_and_in_bounds() -> None:
    woken: list[int] = []
    changes = Changes(wake=lambda: woken.append(1))
    batches = [Batch(whole(number), [Change(b"", b"k", bytes(100))]) for number in range(10)]
    for batch in batches:
        changes.note(*batch)
    assert len(woken) == 10
    some = changes.take(300)
    assert some == batches[:3]
    assert changes.take(1 << 20) == batches[3:]
    assert changes.take(1 << 20) == []
    assert changes.bytes == 0


def test_beyond_the_bound_all_is_dropped_and_told_once() -> None:
    changes = Changes(greatest=1000)
    for number in range(20):
        changes.note(whole(number), [Change(b"", b"k", bytes(100))])
    assert changes.bytes == 0
    assert changes.take(1) is None
    assert changes.take(1) == []
    changes.note(whole(30), [])
    assert changes.take(1) == [Batch(whole(30), [])]


def summed(entries: dict[tuple[bytes, bytes], bytes]) -> int:
    return sum(entry_hash(*name, value) for name, value in entries.items()) % (1 << 128)


def applied(entries: dict[tuple[bytes, bytes], bytes], batch: Batch) -> None:
    for table, key, value in batch.changes:
        if value is None:
            del entries[table, key]
        else:
            entries[table, key] = value


def test_a_catalogs_transactions_make_its_entries_of_those_before(tmp_path: Path) -> None:
    catalog, changes = Catalog(tmp_path / "catalog.lmdb"), Changes()
    catalog.update(lambda writer: writer.put(b"x", b"0"))
    with catalog.whole() as (said, found):
        entries = {(table, key): value for table, key, value in found if value is not None}
        assert summed(entries) == said.total
    catalog.follow(changes)

    def write(mine: int) -> None:
        for number in range(20):
            catalog.update(lambda writer, n=number: writer.put(b"%d-%d" % (mine, n % 7), b"%d" % n))

    threads = [threading.Thread(target=write, args=[mine]) for mine in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    catalog.update(lambda writer: writer.delete(b"x"))
    batches = changes.take(1 << 30)
    assert batches is not None
    assert len(batches) == 61
    for before, batch in zip([said] + [b.whole for b in batches], batches, strict=False):
        assert batch.whole.transaction == before.transaction + 1
        applied(entries, batch)
        assert summed(entries) == batch.whole.total
    with catalog.whole() as (said, found):
        assert {(t, k): v for t, k, v in found} == entries
        assert said == batches[-1].whole
    catalog.close()


def test_a_control_states_transactions_make_its_entries_of_those_before(tmp_path: Path) -> None:
    storage, changes = Storage(tmp_path, ("meta", "things")), Changes()
    with storage.whole() as (said, found):
        entries = {(t, k): v for t, k, v in found}
        assert list(entries) == [(b"meta", b"needs")]
        assert summed(entries) == said.total
    storage.follow(changes)
    with storage.writing() as writer:
        writer.put("things", b"a", b"1")
        writer.put("meta", b"b", b"2")
    with storage.writing() as writer:
        writer.delete("things", b"a")
        writer.delete("things", b"never")
    with storage.writing():
        pass
    try:
        with storage.writing() as writer:
            writer.put("things", b"undone", b"")
            raise KeyError
    except KeyError:
        pass
    batches = changes.take(1 << 30)
    assert batches is not None
    assert [len(batch.changes) for batch in batches] == [2, 1]
    for batch in batches:
        applied(entries, batch)
        assert summed(entries) == batch.whole.total
    with storage.whole() as (said, found):
        assert {(t, k): v for t, k, v in found} == entries
        assert said == batches[-1].whole
    storage.close()
