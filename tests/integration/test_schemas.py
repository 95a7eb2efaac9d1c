"""Every verb's `--json` is as docs/schemas says: run once each, on one installation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.installation import Whole, sql, whole_pagestore
from tests.plain_postgres import PlainPostgres, reachable_dir
from tests.schemas import all_schemas, check

ELSEWHERE = {"bench", "upgrade", "service", "recover"}
"""Verbs with tests of their own, which need another Postgres, systemd, or an object store."""


class Typed:
    """The command line, each answer of which is held against its schema."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole

    def __call__(self, verb: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        before, dashes, behind = _split(arguments)
        done = self.whole.run(verb, *before, "--json", *dashes, *behind, check=False)
        assert done.returncode == code, (verb, done.stdout, done.stderr)
        said: dict[str, Any] = json.loads(done.stdout)
        check(verb, said)
        return said

    def refused(self, verb: str, *arguments: str) -> None:
        done = self.whole.run(verb, *arguments, "--json", check=False)
        assert done.stdout == ""
        check("error", json.loads(done.stderr))


def _split(arguments: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
    words = [*arguments]
    if "--" not in words:
        return words, [], []
    at = words.index("--")
    return words[:at], ["--"], words[at + 1 :]


@pytest.fixture(scope="module")
def typed() -> Iterator[Typed]:
    with whole_pagestore() as whole:
        yield Typed(whole)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_verbs_on_databases(typed: Typed) -> None:
    url = typed("create", "app")["url"]
    sql(url, "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)")
    typed("create", "app", "--if-not-exists")
    typed.refused("create", "app")
    typed("branch", "app", "try-2", "--ttl", "1h")
    typed("keep", "try-2", "--ttl", "2h")
    typed("keep", "try-2")
    typed("ls")
    typed("ls", "--sizes")
    typed("show", "app")
    typed("url", "app")
    typed("start", "try-2")
    typed("settings", "app", "work_mem=8MB", "max_connections=90")
    typed("settings", "app")
    typed("idle", "app", "10m")
    typed("idle", "app")
    typed("password", "app")
    typed("retention", "app", "14d")
    typed("retention", "app")
    typed("usage", "app")
    typed("usage", "--all-tenants")
    typed("role", "add", "app", "reader")
    typed("role", "ls", "app")
    typed("role", "password", "app", "reader")
    typed("role", "rm", "app", "reader")
    typed("rename", "try-2", "try-3")
    typed("detach", "try-3")
    typed("stop", "try-3")
    typed("stop", "try-3", "none", code=3)
    typed("rm", "try-3")
    typed("rm", "none", code=3)


def test_verbs_on_the_past(typed: Typed, repository: Path) -> None:
    url = typed("create", "past")["url"]
    sql(url, "CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 1), (2, 2)")
    typed("checkpoint", "past", "one", "--git", "HEAD", "--run", "r", "--note", "a=b")
    typed("checkpoint", "past", "two", "--keep", "1d")
    typed("checkpoint", "past", "two", "--delete")
    sql(url, "UPDATE t SET b = 3 WHERE a = 1")
    typed("restore", "past", "one", "--dry-run")
    typed("undo", "past")
    typed("undo", "past")
    typed("redo", "past")
    typed("restore", "past", "one")
    typed("log", "past")
    typed("log", "past", "--git")
    typed("branch", "past", "reset")
    typed("reset", "reset")
    tried = typed("try", "past", "2", "--logs", str(repository / "logs"), "--", "true")["attempts"]
    sql(tried[0]["url"], "DELETE FROM t; CREATE TABLE u ()")
    typed("diff", "past", tried[0]["name"])
    typed("diff", "past", "past")
    typed("promote", "past", tried[0]["name"])
    typed("verify", "past")


def test_verbs_with_git_and_agents(typed: Typed, repository: Path) -> None:
    typed("create", "code")
    typed("git", "init", "code")
    typed("git", "sync")
    typed("git", "status")
    typed("git", "doctor")
    typed("git", "prune")
    program = Path(sys.executable).with_name("pagestore")
    subprocess.run([program, "git", "hook", "post-commit"], check=True, env=typed.whole.environment)
    typed("checkout", "HEAD")
    typed("agents", "install", "codex", "--database", "code")
    typed("agents", "uninstall", "codex")


def test_verbs_on_an_installation(typed: Typed, tmp_path: Path) -> None:
    typed("status")
    typed("top", "--looks", "1", "--every", "0.2")
    typed("metrics")
    typed("safekeepers")
    typed("lost")
    typed("keys")
    typed("certificate", "localhost", "--out", str(tmp_path / "tls"))
    typed("tenant", "add", "acme", "--databases", "3")
    typed("tenant", "ls")
    typed("tenant", "set", "acme", "--awake", "2")
    typed("tenant", "token", "acme")
    typed("tenant", "rm", "acme")
    typed("scrub")
    layers = [*(typed.whole.data / "pageserver").rglob("*.lmdb")]
    typed("inspect", str(layers[0]))
    typed.refused("service", "show")


def test_verbs_that_move_data(typed: Typed, tmp_path: Path) -> None:
    cluster = PlainPostgres(reachable_dir())
    cluster.initdb()
    try:
        typed("import", "plain", "--from-pgdata", str(cluster.data))
        typed("export", "plain", str(tmp_path / "out"))
    finally:
        subprocess.run(["rm", "-r", str(cluster.root)], check=True)


def test_a_verb_that_has_nobody_to_ask_fails_as_it_is_said(typed: Typed) -> None:
    typed("down")
    typed("status", code=5)
    typed.refused("ls")
    typed("up")
    typed("up")


def test_no_verb_is_left_out() -> None:
    typed_here = re.findall(r'typed\(\s*"(\w+)"', Path(__file__).read_text())
    assert {*typed_here, *ELSEWHERE} == set(all_schemas()) - {"common", "error"}
