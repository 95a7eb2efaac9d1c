"""A visibility map that lacks bits is right; one that has too many is not."""

from __future__ import annotations

import pytest

from pagestore.ingest.consistency import _Check, _lacks_bits_only
from pagestore.pgformat.bufmask import HEADER_SIZE, PAGE_SIZE

LOGGED = bytes(HEADER_SIZE) + b"\x05\xff" + bytes(PAGE_SIZE - HEADER_SIZE - 2)


@pytest.mark.parametrize(
    ("bits", "fine"),
    [(b"\x05\xff", True), (b"\x00\x00", True), (b"\x04\x0f", True), (b"\x07\xff", False)],
)
def test_bits_may_be_missing_and_none_may_be_more(bits: bytes, fine: bool) -> None:
    ours = b"\xff" * HEADER_SIZE + bits + LOGGED[HEADER_SIZE + 2 :]
    assert _lacks_bits_only(_Check(8, b"", LOGGED, ours)) is fine
