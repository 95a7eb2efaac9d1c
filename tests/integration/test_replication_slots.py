"""Replication slots outlive their compute: over stop and start, a kill, and undo; not a branch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pagestore.ids import TimelineId
from tests.integration.stack import Compute, Stack, running_stack
from tests.plain_postgres import plain_postgres

APP = {"owner": "app", "settings": {"wal_level": "logical"}}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as made:
        yield made


@pytest.fixture(scope="module")
def template(stack: Stack) -> tuple[TimelineId, int]:
    with plain_postgres(wal_level="logical") as cluster:
        cluster.sql("CREATE TABLE items (id int PRIMARY KEY)")
        cluster.stop()
        timeline = stack.import_cluster(cluster.data)
    compute = stack.start(timeline, owner="template")
    lsn = compute.lsn()
    compute.stop()
    return timeline, lsn


@pytest.fixture
def timeline(stack: Stack, template: tuple[TimelineId, int]) -> TimelineId:
    return stack.branch(*template)


def make_slot(compute: Compute, name: str = "taken") -> None:
    compute.sql(f"SELECT pg_create_logical_replication_slot('{name}', 'test_decoding')")


def insert(compute: Compute, *ids: int) -> None:
    for number in ids:
        compute.sql(f"INSERT INTO items VALUES ({number})")


def consume(compute: Compute, name: str = "taken") -> list[int]:
    rows = compute.sql(f"SELECT data FROM pg_logical_slot_get_changes('{name}', NULL, NULL)")
    return [int(row[0].split(":")[-1]) for row in rows if "INSERT" in row[0]]


def slots(compute: Compute) -> list[str]:
    rows = compute.sql(
        "SELECT slot_name FROM pg_replication_slots WHERE slot_name !~ '^_pagestore_' ORDER BY 1"
    )
    return [row[0] for row in rows]


def test_a_slot_goes_on_over_stop_and_start_where_it_was(
    stack: Stack, timeline: TimelineId
) -> None:
    compute = stack.start(timeline, **APP)
    make_slot(compute)
    insert(compute, 1, 2)
    assert consume(compute) == [1, 2]
    insert(compute, 3, 4)
    for round_number in range(3):
        assert compute.stop().clean
        compute = stack.start(timeline, **APP)
        insert(compute, 5 + round_number)
    assert consume(compute) == [3, 4, 5, 6, 7]
    assert consume(compute) == []
    compute.stop()


def test_a_slot_outlives_a_kill_from_the_moment_it_is_told_of(
    stack: Stack, timeline: TimelineId
) -> None:
    compute = stack.start(timeline, **APP)
    make_slot(compute)
    compute.kill()
    compute = stack.start(timeline, **APP)
    assert slots(compute) == ["taken"]
    insert(compute, 1, 2, 3)
    compute.kill()
    compute = stack.start(timeline, **APP)
    insert(compute, 4)
    assert consume(compute) == [1, 2, 3, 4]
    compute.kill()
    compute = stack.start(timeline, **APP)
    insert(compute, 5)
    assert consume(compute)[-1] == 5  # perhaps again, never not at all
    compute.stop()
