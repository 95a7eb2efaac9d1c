"""Databases that follow a real git repository, by its hooks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pagestore.cli.repository import database_for, with_block
from pagestore.client.companions import Companions
from pagestore.errors import InvalidInput
from tests.integration.installation import Whole, sql, whole_pagestore

PROGRAM = Path(sys.executable).with_name("pagestore")
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="did NOT run: needs git")


class Checkout:
    """A worktree; commands run in it as a user's would."""

    def __init__(self, whole: Whole, top: Path) -> None:
        self.whole, self.top = whole, top
        self.environment = {
            **whole.environment,
            **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER")
               for what in ("NAME", "EMAIL")},
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }  # fmt: skip

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.top,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def git(self, *arguments: str) -> str:
        """What it said, hooks included."""
        done = self.run("git", *arguments)
        return done.stdout + done.stderr

    def pagestore(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(PROGRAM), *arguments)

    def commit(self, words: str, **files: str) -> str:
        for name, content in files.items():
            path = self.top / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        self.git("add", "-A")
        self.git("commit", "--allow-empty", "-qm", words)
        return self.git("rev-parse", "HEAD").strip()

    @property
    def url(self) -> str:
        found = re.search(r"^DATABASE_URL=(.*)$", (self.top / ".env").read_text(), re.MULTILINE)
        assert found is not None
        return found[1]

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return sql(self.url, statement)


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as made:
        made.json("create", "app")
        made.sql("app", "CREATE TABLE t (n int)")
        yield made


