"""What a test costs that has a database of its own: a branch (`pagestore_db`), beside the ways that
there are with plain Postgres.

    .venv/bin/python -m bench.tests_on_branches [--megabytes N] [--tests N] [--rounds N]

Ways, in turns, each a pytest of its own whose tests connect, write a row and count:

- ``shared``: one branch for all, the cost of pytest, a session and its statements;
- ``branch``: `pagestore_db`;
- ``template``: CREATE DATABASE ... TEMPLATE and DROP DATABASE a test, as pytest-postgresql does
  (and by its own code where it is installed), on a server that does not sync, as it starts one;
- ``truncate``: one database of that server, whose table is truncated after each test.

All begin with the same N MB of rows. Printed are milliseconds a test, from the beginning of the
fourth to the end of the last one's teardown: whatever was put off until then is in it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pagestore.bench.plain import PlainCluster, plain_cluster
from pagestore.sdk.opening import connect, end_ephemeral, start_ephemeral

WAYS = ("shared", "branch", "template", "truncate")
WARM = 3
ROWS_A_MEGABYTE = 8800
FILLED = (
    "CREATE TABLE big AS SELECT n, md5(n::text) || md5(n::text) AS a "
    "FROM generate_series(1, {rows}) n",
    "CREATE TABLE small (n int PRIMARY KEY, words text)",
    "VACUUM ANALYZE",
    "CHECKPOINT",
)
TESTS = """
import os
import psycopg
import pytest

@pytest.mark.parametrize("number", range(int(os.environ["TESTS"])))
def test_it(url, number):
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("INSERT INTO small VALUES (%s, 'a row')", (number,))
        found = session.execute("SELECT count(*) FROM small").fetchone()[0]
        assert found == 1 or os.environ["WAY"] == "shared"
"""
CONFTEST = """
import json
import os
import time
from pathlib import Path

import psycopg
import pytest

WAY, PLAIN = os.environ["WAY"], os.environ["PLAIN"]
times = []

def pytest_runtest_logstart():
    times.append(time.perf_counter())

def pytest_runtest_logfinish():
    Path(os.environ["TIMES"]).write_text(json.dumps([*times, time.perf_counter()]))

@pytest.fixture(scope="session")
def pagestore_template():
    return "app"

if WAY == "shared":
    @pytest.fixture
    def url(pagestore_session_db):
        return pagestore_session_db.url

if WAY == "branch":
    @pytest.fixture
    def url(pagestore_db):
        return pagestore_db.url

if WAY == "truncate":
    @pytest.fixture
    def url():
        yield PLAIN + " dbname=app"
        with psycopg.connect(PLAIN + " dbname=app", autocommit=True) as session:
            session.execute("TRUNCATE small")

if WAY == "template" and os.environ["FIXTURE"]:
    from pytest_postgresql.janitor import DatabaseJanitor

    info = psycopg.conninfo.conninfo_to_dict(PLAIN)

    @pytest.fixture
    def url():
        where = {name: info[name] for name in ("host", "port", "user")}
        with DatabaseJanitor(**where, dbname="tested", template_dbname="app"):
            yield PLAIN + " dbname=tested"

if WAY == "template" and not os.environ["FIXTURE"]:
    @pytest.fixture
    def url():
        with psycopg.connect(PLAIN + " dbname=postgres", autocommit=True) as session:
            session.execute("CREATE DATABASE tested TEMPLATE app")
        yield PLAIN + " dbname=tested"
        with psycopg.connect(PLAIN + " dbname=postgres", autocommit=True) as session:
            session.execute("DROP DATABASE tested WITH (FORCE)")
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=10, help="That each test begins with.")
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--copies", type=int, help="Tests of the template way, which may be slow.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=[*WAYS], choices=WAYS)
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="pagestore-bench-tests-", dir="/var/tmp"))
    place.chmod(0o711)
    start_ephemeral(place / "store", os.getpid())
    try:
        with plain_cluster(place / "plain", fsync="off", max_wal_size="4GB") as plain:
            _fill(place / "store", plain, given.megabytes)
            took: dict[str, list[float]] = {way: [] for way in given.ways}
            for _ in range(given.rounds):
                for way in given.ways:
                    copies = given.copies if way == "template" else None
                    took[way].append(_run(place, plain, way, copies or given.tests))
                    sys.stderr.write(f"{way}: {took[way][-1]:.1f} ms\n")
    finally:
        end_ephemeral(place / "store")
        subprocess.run(["rm", "-rf", str(place)], check=True)
    typical = {way: round(statistics.median(found), 1) for way, found in took.items()}
    print(json.dumps({**vars(given), "fixture": bool(_fixture()), **typical, "all": took}))


def _fill(store: Path, plain: PlainCluster, megabytes: int) -> None:
    statements = [text.format(rows=megabytes * ROWS_A_MEGABYTE) for text in FILLED]
    plain.sql("CREATE DATABASE app")
    with connect(data=store, start=False) as client:
        made = client.create("app")
        for url in (made.url, f"{plain.conninfo} dbname=app"):
            for statement in statements:
                subprocess.run(["psql", url, "-qXc", statement], check=True)
        client.checkpoint("app", "prepared")


def _fixture() -> str:
    return "1" if importlib.util.find_spec("pytest_postgresql") is not None else ""


def _run(place: Path, plain: PlainCluster, way: str, tests: int) -> float:
    """Milliseconds a test."""
    (place / "conftest.py").write_text(CONFTEST)
    (place / "test_it.py").write_text(TESTS)
    told = {
        "WAY": way,
        "PLAIN": plain.conninfo.replace(" dbname=postgres", ""),
        "TESTS": str(tests),
        "TIMES": str(place / "times"),
        "FIXTURE": _fixture(),
        "PAGESTORE_DATA": str(place / "store"),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pagestore=local"]
    done = subprocess.run(
        [*command, "test_it.py"],
        cwd=place,
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    times = json.loads((place / "times").read_text())
    return float((times[-1] - times[WARM]) / (len(times) - 1 - WARM) * 1000)


if __name__ == "__main__":
    main()
