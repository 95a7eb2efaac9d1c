"""Where the shutdown checkpoint record starts that ends at an LSN."""

from __future__ import annotations

import pytest

from pagestore.pgformat import wal
from pagestore.postgres.checkpoint import end_of_checkpoint, start_of_checkpoint

SEGMENT = 5 * wal.SEGMENT_SIZE
FIRST_IN_SEGMENT = range(SEGMENT + wal.LONG_HEADER, SEGMENT + 400, 8)
FIRST_IN_PAGE = range(SEGMENT + wal.PAGE_SIZE + wal.SHORT_HEADER, SEGMENT + wal.PAGE_SIZE + 400, 8)
LAST_IN_PAGE = range(SEGMENT + wal.PAGE_SIZE - 400, SEGMENT + wal.PAGE_SIZE, 8)
LAST_IN_SEGMENT = range(SEGMENT - 400, SEGMENT, 8)


@pytest.mark.parametrize("where", [FIRST_IN_SEGMENT, FIRST_IN_PAGE, LAST_IN_PAGE, LAST_IN_SEGMENT])
def test_it_is_the_inverse_of_the_end(where: range) -> None:
    for start in where:
        assert start_of_checkpoint(end_of_checkpoint(start)) == start


def test_nothing_ends_within_a_page_header() -> None:
    with pytest.raises(ValueError, match="no record"):
        start_of_checkpoint(SEGMENT + 16)
