from __future__ import annotations

import pytest

from pagestore.errors import DataLoss
from pagestore.pgformat import relmap

MAPPING = {1259: 1259, 1249: 16400, 1247: 2**32 - 1}


def test_round_trip() -> None:
    data = relmap.pack(MAPPING)
    assert len(data) == 512
    assert relmap.parse(data) == MAPPING


@pytest.mark.parametrize("offset", [0, 4, 9, 31, 505])
def test_a_flipped_bit_is_named(offset: int) -> None:
    data = bytearray(relmap.pack(MAPPING))
    data[offset] ^= 0x40
    with pytest.raises(DataLoss, match="base/5/map"):
        relmap.parse(bytes(data), "base/5/map")


def test_a_short_file_is_named() -> None:
    with pytest.raises(DataLoss, match="511 bytes"):
        relmap.parse(relmap.pack(MAPPING)[:511])
