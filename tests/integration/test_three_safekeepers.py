"""A whole pagestore on three safekeepers: any one may be killed, frozen or wiped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.quorum.client import QuorumClient
from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.waiting import stays

PARTS = ("safekeeper-1", "safekeeper-2", "safekeeper-3")
FOLLOWING = (
    "SELECT application_name FROM pg_stat_replication"
    " WHERE state = 'streaming' AND flush_lsn >= pg_current_wal_flush_lsn() ORDER BY 1"
)


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore(safekeepers=3) as made:
        made.json("create", "app")
        made.sql("app", "CREATE TABLE t (id int PRIMARY KEY)")
        yield made


@pytest.fixture
def commits(whole: Whole) -> Iterator[Commits]:
    wait_for_all(whole, "app")
    writer = Commits(whole.json("url", "app")["url"])
    writer.start()
    yield writer
    writer.end()


class Commits(threading.Thread):
    """One client on one connection, which never breaks; and how long its commits take."""

    numbers = iter(range(1 << 30))

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._done = threading.Event()
        self.count = 0
        self.last = -1
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True) as session:
                while not self._done.is_set():
                    number = next(self.numbers)
                    session.execute("INSERT INTO t VALUES (%s)", (number,))
                    self.count += 1
                    self.last = number
        except Exception as error:
            self.failure = error

    def go_on(self, more: int = 30, seconds: float = 60) -> None:
        """Returns when more commits have returned; no client has noticed anything else."""
        goal = self.count + more
        deadline = time.monotonic() + seconds
        while self.count < goal:
            assert self.failure is None, self.failure
            assert time.monotonic() < deadline, "commits do not return"
            time.sleep(0.01)

    def stands(self, seconds: float = 1.0) -> bool:
        """Whether nothing returns for a while."""
        before = self.count
        return stays(lambda: self.count <= before + 1 and self.failure is None, seconds)

    def end(self) -> None:
        self._done.set()
        self.join(60)
        assert self.failure is None, self.failure


def following(whole: Whole, name: str) -> list[str]:
    return [row[0] for row in whole.sql(name, FOLLOWING)]


def wait_for(what: Callable[[], Any], whole: Whole, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, whole.logs()
        time.sleep(0.1)


def wait_for_all(whole: Whole, name: str) -> None:
    """Returns when three safekeepers follow the compute."""
    wait_for(lambda: len(patiently(lambda: following(whole, name))) == 3, whole)


@pytest.mark.parametrize("part", PARTS)
def test_one_is_killed(whole: Whole, commits: Commits, part: str) -> None:
    commits.go_on()
    whole.kill(part)
    commits.go_on()
    wait_for_all(whole, "app")


@pytest.mark.parametrize("part", PARTS)
def test_one_is_frozen(whole: Whole, commits: Commits, part: str) -> None:
    commits.go_on()
    pid = whole.kill(part, signal.SIGSTOP)
    try:
        commits.go_on(200)
        branch = f"during-{part}"
        whole.json("branch", "app", branch)
        assert whole.sql(branch, "SELECT count(*) > 0 FROM t") == [(True,)]
        whole.json("rm", branch)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for_all(whole, "app")


@pytest.mark.parametrize("part", PARTS)
def test_one_loses_its_disk(whole: Whole, commits: Commits, part: str) -> None:
    """It comes back as another member, while the client goes on; then the other two may fail
    one after the other."""
    commits.go_on()
    before = whole.sql("app", "SHOW synchronous_standby_names")
    whole.kill(part, signal.SIGSTOP)
    wiped = whole.installation.part_dir(part)
    for entry in wiped.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    whole.kill(part)
    commits.go_on()
    wait_for_all(whole, "app")
    assert whole.sql("app", "SHOW synchronous_standby_names") != before
    for other in PARTS:
        if other != part:
            whole.kill(other)
            commits.go_on()
            wait_for_all(whole, "app")


def test_two_are_away(whole: Whole, commits: Commits) -> None:
    commits.go_on()
    pids = [whole.kill(part, signal.SIGSTOP) for part in PARTS[:2]]
    try:
        assert commits.stands()
    finally:
        os.kill(pids[0], signal.SIGCONT)
    commits.go_on()
    os.kill(pids[1], signal.SIGCONT)
    wait_for_all(whole, "app")


def test_the_control_plane_is_killed_and_goes_on_keeping(whole: Whole, commits: Commits) -> None:
    commits.go_on()
    pid = whole.kill("safekeeper-2", signal.SIGSTOP)
    whole.kill("control")
    commits.go_on()
    os.kill(pid, signal.SIGKILL)
    wait_for_all(whole, "app")
    commits.go_on()


def test_a_database_starts_and_stops_with_one_away(whole: Whole) -> None:
    whole.json("create", "other")
    whole.sql("other", "CREATE TABLE t (id int)")
    for number, part in enumerate(PARTS):
        pid = whole.kill(part, signal.SIGSTOP)
        try:
            whole.json("stop", "other")
            whole.json("start", "other")
            whole.sql("other", f"INSERT INTO t VALUES ({number})")
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for_all(whole, "other")
    assert whole.sql("other", "SELECT count(*) FROM t") == [(3,)]
    pid = whole.kill("safekeeper-1", signal.SIGSTOP)
    try:
        whole.json("checkpoint", "other", "c")
        whole.sql("other", "DELETE FROM t")
        whole.json("restore", "other", "c")
        assert whole.sql("other", "SELECT count(*) FROM t") == [(3,)]
        whole.json("undo", "other")
        assert whole.sql("other", "SELECT count(*) FROM t") == [(0,)]
        whole.json("create", "made-meanwhile")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for_all(whole, "made-meanwhile")


def logs_of(whole: Whole, timeline: str) -> list[str]:
    """The safekeepers that have one."""
    directories = {part: whole.installation.part_dir(part) for part in PARTS}
    return [part for part, place in directories.items() if list(place.glob(f"*/{timeline}"))]


def test_a_branch_gets_its_log_at_its_first_start_also_with_one_away(whole: Whole) -> None:
    [[rows]] = whole.sql("app", "SELECT count(*) FROM t")
    late = whole.json("branch", "app", "late")["timeline_id"]
    whole.json("branch", "late", "later")
    whole.json("checkpoint", "late", "mark")
    assert whole.json("show", "late")["lsn"] == whole.json("show", "late")["branch_lsn"]
    assert logs_of(whole, late) == []
    whole.kill("control")
    pid = whole.kill("safekeeper-3", signal.SIGSTOP)
    try:
        count = patiently(lambda: whole.sql("late", "SELECT count(*) FROM t"))
        assert count == [(rows,)]
        assert logs_of(whole, late) == ["safekeeper-1", "safekeeper-2"]
        whole.sql("late", "INSERT INTO t VALUES (-4)")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for_all(whole, "late")
    pid = whole.kill("safekeeper-1", signal.SIGSTOP)
    try:
        whole.json("stop", "late")
        assert whole.sql("late", "SELECT count(*) FROM t") == [(rows + 1,)]
        assert whole.sql("later", "SELECT count(*) FROM t") == [(rows,)]
        whole.json("restore", "late", "mark")
        assert whole.sql("late", "SELECT count(*) FROM t") == [(rows,)]
    finally:
        os.kill(pid, signal.SIGCONT)
    whole.json("rm", "later")
    whole.json("rm", "late")
    wait_for(lambda: logs_of(whole, late) == [], whole)


def test_a_users_slot_goes_on_and_is_shown_but_is_on_no_branch(whole: Whole) -> None:
    """Over a stop, with one safekeeper away, and over its return, when slots of nobody go."""
    whole.json("create", "feed")
    whole.sql("feed", "ALTER SYSTEM SET wal_level = 'logical'")
    whole.json("stop", "feed")
    whole.json("start", "feed")
    whole.sql("feed", "CREATE TABLE t (id int)")
    whole.sql("feed", "SELECT pg_create_logical_replication_slot('taken', 'test_decoding')")
    whole.json("checkpoint", "feed", "begun")
    whole.sql("feed", "INSERT INTO t VALUES (1)")
    (shown,) = whole.json("show", "feed")["replication_slots"]
    assert (shown["name"], shown["lost"]) == ("taken", False)
    assert 0 < shown["wal_bytes"] < 1 << 20
    assert "taken (holds back" in whole.run("show", "feed").stdout
    whole.run("branch", "feed", "feed-2")
    started = whole.run("start", "feed-2")
    assert "1 replication slot (taken) of the database" in started.stderr
    assert "replication_slots" not in whole.json("show", "feed-2")
    whole.json("rm", "feed-2")
    pid = whole.kill("safekeeper-3", signal.SIGSTOP)
    try:
        whole.json("stop", "feed")
        whole.json("start", "feed")
        whole.sql("feed", "INSERT INTO t VALUES (2)")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for_all(whole, "feed")
    changes = "SELECT data FROM pg_logical_slot_get_changes('taken', NULL, NULL)"
    rows = [row[0] for row in whole.sql("feed", changes) if "INSERT" in row[0]]
    assert [row[-1] for row in rows] == ["1", "2"]
    restored = whole.json("restore", "feed", "begun")
    assert restored["remarks"] is None
    whole.sql("feed", "INSERT INTO t VALUES (3)")
    rows = [row[0] for row in whole.sql("feed", changes) if "INSERT" in row[0]]
    assert [row[-1] for row in rows] == ["3"]


def test_a_killed_compute_loses_nothing_with_one_away(whole: Whole, commits: Commits) -> None:
    commits.go_on()
    pid = whole.kill("safekeeper-3", signal.SIGSTOP)
    commits.go_on()
    os.kill(whole.json("show", "app")["compute_pid"], signal.SIGKILL)
    commits.join(60)
    assert commits.failure is not None
    commits.failure = None
    os.kill(pid, signal.SIGCONT)
    [[last]] = patiently(lambda: whole.sql("app", "SELECT max(id) FROM t"))
    assert last >= commits.last


def test_two_control_planes_start_one_database(whole: Whole) -> None:
    """Exactly one compute can commit; the clients of the other get an error."""
    record = whole.json("show", "app")
    with whole.connect("app") as session:
        session.execute("INSERT INTO t VALUES (-1)")
        asyncio.run(win_elsewhere(whole, TimelineId.parse(record["timeline_id"])))
        with pytest.raises(psycopg.OperationalError):
            session.execute("INSERT INTO t VALUES (-3)")
    wait_for(lambda: whole.json("show", "app")["compute"] == "failed", whole)
    assert "another compute" in whole.json("show", "app")["compute_error"]
    whole.json("start", "app")
    assert whole.sql("app", "SELECT id FROM t WHERE id < 0") == [(-1,)]


async def win_elsewhere(whole: Whole, timeline: TimelineId) -> None:
    """As the control plane of somebody else would."""
    parts = whole.installation.config.safekeeper_parts
    addresses = {config.id: config.listen for config in parts.values()}
    async with QuorumClient(addresses, generations=lambda above: above + 1) as client:
        await client.win_term(DEFAULT_TENANT, timeline)


def test_a_frozen_compute_that_wakes_up_cannot_commit(whole: Whole) -> None:
    """It was replaced meanwhile, and nobody could tell it."""
    pid = whole.json("show", "app")["compute_pid"]
    session = whole.connect("app")
    session.execute("SELECT 1")
    children = [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    frozen = [pid, *children]
    for process in frozen:
        os.kill(process, signal.SIGSTOP)
    whole.kill("control")
    timeline = TimelineId.parse(patiently(lambda: whole.json("show", "app"))["timeline_id"])
    asyncio.run(win_elsewhere(whole, timeline))
    for process in reversed(frozen):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    with pytest.raises(psycopg.OperationalError):
        session.execute("INSERT INTO t VALUES (-2)")
    whole.json("start", "app")
    assert whole.sql("app", "SELECT count(*) FROM t WHERE id = -2") == [(0,)]


def test_an_old_point_is_branched_when_its_wal_is_gone() -> None:
    """Safekeepers drop what everybody has passed; the page server has the pages."""
    with whole_pagestore(safekeepers=3, environment={"PAGESTORE_WAL_KEEP_BYTES": "0"}) as whole:
        whole.json("create", "app")
        whole.sql("app", "CREATE TABLE t AS SELECT generate_series(1, 100) id")
        [[lsn]] = whole.sql("app", "SELECT pg_current_wal_insert_lsn()")
        whole.json("checkpoint", "app", "small")
        named = whole.json("show", "app")["timeline_id"]
        logs = [whole.installation.part_dir(part) for part in PARTS]
        firsts = [min(log.glob(f"*/{named}/0*")) for log in logs]
        whole.sql("app", "INSERT INTO t SELECT generate_series(1, 600000)")
        wait_for(lambda: not any(first.exists() for first in firsts), whole, 90)
        whole.json("branch", "app", "old", "--at", "small")
        assert whole.sql("old", "SELECT count(*) FROM t") == [(100,)]
        whole.sql("old", "INSERT INTO t VALUES (0)")
        whole.json("branch", "app", "older", "--at", lsn)
        assert whole.sql("older", "SELECT count(*) FROM t") == [(100,)]
        whole.json("branch", "old", "newer")
        assert whole.sql("newer", "SELECT count(*) FROM t") == [(101,)]
