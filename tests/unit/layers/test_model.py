"""Open layers, layer files and snapshots against a plain list of values."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given, settings

from pagestore import _native, keyspace
from pagestore.keyspace import Kind, ValueKind

from .model import ALL_LSNS, TENANT, TIMELINE, Entry, History, batch_of, page

LOW, HIGH = keyspace.Key(0).pack(), keyspace.Key(0x40).pack()

meta_keys = st.builds(keyspace.rel_size, st.just(1663), st.just(5), st.integers(1, 6), st.just(0))
block_keys = st.builds(
    keyspace.rel_block, st.just(1663), st.just(5), st.integers(1, 3), st.just(0), st.integers(0, 4)
)
meta_values = st.one_of(
    st.tuples(st.just(ValueKind.IMAGE), st.just(0), st.binary(min_size=4, max_size=4)),
    st.tuples(st.just(ValueKind.TOMBSTONE), st.just(0), st.just(b"")),
)
block_values = st.one_of(
    st.tuples(st.just(ValueKind.IMAGE), st.just(0), st.integers(0, 255).map(page)),
    st.tuples(st.just(ValueKind.ZERO), st.just(0), st.just(b"")),
    st.tuples(st.just(ValueKind.RECORD), st.integers(0, 1), st.binary(max_size=3000)),
    st.tuples(st.just(ValueKind.PATCH), st.just(0), st.just(b"\x01\x00\x02\x00\xff\x07")),
)
items = st.one_of(st.tuples(meta_keys, meta_values), st.tuples(block_keys, block_values))
# Each step is an LSN advance with a value; None closes the layer being filled.
histories = st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 3), items)), max_size=60)


def build(tmp: Path, steps: list, to_files: bool) -> tuple[History, list]:
    """The history, and its layers newest first."""
    history, layers, lsn = History(), [_native.OpenLayer()], 100
    for step in [*steps, None]:
        if step is not None:
            advance, (key, (kind, flags, payload)) = step
            lsn += advance
            entry: Entry = (key.pack(), lsn, kind, flags, payload)
            history.put([entry])
            layers[0].put(batch_of([entry]))
        elif layers[0].count > 0:
            lsn += 1  # the values of one LSN are in one layer
            if to_files:
                number = len(layers)
                path = tmp / f"{number}"
                path.unlink(missing_ok=True)
                summary = layers[0].flush(path, TENANT, TIMELINE, number)
                layers[0] = _native.Layer(path, TENANT, TIMELINE, number, summary)
                layers[0].verify()
            layers.insert(0, _native.OpenLayer())
    return history, layers


def check(snapshot: _native.Snapshot, history: History, lsn: int) -> None:
    alive = history.alive(lsn)
    assert snapshot.scan(LOW, HIGH, lsn) == alive
    assert snapshot.scan_keys(LOW, HIGH, lsn) == [key for key, _ in alive]
    assert snapshot.scan(LOW, HIGH, lsn, limit=2) == alive[:2]
    for key in history.values:
        assert snapshot.chain(key, lsn) == history.chain(key, lsn)
    sizes = [item for item in alive if item[0][0] == Kind.REL_SIZE]
    last = snapshot.last_before(*keyspace.kind_range(Kind.REL_SIZE), lsn)
    assert last == (sizes[-1] if sizes else None)


@given(steps=histories, to_files=st.booleans(), cuts=st.lists(st.integers(99, 200), max_size=3))
@settings(max_examples=120)
def test_layers_answer_as_the_list_does(
    tmp_path_factory, steps: list, to_files: bool, cuts: list[int]
) -> None:
    history, layers = build(tmp_path_factory.mktemp("layers"), steps, to_files)
    snapshot = _native.Snapshot(layers)
    check(snapshot, history, ALL_LSNS)
    for cut in cuts:
        check(snapshot, history, cut)
        branch = _native.Snapshot().over(snapshot, cut)
        check(branch, history.upto(cut), ALL_LSNS)


def test_an_old_lsn_is_found_among_many_values_of_one_key() -> None:
    layer = _native.OpenLayer()
    key = keyspace.COUNTERS.pack()
    layer.put(
        batch_of([(key, lsn, ValueKind.IMAGE, 0, b"%d" % lsn) for lsn in range(10, 200_000, 10)])
    )
    snapshot = _native.Snapshot([layer])
    for lsn in (9, 10, 11, 5_555, 99_999, 199_990, 10**9):
        expected = min(lsn // 10 * 10, 199_990)
        assert snapshot.get(key, lsn) == (b"%d" % expected if expected else None)
