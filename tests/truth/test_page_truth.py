"""Page truth: each workload, with and without checksums, full-page writes, images to check."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from pagestore.ids import format_lsn
from tests.truth.answers import check_answers
from tests.truth.history import History, history
from tests.truth.workloads import BY_NAME

Case = tuple[str, tuple[str, ...], dict[str, object]]
"""A workload, options of initdb, settings."""
Record = Callable[[str, object], None]

PLAIN: dict[str, object] = {}
FULL_PAGES: dict[str, object] = {"full_page_writes": "on"}
COMPRESSED: dict[str, object] = {**FULL_PAGES, "wal_compression": "lz4"}
CONSISTENCY: dict[str, object] = {"wal_consistency_checking": "all"}
BOTH: dict[str, object] = {**CONSISTENCY, **FULL_PAGES, "wal_compression": "pglz"}
CHECKSUMS = ("--data-checksums",)

SMALL: list[Case] = [
    ("pgbench", CHECKSUMS, COMPRESSED),
    ("copy", (), PLAIN),
    ("indexed_updates", CHECKSUMS, PLAIN),
    ("transactions", (), PLAIN),
    ("space", CHECKSUMS, PLAIN),
    ("databases", (), FULL_PAGES),
    ("moved_databases", CHECKSUMS, PLAIN),
]


def _with_images_of(settings: dict[str, object], managers: str) -> dict[str, object]:
    return {k: managers if k == "wal_consistency_checking" else v for k, v in settings.items()}


FULL: list[Case] = [
    (name, checksums, _with_images_of(settings, BY_NAME[name].images))
    for name in BY_NAME
    for checksums, some in (
        ((), (PLAIN, FULL_PAGES, CONSISTENCY)),
        (CHECKSUMS, (PLAIN, COMPRESSED, BOTH)),
    )
    for settings in some
    if BY_NAME[name].images or "wal_consistency_checking" not in settings
]
SEED = int(os.environ.get("PAGESTORE_TRUTH_SEED") or random.SystemRandom().randrange(1 << 32))


def _name(case: Case) -> str:
    name, checksums, settings = case
    return "-".join([name, *(["checksums"] if checksums else []), *settings])


def _check(case: Case, lsns: int, branches: int, record: Record) -> None:
    name, options, settings = case
    checks = {"check_wal_images": "wal_consistency_checking" in settings}
    with history(BY_NAME[name], *options, page_server=checks, **settings) as made:
        drawn = made.draw(lsns, SEED)
        middle = drawn[len(drawn) // 2]
        blocks = indexes = 0
        for lsn in drawn:
            if lsn == made.end:
                made.kill_page_server()
            # The longest line of branches at the end only, so that more settings have their turn.
            asked = lsn == made.end or (lsn == middle and branches > 1)
            counted = _check_at(made, lsn, branches if lsn == made.end else 1, asked)
            blocks, indexes = blocks + counted[0], indexes + counted[1]
    counts = {"lsns": len(drawn), "pages": blocks, "wal": len(made.wal), "indexes": indexes}
    for what, count in counts.items():
        record(what, count)


def _check_at(made: History, lsn: int, branches: int, asked: bool) -> tuple[int, int]:
    """How many pages were compared, and how many indexes checked."""
    with made.replayed(lsn) as data:
        compared = made.compare(data, lsn, branches=branches)
        where = f"at {format_lsn(lsn)}, PAGESTORE_TRUTH_SEED={SEED}"
        assert not compared.differences, "\n".join([where, *compared.differences[:40]])
        return compared.blocks, check_answers(made, lsn, data) if asked else 0


@pytest.mark.parametrize("case", SMALL, ids=_name)
def test_every_page_is_what_plain_postgres_makes_of_the_wal(
    case: Case, record_property: Record
) -> None:
    _check(case, 1, 1, record_property)


@pytest.mark.slow
@pytest.mark.timeout(2400)  # an image in each record of rare_records: 1.6 GB of WAL
@pytest.mark.parametrize("case", FULL, ids=_name)
def test_every_page_whatever_the_settings(case: Case, record_property: Record) -> None:
    # Where each record's image is compared, fewer places do.
    _check(case, *((1, 1) if "wal_consistency_checking" in case[2] else (2, 2)), record_property)
