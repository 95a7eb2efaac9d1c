"""Page truth: each workload, with and without checksums and full-page writes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from pagestore.ids import format_lsn
from tests.truth.history import differences, history
from tests.truth.workloads import BY_NAME

Case = tuple[str, tuple[str, ...], dict[str, object]]
"""A workload, options of initdb, settings."""

PLAIN: dict[str, object] = {}
FULL_PAGES: dict[str, object] = {"full_page_writes": "on"}
COMPRESSED: dict[str, object] = {**FULL_PAGES, "wal_compression": "lz4"}
CONSISTENCY: dict[str, object] = {"wal_consistency_checking": "all"}
CHECKSUMS = ("--data-checksums",)

SMALL: list[Case] = [
    ("pgbench", CHECKSUMS, COMPRESSED),
    ("copy", (), PLAIN),
    ("indexed_updates", CHECKSUMS, PLAIN),
    ("transactions", (), PLAIN),
    ("space", CHECKSUMS, PLAIN),
    ("databases", (), FULL_PAGES),
]
FULL: list[Case] = [
    (name, checksums, settings)
    for name in BY_NAME
    for checksums in ((), CHECKSUMS)
    for settings in (PLAIN, FULL_PAGES, COMPRESSED, CONSISTENCY)
    if (name, checksums, settings) not in SMALL
]
SEED = int(os.environ.get("PAGESTORE_TRUTH_SEED") or random.SystemRandom().randrange(1 << 32))


def _name(case: Case) -> str:
    name, checksums, settings = case
    return "-".join([name, *(["checksums"] if checksums else []), *settings])


def _check(directory: Path, case: Case, lsns: int, branches: int) -> None:
    name, options, settings = case
    checks = {"check_wal_images": "wal_consistency_checking" in settings}
    with history(directory, BY_NAME[name], *options, page_server=checks, **settings) as made:
        for lsn in made.draw(lsns, SEED):
            if lsn == made.end:
                made.kill_page_server()
            found = differences(made, lsn, branches=branches)
            where = f"at {format_lsn(lsn)}, PAGESTORE_TRUTH_SEED={SEED}"
            assert not found, "\n".join([where, *found[:40]])


@pytest.mark.parametrize("case", SMALL, ids=_name)
def test_every_page_is_what_plain_postgres_makes_of_the_wal(tmp_path: Path, case: Case) -> None:
    _check(tmp_path, case, 1, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", FULL, ids=_name)
def test_every_page_whatever_the_settings(tmp_path: Path, case: Case) -> None:
    _check(tmp_path, case, 5, 2)
