"""A real compute whose commits wait for two of three safekeepers, any of which may go away."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.test_wal_service_failures import Committer
from tests.plain_postgres import PlainPostgres, plain_postgres
from tests.safekeeper_process import SYNCHRONOUS, compute_wal, flush_lsn, lsn_of
from tests.safekeepers import ALL, Safekeepers, three_safekeepers
from tests.waiting import stays, wait_until


class Quorum:
    """Three safekeepers, and the cluster that they follow."""

    def __init__(self, three: Safekeepers, postgres: PlainPostgres) -> None:
        self.three, self.postgres = three, postgres

    def wait_for(self, *names: str) -> None:
        """Returns when these are streaming, and commits wait for a quorum."""
        deadline = time.monotonic() + 30
        while not set(names) <= (now := self.following()):
            assert time.monotonic() < deadline, now
            time.sleep(0.02)

    def following(self) -> set[str]:
        rows = self.postgres.sql(
            "SELECT application_name FROM pg_stat_replication "
            "WHERE state = 'streaming' AND sync_state = 'quorum'"
        )
        return {row[0] for row in rows}

    def rule(self, names: str) -> None:
        self.postgres.configure(synchronous_standby_names=names)
        self.postgres.sql("SELECT pg_reload_conf()")

    def blocked(self) -> bool:
        rows = self.postgres.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        return bool(rows)

    def wait_blocked(self) -> None:
        wait_until(self.blocked)

    def assert_all_have_the_same(self, numbers: tuple[int, ...] = ALL) -> None:
        """After a clean stop: every log is the compute's WAL, byte for byte, and committed."""
        end = flush_lsn(self.postgres)
        self.postgres.stop()
        self.three.wait(numbers, lambda status: status.commit_lsn >= end)
        ends = {self.three.status(number).flush_lsn for number in numbers}
        assert len(ends) == 1
        expected = compute_wal(self.postgres, self.three.start_lsn, ends.pop())
        assert all(self.three.wal(number) == expected for number in numbers)


@contextmanager
def followed_by_three(root: Path) -> Iterator[Quorum]:
    with three_safekeepers(root) as three, plain_postgres(fsync="off") as postgres:
        postgres.sql("CREATE TABLE ledger (id bigint PRIMARY KEY, filler text)")
        system_id = postgres.sql("SELECT system_identifier FROM pg_control_system()")[0][0]
        three.begin_at(flush_lsn(postgres), int(system_id))
        three.create()
        three.win()
        three.attach(ALL, postgres.conninfo())
        quorum = Quorum(three, postgres)
        postgres.configure(**SYNCHRONOUS)
        quorum.rule("ANY 2 (sk1, sk2, sk3)")
        quorum.wait_for("sk1", "sk2", "sk3")
        yield quorum


@pytest.fixture
def quorum(tmp_path: Path) -> Iterator[Quorum]:
    with followed_by_three(tmp_path) as running:
        yield running


def test_kill_9_of_any_one_loses_nothing_and_stops_nobody(quorum: Quorum) -> None:
    committer = Committer(quorum)  # type: ignore[arg-type]
    for number in ALL:
        others = tuple(other for other in ALL if other != number)
        committer.wait_for(20)
        quorum.three.at[number].stop(signal.SIGKILL)
        committer.wait_for(20)
        known = committer.acknowledged_lsn
        assert all(quorum.three.status(other).flush_lsn >= known for other in others)
        quorum.three.at[number].start()
        quorum.wait_for("sk1", "sk2", "sk3")
        quorum.three.wait(ALL, lambda status, known=known: status.commit_lsn >= known)
    committer.finish()
    quorum.assert_all_have_the_same()


def test_one_may_freeze_and_with_two_frozen_commits_wait(quorum: Quorum) -> None:
    committer = Committer(quorum)  # type: ignore[arg-type]
    committer.wait_for(10)
    quorum.three.at[2].send(signal.SIGSTOP)
    committer.wait_for(10)
    quorum.three.at[3].send(signal.SIGSTOP)
    quorum.wait_blocked()
    stuck = committer.acknowledged
    assert stays(lambda: committer.acknowledged <= stuck + 1, 0.5)
    quorum.three.at[2].send(signal.SIGCONT)
    committer.wait_for(10)
    quorum.three.at[3].send(signal.SIGCONT)
    committer.finish()
    quorum.assert_all_have_the_same()


def test_all_killed_at_once_and_a_new_term_finds_every_commit(quorum: Quorum) -> None:
    committer = Committer(quorum, filler=20000)  # type: ignore[arg-type]
    committer.wait_for(30)
    for process in quorum.three.at.values():
        process.send(signal.SIGKILL)
    quorum.postgres.stop(signal.SIGKILL)
    committer.join(timeout=30)
    for process in quorum.three.at.values():
        process.stop(signal.SIGKILL)
        process.start()
    for voters in ((1, 2), (2, 3), (3, 1)):
        quorum.three.win(voters)
        assert quorum.three.end[0] >= committer.acknowledged_lsn
    expected = compute_wal(quorum.postgres, quorum.three.start_lsn, quorum.three.end[0])
    assert quorum.three.wal(1) == quorum.three.wal(3) == expected


def test_a_fenced_compute_is_confirmed_by_nobody_who_promised(quorum: Quorum) -> None:
    committer = Committer(quorum)  # type: ignore[arg-type]
    committer.wait_for(10)
    quorum.three.win((1, 2))
    quorum.wait_blocked()
    assert committer.acknowledged_lsn <= quorum.three.end[0]
    stuck = committer.acknowledged
    assert stays(lambda: committer.acknowledged == stuck, 0.5)
    assert quorum.following() == {"sk3"}, "it has not been told yet, and is no majority"
    quorum.postgres.sql("SET synchronous_commit = local; INSERT INTO ledger VALUES (-1)")
    vain = lsn_of(quorum.postgres, "pg_current_wal_flush_lsn()")
    assert vain > quorum.three.end[0]
    quorum.three.wait((3,), lambda status: status.flush_lsn >= vain)
    assert quorum.three.status(3).commit_lsn <= quorum.three.end[0]
    assert quorum.three.vote(3).granted
    assert quorum.three.elect(3).flush_lsn == quorum.three.end[0], "what came in vain is cut"
    assert quorum.following() == set()


def test_an_empty_disk_is_replaced_while_clients_write(quorum: Quorum) -> None:
    three = quorum.three
    committer = Committer(quorum)  # type: ignore[arg-type]
    committer.wait_for(20)
    three.wipe(3)
    committer.wait_for(20)
    learner = three.admit(3)
    three.end = three.status(1).commit_lsn, 0
    three.fill(3, [1, 2])
    three.attach((3,), quorum.postgres.conninfo())
    name = f"sk3_{learner.incarnation}"
    members = [*three.configuration.members[:2], learner]
    quorum.rule(f"ANY 3 (sk1, sk2, sk3, {name})")
    quorum.wait_for("sk1", "sk2", name)
    committer.wait_for(20)
    three.change(members, ALL)
    quorum.rule(f"ANY 2 (sk1, sk2, {name})")
    three.at[1].stop(signal.SIGKILL)
    committer.wait_for(20)
    committer.finish()
    three.at[1].start()
    quorum.wait_for("sk1")
    quorum.assert_all_have_the_same()
