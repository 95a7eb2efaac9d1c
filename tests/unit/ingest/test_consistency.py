"""Where our page may be other than the image in the WAL, and where not."""

from __future__ import annotations

import struct

import pytest

from pagestore.ingest.consistency import _Check, _has_redo_s_mark_only, _lacks_bits_only
from pagestore.keyspace import Key, Kind
from pagestore.pgformat.bufmask import HEADER_SIZE, PAGE_SIZE

LOGGED = bytes(HEADER_SIZE) + b"\x05\xff" + bytes(PAGE_SIZE - HEADER_SIZE - 2)


@pytest.mark.parametrize(
    ("bits", "fine"),
    [(b"\x05\xff", True), (b"\x00\x00", True), (b"\x04\x0f", True), (b"\x07\xff", False)],
)
def test_bits_may_be_missing_and_none_may_be_more(bits: bytes, fine: bool) -> None:
    ours = b"\xff" * HEADER_SIZE + bits + LOGGED[HEADER_SIZE + 2 :]
    assert _lacks_bits_only(_Check(8, b"", LOGGED, ours)) is fine


def gist(flags: int, item: int = 0) -> bytes:
    """A page with an empty special area of GiST's, and one byte behind the hole."""
    page = bytearray(8192)
    page[12:20] = struct.pack("<HHHH", 24, 8168, 8176, 8192 | 4)
    page[8168] = item
    page[8188:] = struct.pack("<HH", flags, 0xFF81)
    return bytes(page)


@pytest.mark.parametrize(
    ("ours", "logged", "fine"),
    [
        (gist(0x01 | 0x04), gist(0x01), True),
        (gist(0x01), gist(0x01 | 0x04), False),  # which no redo takes away
        (gist(0x01 | 0x04 | 0x02), gist(0x01), False),
        (gist(0x01 | 0x04, item=7), gist(0x01), False),
        (gist(0x01, item=7), gist(0x01), False),
    ],
)
def test_only_the_mark_that_redo_sets_may_be_more_than_the_image_has(
    ours: bytes, logged: bytes, fine: bool
) -> None:
    key = Key(Kind.REL_BLOCK, 1663, 5, 17608, 0, 14)
    assert _has_redo_s_mark_only(_Check(8, key.pack(), logged, ours), key) is fine
