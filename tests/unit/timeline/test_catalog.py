"""The catalog file: it holds what was put, and any damage to it is found and named."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import pytest

from pagestore import keyspace, lost_found
from pagestore._native import LayerSummary
from pagestore.errors import DataLoss, FailedPrecondition, InvalidInput
from pagestore.ids import DEFAULT_TENANT, Lsn, TimelineId
from pagestore.lmdbfile import witness
from pagestore.lmdbfile.whole import Whole
from pagestore.timeline import Repository, entries
from pagestore.timeline.catalog import Catalog
from pagestore.timeline.catalog_check import check_catalog
from pagestore.timeline.entries import Holder, Horizon, LayerEntry, Place, TimelineEntry

from .model import ROOT_LSN, image, make_root, put, timeline_id

SUMMARY = LayerSummary((1, bytes(18), b"\xff" * 18, 10, 20, 30, 4, 5000))
LAYER = LayerEntry.fresh(SUMMARY)


def record(parent: TimelineId | None) -> TimelineEntry:
    return TimelineEntry(parent, Lsn(100), Lsn(100), Lsn(90), created=12345)


def fill(catalog: Catalog, timelines: int) -> None:
    root = timeline_id(1000)
    catalog.update(lambda txn: txn.put_timeline(DEFAULT_TENANT, root, record(None)))
    for number in range(1, timelines):
        child = timeline_id(number)
        catalog.update(
            lambda txn, child=child: txn.put_branch(DEFAULT_TENANT, root, child, record(root))
        )
        if number % 3 == 0:
            catalog.update(
                lambda txn, child=child: txn.put_timeline(
                    DEFAULT_TENANT, child, record(root).with_layer(1, 5000), [(1, LAYER)]
                )
            )
        if number % 5 == 0:
            catalog.update(lambda txn, child=child: txn.remove_timeline(DEFAULT_TENANT, child))


def contents(path: Path) -> list[Any]:
    catalog = Catalog(path)
    try:
        timelines = catalog.timelines()
        return [
            timelines,
            [catalog.layers(tenant, timeline) for tenant, timeline, _ in timelines],
            [catalog.children(tenant, timeline) for tenant, timeline, _ in timelines],
        ]
    finally:
        catalog.close()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("catalog") / "catalog.lmdb"
    catalog = Catalog(path)
    fill(catalog, 120)
    catalog.close()
    return path.read_bytes()


@pytest.fixture
def filled(tmp_path: Path, original: bytes) -> Path:
    path = tmp_path / "catalog.lmdb"
    path.write_bytes(original)
    return path


def test_it_holds_what_was_put(filled: Path) -> None:
    timelines, layers, children = contents(filled)
    assert len(timelines) == 120 - 23
    assert timelines[-1] == (DEFAULT_TENANT, timeline_id(1000), record(None))
    assert len(children[-1]) == 96
    assert [(1, LAYER)] in layers


def test_every_state_on_the_way_passes_the_check(tmp_path: Path) -> None:
    path = tmp_path / "catalog.lmdb"
    catalog = Catalog(path)
    check_catalog(path)
    for number in (1, 2, 3, 4, 10, 40, 80):
        fill(catalog, number)
        check_catalog(path)
    catalog.close()


def test_a_branch_costs_less_than_a_kilobyte() -> None:
    assert entries.TIMELINE_ENTRY_BYTES + entries.CHILD_ENTRY_BYTES < 300


def test_a_flipped_bit_is_found_or_harmless(filled: Path, original: bytes) -> None:
    """Wherever a bit flips, the file is refused, or reads as before: unused space."""
    before = contents(filled)
    damaged = filled.with_name("damaged.lmdb")
    rng = random.Random(5)
    places = list(range(0, 160, 2)) + list(range(4097, 4256, 2))
    places += rng.sample(range(8192, len(original)), 500)
    refused: list[DataLoss] = []
    for at in places:
        raw = bytearray(original)
        raw[at] ^= 1 << rng.randrange(8)
        damaged.write_bytes(raw)
        try:
            assert contents(damaged) == before, f"offset {at}"
        except DataLoss as error:
            refused.append(error)
    assert len(refused) > 200
    assert {error.reason for error in refused} == {"CATALOG_CORRUPT"}
    assert all("damaged.lmdb" in error.message for error in refused)


def test_a_flipped_transaction_number_does_not_bring_back_the_past(
    filled: Path, original: bytes
) -> None:
    offsets = [page * 4096 + 16 + 24 + 96 + 8 for page in (0, 1)]
    for offset in offsets:
        for bit in range(0, 64, 3):
            raw = bytearray(original)
            raw[offset + bit // 8] ^= 1 << bit % 8
            filled.write_bytes(raw)
            with pytest.raises(DataLoss):
                Catalog(filled)


@pytest.mark.parametrize("size", [1, 100, 4096, 8191, 8192, 12288, 40960])
def test_a_truncated_file_is_refused(filled: Path, size: int) -> None:
    filled.write_bytes(filled.read_bytes()[:size])
    with pytest.raises(DataLoss, match=r"catalog\.lmdb"):
        Catalog(filled)


def write_as(path: Path, version: bytes, needs: bytes | None) -> None:
    """What a later pagestore would say of the file."""
    environment = lmdb.open(str(path), subdir=False)
    with environment.begin(write=True) as txn:
        txn.put(entries.FORMAT_KEY, entries.seal(entries.FORMAT_KEY, version))
        txn.delete(entries.NEEDS_KEY)
        if needs is not None:
            txn.put(entries.NEEDS_KEY, entries.seal(entries.NEEDS_KEY, needs))
        txn.put(b"x", b"an entry of a kind of which nothing is known")
    environment.close()


@pytest.mark.parametrize(
    ("needs", "words"),
    [(b"0.9.1", "pagestore 0.9.1"), (None, "the version that wrote it")],
)
def test_a_newer_format_is_refused_with_the_version_that_it_needs(
    filled: Path, needs: bytes | None, words: str
) -> None:
    write_as(filled, b"\x04\0\0\0", needs)
    before = filled.read_bytes()
    with pytest.raises(FailedPrecondition, match=f"format 4, which needs {words}") as caught:
        Catalog(filled)
    assert caught.value.reason == "CATALOG_VERSION"
    assert filled.read_bytes() == before


def test_a_layer_keeps_all_that_is_known_of_it(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.lmdb")
    root = timeline_id(1)
    known = [
        (1, LayerEntry(SUMMARY)),
        (2, LayerEntry(SUMMARY, 3, 2**32 - 1, Place.REMOTE, 32)),
        (3, LayerEntry(SUMMARY, 255, 7, Place.LOCAL | Place.REMOTE, 1 << 31)),
        (4, LayerEntry.fresh(SUMMARY, 1)),
    ]
    assert known[3][1].filter_bytes == 32
    catalog.update(lambda txn: txn.put_timeline(DEFAULT_TENANT, root, record(None), known))
    assert catalog.layers(DEFAULT_TENANT, root) == known
    catalog.close()


def test_layers_are_replaced_in_one_transaction(filled: Path) -> None:
    root, other = timeline_id(1000), timeline_id(3)
    catalog = Catalog(filled)
    many = [(number, LAYER) for number in range(1, 10)]
    grown = record(None)
    for number, _ in many:
        grown = grown.with_layer(number, 5000)
    catalog.update(lambda txn: txn.put_timeline(DEFAULT_TENANT, root, grown, many))
    merged = LayerEntry.fresh(SUMMARY, 1)
    less = grown
    for _ in range(3):
        less = less.without_layer(5000)
    after = less.with_layer(10, 5000)
    transaction = witness.read(filled)
    catalog.update(
        lambda txn: txn.replace_layers(DEFAULT_TENANT, root, after, [2, 3, 4], [(10, merged)])
    )
    now = witness.read(filled)
    assert transaction is not None
    assert now is not None
    assert now.transaction == transaction.transaction + 1
    expected = [(n, LAYER) for n in (1, 5, 6, 7, 8, 9)] + [(10, merged)]
    for _ in range(2):
        assert catalog.layers(DEFAULT_TENANT, root) == expected
        assert catalog.replaced(DEFAULT_TENANT, root) == [(2, 1), (3, 1), (4, 1)]
        found = catalog.timeline(DEFAULT_TENANT, root)
        assert found is not None
        assert (found.layer_count, found.layer_bytes, found.next_number) == (7, 35000, 11)
        assert catalog.layers(DEFAULT_TENANT, other) == [(1, LAYER)]
        catalog.close()
        catalog = Catalog(filled)
    catalog.update(lambda txn: txn.forget_replaced(DEFAULT_TENANT, root, [2, 4]))
    assert catalog.replaced(DEFAULT_TENANT, root) == [(3, 1)]
    catalog.update(lambda txn: txn.remove_timeline(DEFAULT_TENANT, root))
    assert catalog.replaced(DEFAULT_TENANT, root) == []
    catalog.close()
    assert check_catalog(filled) is not None


def test_children_are_listed_with_where_they_branched(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.lmdb")
    root, child = timeline_id(1), timeline_id(2)
    at = replace(record(root), branch_lsn=Lsn(77))
    catalog.update(lambda txn: txn.put_timeline(DEFAULT_TENANT, root, record(None)))
    catalog.update(lambda txn: txn.put_branch(DEFAULT_TENANT, root, child, at))
    assert catalog.children(DEFAULT_TENANT, root) == [(child, 77)]
    catalog.close()


def test_a_horizon_says_what_holds_it_and_never_goes_back(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.lmdb")
    root, child = timeline_id(1), timeline_id(2)
    catalog.update(lambda txn: txn.put_timeline(DEFAULT_TENANT, root, record(None)))
    assert catalog.horizon(DEFAULT_TENANT, root) is None
    held = Horizon(Lsn(500), Holder.CHILD, child, 12345)
    catalog.update(lambda txn: txn.put_horizon(DEFAULT_TENANT, root, held))
    back = Horizon(Lsn(499), Holder.WINDOW)
    with pytest.raises(InvalidInput, match="cannot go back"):
        catalog.update(lambda txn: txn.put_horizon(DEFAULT_TENANT, root, back))
    catalog.close()
    catalog = Catalog(tmp_path / "catalog.lmdb")
    assert catalog.horizon(DEFAULT_TENANT, root) == held
    same_place = Horizon(Lsn(500), Holder.LEASE)
    catalog.update(lambda txn: txn.put_horizon(DEFAULT_TENANT, root, same_place))
    assert catalog.horizon(DEFAULT_TENANT, root) == same_place
    catalog.close()


def test_what_is_said_of_a_timeline_goes_with_it(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.lmdb")
    root, other = timeline_id(1), timeline_id(2)
    for name in (root, other):
        catalog.update(
            lambda txn, name=name: (
                txn.put_timeline(DEFAULT_TENANT, name, record(None), [(1, LAYER)]),
                txn.put_horizon(DEFAULT_TENANT, name, Horizon(Lsn(5))),
                txn.put_lease(DEFAULT_TENANT, name, 50, 1000),
            )
        )
    catalog.update(lambda txn: txn.remove_timeline(DEFAULT_TENANT, root))
    assert catalog.leases() == [(DEFAULT_TENANT, other, 50, 1000)]
    assert catalog.horizon(DEFAULT_TENANT, root) is None
    assert catalog.horizon(DEFAULT_TENANT, other) == Horizon(Lsn(5))
    assert catalog.layers(DEFAULT_TENANT, root) == []
    catalog.close()
    assert check_catalog(tmp_path / "catalog.lmdb") is not None


def older_and_newer(path: Path) -> tuple[bytes, bytes]:
    """A catalog's file before and after a branch was made."""
    catalog = Catalog(path)
    fill(catalog, 40)
    catalog.close()
    before = path.read_bytes()
    catalog = Catalog(path)
    root = timeline_id(1000)
    catalog.update(lambda txn: txn.put_branch(DEFAULT_TENANT, root, timeline_id(500), record(root)))
    catalog.close()
    return before, path.read_bytes()


