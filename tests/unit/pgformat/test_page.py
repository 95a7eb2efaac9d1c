from __future__ import annotations

import random

import numpy as np

from pagestore.pgformat import page


def reference(data: bytes, block: int) -> int:
    """pg_checksum_page, step by step."""
    words = np.frombuffer(data[:8] + b"\0\0" + data[10:], "<u4").reshape(64, 32).tolist()
    sums = [int(base) for base in page._BASES]
    for row in [*words, [0] * 32, [0] * 32]:
        for lane in range(32):
            mixed = sums[lane] ^ row[lane]
            sums[lane] = (mixed * 16777619 & 0xFFFFFFFF) ^ (mixed >> 17)
    folded = block
    for value in sums:
        folded ^= value
    return folded % 65535 + 1


def test_checksums_equal_the_reference() -> None:
    pages = [random.Random(seed).randbytes(8192) for seed in range(6)]
    blocks = np.array([0, 1, 7, 131072, 2**31, 2**32 - 2])
    found = page.checksums(page.as_pages(b"".join(pages)), blocks)
    assert found.tolist() == [
        reference(data, int(block)) for data, block in zip(pages, blocks, strict=True)
    ]


def test_a_flipped_bit_is_found_and_the_block_named() -> None:
    pages = page.with_checksums([random.Random(1).randbytes(8192) for _ in range(4)], range(4))
    data = bytearray(b"".join(pages))
    assert page.bad_checksums(page.as_pages(data), 0) == []
    assert page.bad_checksums(page.as_pages(data), 1) == [1, 2, 3, 4]
    data[2 * 8192 + 5000] ^= 1
    assert page.bad_checksums(page.as_pages(data), 0) == [2]


def test_a_new_page_must_be_all_zeros() -> None:
    zeros, garbage = bytes(8192), bytes(8191) + b"\1"
    assert page.with_checksums([zeros], [3]) == [zeros]
    assert page.bad_checksums(page.as_pages(zeros + garbage), 5) == [6]