@pytest.fixture(scope="module")
def here(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    made = Checkout(whole, tmp_path_factory.mktemp("repository"))
    made.git("init", "-q", "-b", "main")
    hook = made.top / ".git/hooks/post-commit"
    hook.write_text("#!/bin/sh\necho ours too\n")
    hook.chmod(0o755)
    made.commit("first")
    (made.top / ".env").write_text("OTHER=1\n")
    made.pagestore("git", "init", "app")
    return made


def test_branches_have_databases_and_commits_are_checkpoints(here: Checkout) -> None:
    assert here.git("status", "--porcelain") == "", ".env is hidden"
    assert (here.top / ".env").read_text().startswith("OTHER=1\n")
    assert (here.top / ".env").stat().st_mode & 0o777 == 0o600
    here.sql("INSERT INTO t VALUES (1)")
    here.commit("one")
    assert "made app-feature-x for feature/x" in here.git("switch", "-c", "feature/x")
    assert here.url.endswith("/app-feature-x")
    here.sql("INSERT INTO t VALUES (2)")
    second = here.commit("two", migrations__1="x")
    entries = here.whole.json("log", "app-feature-x")["entries"]
    names = {item["checkpoint"]: item for item in entries if item["type"] == "checkpoint"}
    assert names[f"git-{second[:12]}"]["git_commit"] == second
    assert names[f"git-{second[:12]}"]["dirty_patch"] is None
    here.git("switch", "main")
    assert here.sql("SELECT count(*) FROM t") == [(1,)]
    here.git("switch", "feature/x")
    assert here.sql("SELECT count(*) FROM t") == [(2,)]
    here.git("switch", "main")
    said = here.git("merge", "--no-edit", "feature/x")
    assert "1 files below migrations differ" in said
    shown = here.pagestore("git", "status").stdout
    assert [line.split("\t")[:2] for line in shown.splitlines()] == [
        ["feature/x", "app-feature-x"],
        ["main", "app"],
    ]
    assert "all is well" in here.pagestore("git", "doctor").stderr


def test_what_was_not_committed_is_with_the_commit_s_checkpoint(here: Checkout) -> None:
    (here.top / "left").write_text("over")
    here.git("commit", "--allow-empty", "-qm", "with something left")
    head = here.git("rev-parse", "HEAD").strip()
    told = here.whole.json("restore", "app", f"git-{head[:12]}", "--dry-run")["went_to"]
    assert told["git_commit"] == head
    assert here.git("show", "--format=%P", "--name-only", told["dirty_patch"]).split() == [
        head,
        "left",
    ]
    (here.top / "left").unlink()
    here.whole.control().checkpoint("app", "foreign", Companions("f" * 40))
    done = here.run(str(PROGRAM), "restore", "app", "foreign", check=False)
    assert (done.returncode, "does not have" in done.stderr) == (4, True)


def test_what_no_checkpoint_names_is_kept_no_more(here: Checkout) -> None:
    """Prune; what a checkpoint of any database names stays, whoever's that is."""

    def kept() -> set[str]:
        return set(here.git("for-each-ref", "--format=%(objectname)", "refs/pagestore").split())

    def checkpoint(database: str, name: str, content: str, *tenant: str) -> str:
        (here.top / "left").write_text(content)
        here.pagestore("checkpoint", database, name, "--git", "HEAD", *tenant)
        told = here.whole.json("log", database, *tenant)["entries"]
        return next(str(e["dirty_patch"]) for e in told if e.get("checkpoint") == name)

    here.whole.json("create", "unrelated")
    here.whole.json("tenant", "add", "acme")
    here.whole.json("create", "theirs", "--tenant", "acme")
    named = {
        checkpoint("unrelated", "stays", "1"),
        checkpoint("theirs", "stays", "2", "--tenant", "acme"),
    }
    goes = checkpoint("app", "goes", "3")
    (here.top / "left").unlink()
    here.whole.json("checkpoint", "app", "goes", "--delete")
    before = kept()
    assert named | {goes} <= before
    done = here.pagestore("git", "prune")
    assert (kept(), "1 commits of what" in done.stderr) == (before - {goes}, True)
    for database, *tenant in (("unrelated",), ("theirs", "--tenant", "acme")):
        here.whole.json("rm", database, *tenant)
    here.whole.json("tenant", "rm", "acme")


def test_a_hook_that_was_there_still_runs(here: Checkout) -> None:
    done = here.run("git", "commit", "--allow-empty", "-m", "x")
    assert "ours too" in done.stdout + done.stderr
    assert (here.top / ".git/hooks/post-commit").read_text().count("git hook post-commit") == 1


def test_a_hook_that_leaves_early_or_is_no_shell_script(whole: Whole, tmp_path: Path) -> None:
    there = Checkout(whole, tmp_path)
    there.git("init", "-q", "-b", "main")
    hooks = {"post-commit": "#!/bin/bash\nexit 0\n", "post-merge": "#!/usr/bin/python3\nx = 1\n"}
    for name, text in hooks.items():
        (tmp_path / ".git/hooks" / name).write_text(text)
        (tmp_path / ".git/hooks" / name).chmod(0o755)
    first = there.commit("first")
    whole.json("create", "early")
    said = there.pagestore("git", "init", "early").stderr
    assert "post-merge is no shell script" in said
    assert (tmp_path / ".git/hooks/post-merge").read_text() == hooks["post-merge"]
    assert "checkpoint git-" in there.git("commit", "--allow-empty", "-m", "x")
    doctor = there.run(str(PROGRAM), "git", "doctor", check=False)
    assert (doctor.returncode, "post-merge" in doctor.stdout) == (1, True)
    assert f"checkpoint git-{first[:12]}" in there.pagestore("checkout", "HEAD~1").stderr


def test_two_branches_whose_names_are_alike_have_two_databases(here: Checkout) -> None:
    assert "made app-a-b for a/b" in here.git("switch", "-c", "a/b")
    assert "made app-a-b-2 for a-b" in here.git("switch", "-c", "a-b")
    here.git("config", "pagestore.shared/one.database", "app-a-b")
    assert here.pagestore("git", "prune").stdout == ""
    assert "app-a-b" in {item["name"] for item in here.whole.json("ls")["databases"]}
    here.git("switch", "-q", "main")


def test_git_goes_on_where_the_page_server_does_not_answer(here: Checkout) -> None:
    here.git("switch", "-q", "-c", "frozen")
    pid = here.whole.kill("pageserver", signal.SIGSTOP)
    try:
        said = here.git("switch", "main")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "did not answer in time" in said, "git waited for as long as it pleased the server"
    assert here.git("branch", "--show-current") == "main\n"
    here.pagestore("git", "sync")
    assert here.url.endswith("/app")


def test_a_worktree_has_a_database_of_its_own(here: Checkout) -> None:
    there = Checkout(here.whole, here.top.parent / "beside")
    here.git("worktree", "add", "-q", "-b", "beside", str(there.top))
    assert there.url.endswith("/app-beside")
    there.sql("INSERT INTO t VALUES (99)")
    assert here.url.endswith("/app")
    assert here.sql("SELECT count(*) FROM t WHERE n = 99") == [(0,)]
    here.git("worktree", "remove", "--force", str(there.top))
    here.git("branch", "-D", "beside")
    assert here.pagestore("git", "prune").stdout == "app-beside\n"
    assert "app-beside" not in {item["name"] for item in here.whole.json("ls")["databases"]}


def test_the_database_goes_to_where_it_was_at_a_commit(here: Checkout) -> None:
    here.git("switch", "-q", "-c", "past")
    here.sql("CREATE TABLE past (n int)")
    first = here.commit("with one table")
    here.sql("INSERT INTO past VALUES (1)")
    here.commit("with a row")
    here.sql("INSERT INTO past VALUES (2)")
    done = here.pagestore("checkout", "HEAD~1")
    assert f"git switch --detach {first[:12]}" in done.stderr
    assert here.sql("SELECT count(*) FROM past") == [(0,)]
    here.pagestore("undo", "app-past")
    assert here.sql("SELECT count(*) FROM past") == [(2,)]
    here.git("-c", "core.hooksPath=/dev/null", "commit", "--allow-empty", "-qm", "no hook")
    done = here.pagestore("checkout", "HEAD")
    assert "the nearest checkpoint is of" in done.stderr
    assert here.sql("SELECT count(*) FROM past") == [(1,)]
    told = here.pagestore("log", "app-past", "--git").stdout
    assert [line.split("\t")[1] for line in told.splitlines()].count("commit") >= 3


def test_git_goes_on_where_nothing_runs(here: Checkout) -> None:
    nowhere = Checkout(here.whole, here.top)
    here.git("config", "pagestore.data", str(here.top / "nothing"))
    before = nowhere.git("rev-parse", "HEAD")
    done = nowhere.run("git", "commit", "--allow-empty", "-m", "alone")
    assert "Traceback" not in done.stderr
    assert nowhere.git("rev-parse", "HEAD") != before
    nowhere.git("switch", "-q", "-c", "alone")
    here.git("config", "pagestore.data", str(here.whole.data))
    assert here.run(str(PROGRAM), "git", "doctor", check=False).returncode == 1
    here.pagestore("git", "sync")
    assert here.url.endswith("/app-alone")
    assert here.run(str(PROGRAM), "git", "doctor").returncode == 0


def test_a_file_that_is_committed_gets_no_password(whole: Whole, tmp_path: Path) -> None:
    there = Checkout(whole, tmp_path)
    there.git("init", "-q", "-b", "main")
    there.commit("with it", **{".env": "A=1\n"})
    done = there.run(str(PROGRAM), "git", "init", "app", check=False)
    assert (done.returncode, "git rm --cached" in done.stderr) == (4, True)
    assert (tmp_path / ".env").read_text() == "A=1\n"
    there.pagestore("git", "init", "app", "--env-file", ".env.local")
    assert "/app" in (tmp_path / ".env.local").read_text()
    assert there.git("status", "--porcelain") == ""


def test_outside_of_a_repository_that_is_said(whole: Whole, tmp_path: Path) -> None:
    outside = Checkout(whole, tmp_path)
    done = outside.run(str(PROGRAM), "git", "status", check=False)
    assert done.returncode == 3
    assert "no git repository" in done.stderr


def test_a_database_is_named_after_its_branch() -> None:
    assert database_for("app", "feature/Größe  #12") == "app-feature-groe-12"
    assert len(database_for("app", "x" * 200).encode()) == 63
    assert database_for("app", "a-b", ["app-a-b", "app-a-b-2"]) == "app-a-b-3"
    long = database_for("app", "x" * 200)
    assert database_for("app", "x" * 201, [long]) == f"{long[:-2]}-2"
    with pytest.raises(InvalidInput):
        database_for("app", "日本")


def test_one_line_is_ours_whatever_else_there_is() -> None:
    once = with_block("A=1", "X=1")
    assert once.startswith("A=1\n")
    assert with_block(once + "B=2\n", r"X=\2").splitlines() == [
        "A=1",
        "# pagestore: begin",
        r"X=\2",
        "# pagestore: end",
        "B=2",
    ]
