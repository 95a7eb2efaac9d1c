"""The command line on a whole, running pagestore with real Postgres."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.client.urls import without_password
from tests.integration.installation import Whole, sql, whole_pagestore
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    environment = {"PAGESTORE_LEAST_HISTORY_SECONDS": "1"}
    with whole_pagestore(environment=environment) as running, running.control() as control:
        control.create("refused")
        yield running


def test_create_answers_the_url_alone(whole: Whole) -> None:
    url = whole.run("create", "app").stdout.strip()
    assert sql(url, "SELECT current_database(), current_user") == [("app", "postgres")]
    assert whole.run("url", "app").stdout.strip() == url
    assert whole.run("create", "app", "--if-not-exists").stdout.strip() == url
    again = whole.run("create", "app", "--json", check=False)
    assert again.returncode == 4
    assert json.loads(again.stderr)["error"]["reason"] == "DATABASE_EXISTS"


def test_a_password_is_told_to_who_asks_for_it_and_lies_nowhere(whole: Whole) -> None:
    url = whole.json("create", "sealed")["url"]
    (secret,) = without_password(url)[1].values()
    whole.run("checkpoint", "sealed", "c")
    assert whole.json("branch", "sealed", "sealed-2")["url"].count(secret) == 1
    for verb in (
        ("ls",), ("show", "sealed"), ("start", "sealed"), ("log", "sealed"), ("status",),
        ("restore", "sealed", "c"), ("rename", "sealed-2", "sealed-3"), ("stop", "sealed-3"),
    ):  # fmt: skip
        assert secret not in whole.run(*verb, "--json").stdout, verb
    assert whole.run("password", "sealed").stdout.strip() == secret
    assert whole.json("url", "sealed")["url"] == url
    for file in whole.installation.data.rglob("*"):
        # One of a compute's is closed to its owner: nobody shall copy the directory.
        if file.is_file() and not file.is_symlink() and os.access(file, os.R_OK):
            assert secret.encode() not in file.read_bytes(), file


def test_psql_is_psql(whole: Whole) -> None:
    whole.run("create", "typed")
    assert whole.run("psql", "typed", "--", "-Atc", "SELECT 6 * 7").stdout == "42\n"
    whole.run("stop", "typed")
    assert whole.run("psql", "typed", "--", "-Atc", "SELECT 6 * 7").stdout == "42\n"


def test_history_that_is_older_than_its_time_goes_and_checkpoints_stay(whole: Whole) -> None:
    whole.run("create", "short")
    whole.sql("short", "CREATE TABLE t AS SELECT 1 AS n")
    old = whole.json("show", "short")["lsn"]
    whole.sql("short", "UPDATE t SET n = 2")
    made = whole.json("checkpoint", "short", "two", "--keep", "30d")
    assert made["expires_at"] > made["created_at"]
    whole.sql("short", "UPDATE t SET n = 3")
    whole.run("stop", "short")
    assert "7d; all from" in whole.run("retention", "short").stdout
    said = whole.json("retention", "short", "0", "--bytes", "10G")
    assert (said["retention_seconds"], said["retention_bytes"]) == (0, 10 << 30)
    said = whole.json("retention", "short", "14d")
    assert (said["retention_seconds"], said["retention_bytes"]) == (14 * 86_400, 10 << 30)
    said = whole.json("retention", "short", "--bytes", "6G")
    assert (said["retention_seconds"], said["retention_bytes"]) == (14 * 86_400, 6 << 30)
    said = whole.json("retention", "short", "0", "--bytes", "10G")
    before = said["kept_from"]
    deadline = time.monotonic() + 60
    while (shown := whole.json("show", "short"))["kept_from"] == before:
        assert time.monotonic() < deadline
        time.sleep(1)
    assert shown["logical_bytes"] > shown["own_bytes"] > 0
    assert shown["shared_bytes"] > 0
    told = [line.split()[0] for line in whole.run("show", "short").stdout.splitlines()]
    assert "created_at" in told
    assert "created" not in told
    for point in (old, str(made["created_at"])):
        refused = whole.error("branch", "short", "late", "--at", point)
        assert refused["reason"] == "POINT_TOO_OLD", point
        assert "is kept from" in refused["message"]
    whole.run("branch", "short", "two", "--at", "two")
    assert whole.sql("two", "SELECT n FROM t") == [(2,)]
    assert whole.sql("short", "SELECT n FROM t") == [(3,)]
    assert whole.json("retention", "short", "default")["retention_is_own"] is False
    assert whole.error("retention", "short", "soon")["reason"] == "INVALID_RETENTION"


def test_what_restores_leave_and_branches_read_of_the_deleted_is_in_the_sizes(whole: Whole) -> None:
    def sizes() -> tuple[int, int]:
        said = whole.json("ls", "--sizes")
        return said["left_bytes"], said["deleted_bytes"]

    whole.run("create", "gone")
    whole.run("checkpoint", "gone", "empty")
    whole.sql("gone", "CREATE TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 9999)")
    whole.run("branch", "gone", "reads")
    before = sizes()
    whole.run("restore", "gone", "empty")
    left = sizes()
    assert left[0] > before[0]
    assert left[1] == before[1]
    whole.run("rm", "gone")
    deleted = sizes()
    assert deleted[1] > left[1]
    assert "(deleted, branches read it)" in whole.run("ls", "--sizes").stdout
    assert whole.json("status")["store_bytes"] > deleted[1]
    whole.run("rm", "reads")
    deadline = time.monotonic() + 60
    while sizes()[1] != before[1]:
        assert time.monotonic() < deadline
        time.sleep(1)


def test_a_detached_branch_needs_nothing_of_its_parent(whole: Whole) -> None:
    whole.run("create", "origin")
    whole.sql(
        "origin",
        "CREATE TABLE t AS SELECT n, repeat('x', 100) AS x FROM generate_series(1, 9999) n",
    )
    whole.run("branch", "origin", "alone")
    whole.sql("alone", "UPDATE t SET n = 0 WHERE n = 1")
    shared = whole.json("show", "alone")
    done = whole.json("detach", "alone")
    assert (done["changed"], done["parent"]) == (True, None)
    assert whole.json("detach", "alone")["changed"] is False
    after = whole.json("show", "alone")
    assert (after["shared_bytes"], after["logical_bytes"]) == (0, shared["logical_bytes"])
    assert after["own_bytes"] > shared["own_bytes"]
    rows = {row["name"]: row for row in whole.json("ls", "--sizes")["databases"]}
    assert rows["alone"]["own_bytes"] == after["own_bytes"]
    assert "history" not in whole.run("ls", "--sizes").stdout, "no head where nobody looks"
    whole.run("rm", "origin")
    total = "SELECT sum(n), count(x) FROM t"
    assert whole.sql("alone", total) == [(9999 * 10000 // 2 - 1, 9999)]
    whole.run("stop", "alone")
    whole.sql("alone", "UPDATE t SET n = 0 WHERE n = 2")
    assert whole.sql("alone", total) == [(9999 * 10000 // 2 - 3, 9999)]
    assert whole.error("reset", "alone")["reason"] == "NO_PARENT"


def test_break_and_undo(whole: Whole) -> None:
    url = whole.json("create", "shop")["url"]
    sql(url, "CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 1000) g")
    made = whole.json("checkpoint", "shop", "before-migration")
    assert whole.json("checkpoint", "shop", "before-migration")["lsn"] == made["lsn"]
    sql(url, "DROP TABLE orders")
    undone = whole.json("undo", "shop")
    assert undone["url"] == without_password(url)[0]
    assert undone["kept"]["automatic"]
    assert sql(url, "SELECT count(*) FROM orders") == [(1000,)]
    again = whole.json("undo", "shop")
    assert (again["changed"], again["kept"], again["to"]) == (False, None, None)
    assert sql(url, "SELECT count(*) FROM orders") == [(1000,)]
    assert whole.json("redo", "shop")["changed"]
    assert sql(url, "SELECT to_regclass('orders')") == [(None,)]
    dry = whole.json("restore", "shop", "before-migration", "--dry-run")
    assert (dry["changed"], dry["to"]["lsn"]) == (False, made["lsn"])
    whole.run("restore", "shop", "--to", "before-migration")
    assert sql(url, "SELECT count(*) FROM orders") == [(1000,)]
    log = whole.json("log", "shop")["entries"]
    verbs = [entry["verb"] for entry in log if entry["type"] == "event"]
    assert verbs == ["restore", "redo", "undo", "create"]
    assert {entry["checkpoint"] for entry in log if entry["type"] == "checkpoint"} == {
        "before-migration",
        "before-undo-1",
        "before-redo-1",
        "before-restore-1",
    }
    assert whole.json("checkpoint", "shop", "before-redo-1", "--delete")["deleted"]


def test_what_log_prints_can_be_pasted(whole: Whole) -> None:
    url = whole.json("create", "pasted")["url"]
    sql(url, "CREATE TABLE t AS SELECT 1 AS a")
    whole.run("checkpoint", "pasted", "one")
    sql(url, "UPDATE t SET a = 2")
    printed = whole.run("log", "pasted").stdout.splitlines()[0].split("\t")
    assert printed[1] == "checkpoint one"
    whole.run("restore", "pasted", "--at", printed[0])
    assert sql(url, "SELECT a FROM t") == [(1,)]


def test_a_checkpoint_records_a_commit(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    whole.run("create", "tracked")
    monkeypatch.chdir(tmp_path)
    made = whole.json("checkpoint", "tracked", "first", "--git", "HEAD")
    assert made["git_commit"] == head
    assert head[:12] in whole.run("log", "tracked").stdout


def test_a_restore_says_what_else_has_to_go_back_with_it(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "code").write_text("one")
    subprocess.run([*git, "add", "code"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    (tmp_path / "code").write_text("two")
    (tmp_path / "new").write_text("new")
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    sql(whole.json("create", "compound")["url"], "CREATE TABLE t AS SELECT 1 AS a")
    monkeypatch.chdir(tmp_path)
    asked = ("--git", "HEAD", "--run", "r7", "--note", "seed=4", "--note", "model=x=y")
    made = whole.json("checkpoint", "compound", "then", *asked)
    again = whole.json("checkpoint", "compound", "then", *asked)
    del made["elapsed_ms"], again["elapsed_ms"]
    assert made == again, "the same files are the same patch"
    assert (made["git_commit"], made["run_id"]) == (head, "r7")
    assert made["notes"] == {"seed": "4", "model": "x=y"}
    patch = made["dirty_patch"]
    shown = subprocess.check_output([*git, "show", "--name-only", "--format=%P", patch], text=True)
    assert shown.split() == [head, "code", "new"]
    status = subprocess.check_output([*git, "status", "--porcelain"], text=True)
    assert status == " M code\n?? new\n", "nothing of the user's is touched"
    assert f"{head[:12]}+\trun r7 model=x=y seed=4" in whole.run("log", "compound").stdout
    assert whole.json("show", "compound")["last_checkpoint"]["checkpoint"] == "then"
    told = whole.run("restore", "compound", "then", "--dry-run").stderr.splitlines()[1:]
    assert told == [
        f"the code of then: git switch --detach {head[:12]}",
        f"what was not committed: git cherry-pick --no-commit {patch}",
        "the run: r7",
        "note: model=x=y",
        "note: seed=4",
    ]
    done = whole.json("restore", "compound", "then", "--request-id", "a")
    assert done["went_to"]["dirty_patch"] == patch
    assert (
        whole.json("restore", "compound", "then", "--request-id", "a")["went_to"]["run_id"] == "r7"
    )


def test_a_restore_to_a_commit_that_the_repository_has_not_is_refused(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.run("create", "coded")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for name in ("one", "two"):
        subprocess.run(["git", "init", "-q", str(tmp_path / name)], check=True)
        monkeypatch.chdir(tmp_path / name)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", name], check=True)
    whole.run("checkpoint", "coded", "then", "--git", "HEAD")
    one = ("--repository", str(tmp_path / "one"))
    before = whole.json("show", "coded")["timeline_id"]
    assert whole.error("restore", "coded", "then", *one)["reason"] == "COMMIT_MISSING"
    assert whole.json("show", "coded")["timeline_id"] == before
    assert whole.json("restore", "coded", "then", "--repository", ".")["changed"]
    assert not whole.json("restore", "coded", "then", *one, "--any-commit")["changed"]


def test_what_is_recorded_with_a_checkpoint_has_bounds(whole: Whole) -> None:
    whole.run("create", "bounded")
    many = [text for number in range(33) for text in ("--note", f"{number}=x")]
    for wrong in (
        many,
        ["--note", "no sign"],
        ["--note", "=x"],
        ["--run", "x" * 129],
        ["--note", "k=\x1b[2J"],
    ):
        assert whole.error("checkpoint", "bounded", "c", *wrong)["reason"] == "INVALID_NOTE"


def test_ls_show_and_status(whole: Whole) -> None:
    whole.run("create", "listed")
    names = [row.split("\t")[0] for row in whole.run("ls").stdout.splitlines()]
    assert "listed" in names
    shown = whole.json("show", "listed")
    assert shown["compute"] == "running"
    assert len(shown["timeline_id"]) == 32
    status = whole.json("status")
    assert all(part["serving"] for part in status["parts"])
    assert status["databases"] == len(names)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["create", "a/b"], 2, "INVALID_NAME"),
        (["create", "x" * 70], 2, "INVALID_NAME"),
        (["url", "nobody"], 3, "DATABASE_NOT_FOUND"),
        (["branch", "nobody", "other"], 3, "DATABASE_NOT_FOUND"),
        (["branch", "refused", "other", "--at", "FF/0"], 3, "LSN_BEYOND_HEAD"),
        (["branch", "refused", "other", "--at", "0/1"], 3, "POINT_TOO_OLD"),
        (["branch", "refused", "other", "--at", "3650d ago"], 3, "POINT_TOO_OLD"),
        (["branch", "refused", "other", "--at", "no-such"], 3, "CHECKPOINT_NOT_FOUND"),
        (["branch", "refused", "other", "--at", ""], 2, "INVALID_POINT"),
        (["branch", "refused", "other", "--at", "2999-01-01 00:00"], 3, "TIME_IN_FUTURE"),
        (["restore", "refused", ""], 2, "INVALID_POINT"),
        (["undo", "refused", "--to", "no-such"], 3, "CHECKPOINT_NOT_FOUND"),
        (["reset", "refused"], 4, "NO_PARENT"),
        (["rename", "nobody", "other"], 3, "DATABASE_NOT_FOUND"),
        (["checkpoint", "refused", "no-such", "--delete"], 3, "CHECKPOINT_NOT_FOUND"),
        (["rm", "nobody"], 3, "DATABASE_NOT_FOUND"),
    ],
)
def test_errors_have_codes_and_reasons(
    whole: Whole, arguments: list[str], code: int, reason: str
) -> None:
    done = whole.run(*arguments, "--json", check=False)
    assert (done.returncode, json.loads(done.stderr)["error"]["reason"]) == (code, reason)
    assert json.loads(done.stderr)["error"]["hint"]


@pytest.mark.parametrize(
    "name", ['it\'s "quoted" & 100%', "数据库", "postgres", "pagestore", "a b?"]
)
def test_unusual_names_work_to_the_end(whole: Whole, name: str) -> None:
    url = whole.json("create", name)["url"]
    inner = "pagestore" if name == "postgres" else name
    assert sql(url, "SELECT current_database()") == [(inner,)]
    with whole.control() as control:
        assert control.get(name, reveal=True).url == url
        assert control.delete(name)


def test_import_and_export(whole: Whole, tmp_path: Path) -> None:
    url = whole.json("create", "source")["url"]
    sql(url, "CREATE TABLE t AS SELECT g, repeat('x', 500) AS pad FROM generate_series(1, 5000) g")
    whole.run("checkpoint", "source", "loaded")
    sql(url, "DROP TABLE t")
    target = tmp_path / "exported"
    whole.run("export", "source", str(target), "--at", "loaded")
    answer = whole.json("import", "copy", "--from-pgdata", str(target))
    assert sql(answer["url"], "SELECT count(*), sum(g) FROM t") == [(5000, 12_502_500)]
    assert answer["postgres_database"] == "source"


def test_another_installation_on_the_same_ports_is_refused_and_harms_nobody(
    whole: Whole, tmp_path: Path
) -> None:
    other = Whole(tmp_path)
    shutil.copy(whole.installation.config_file, other.installation.config_file)
    done = other.run("up", "--json", check=False)
    assert json.loads(done.stderr)["error"]["reason"] == "ADDRESS_IN_USE"
    assert "cannot listen on" in done.stderr
    assert other.run("ls", check=False).returncode == 5
    other.down()
    with whole.control() as control:
        assert sql(control.wake("refused", reveal=True).url, "SELECT 1") == [(1,)]


def test_a_second_up_says_so_and_down_forgets_nothing(whole: Whole) -> None:
    url = whole.json("create", "kept", "--if-not-exists")["url"]
    sql(url, "CREATE TABLE IF NOT EXISTS t AS SELECT 1 AS a")
    assert whole.json("up")["already_running"] is True
    whole.down()
    assert whole.run("ls", check=False).returncode == 5
    assert whole.json("down")["was_running"] is False
    whole.up()
    assert whole.json("start", "kept")["url"] == without_password(url)[0]
    assert sql(url, "SELECT a FROM t") == [(1,)]


def test_names_of_databases_are_completed(whole: Whole) -> None:
    whole.json("create", "completed-one", "--if-not-exists")
    asked = {
        "_PAGESTORE_COMPLETE": "complete_bash",
        "COMP_WORDS": "pagestore show completed",
        "COMP_CWORD": "2",
    }
    said: list[str] = []

    def completes() -> bool:
        said[:] = subprocess.run(
            [sys.executable, "-m", "pagestore.cli.main"],
            env={**whole.environment, **asked},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        return bool(said)

    # Silent where the answer takes a second, as on a busy machine; then one presses Tab again.
    wait_until(completes, seconds=120)
    assert said == ["completed-one"]
    whole.run("rm", "completed-one")
