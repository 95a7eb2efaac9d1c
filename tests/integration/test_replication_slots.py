"""Replication slots outlive their compute: over stop and start, a kill, and undo; not a branch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pagestore.ids import TimelineId
from pagestore.postgres.settings import HBA_FILE
from tests.integration.stack import Compute, Stack, running_stack
from tests.plain_postgres import plain_postgres
from tests.waiting import wait_until

APP = {"owner": "app", "settings": {"wal_level": "logical"}}
PUBLISHER = {**APP, "host": "127.0.0.1", "wal_password": "of the safekeeper"}
"""Another server reaches it."""


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


def test_an_undo_keeps_the_slot_as_it_was_at_that_moment(
    stack: Stack, timeline: TimelineId
) -> None:
    compute = stack.start(timeline, **APP)
    make_slot(compute)
    insert(compute, 1, 2)
    assert consume(compute) == [1, 2]
    compute.sql("CHECKPOINT")
    insert(compute, 3)
    good = compute.lsn()
    insert(compute, 4)
    compute.stop()
    undone = stack.start(stack.branch(timeline, good), **APP)
    assert slots(undone) == ["taken"]
    assert undone.running.remarks == ()
    insert(undone, 5)
    assert consume(undone) == [3, 5]
    undone.kill()


def test_an_undo_disables_subscriptions_and_says_so(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline, **APP)
    words = "PUBLICATION p WITH (connect = false, slot_name = 'far')"
    compute.sql(f"CREATE SUBSCRIPTION follows CONNECTION 'host=/nowhere' {words}")
    compute.sql("ALTER SUBSCRIPTION follows ENABLE")
    good = compute.lsn()
    compute.stop()
    compute = stack.start(timeline, **APP)
    assert compute.sql("SELECT subenabled FROM pg_subscription") == [(True,)]
    assert compute.running.remarks == ()
    compute.stop()
    undone = stack.start(stack.branch(timeline, good), **APP)
    assert undone.sql("SELECT subenabled FROM pg_subscription") == [(False,)]
    assert any("(follows)" in remark for remark in undone.running.remarks)
    undone.kill()


def test_an_undo_to_before_the_slot_has_none(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline, **APP)
    before = compute.lsn()
    make_slot(compute)
    compute.stop()
    undone = stack.start(stack.branch(timeline, before), **APP)
    assert slots(undone) == []
    undone.kill()


def test_a_dropped_slot_stays_dropped(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline, **APP)
    make_slot(compute)
    compute.sql("SELECT pg_create_physical_replication_slot('bytes', true)")
    compute.sql("SELECT pg_drop_replication_slot('taken')")
    compute.lsn()
    compute.kill()
    compute = stack.start(timeline, **APP)
    assert slots(compute) == ["bytes"]
    compute.stop()


def test_a_branch_has_no_slots_and_says_so(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline, **APP)
    make_slot(compute)
    insert(compute, 1)
    here = compute.lsn()
    branched = stack.branch(timeline, here)
    for round_number in range(2):
        branch = stack.start(branched, **{**APP, "owner": "try"})
        assert slots(branch) == []
        said = [remark for remark in branch.running.remarks if "(taken)" in remark]
        assert len(said) == (1 if round_number == 0 else 0)
        make_slot(branch, f"own_{round_number}")
        branch.sql(f"SELECT pg_drop_replication_slot('own_{round_number}')")
        insert(branch, 10 + round_number)
        branch.stop()
    again = stack.start(stack.branch(branched, here), **{**APP, "owner": "try"})
    assert slots(again) == []
    again.kill()
    insert(compute, 2)
    assert consume(compute) == [1, 2]
    compute.stop()


def test_decoding_sees_through_a_rewritten_catalog(stack: Stack, timeline: TimelineId) -> None:
    """What it has moved is noted in pg_logical/mappings, which the next compute has, too."""
    compute = stack.start(timeline, **APP)
    make_slot(compute)
    with compute.connect() as session:
        session.execute("BEGIN")
        session.execute("CREATE TABLE made (id int)")
        session.execute("INSERT INTO made VALUES (1)")
        for catalog in ("pg_class", "pg_attribute", "pg_type"):
            compute.sql(f"VACUUM FULL {catalog}")
        session.execute("COMMIT")
    mappings = "SELECT pg_ls_dir('pg_logical/mappings') ORDER BY 1"
    before = compute.sql(mappings)
    assert before
    compute.kill()
    compute = stack.start(timeline, **APP)
    assert compute.sql(mappings) == before
    assert consume(compute) == [1]
    compute.kill()


def test_safekeepers_slots_are_named_as_ours_and_take_no_room(
    stack: Stack, timeline: TimelineId
) -> None:
    settings = {"wal_level": "logical", "max_replication_slots": "3"}
    compute = stack.start(timeline, owner="app", settings=settings)
    names = compute.sql("SELECT slot_name FROM pg_replication_slots")
    assert names == [("_pagestore_sk1",)]
    for number in range(3):
        make_slot(compute, f"slot_{number}")
    compute.stop()
    compute = stack.start(timeline, owner="app", settings=settings)
    assert slots(compute) == ["slot_0", "slot_1", "slot_2"]
    compute.kill()


def test_no_session_can_write_the_state_of_a_slot(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline, **APP)
    make_slot(compute)
    compute.sql(
        "SELECT pg_logical_emit_message(false, 'pagestore.slot',"
        " convert_to(rpad('taken', 64, ' '), 'utf8') || '\\x0000000000000000')"
    )
    body = "\\x" + b"taken".ljust(64, b"\0").hex() + "00" * 8
    compute.sql(f"SELECT pg_logical_emit_message(false, 'pagestore.slot', '{body}'::bytea)")
    insert(compute, 1)
    compute.stop()
    compute = stack.start(timeline, **APP)
    assert slots(compute) == ["taken"]
    compute.kill()


def test_a_slot_that_holds_back_too_much_is_lost_and_says_so(
    stack: Stack, timeline: TimelineId
) -> None:
    settings = {"wal_level": "logical", "pagestore.slot_wal_keep_size": "32MB"}
    compute = stack.start(timeline, owner="app", settings=settings)
    make_slot(compute)
    compute.sql(
        "CREATE TABLE wide AS SELECT repeat(md5(i::text), 60) FROM generate_series(1, 25000) i"
    )

    def status() -> str:
        return str(
            compute.sql("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'taken'")[0][
                0
            ]
        )

    wait_until(lambda: status() == "lost")
    compute.stop()
    compute = stack.start(timeline, owner="app", settings=settings)
    assert status() == "lost"
    assert any("(taken)" in remark and "lost" in remark for remark in compute.running.remarks)
    compute.kill()


def test_a_subscription_misses_nothing_and_its_copies_are_disabled(
    stack: Stack, template: tuple[TimelineId, int]
) -> None:
    published = stack.branch(*template)
    source = stack.start(published, **PUBLISHER)
    subscribed = stack.branch(*template)
    target = stack.start(subscribed, **{**APP, "owner": "copy"})
    source.sql("CREATE PUBLICATION all_items FOR TABLE items")
    target.sql(f"CREATE SUBSCRIPTION follows CONNECTION '{conninfo(source)}' PUBLICATION all_items")
    insert(source, 1, 2, 3)
    wait_until(lambda: ids(target) == [1, 2, 3])
    here = target.lsn()
    copy = stack.start(stack.branch(subscribed, here), **{**APP, "owner": "another"})
    assert any("(follows)" in remark for remark in copy.running.remarks)
    assert copy.sql("SELECT subname, subenabled FROM pg_subscription") == [("follows", False)]
    insert(source, 4, 5)
    source.kill()
    source = stack.start(published, **PUBLISHER)
    target.sql(f"ALTER SUBSCRIPTION follows CONNECTION '{conninfo(source)}'")
    insert(source, 6)
    source.stop()
    source = stack.start(published, **PUBLISHER)
    target.sql(f"ALTER SUBSCRIPTION follows CONNECTION '{conninfo(source)}'")
    insert(source, 7)
    wait_until(lambda: ids(target) == [1, 2, 3, 4, 5, 6, 7])
    assert ids(copy) == [1, 2, 3]
    copy.stop()
    copy = stack.start(copy.timeline, **{**APP, "owner": "another"})
    assert copy.sql("SELECT subenabled FROM pg_subscription") == [(False,)]
    target.stop()
    target = stack.start(subscribed, **{**APP, "owner": "copy"})
    assert target.sql("SELECT subenabled FROM pg_subscription") == [(True,)]
    for compute in (copy, target, source):
        compute.kill()


def conninfo(compute: Compute) -> str:
    """For another server, whom neither the socket lets in nor, but for safekeepers, the address;
    in an installation it comes through the proxy."""
    compute.sql("ALTER ROLE postgres PASSWORD 'known'")
    with (compute.running.directory / HBA_FILE).open("a") as file:
        file.write("hostssl all postgres 127.0.0.1/32 scram-sha-256\n")
    compute.sql("SELECT pg_reload_conf()")
    port = compute.running.port
    return f"host=127.0.0.1 port={port} user=postgres password=known dbname=postgres"


def ids(compute: Compute) -> list[int]:
    return [row[0] for row in compute.sql("SELECT id FROM items ORDER BY 1")]
