"""The page files of pg_xact, pg_multixact and pg_commit_ts.

Each is a sparse run of 8192-byte pages in files of 32 pages, named by their number in at
least four hexadecimal digits. Source: ``access/slru.h``, ``clog.c``, ``multixact.c``,
``commit_ts.c``. The numbers of kinds are those of the keyspace and of pagestore.v1.
"""

from __future__ import annotations

import re
from typing import Final

from pagestore.pgformat.layout import PAGE_SIZE

PAGES_PER_SEGMENT: Final = 32
SEGMENT_BYTES: Final = PAGES_PER_SEGMENT * PAGE_SIZE

XACT, MULTIXACT_OFFSETS, MULTIXACT_MEMBERS, COMMIT_TS = 1, 2, 3, 4

DIRECTORY: Final = {
    XACT: "pg_xact",
    MULTIXACT_OFFSETS: "pg_multixact/offsets",
    MULTIXACT_MEMBERS: "pg_multixact/members",
    COMMIT_TS: "pg_commit_ts",
}

XACTS_PER_PAGE: Final = PAGE_SIZE * 4
"""Two status bits a transaction."""
OFFSETS_PER_PAGE: Final = PAGE_SIZE // 4
MEMBERS_PER_PAGE: Final = PAGE_SIZE // 20 * 4
"""Groups of four flag bytes and four transaction ids, 20 bytes each."""
COMMIT_TS_PER_PAGE: Final = PAGE_SIZE // 10
"""A timestamp of 8 bytes and an origin of 2."""

PER_PAGE: Final = {
    XACT: XACTS_PER_PAGE,
    MULTIXACT_OFFSETS: OFFSETS_PER_PAGE,
    MULTIXACT_MEMBERS: MEMBERS_PER_PAGE,
    COMMIT_TS: COMMIT_TS_PER_PAGE,
}

_SEGMENT_NAME = re.compile(r"[0-9A-F]{4,6}")


def segment_name(segment: int) -> str:
    return f"{segment:04X}"


def segment_path(slru: int, segment: int) -> str:
    return f"{DIRECTORY[slru]}/{segment_name(segment)}"


def parse_segment_name(name: str) -> int | None:
    """None when a file of an SLRU directory is not a segment."""
    return int(name, 16) if _SEGMENT_NAME.fullmatch(name) else None


def page_of(slru: int, item: int) -> int:
    """The page that holds transaction, multixact or member ``item``."""
    return item // PER_PAGE[slru]


def page_position(slru: int, page: int) -> tuple[str, int]:
    """A page's file and its byte offset there."""
    return (
        segment_path(slru, page // PAGES_PER_SEGMENT),
        page % PAGES_PER_SEGMENT * PAGE_SIZE,
    )
