"""The examples, run as they stand."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from pagestore.postgres.listening import free_ports
from tests.integration.installation import Whole, sql, whole_pagestore
from tests.waiting import wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = str(Path(sys.executable).parent)


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"did NOT run: needs {package}")


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as made:
        made.environment["PATH"] = f"{PROGRAMS}:{os.environ['PATH']}"
        made.environment["PYTHONDONTWRITEBYTECODE"] = "1"
        yield made


def run(whole: Whole, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env=whole.environment, capture_output=True, text=True, timeout=200, cwd=EXAMPLES
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done


@needs("alembic")
def test_a_migration_goes_wrong_and_is_undone(whole: Whole) -> None:
    whole.run("create", "shop")
    done = run(whole, "sh", "migration/run.sh")
    sums = [line.strip() for line in done.stdout.splitlines() if line.strip().isdigit()]
    assert sums == ["0", "5050"]
    assert done.stdout.splitlines()[-1].startswith("orders")
    assert "note: migration=totals" in done.stderr
    assert len(whole.sql("shop", "SELECT paid FROM orders")) == 100


def test_of_three_attempts_the_right_one_becomes_the_database(whole: Whole) -> None:
    url = whole.json("create", "task")["url"]
    sql(url, "CREATE TABLE orders (id int, customer int, state text)")
    sql(url, "INSERT INTO orders SELECT n, n % 5, 'open' FROM generate_series(1, 50) n")
    done = run(whole, sys.executable, "agent/loop.py", "task")
    said = done.stdout.splitlines()
    assert said[0].startswith("attempt 1: customers")
    assert 'column "closed"' in said[1]
    assert said[2:] == ["attempt 3: right", "task-attempt-3"]
    counted = sql(url, "SELECT count(*) FROM orders WHERE state = 'open'")
    assert counted == [(5,)]
    names = {item["name"] for item in whole.json("ls")["databases"]}
    assert not {name for name in names if "attempt" in name}
    assert whole.run("undo", "task").returncode == 0
    assert sql(url, "SELECT count(*) FROM orders WHERE state = 'open'") == [(50,)]


@needs("fastapi")
@needs("uvicorn")
def test_an_application_s_database_sleeps_and_wakes(whole: Whole) -> None:
    url = whole.json("create", "web")["url"]
    whole.run("idle", "web", "1s")
    [port] = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "--app-dir", "web", "app:app", "--port", str(port)]
    environment = {**whole.environment, "DATABASE_URL": url}
    with subprocess.Popen(
        command, env=environment, cwd=EXAMPLES, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until(lambda: _answers(port), seconds=60)
            before = _visits(port)
            wait_until(lambda: whole.json("show", "web")["compute"] == "stopped", seconds=60)
            assert _visits(port) == before + 1
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    try:
        return _visits(port) > 0
    except OSError:
        return False


def _visits(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/visits", timeout=60) as answer:
        found: int = json.load(answer)["visits"]
        return found


def test_a_suite_has_a_database_for_each_test(whole: Whole) -> None:
    done = run(whole, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "suite")
    assert "3 passed" in done.stdout


def suite(whole: Whole, directory: str) -> str:
    """What pytest says of a suite, whose databases are this installation's."""
    options = ("-q", "-p", "no:cacheprovider", "--pagestore=local")
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(
        command,
        env=whole.environment,
        capture_output=True,
        text=True,
        timeout=200,
        cwd=EXAMPLES / directory,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_sqlalchemy_s_sessions_may_commit(whole: Whole) -> None:
    assert "2 passed" in suite(whole, "sqlalchemy")


@needs("django")
@needs("pytest_django")
def test_django_s_tests_run_in_transactions_or_on_branches(whole: Whole) -> None:
    assert "4 passed" in suite(whole, "django")
