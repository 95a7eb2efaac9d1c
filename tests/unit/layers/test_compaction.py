"""Merges and images of layers against a plain list of values, and against reads before them."""

from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pagestore import _native, keyspace
from pagestore._native import Compaction, Layer, LayerSummary, NativeError, Snapshot
from pagestore.keyspace import PAGE_SIZE, Kind, ValueKind
from pagestore.timeline.retained import NOTHING, Retained

from .model import ALL_LSNS, TENANT, TIMELINE, Entry, History, batch_of, ends_chain, page
from .test_model import build, check, histories

BOUNDS = {"open_weight": 2, "chain_weight": 4, "chain_bytes": 1 << 20}
"""Two patches with nothing below, four between images."""
LEAST, GREATEST = bytes(18), b"\xff" * 18
Work = tuple[Compaction, list[Layer]]


def written(work: Compaction, folder: Path, level: int = 0) -> list[Layer]:
    """All files of a compaction, checked."""
    made: list[Layer] = []
    while True:
        number = 1000 + len(list(folder.iterdir()))
        path = folder / f"{number}"
        summary = work.write(path, TENANT, TIMELINE, number, level=level)
        if summary is None:
            assert not path.exists()
            return made
        made.append(Layer(path, TENANT, TIMELINE, number, summary))
        made[-1].verify()


def files(layers: list) -> list[Layer]:
    return [layer for layer in layers if isinstance(layer, Layer)]


def overlap_nowhere(made: list[Layer]) -> None:
    """One behind the other by key; where a key goes on in the next file, by LSN too."""
    for left, right in itertools.pairwise(made):
        assert left.summary.max_key <= right.summary.min_key


