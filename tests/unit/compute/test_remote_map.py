from __future__ import annotations

import random
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagestore._native import crc32c
from pagestore.compute import remote_map
from pagestore.compute.remote_map import Fork

FORKS = st.tuples(
    st.sampled_from([1663, 1664]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(0, 3),
)


@given(
    lengths=st.dictionaries(FORKS, st.integers(0, 70), max_size=20),
    seed=st.randoms(use_true_random=False),
)
def test_exactly_the_remote_blocks_have_bits(lengths: dict[Fork, int], seed: random.Random) -> None:
    local = {
        fork: [block for block in range(length) if seed.random() < 0.3]
        for fork, length in lengths.items()
    }
    data = remote_map.build(lengths, local)
    magic, version, count, bits_offset, bits_length, file_length, crc = (
        remote_map.HEADER.unpack_from(data)
    )
    assert (magic, version, file_length) == (b"PSMAP001", 1, len(data))
    assert bits_offset % 4096 == 0
    head = bytearray(data[: 64 + 32 * count])
    struct.pack_into("<I", head, 40, 0)
    assert crc32c(bytes(head)) == crc
    index = np.frombuffer(data, remote_map.ENTRY, count, 64)
    keys = [tuple(int(entry[name]) for name in ("spc", "db", "rel", "fork")) for entry in index]
    assert keys == sorted(fork for fork, length in lengths.items() if length)
    bits = np.unpackbits(np.frombuffer(data, np.uint8, bits_length, bits_offset), bitorder="little")
    seen = 0
    for key, entry in zip(keys, index, strict=True):
        first, length = int(entry["first_bit"]), int(entry["nblocks"])
        remote = set(range(length)) - set(local[key])  # type: ignore[index]
        assert set(np.flatnonzero(bits[first : first + length]).tolist()) == remote
        seen += len(remote)
    assert int(bits.sum()) == seen


def test_no_relations_make_an_empty_map() -> None:
    data = remote_map.build({(1663, 5, 16384, 0): 0}, {})
    assert len(data) == 4096
    assert remote_map.HEADER.unpack_from(data)[2:6] == (0, 4096, 0, 4096)
