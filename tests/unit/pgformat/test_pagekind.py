"""A page's kind is told from its special space; its header from what Postgres accepts."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pagestore.pgformat.bufmask import PageKind
from pagestore.pgformat.page import as_pages, impossible_headers, page_lsns
from pagestore.pgformat.pagekind import differing, kind_of


def page(special: int, end: bytes = b"", *, lower: int = 24, flags: int = 0) -> bytes:
    size = 8192 - special
    header = struct.pack("<IIHHHHHHI", 1, 2, 0, flags, lower, size, size, 8196, 0)
    return header + bytes(8192 - len(header) - len(end)) + end


@pytest.mark.parametrize(
    ("special", "mark", "block", "kind"),
    [
        (0, b"", 0, PageKind.HEAP),
        (16, bytes(2), 1, PageKind.BTREE),
        (16, b"\x80\xff", 1, PageKind.HASH),
        (16, b"\x81\xff", 1, PageKind.GIST),
        (8, b"\x82\xff", 1, PageKind.SPGIST),
        (8, b"\x83\xff", 0, PageKind.GENERIC),
        (8, b"\x91\xf0", 0, PageKind.BRIN),
        (8, b"\x93\xf0", 9, PageKind.BRIN),
        (8, b"\x17\x17\0\0\0\0\0\0", 0, PageKind.SEQUENCE),
        (8, b"\x17\x17\0\0\0\0\0\0", 7, PageKind.GIN),
        (8, b"\xff\xff\xff\xff\0\0\x08\0", 0, PageKind.GIN),
    ],
)
def test_kinds(special: int, mark: bytes, block: int, kind: PageKind) -> None:
    assert kind_of(page(special, mark), 0, block) == kind
    assert kind_of(page(special, mark), 2, block) == PageKind.MAP


def test_a_page_of_zeros_is_of_no_special_kind() -> None:
    assert kind_of(bytes(8192), 0, 0) == PageKind.HEAP


def test_what_differs_is_told_with_its_block() -> None:
    blocks = np.array([7, 8, 9])
    bloom, changed = (page(8, bytes([first, 0, 0, 0, 0, 0, 0x83, 0xFF])) for first in (0, 1))
    hashed = page(16, b"\x80\xff")
    one = page(0) + bloom + hashed
    hint = page(0, flags=4)  # all-visible
    assert differing(one, hint + bloom + hashed, 0, blocks) == []
    found = differing(one, hint + changed + page(16, bytes(2)), 0, blocks)
    assert [block for block, _ in found] == [8, 9]
    assert found[0][1] == "generic page, 1 bytes from 8184"


def test_page_lsns_count_unless_told_otherwise() -> None:
    moved = struct.pack("<II", 1, 3) + page(0)[8:]
    assert differing(page(0), moved, 0, np.array([4])) == [(4, "heap page, LSN 1/2 for 1/3")]
    assert differing(page(0), moved, 0, np.array([4]), lsns=False) == []
    assert page_lsns(as_pages(moved)).tolist() == [(1 << 32) + 3]


def test_impossible_headers() -> None:
    good = [page(0), page(16), bytes(8192)]
    bad = [page(0, lower=8193), page(0, flags=8), page(3), bytes(8191) + b"\x01"]
    assert impossible_headers(as_pages(b"".join(good + bad))) == [3, 4, 5, 6]
