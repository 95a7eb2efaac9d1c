"""Each mask hides exactly what Postgres leaves unlogged, and nothing beside it."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagestore.pgformat.bufmask import PageKind, mask_page, mask_pages

PAGE = 8192


def page(
    pointers: Iterable[tuple[int, int, int]] = (),
    *,
    upper: int = 4000,
    special: bytes = b"",
    lower: int | None = None,
) -> bytearray:
    """A page with line pointers (offset, flags, length) and 0xAA wherever nothing is set."""
    made = bytearray(b"\xaa" * PAGE)
    pointers = list(pointers)
    end = 24 + 4 * len(pointers) if lower is None else lower
    start = PAGE - len(special)
    struct.pack_into("<QHHHHHHI", made, 0, 77, 5, 0x0007, end, upper, start, 0x2004, 9)
    for i, (offset, flags, length) in enumerate(pointers):
        struct.pack_into("<I", made, 24 + 4 * i, offset | flags << 15 | length << 17)
    made[start:] = special
    return made


def changed(before: bytes, after: bytes) -> set[int]:
    return {i for i in range(PAGE) if before[i] != after[i]}


def masked(kind: PageKind, data: bytes, block: int = 3) -> bytes:
    return mask_page(bytes(data), kind, block)


HEADER = {0, 8}  # the LSN (77) and the checksum (5) of page()
HINTS = HEADER | {10, 20}  # pd_flags and pd_prune_xid


def hole(lower: int, upper: int) -> set[int]:
    return set(range(lower, upper))


def test_heap_tuples() -> None:
    data = page([(5000, 1, 30), (5032, 1, 24), (0, 2, 0), (5064, 1, 40), (0, 0, 0)])
    tuple_header = "<IIIHHHHHB"
    # xmin committed only: all hint bits go. xmin frozen: only xmax's. Speculative: ctid too.
    struct.pack_into(tuple_header, data, 5000, 1, 2, 3, 0, 3, 1, 2, 0x0912, 24)
    struct.pack_into(tuple_header, data, 5032, 1, 2, 3, 0, 3, 2, 2, 0x0F02, 24)
    struct.pack_into(tuple_header, data, 5064, 1, 2, 3, 9, 9, 0xFFFE, 2, 0x0002, 24)
    after = masked(PageKind.HEAP, data, block=0x10002)
    assert struct.unpack_from(tuple_header, after, 5000) == (1, 2, 0, 0, 3, 1, 2, 0x0002, 24)
    assert struct.unpack_from(tuple_header, after, 5032) == (1, 2, 0, 0, 3, 2, 2, 0x0302, 24)
    assert struct.unpack_from(tuple_header, after, 5064)[2:6] == (0, 1, 2, 4)
    assert after[5030:5032] == b"\0\0"  # behind the tuple of 30 bytes
    assert after[5024:5030] == b"\xaa" * 6
    touched = changed(data, after) - hole(44, 4000) - HINTS
    assert touched <= set(range(5000, 5104))


def test_btree_leaf_hides_killed_items_but_an_inner_page_does_not() -> None:
    opaque = struct.pack("<IIIHH", 1, 2, 0, 0x01 | 0x20 | 0x40, 7)
    leaf = page([(5000, 3, 16), (5016, 1, 16)], special=opaque)
    after = masked(PageKind.BTREE, leaf)
    assert struct.unpack_from("<II", after, 24) == (5000 | 16 << 17, 5016 | 16 << 17)
    assert struct.unpack_from("<IIIHH", after, PAGE - 16) == (1, 2, 0, 0x01, 0)
    inner = page([(5000, 3, 16)], special=struct.pack("<IIIHH", 1, 2, 1, 0x02, 0))
    assert masked(PageKind.BTREE, inner)[24:28] == inner[24:28]


def test_hash() -> None:
    bucket = page([(5000, 3, 16)], special=struct.pack("<IIIHH", 1, 2, 3, 0x02 | 0x80, 0xFF80))
    after = masked(PageKind.HASH, bucket)
    assert struct.unpack_from("<I", after, 24) == (5000 | 16 << 17,)
    assert struct.unpack_from("<IIIHH", after, PAGE - 16) == (1, 2, 3, 0x02, 0xFF80)
    unused = page(special=struct.pack("<IIIHH", 1, 2, 3, 0, 0xFF80))
    assert set(masked(PageKind.HASH, unused)[24:]) == {0}
    bitmap = page([(5000, 3, 16)], special=struct.pack("<IIIHH", 1, 2, 3, 0x04, 0xFF80))
    assert masked(PageKind.HASH, bitmap)[24:28] == bitmap[24:28]


def test_gin() -> None:
    deleted = page(special=struct.pack("<IHH", 1, 0, 0x04))
    assert set(masked(PageKind.GIN, deleted)[24:]) == {0}
    whole = page(special=struct.pack("<IHH", 1, 0, 0x01), lower=24)
    assert changed(whole, masked(PageKind.GIN, whole)) == HINTS
    ordinary = page(special=struct.pack("<IHH", 1, 0, 0x02), lower=100)
    assert changed(ordinary, masked(PageKind.GIN, ordinary)) == HINTS | hole(100, 4000)


def test_gist() -> None:
    leaf = page([(5000, 3, 16)], special=struct.pack("<IIIHH", 8, 9, 5, 0x01 | 0x10, 0xFF81))
    after = masked(PageKind.GIST, leaf)
    assert struct.unpack_from("<I", after, 24) == (5000 | 16 << 17,)
    one = struct.unpack_from("<IIIHH", after, PAGE - 16)
    followed = page([(5000, 3, 16)], special=struct.pack("<IIIHH", 0, 1, 5, 0x09, 0xFF81))
    assert struct.unpack_from("<IIIHH", masked(PageKind.GIST, followed), PAGE - 16) == one
    assert one[:3] == (0, 0, 5)


@pytest.mark.parametrize(
    ("page_type", "lower", "has_hole"),
    [(0xF093, 24, True), (0xF091, 60, True), (0xF091, 24, False), (0xF092, 60, False)],
)
def test_brin(page_type: int, lower: int, has_hole: bool) -> None:
    data = page(special=struct.pack("<HHHH", 0, 0, 1, page_type), lower=lower)
    after = masked(PageKind.BRIN, data)
    expected = HINTS | {PAGE - 4} | (hole(lower, 4000) if has_hole else set())
    assert changed(data, after) == expected


def test_sequences_generic_pages_and_maps() -> None:
    data = page(lower=100)
    assert changed(data, masked(PageKind.SEQUENCE, data)) == HEADER | hole(100, 4000)
    assert changed(data, masked(PageKind.GENERIC, data)) == HEADER | hole(100, 4000)
    assert changed(data, masked(PageKind.MAP, data)) == HINTS


@pytest.mark.parametrize("kind", list(PageKind))
def test_a_new_page_stays_as_it_is(kind: PageKind) -> None:
    assert masked(kind, bytes(PAGE)) == bytes(PAGE)


@pytest.mark.parametrize("kind", list(PageKind))
@settings(max_examples=40)
@given(noise=st.binary(min_size=64, max_size=64), header=st.binary(min_size=24, max_size=24))
def test_garbage_is_masked_without_harm(kind: PageKind, noise: bytes, header: bytes) -> None:
    data = header + noise * ((PAGE - 24) // 64) + noise[: (PAGE - 24) % 64]
    once = masked(kind, data)
    assert len(once) == PAGE
    assert masked(kind, once) == once


@pytest.mark.parametrize("kind", list(PageKind))
def test_many_pages_are_masked_as_one_by_one(kind: PageKind) -> None:
    rng = np.random.default_rng(7)
    pages = rng.integers(0, 256, (20, PAGE), np.uint8)
    for i in range(20):
        special = bytes(rng.integers(0, 4, 16, np.uint8))
        pointers = [(5000 + 40 * n, n % 4, 37) for n in range(int(rng.integers(0, 30)))]
        pages[i, :4100] = np.frombuffer(page(pointers, special=special), np.uint8)[:4100]
        pages[i, -16:] = np.frombuffer(special, np.uint8)
    blocks = np.arange(100, 120)
    before = pages.copy()
    together = mask_pages(pages, kind, blocks)
    assert (pages == before).all()
    for i in range(20):
        assert together[i].tobytes() == mask_page(pages[i].tobytes(), kind, int(blocks[i]))
