"""Attempts on real branches, and one of them becomes the database; its sessions go on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.installation import Whole, whole_pagestore

SCRIPT = """
import os, sys
import psycopg
number = int(os.environ["PAGESTORE_ATTEMPT"])
with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
    session.execute("INSERT INTO t SELECT generate_series(1, 10 * %s::int)", (number,))
    session.execute("CREATE TABLE made AS SELECT string_agg(md5(n::text), '') AS long FROM "
                    "generate_series(1, 2000) n")  # one row, some pieces, and catalogs
    print("rows:", session.execute("SELECT count(*) FROM t").fetchone()[0])
sys.exit(number == 1)
"""


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as made:
        made.json("create", "app")
        made.sql("app", "CREATE TABLE t AS SELECT 0 AS n")
        made.json("branch", "app", "other")
        yield made


def test_attempts_are_compared_and_one_is_promoted(whole: Whole, tmp_path: Path) -> None:
    script = tmp_path / "attempt.py"
    script.write_text(SCRIPT)
    logs = tmp_path / "logs"
    command = ("--logs", str(logs), "--json", "--", sys.executable, str(script))
    told = whole.json("try", "app", "3", *command)
    found = [(item["name"], item["succeeded"], item["rows_changed"]) for item in told["attempts"]]
    assert found == [("try-1", False, 11), ("try-2", True, 21), ("try-3", True, 31)]
    assert told["attempts"][1]["log"] == str(logs / "try-2.log")
    assert (logs / "try-2.log").read_text() == "rows: 21\n"
    assert whole.sql("app", "SELECT count(*) FROM t") == [(1,)], "it knows of none of them"
    with whole.connect("app") as session:
        session.execute("SET application_name = 'stays'")
        whole.sql("app", "INSERT INTO t VALUES (-1)")
        would = whole.json("promote", "app", "try-2", "--dry-run")
        assert would["removed"] == ["try-1", "try-2", "try-3"]
        moved = whole.json("promote", "app", "try-2")
        assert (moved["changed"], moved["removed"]) == (True, ["try-1", "try-2", "try-3"])
        assert session.execute("SELECT count(*) FROM t").fetchone() == (21,)
        assert session.execute("SHOW application_name").fetchone() == ("stays",)
    names = {item["name"] for item in whole.json("ls")["databases"]}
    assert names == {"app", "other"}
    whole.json("undo", "app")
    assert whole.sql("app", "SELECT min(n), count(*) FROM t") == [(-1, 2)]


def test_only_attempts_go_with_the_one_that_was_chosen(whole: Whole) -> None:
    moved = whole.json("promote", "app", "other")
    assert (moved["changed"], moved["removed"]) == (True, [])
    assert whole.json("show", "other")["name"] == "other"


def test_the_database_never_goes_with_the_attempts(whole: Whole, tmp_path: Path) -> None:
    options = ("--as", "kept", "--logs", str(tmp_path))
    whole.run("try", "app", "2", *options, "--", "true")
    assert whole.error("promote", "kept-1", "kept-1")["reason"] == "SAME_DATABASE"
    assert whole.json("promote", "kept-1", "kept-2")["removed"] == ["kept-2"]
    whole.json("rm", "kept-1")


def test_where_none_succeeds_the_branches_stay(whole: Whole, tmp_path: Path) -> None:
    options = ("--as", "bad", "--ttl", "1h", "--logs", str(tmp_path))
    done = whole.run("try", "app", "2", *options, "--", "false", check=False)
    assert done.returncode == 1
    assert "none succeeded" in done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(row[0], row[1]) for row in rows] == [("bad-1", "failed (1)"), ("bad-2", "failed (1)")]
    there = {item["name"]: item for item in whole.json("ls")["databases"]}
    assert there["bad-1"]["expires_at"] is not None


def test_what_cannot_be_tried_says_so(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(whole.environment, "TMPDIR", str(tmp_path))
    assert whole.error("try", "app", "2")["reason"] == "INVALID_ATTEMPTS"
    assert whole.error("try", "nobody", "1", "--", "true")["reason"] == "DATABASE_NOT_FOUND"
    assert whole.error("promote", "app", "nobody")["reason"] == "DATABASE_NOT_FOUND"
    whole.json("create", "stranger")
    assert whole.error("promote", "app", "stranger")["reason"] == "NOTHING_IN_COMMON"
    missing = whole.run("try", "app", "1", "--json", "--", "/no/such/program", check=False)
    assert json.loads(missing.stderr or missing.stdout)["error"]["reason"] == "NO_SUCH_COMMAND"
    names = [item["name"] for item in whole.json("ls")["databases"]]
    assert not [name for name in names if name.startswith("try-")]
    assert [*tmp_path.iterdir()] == [], "no directory for logs is left where nothing was tried"