def test_an_older_copy_is_named_and_taken_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "catalog.lmdb"
    before, after = older_and_newer(path)
    path.write_bytes(before)
    for _ in range(2):
        with pytest.raises(DataLoss, match="older copy") as caught:
            Catalog(path)
        assert caught.value.reason == "CATALOG_OLDER"
    witness.acceptance_file(path).touch()
    catalog = Catalog(path)
    assert catalog.timeline(DEFAULT_TENANT, timeline_id(500)) is None
    catalog.close()
    Catalog(path).close()
    path.write_bytes(after)
    Catalog(path).close()  # the word counted once, and for what it found


def test_anothers_catalog_is_named(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    for directory in (mine, other):
        directory.mkdir()
        older_and_newer(directory / "catalog.lmdb")
    (mine / "catalog.lmdb").write_bytes((other / "catalog.lmdb").read_bytes())
    with pytest.raises(DataLoss) as caught:
        Catalog(mine / "catalog.lmdb")
    assert caught.value.reason == "CATALOG_FOREIGN"


def test_a_page_that_the_disk_did_not_write_is_noticed(tmp_path: Path) -> None:
    """A leaf page as it was before: its number, its keys, its checksums all hold."""
    path = tmp_path / "catalog.lmdb"
    before, after = older_and_newer(path)
    noticed = 0
    for page in range(2, len(before) // 4096):
        span = slice(page * 4096, (page + 1) * 4096)
        if before[span] == after[span]:
            continue
        path.write_bytes(after[: span.start] + before[span] + after[span.stop :])
        try:
            assert len(contents(path)[0]) > 30
        except DataLoss:
            noticed += 1
    assert noticed


@pytest.mark.parametrize("left", [b"", b"garbage", None], ids=["empty", "garbage", "removed"])
def test_what_only_knows_the_age_is_written_anew(tmp_path: Path, left: bytes | None) -> None:
    path = tmp_path / "catalog.lmdb"
    before, _ = older_and_newer(path)
    generation = witness.generation_file(path)
    generation.unlink() if left is None else generation.write_bytes(left)
    Catalog(path).close()
    path.write_bytes(before)
    with pytest.raises(DataLoss, match="older copy"):
        Catalog(path)


def test_a_catalog_of_format_1_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "catalog.lmdb"
    path.write_bytes((Path(__file__).parent / "version_1.lmdb").read_bytes())
    first = TimelineId(b"1" * 16)
    for _ in range(2):
        timelines, layers, children = contents(path)
        assert len(timelines) == 3
        assert layers[0] == [(1, LayerEntry(SUMMARY))]
        assert [child for child, _ in children[0]] == [
            TimelineId(b"2" * 16),
            TimelineId(b"3" * 16),
        ]
    with_branch = Catalog(path)
    with_branch.update(
        lambda txn: txn.put_branch(DEFAULT_TENANT, first, timeline_id(9), record(first))
    )
    with_branch.close()
    assert len(contents(path)[0]) == 4


def test_layers_are_not_deleted_for_want_of_a_catalog(tmp_path: Path) -> None:
    Repository.open(tmp_path).close()
    layer = tmp_path / str(DEFAULT_TENANT) / str(timeline_id(1)) / "000000000001.delta"
    layer.parent.mkdir(parents=True)
    layer.write_bytes(b"a layer")
    for damage in (lambda path: path.write_bytes(b""), lambda path: path.unlink()):
        damage(tmp_path / "catalog.lmdb")
        with pytest.raises(DataLoss, match="empty"):
            Repository.open(tmp_path)
        assert layer.exists()


def test_what_the_catalog_does_not_name_is_moved_aside(tmp_path: Path) -> None:
    Repository.open(tmp_path).close()
    directory = tmp_path / str(DEFAULT_TENANT) / str(timeline_id(1))
    names = ["000000000001.delta", "000000000002.image", "a stranger"]
    for _ in range(2):
        directory.mkdir(parents=True)
        for name in [*names, "000000000003.delta.tmp", "000000000004.delta.tmp.images"]:
            (directory / name).write_bytes(name.encode())
        (directory / "folder").mkdir()
        Repository.open(tmp_path).close()
        assert not directory.exists()
    aside = sorted(lost_found.found(tmp_path))
    assert [
        item.path.name.removeprefix(f"{DEFAULT_TENANT}.{timeline_id(1)}.") for item in aside
    ] == [*sorted([name + twice for name in [*names, "folder"] for twice in ("", "~2")])]
    assert {item.path.read_bytes().decode() for item in aside if item.path.is_file()} == set(names)


def test_an_older_catalog_takes_no_layer_with_it(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path)
    first = make_root(repository, 1, [image(keyspace.rel_size(1, 2, 1, 0), ROOT_LSN, b"root")])
    repository.close()
    older = (tmp_path / "catalog.lmdb").read_bytes()
    repository = Repository.open(tmp_path)
    first = repository.get(DEFAULT_TENANT, timeline_id(1))
    put(first, [image(keyspace.rel_size(1, 2, 1, 0), ROOT_LSN + 5, b"new")], ROOT_LSN + 9)
    first.freeze()
    first.flush()
    layer = Path(first.files()[0].path)
    repository.close()
    (tmp_path / "catalog.lmdb").write_bytes(older)
    with pytest.raises(DataLoss) as caught:
        Repository.open(tmp_path)
    assert caught.value.reason == "CATALOG_OLDER"
    assert layer.exists()
    witness.acceptance_file(tmp_path / "catalog.lmdb").touch()
    accepted = Repository.open(tmp_path)
    accepted.sweep()
    accepted.close()
    assert [item.path.name.split(".")[2] for item in lost_found.found(tmp_path)] == [layer.stem]


def test_a_store_is_opened_once(tmp_path: Path) -> None:
    first = Repository.open(tmp_path)
    with pytest.raises(FailedPrecondition, match="in use"):
        Repository.open(tmp_path)
    first.close()
    Repository.open(tmp_path).close()


def test_entries_have_the_sizes_that_the_document_says() -> None:
    document = (Path(__file__).parents[3] / "docs" / "formats" / "catalog.md").read_text()
    key = entries.timeline_key(DEFAULT_TENANT, timeline_id(1))
    layer = entries.layer_key(DEFAULT_TENANT, timeline_id(1), 1)
    child = entries.child_key(DEFAULT_TENANT, timeline_id(1), timeline_id(2))
    horizon = entries.horizon_key(DEFAULT_TENANT, timeline_id(1))
    lease = entries.lease_key(DEFAULT_TENANT, timeline_id(1), 5)
    replaced = entries.replaced_key(DEFAULT_TENANT, timeline_id(1), 5)
    window = entries.window_key(DEFAULT_TENANT, timeline_id(1))
    point = entries.point_key(DEFAULT_TENANT, timeline_id(1), 5)
    sizes = [
        ("`f`", entries.FORMAT_KEY, entries.pack_format()),
        ("`g`", entries.GENERATION_KEY, entries.pack_whole(Whole(1, bytes(16), 0))),
        ("`n`", entries.NEEDS_KEY, entries.pack_needs()),
        ("`t` tenant timeline", key, record(None).pack(key)),
        ("`c` tenant parent child", child, entries.pack_child(child, 5)),
        ("`l` tenant timeline u64 number", layer, LAYER.pack(layer)),
        ("`d` tenant timeline u64 number", replaced, entries.pack_replaced(replaced, 1)),
        ("`h` tenant timeline", horizon, Horizon(Lsn(5)).pack(horizon)),
        ("`e` tenant timeline u64 LSN", lease, entries.pack_lease(lease, 5)),
        ("`w` tenant timeline", window, entries.pack_window(window, 5, 6)),
        ("`k` tenant timeline u64 LSN", point, entries.seal(point, b"")),
    ]
    rows = [line.split(" | ") for line in document.splitlines() if line.startswith("| `")]
    shown = [
        (row[0].removeprefix("| "), int(row[1]), int(row[3].removesuffix(" |"))) for row in rows
    ]
    assert shown == [(name, len(key), len(value)) for name, key, value in sizes]
    total = entries.TIMELINE_ENTRY_BYTES + entries.CHILD_ENTRY_BYTES
    assert f"{total} bytes, in one transaction" in document
