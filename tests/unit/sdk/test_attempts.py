"""Names of attempts, which belong together, and how their commands end. No database is asked."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from pagestore.errors import InvalidInput
from pagestore.sdk import attempts
from pagestore.sdk.attempts import Outcome, Watcher, attempt, free_names, siblings
from pagestore.sdk.client import AsyncClient, AsyncDatabase
from pagestore.sdk.values import Facts
from pagestore.v1 import control_pb2 as pb


def facts(name: str, parent: str | None = "app", lsn: str = "0/10") -> Facts:
    return Facts(
        *(name, f"postgresql://u:p@127.0.0.1:1/{name}", lsn, parent, lsn if parent else None),
        *("stopped", 15, 0, datetime.now(UTC), None, True),
    )


def test_names_follow_the_highest_that_is_taken() -> None:
    assert free_names("try", 2, []) == ["try-1", "try-2"]
    assert free_names("try", 2, ["try-3", "try-x", "other-9", "try-1"]) == ["try-4", "try-5"]


def test_attempts_that_were_made_together_are_siblings() -> None:
    made = [facts("try-1"), facts("try-2"), facts("try-3", lsn="0/20"), facts("mine-1"), facts("x")]
    made += [facts("try-4", "other"), facts("app", None)]
    assert siblings("try-2", made) == ["try-1", "try-2"]
    assert siblings("x", made) == siblings("app", made) == siblings("gone-1", made) == []


class Branches:
    """What of a client attempts need; no database stands behind it."""

    def __init__(self) -> None:
        self.there: dict[str, Facts] = {"app": facts("app", None)}
        self.asked: list[tuple[str, str | None]] = []
        self.written: set[str] = set()
        """Whose logs have moved since they were branched."""

    async def facts(self, name: str) -> pb.Database:
        return pb.Database(name=name, lsn=0x20 if name in self.written else 0x10)

    async def databases(self) -> list[Facts]:
        return list(self.there.values())

    async def branch(self, source: str, name: str, *, at: Any, ttl: Any) -> AsyncDatabase:
        assert source == "app"
        self.asked.append((name, at))
        self.there[name] = facts(name)
        return AsyncDatabase(cast(AsyncClient, self), self.there[name])

    async def remove(self, name: str, *, if_exists: bool) -> bool:
        return self.there.pop(name, None) is not None


def run(
    tmp_path: Path, count: int, script: str, written: tuple[str, ...] = (), **options: Any
) -> tuple[list[Outcome], Branches]:
    branches = Branches()
    branches.written = {*written}
    command = [sys.executable, "-c", script]
    client = cast(AsyncClient, branches)
    made = asyncio.run(attempt(client, "app", count, command, tmp_path, **options))
    return made, branches


pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _no_psql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == "psql" else name)


def test_each_attempt_has_a_branch_of_its_own_at_one_point(tmp_path: Path) -> None:
    script = (
        "import os, sys; print(os.environ['DATABASE_URL'], flush=True);"
        "n = int(os.environ['PAGESTORE_ATTEMPT']);"
        "print('odd', file=sys.stderr); sys.exit(n - 1)"
    )
    lines: list[tuple[str, str]] = []
    done: list[str] = []
    watcher = Watcher(lambda *line: lines.append(line), lambda outcome: done.append(outcome.words))
    outcomes, branches = run(tmp_path, 3, script, watcher=watcher)
    assert [(item.database, item.code) for item in outcomes] == [
        ("try-1", 0),
        ("try-2", 1),
        ("try-3", 2),
    ]
    assert branches.asked == [("try-1", None), ("try-2", "0/10"), ("try-3", "0/10")]
    assert outcomes[1].log.read_text() == "postgresql://u:p@127.0.0.1:1/try-2\nodd\n"
    assert ("try-3", "odd") in lines
    assert sorted(done) == ["failed (1)", "failed (2)", "succeeded"]
    assert set(branches.there) == {"app", "try-1", "try-2", "try-3"}, "they stay"


def test_they_run_side_by_side(tmp_path: Path) -> None:
    """Each ends only when all have begun."""
    script = (
        "import os, pathlib, time; here = pathlib.Path(os.environ['PLACE']);"
        "(here / os.environ['PAGESTORE_DATABASE']).touch()\n"
        "while len(list(here.iterdir())) < 4: time.sleep(0.01)"
    )
    place = tmp_path / "place"
    place.mkdir()
    os.environ["PLACE"] = str(place)
    outcomes, _ = run(tmp_path, 4, script, timeout=60)
    assert all(item.succeeded for item in outcomes)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_command_that_outlives_its_time_ends_with_all_it_started(
    tmp_path: Path, deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "GRACE_SECONDS", 0.3)
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" if deaf else ""
    script = (
        f"{ignore}import subprocess, sys, time;"
        f"child = subprocess.Popen([sys.executable, '-c', '{ignore}import time; time.sleep(600)']);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    ((outcome,), _) = run(tmp_path, 1, script, timeout=1.5)
    assert (outcome.code, outcome.words) == (None, "timed out")
    _gone(int(outcome.log.read_text()))


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid)"
    )
    ((outcome,), _) = run(tmp_path, 1, script)
    assert outcome.succeeded
    _gone(int(outcome.log.read_text()))


def _gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while _state(pid) not in ("", "Z"):
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.01)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_a_line_without_end_is_passed_on_in_pieces(tmp_path: Path) -> None:
    script = "import sys; sys.stdout.write('x' * (3 << 20))"
    ((outcome,), _) = run(tmp_path, 1, script)
    assert outcome.log.stat().st_size == 3 << 20


def test_whoever_is_interrupted_leaves_no_branches(tmp_path: Path) -> None:
    branches = Branches()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]

    async def interrupted() -> None:
        client = cast(AsyncClient, branches)
        running = asyncio.create_task(attempt(client, "app", 2, command, tmp_path))
        while not (tmp_path / "try-2.log").exists():
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(interrupted())
    assert set(branches.there) == {"app"}


@pytest.mark.parametrize("wrong", [(0, ["true"]), (65, ["true"]), (1, [])])
def test_a_senseless_attempt_is_refused(tmp_path: Path, wrong: tuple[int, list[str]]) -> None:
    branches = Branches()
    with pytest.raises(InvalidInput):
        asyncio.run(attempt(cast(AsyncClient, branches), "app", *wrong, tmp_path))
    assert set(branches.there) == {"app"}


def test_where_nothing_was_written_nobody_is_asked_how_much(tmp_path: Path) -> None:
    made, _ = run(tmp_path, 2, "pass", written=("try-2",))
    assert [outcome.rows_changed for outcome in made] == [0, None]