@given(steps=histories, cut=st.tuples(st.integers(0, 9), st.integers(0, 9)), size=st.integers(1, 3))
@settings(max_examples=120)
def test_a_merge_reads_as_its_inputs_did(
    tmp_path_factory, steps: list, cut: tuple[int, int], size: int
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    history, layers = build(folder, steps, True)
    begin, end = sorted(cut)
    some = files(layers)[begin : end + 1]
    work = Compaction(some, Snapshot(layers), None, file_bytes=size * 600)
    out = folder / "out"
    out.mkdir()
    made = written(work, out)
    assert (made == []) == (some == [])
    overlap_nowhere(made)
    assert sum(layer.summary.entries for layer in made) == sum(
        layer.summary.entries for layer in some
    )
    bounds = {(layer.summary.first_lsn, layer.summary.last_lsn) for layer in made}
    assert len(bounds) <= 1  # so it is seen that they are one
    snapshot = Snapshot(layers).replace(some, made)
    for lsn in (ALL_LSNS, *range(99, 200, 7)):
        check(snapshot, history, lsn)


def block(number: int, rel: int = 7) -> bytes:
    return keyspace.rel_block(1663, 5, rel, 0, number).pack()


def size_of(blocks: int, lsn: int, rel: int = 7) -> Entry:
    key = keyspace.rel_size(1663, 5, rel, 0).pack()
    return key, lsn, ValueKind.IMAGE, 0, struct.pack("<I", blocks)


def patch(number: int, lsn: int, rel: int = 7) -> Entry:
    """Sets a byte of its own to what the LSN says."""
    change = struct.pack("<HHBB", lsn % 1000, 1, 0xFF, lsn % 251)
    return block(number, rel), lsn, ValueKind.PATCH, 0, change


def flushed(folder: Path, number: int, entries: list[Entry]) -> Layer:
    layer = _native.OpenLayer()
    layer.put(batch_of(entries))
    path = folder / f"{number}"
    return Layer(path, TENANT, TIMELINE, number, layer.flush(path, TENANT, TIMELINE, number))


def patched(folder: Path, last: int = 300) -> list[Layer]:
    """Ten layers: page 0 is patched at each LSN, page 1 at each tenth, page 2 at each hundredth."""
    layers = [
        flushed(
            folder,
            1,
            [size_of(3, 1), *((block(b), 1, ValueKind.ZERO, 0, b"") for b in range(3))],
        )
    ]
    for first in range(2, last, last // 10):
        entries = [
            patch(b, lsn)
            for lsn in range(first, first + last // 10)
            for b, every in ((0, 1), (1, 10), (2, 100))
            if lsn % every == 0
        ]
        layers.append(flushed(folder, len(layers) + 1, entries))
    return layers


def longest(snapshot: Snapshot, key: bytes, lsn: int) -> int:
    """How many values a read applies to something whole."""
    return sum(not ends_chain(kind, flags) for _, kind, flags, _ in snapshot.chain(key, lsn))


@pytest.mark.parametrize("file_bytes", [1, 20_000, 1 << 20])
def test_chains_are_bounded_at_each_lsn_and_pages_stay_what_they_were(
    tmp_path: Path, file_bytes: int
) -> None:
    layers = patched(tmp_path)
    before = Snapshot(layers)
    out = tmp_path / "out"
    out.mkdir()
    work = Compaction(layers[1:], before, None, file_bytes=file_bytes, **BOUNDS)
    made = written(work, out)
    overlap_nowhere(made)
    after = before.replace(layers[1:], made)
    keys = b"".join(block(b) for b in range(3))
    for lsn in range(1, 310):
        assert after.read_pages(keys, lsn) == before.read_pages(keys, lsn)
        for b in range(3):
            assert longest(after, block(b), lsn) <= min(4, longest(before, block(b), lsn))
    assert longest(before, block(0), 301) > 250
    assert work.stats()["images"] > 70
    assert work.stats()["refused"] == 0
    # Once more: nothing is to be added.
    again = written(Compaction(made, after, None, file_bytes=1 << 20, **BOUNDS), out)
    assert [layer.summary.entries for layer in again] == [
        sum(layer.summary.entries for layer in made)
    ]


def test_one_hot_key_is_split_by_lsn_and_values_of_one_lsn_stay_together(tmp_path: Path) -> None:
    noise = random.Random(1)
    entries: list[Entry] = [
        (block(0), lsn, ValueKind.RECORD, 0, noise.randbytes(5000))
        for lsn in range(100, 109)
        for _ in range(3)
    ]
    history = History()
    history.put(entries)
    layer = flushed(tmp_path, 1, entries)
    out = tmp_path / "out"
    out.mkdir()
    made = written(Compaction([layer], Snapshot([layer]), None, file_bytes=300), out)
    assert len(made) > 3
    assert sum(each.summary.entries for each in made) == 27
    assert all(each.summary.entries % 3 == 0 for each in made)
    for lsn in range(99, 110):
        assert Snapshot(made).chain(block(0), lsn) == history.chain(block(0), lsn)


def test_a_chain_that_redo_cannot_make_is_left_as_it_was(tmp_path: Path) -> None:
    entries: list[Entry] = [
        (block(0), lsn, ValueKind.RECORD, 0, b"no record") for lsn in range(2, 60)
    ]
    layers = [
        flushed(tmp_path, 1, [(block(0), 1, ValueKind.ZERO, 0, b"")]),
        flushed(tmp_path, 2, entries),
    ]
    history = History()
    history.put([(block(0), 1, ValueKind.ZERO, 0, b""), *entries])
    work = Compaction(layers[1:], Snapshot(layers), None, file_bytes=1 << 20, **BOUNDS)
    out = tmp_path / "out"
    out.mkdir()
    made = written(work, out)
    assert work.stats()["refused"] == 1
    assert Snapshot([*made, layers[0]]).chain(block(0), 100) == history.chain(block(0), 100)


def images(layers: list[Layer], lsn: int, file_bytes: int, low: bytes = LEAST) -> Compaction:
    return Compaction(layers, Snapshot(layers), None, file_bytes=file_bytes, image_lsn=lsn, low=low)


@pytest.mark.parametrize("file_bytes", [1, 1 << 20])
def test_images_cover_the_keyspace_and_need_nothing_older(tmp_path: Path, file_bytes: int) -> None:
    layers = patched(tmp_path)
    before = Snapshot(layers)
    out = tmp_path / "out"
    out.mkdir()
    made = written(images(layers, 250, file_bytes), out)
    covered = [(layer.summary.min_key, layer.summary.max_key) for layer in made]
    assert (covered[0][0], covered[-1][1]) == (LEAST, GREATEST)
    for (_, end), (begin, _) in itertools.pairwise(covered):
        assert int.from_bytes(begin) == int.from_bytes(end) + 1
    assert len(made) == (4 if file_bytes == 1 else 1)
    assert {(each.summary.kind, each.summary.first_lsn) for each in made} == {(2, 250)}
    alone, after = Snapshot(made), before.replace([], made)
    keys = b"".join(block(b) for b in range(3))
    assert alone.read_pages(keys, 250) == before.read_pages(keys, 250)
    assert alone.scan(LEAST, keyspace.Key(0x10).pack(), 250) == before.scan(
        LEAST, keyspace.Key(0x10).pack(), 250
    )
    for lsn in range(1, 310):
        assert after.read_pages(keys, lsn) == before.read_pages(keys, lsn)
    assert longest(after, block(0), 255) == 5
    resumed = written(images(layers, 250, 1 << 20, low=covered[-1][0]), out)
    assert [each.summary.keys for each in resumed] == [made[-1].summary.keys]


def test_images_have_tombstones_and_no_block_that_nobody_may_ask_for(tmp_path: Path) -> None:
    gone = keyspace.rel_size(1663, 5, 8, 0).pack()
    layer = flushed(
        tmp_path,
        1,
        [
            size_of(2, 1),
            size_of(1, 2, rel=8),
            (block(0), 3, ValueKind.ZERO, 0, b""),
            (block(1), 3, ValueKind.RECORD, 0, b"a chain that has no beginning"),
            (block(0, rel=8), 3, ValueKind.ZERO, 0, b""),
            size_of(1, 4),
            (gone, 5, ValueKind.TOMBSTONE, 0, b""),
            (block(0), 9, ValueKind.IMAGE, 0, page(9)),
        ],
    )
    out = tmp_path / "out"
    out.mkdir()
    [made] = written(images([layer], 8, 1 << 20), out)
    snapshot = Snapshot([made])
    assert made.summary.keys == 3
    assert snapshot.chain(gone, 8) == [(8, ValueKind.TOMBSTONE, 0, b"")]
    assert snapshot.read_pages(block(0), 8) == bytes(PAGE_SIZE)
    assert snapshot.scan_keys(LEAST, GREATEST, 8) == [
        keyspace.rel_size(1663, 5, 7, 0).pack(),
        block(0),
    ]
    assert Kind(made.summary.max_key[0] & 0x20) == Kind.REL_BLOCK


def test_a_page_that_cannot_be_made_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    entries: list[Entry] = [size_of(1, 1), (block(0), 2, ValueKind.RECORD, 0, b"no beginning")]
    layer = flushed(tmp_path, 1, entries)
    with pytest.raises(NativeError, match="no beginning"):
        images([layer], 2, 1 << 20).write(tmp_path / "out", TENANT, TIMELINE, 2, level=1)
    assert not (tmp_path / "out").exists()


def test_a_merge_is_cancelled_from_outside(tmp_path: Path) -> None:
    layers = patched(tmp_path)
    work = Compaction(layers[1:], Snapshot(layers), None, file_bytes=1 << 20)
    work.pause(True)
    work.pause(False)
    work.cancel()
    with pytest.raises(NativeError, match="cancelled"):
        work.write(tmp_path / "out", TENANT, TIMELINE, 99, level=0)
    assert not (tmp_path / "out").exists()


def test_depth_is_what_the_worst_read_has_to_apply(tmp_path: Path) -> None:
    values = [
        (ValueKind.RECORD, 0),
        (ValueKind.PATCH, 0),
        (ValueKind.RECORD, keyspace.WILL_INIT),
        (ValueKind.RECORD, 0),
    ]
    change = struct.pack("<HHBB", 1, 1, 1, 1)
    entries: list[Entry] = [
        (block(0), 1 + i, kind, flags, change) for i, (kind, flags) in enumerate(values)
    ]
    assert flushed(tmp_path, 1, entries).depth() == 16
    layer = _native.OpenLayer()
    for entry, depth in zip(entries, (8, 9, 9, 16), strict=True):
        layer.put(batch_of([entry]))
        assert layer.depth == depth
    assert flushed(tmp_path, 2, entries[:2]).depth() == 9
    assert flushed(tmp_path, 3, [size_of(1, 1), size_of(2, 2)]).depth() == 0


def test_only_delta_layers_are_taken(tmp_path: Path) -> None:
    writer = _native.LayerWriter(tmp_path / "1", TENANT, TIMELINE, 1, 2)
    writer.put(batch_of([size_of(1, 1)]))
    summary: LayerSummary = writer.finish()
    layer = Layer(tmp_path / "1", TENANT, TIMELINE, 1, summary)
    with pytest.raises(NativeError, match="not a delta"):
        Compaction([layer], Snapshot([layer]), None, file_bytes=1)


LIVES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0, 0, 1, 2])), min_size=1, max_size=30
)


