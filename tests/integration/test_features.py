"""Each SQL feature on a database, on a branch taken midway, and after its directory is gone.

Plain Postgres runs the same statements; what it answers is right.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.integration.features import FEATURES, Feature, answers, run
from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.plain_postgres import PlainPostgres, plain_postgres

Answers = list[list[tuple[Any, ...]]]
BY_NAME = pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
SMALL = {"shared_buffers": "16MB", "max_prepared_transactions": "20"}


@dataclass
class World:
    whole: Whole
    midway: dict[str, Answers]
    end: dict[str, Answers]

    def answers(self, database: str, feature: Feature) -> Answers:
        return answers(feature, lambda: self.whole.connect(database))


def _half(which: str, whole: Whole, plain: PlainPostgres) -> dict[str, Answers]:
    truth = {}
    url = whole.json("url", "app")["url"]
    for feature in FEATURES:
        run(getattr(feature, which), plain.connect)
        run(getattr(feature, which), lambda: psycopg.connect(url, autocommit=True))
    for feature in FEATURES:
        truth[feature.name] = answers(feature, plain.connect)
    return truth


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with (
        whole_pagestore(SMALL) as whole,
        plain_postgres(**SMALL) as plain,
    ):
        whole.json("create", "app")
        midway = _half("before", whole, plain)
        whole.json("branch", "app", "midway")
        end = _half("after", whole, plain)
        yield World(whole, midway, end)


@pytest.fixture(scope="module")
def reborn(world: World) -> World:
    """The same databases after a clean stop that threw their directories away."""
    for name in ("app", "midway"):
        world.whole.json("stop", name)
        world.whole.json("start", name)
    return world


@BY_NAME
def test_on_the_database(world: World, feature: Feature) -> None:
    assert world.answers("app", feature) == world.end[feature.name]


@BY_NAME
def test_on_a_branch_taken_midway(world: World, feature: Feature) -> None:
    assert world.answers("midway", feature) == world.midway[feature.name]


@BY_NAME
def test_after_the_directory_is_gone(reborn: World, feature: Feature) -> None:
    assert reborn.answers("app", feature) == reborn.end[feature.name]
    assert reborn.answers("midway", feature) == reborn.midway[feature.name]


@pytest.fixture(scope="module")
def struck(reborn: World) -> World:
    """The database after its compute was killed: the control plane starts a new one."""
    whole = reborn.whole
    os.kill(whole.control().get("app", brief=True).compute_pid, signal.SIGKILL)
    patiently(lambda: whole.connect("app").close())
    return reborn


@BY_NAME
def test_after_the_compute_was_killed(struck: World, feature: Feature) -> None:
    assert struck.answers("app", feature) == struck.end[feature.name]


def test_the_branch_can_go_its_own_way(reborn: World) -> None:
    with reborn.whole.connect("midway") as connection:
        connection.execute("ROLLBACK PREPARED 'kept'")
        connection.execute("COMMIT PREPARED 'dropped'")
        rows = connection.execute("SELECT id FROM tp ORDER BY 1").fetchall()
    assert rows == [(2,), (3,)]
    assert reborn.whole.sql("app", "SELECT id FROM tp ORDER BY 1") == [(1,)]


@pytest.mark.parametrize("database", ["app", "midway"])
def test_amcheck_finds_nothing(reborn: World, database: str) -> None:
    with reborn.whole.connect(database) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        connection.execute(
            "SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam"
            " JOIN pg_index i ON i.indexrelid = c.oid"
            " WHERE a.amname = 'btree' AND i.indisvalid AND c.relpersistence = 'p'"
        )
        damage = connection.execute(
            "SELECT c.relname, v.* FROM pg_class c, verify_heapam(c.oid) v"
            " WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p'"
        ).fetchall()
    assert damage == []
