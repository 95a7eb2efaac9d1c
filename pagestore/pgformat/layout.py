"""Constants of Postgres, in every major, as the distribution builds it on x86-64.

What differs between majors stands in :mod:`pagestore.pgformat.versions`.

A control file that disagrees with one of the layout constants belongs to another build:
:func:`pagestore.pgformat.pg_control.PgControl.check_layout` refuses it.
"""

from __future__ import annotations

from typing import Final

PAGE_SIZE: Final = 8192
SEGMENT_BLOCKS: Final = 131072
"""Blocks in one file of a relation: 1 GiB."""
SEGMENT_BYTES: Final = SEGMENT_BLOCKS * PAGE_SIZE

WAL_PAGE_SIZE: Final = 8192
WAL_SEGMENT_SIZE: Final = 16 << 20

MAX_ALIGN: Final = 8
FLOAT_FORMAT: Final = 1234567.0
NAME_LENGTH: Final = 64
INDEX_MAX_KEYS: Final = 32
TOAST_MAX_CHUNK: Final = 1996
LARGE_OBJECT_BLOCK: Final = 2048

DEFAULT_TABLESPACE: Final = 1663
GLOBAL_TABLESPACE: Final = 1664

FIRST_UNLOGGED_LSN: Final = 1000
"""Where the counter behind LSNs of unlogged pages starts."""