@given(
    lives=LIVES,
    times=st.lists(st.integers(0, 9), max_size=8),
    cutoff=st.integers(0, 45),
    points=st.sets(st.integers(0, 40)),
    ends=st.booleans(),
)
@settings(max_examples=150)
def test_a_merge_leaves_out_what_retained_says_is_dead(
    tmp_path_factory, lives: list, times: list[int], cutoff: int, points: set[int], ends: bool
) -> None:
    """The plain Python of `Retained` and the stream of the core, of pages and of commits."""
    kept = Retained.of(NOTHING if ends else cutoff, points)
    folder = tmp_path_factory.mktemp("dead")
    blocks = [keyspace.slru_page(1, n).pack() for n in range(3)]
    entries: list[Entry] = []
    for lsn, (block, kind) in enumerate(lives, 1):
        value = {0: (ValueKind.PATCH, struct.pack("<HHBB", block, 1, 255, lsn))}
        value |= {1: (ValueKind.IMAGE, page(lsn)), 2: (ValueKind.ZERO, b"")}
        entries.append((blocks[block], lsn, value[kind][0], 0, value[kind][1]))
    commits = {t: len(lives) + 1 + n for n, t in enumerate(times)}
    for micros, lsn in sorted(commits.items(), key=lambda item: item[1]):
        key = keyspace.commit_time(micros).pack()
        entries.append((key, lsn, ValueKind.IMAGE, 0, struct.pack("<Q", lsn)))
    layer = _flushed(folder, entries)
    work = Compaction(
        [layer], Snapshot([layer]), None, file_bytes=1 << 20, boundaries=kept.boundaries, ends=ends
    )
    (folder / "out").mkdir()
    made = written(work, folder / "out")
    expected = set()
    for key in blocks:
        chain = [e for e in reversed(entries) if e[0] == key]
        dead = kept.dead([(lsn, ends_chain(kind, 0)) for _, lsn, kind, _, _ in chain])
        expected |= {e[:2] for e, gone in zip(chain, dead, strict=True) if not gone}
    by_time = [(keyspace.commit_time(t).pack(), commits[t]) for t in sorted(commits)]
    dead = kept.dead_times([lsn for _, lsn in by_time])
    expected |= {one for one, gone in zip(by_time, dead, strict=True) if not gone}
    assert sum(layer.summary.entries for layer in made) == len(expected)
    for key, lsn in expected:
        assert Snapshot(made).chain(key, lsn)[0][0] == lsn


def _flushed(folder: Path, entries: list[Entry]) -> Layer:
    layer = _native.OpenLayer()
    layer.put(batch_of(entries))
    layer.freeze()
    summary = layer.flush(folder / "1", TENANT, TIMELINE, 1)
    return Layer(folder / "1", TENANT, TIMELINE, 1, summary)
