"""pytest with a database a test: whole runs of pytest, each with a store of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.installation import Whole, whole_pagestore

CONFTEST = """
import psycopg, pytest

@pytest.fixture(scope="session")
def pagestore_prepare():
    def migrate(url):
        with psycopg.connect(url, autocommit=True) as session:
            session.execute("CREATE TABLE t AS SELECT 1 AS a")
            session.execute("CREATE TABLE prepared AS SELECT pg_backend_pid() AS pid")
    return migrate

@pytest.fixture
def rows(pagestore_db):
    with pagestore_db.psycopg(autocommit=True) as session:
        yield lambda sql: [row[0] for row in session.execute(sql).fetchall()]
"""
APART = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_each_has_its_own(rows, number):
    assert rows("INSERT INTO t VALUES (2) RETURNING (SELECT count(*) FROM t)") == [1]

def test_it_was_prepared_once(rows):
    assert rows("SELECT count(*) FROM prepared") == [1]

def test_a_module_shares(pagestore_module_db, pagestore_session_db):
    assert pagestore_module_db.name != pagestore_session_db.name
"""
FAILING = """
def test_good(rows):
    assert rows("SELECT a FROM t") == [1]

def test_bad(rows):
    rows("INSERT INTO t VALUES (7) RETURNING a")
    assert rows("SELECT count(*) FROM t") == [1]
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Where computes of other users reach theirs."""
    with tempfile.TemporaryDirectory(prefix="ps-plugin-", dir="/tmp") as place:
        Path(place).chmod(0o711)
        (Path(place) / "conftest.py").write_text(CONFTEST)
        yield Path(place)


def run(place: Path, tests: str, *options: str, **environment: str) -> tuple[dict[str, int], str]:
    """Outcomes and their numbers, and all that was said."""
    (place / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        [*command, "test_it.py"],
        cwd=place,
        env={**_environment(), "TMPDIR": str(place), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"(\d+) (passed|failed|error)", done.stdout.splitlines()[-1])
    return {outcome: int(number) for number, outcome in found}, done.stdout + done.stderr


def _environment() -> dict[str, str]:
    # What says to pytest-xdist that it is a worker of this run.
    return {name: value for name, value in os.environ.items() if "PYTEST" not in name}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_each_test_has_a_branch_of_what_was_prepared_once(place: Path, workers: str) -> None:
    outcomes, said = run(place, APART, "-n", workers)
    assert outcomes == {"passed": 6}, said
    assert [path for path in place.iterdir() if path.name.startswith("pagestore")] == []


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        yield running


@pytest.mark.parametrize("workers", ["0", "2"])
def test_of_a_test_that_failed_the_database_stays_and_is_told(
    whole: Whole, place: Path, workers: str
) -> None:
    before = {row["name"] for row in whole.json("ls")["databases"]}
    outcomes, said = run(
        place,
        FAILING,
        *("--pagestore-keep=failed", "-n", workers),
        PAGESTORE_DATA=str(whole.data),
    )
    assert outcomes == {"passed": 1, "failed": 1}, said
    [url] = re.findall(r"test_it.py::test_bad: (postgresql://\S+)", said)
    with psycopg.connect(url) as session:
        assert session.execute("SELECT a FROM t ORDER BY a").fetchall() == [(1,), (7,)]
    left = {row["name"] for row in whole.json("ls")["databases"]} - before
    assert len(left) == 2, "the template, for a day, and the one that was kept"
    whole.run("rm", *left)


def test_nothing_can_be_kept_in_a_store_that_is_gone(place: Path) -> None:
    outcomes, said = run(place, FAILING, "--pagestore=ephemeral", "--pagestore-keep=all")
    assert outcomes == {"error": 2}, said
    assert "--pagestore-keep keeps nothing" in said
