from __future__ import annotations

import random
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagestore._native import crc32c
from pagestore.postgres import remote_map
from pagestore.postgres.remote_map import Fork, HotPage

FORKS = st.tuples(
    st.sampled_from([1663, 1664]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(0, 3),
)
LENGTHS = st.dictionaries(FORKS, st.integers(0, 70), max_size=20)


@given(lengths=LENGTHS, laid=st.booleans(), seed=st.integers(0, 1 << 32))
def test_it_says_what_is_remote_what_is_a_file_and_what_came_along(
    lengths: dict[Fork, int], laid: bool, seed: int
) -> None:
    chance = random.Random(seed)
    hot = [
        HotPage(fork, block, chance.randbytes(8192))
        for fork, length in lengths.items()
        for block in range(length)
        if chance.random() < 0.05
    ]
    data = remote_map.build(remote_map.table_of(lengths), hot, laid=laid)
    (magic, version, count, bits_at, bits_length, file_length, crc, nhot, hot_at, unlaid_at) = (
        remote_map.HEADER.unpack_from(data)
    )
    assert (magic, version, file_length) == (b"PSMAP002", 2, len(data))
    assert bits_at % 4096 == hot_at % 4096 == 0
    head = bytearray(data[: 64 + 32 * count + 8 * nhot])
    struct.pack_into("<I", head, 40, 0)
    assert crc32c(bytes(head)) == crc
    index = np.frombuffer(data, remote_map.ENTRY, count, 64)
    keys = [tuple(int(entry[name]) for name in ("spc", "db", "rel", "fork")) for entry in index]
    assert keys == sorted(lengths)
    bits = np.unpackbits(np.frombuffer(data, np.uint8, bits_length, bits_at), bitorder="little")
    for key, entry in zip(keys, index, strict=True):
        first, length = int(entry["first_bit"]), int(entry["nblocks"])
        assert length == lengths[key]  # type: ignore[index]
        assert bits[first : first + length].all()
    assert int(bits.sum()) == sum(lengths.values())
    unlaid = int.from_bytes(data[unlaid_at : unlaid_at + -(-count // 8)], "little")
    assert unlaid == (0 if laid else (1 << count) - 1)
    places = struct.iter_unpack("<2I", data[64 + 32 * count : 64 + 32 * count + 8 * nhot])
    found = [
        (keys[entry], block, data[hot_at + 8192 * i : hot_at + 8192 * (i + 1)])
        for i, (entry, block) in enumerate(places)
    ]
    assert found == sorted(hot)


def test_no_relations_make_an_empty_map() -> None:
    data = remote_map.build(remote_map.table_of({}))
    assert len(data) == 4096
    assert remote_map.HEADER.unpack_from(data)[2:6] == (0, 4096, 0, 4096)


@given(lengths=LENGTHS, other=FORKS)
def test_a_fork_is_found_where_it_is_listed(lengths: dict[Fork, int], other: Fork) -> None:
    table = remote_map.table_of(lengths)
    ordered = remote_map.names(table)
    for fork, length in lengths.items():
        row = remote_map.find(ordered, fork)
        assert row is not None
        assert int(table["nblocks"][row]) == length
    assert (remote_map.find(ordered, other) is None) == (other not in lengths)
