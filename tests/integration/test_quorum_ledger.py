"""Promise 1 over three safekeepers: what was acknowledged is there, whatever fails meanwhile.

Every part is on a host of its own. Clients commit rows without a pause; faults come one after
the other, in an order that a seed decides (``--ledger-seed``, printed by a failure). After each
one every acknowledged row must be in the database, on a branch of its head, and in the
database again after its compute was started from nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from tests.integration.faults import FAULTS, Effect, Fault
from tests.integration.installation import patiently, sql
from tests.integration.rows import SELECT, TABLE, Ledger, Row
from tests.integration.spread import Spread, spread_pagestore
from tests.network import Host
from tests.waiting import let_pass

CLIENTS = 4
STANDSTILL_SECONDS = 1.5
LASTING_SECONDS = (0.5, 3)
LONG_ROUNDS = 8
SHORT = 8
"""Faults of a short run; which ones, the seed decides."""
FOLLOWING = (
    "SELECT s.rule ~ '^ANY 2 [(][^,]+,[^,]+,[^,]+[)]$' AND count(*) FILTER"
    " (WHERE r.flush_lsn >= %s::pg_lsn AND s.rule ~ (r.application_name || '[,) ]')) = 3"
    " FROM pg_stat_replication r, current_setting('synchronous_standby_names') s (rule)"
    " WHERE r.state = 'streaming' GROUP BY s.rule"
)


class Run:
    """Clients, faults and questions on one installation."""

    def __init__(self, spread: Spread, seed: int) -> None:
        self.spread = spread
        self.choices = random.Random(seed)
        with spread.plane() as control:
            self.url = control.create("app").url
        self._sql(self.url, TABLE)
        self.ledger = Ledger(spread.client, self.url, CLIENTS)
        self.history: list[str] = []

    def suffer(self, fault: Fault) -> None:
        self.history.append(fault.name)
        self.ledger.wait_progress()
        before = len(self.ledger.errors)
        with fault.within(self.spread, self.choices):
            if fault.effect in (Effect.LATENCY, Effect.RESTART):
                self.ledger.wait_progress()
            elif fault.effect is Effect.STANDSTILL:
                self.ledger.wait_standstill(STANDSTILL_SECONDS)
            let_pass(self.choices.uniform(*LASTING_SECONDS))
        self.ledger.wait_progress()
        self.wait_whole()
        if fault.effect in (Effect.LATENCY, Effect.STANDSTILL):
            assert self.ledger.errors[before:] == []

    def wait_whole(self) -> None:
        """Until three safekeepers follow the compute, and commits wait for two of them."""
        lsn = self._patient(self.url, "SELECT pg_current_wal_flush_lsn()::text")[0][0]
        query = FOLLOWING.replace("%s", f"'{lsn}'")
        deadline = time.monotonic() + 120
        while self._patient(self.url, query) != [(True,)]:
            assert time.monotonic() < deadline, "the safekeepers are not whole again"
            time.sleep(0.1)

    def audit(self) -> None:
        """On the database, on a branch at its head, and after a start from nothing."""
        self._check("app", self.url)
        known = self.ledger.acknowledged()
        with self.spread.plane() as control:
            branch = control.branch("app", "copy")
            self.ledger.check(known, self._rows(branch.url), "branch")
            control.delete("copy")
            control.stop("app")
            control.wake("app")
        self._check("app after a restart", self.url)

    def _check(self, where: str, url: str) -> None:
        known = self.ledger.acknowledged()
        self.ledger.check(known, self._rows(url), where)

    def _rows(self, url: str) -> list[Row]:
        return [(int(a), int(b), int(c)) for a, b, c in self._patient(url, SELECT)]

    def _patient(self, url: str, statement: str) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = patiently(lambda: self._sql(url, statement))
        return found

    def _sql(self, url: str, statement: str) -> list[tuple[object, ...]]:
        return self.spread.client.run(lambda: sql(url, statement))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    given = request.config.getoption("--ledger-seed")
    return random.randrange(1 << 30) if given is None else int(given)


@pytest.fixture
def spread() -> Iterator[Spread]:
    with spread_pagestore(3, control_socket=True) as hosts:
        hosts.start()
        yield hosts


def shuffled(choices: random.Random, rounds: int) -> list[Fault]:
    return [fault for _ in range(rounds) for fault in choices.sample(FAULTS, len(FAULTS))]


def run_through(spread: Spread, seed: int, faults: list[Fault]) -> None:
    run = Run(spread, seed)
    try:
        run.ledger.start()
        for fault in faults:
            run.suffer(fault)
            run.audit()
        run.ledger.stop()
        run.audit()
    except BaseException as failure:
        failure.add_note(f"--ledger-seed {seed}; faults: {run.history}\n{spread.logs()}")
        raise


@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost(spread: Spread, seed: int) -> None:
    run_through(spread, seed, shuffled(random.Random(seed), 1)[:SHORT])


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_nothing_acknowledged_is_lost_in_a_long_run(spread: Spread, seed: int) -> None:
    run_through(spread, seed, shuffled(random.Random(seed), LONG_ROUNDS))


def test_what_the_check_finds() -> None:
    ledger = Ledger(Host("none", "none", ""), "", 1)
    sent, lost, unknown = (0, 0, 0), (0, 1, 0), (0, 1, 1)
    ledger.clients[0].begun += [sent, lost, unknown]
    ledger.check({sent}, [sent], "nothing of unknown outcome")
    ledger.check({sent}, [sent, unknown], "a row of unknown outcome")
    for found, fault in (
        ([sent], "acknowledged rows are lost"),
        ([sent, lost, unknown, unknown], "rows are there twice"),
        ([sent, lost, (0, 2, 0)], "rows were never sent"),
    ):
        with pytest.raises(AssertionError, match=fault):
            ledger.check({sent, lost}, found, "here")
