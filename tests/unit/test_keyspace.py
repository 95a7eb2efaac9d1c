"""The key layout, held together between the document, Python and C."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pagestore import keyspace
from pagestore.keyspace import Key, Kind

u32 = st.integers(0, 2**32 - 1)
keys = st.builds(Key, st.integers(0, 255), u32, u32, u32, st.integers(0, 255), u32)
ROOT = Path(__file__).resolve().parents[2]


@given(keys, keys)
def test_packed_keys_sort_as_tuples(a: Key, b: Key) -> None:
    assert (a.pack() < b.pack()) == (tuple(a) < tuple(b))
    assert Key.unpack(a.pack()) == a


def test_the_core_has_the_same_kinds() -> None:
    header = (ROOT / "native/core/key.h").read_text()
    in_c = {n: int(v, 16) for n, v in re.findall(r"PS_KIND_(\w+) = (0x\w+)", header)}
    assert in_c == {kind.name: kind.value for kind in Kind}


def test_the_document_has_the_same_kinds() -> None:
    document = (ROOT / "docs/formats/keyspace.md").read_text()
    rows = {n: int(v, 16) for v, n in re.findall(r"^\| (0x\w\w) \| (\w+)", document, re.M)}
    assert rows == {kind.name: kind.value for kind in Kind}


def test_database_range_holds_exactly_its_keys() -> None:
    low, high = keyspace.database_range(Kind.REL_SIZE, 1663, 5)
    assert low <= keyspace.rel_size(1663, 5, 0, 0).pack() < high
    assert low <= keyspace.rel_size(1663, 5, 2**32 - 1, 3).pack() < high
    assert not low <= keyspace.rel_size(1663, 6, 0, 0).pack() < high
