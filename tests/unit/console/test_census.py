"""The rows of the console: in the order of the tree, and what came since."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.console.census import Census, in_tree_order
from pagestore.console.login import LINK_SECONDS, Login, hosts_of
from pagestore.errors import InvalidInput, Unauthenticated
from pagestore.sdk.values import Facts
from tests import access


def facts(name: str, parent: str | None = None, lsn: str = "0/100") -> Facts:
    return Facts(
        name=name,
        url="",
        lsn=lsn,
        parent=parent,
        branch_lsn="0/80" if parent else None,
        compute="stopped",
        postgres=15,
        physical_bytes=7,
        created_at=datetime(2026, 11, 30, tzinfo=UTC),
        expires_at=None,
        created=False,
    )


def names(census: Census) -> list[tuple[str, int]]:
    return [(row["name"], row["depth"]) for row in census.page(0, 100)["rows"]]


def test_a_parent_comes_before_its_branches_by_name() -> None:
    parents = {"b": None, "a": "b", "c": "a", "z": "b", "orphan": "gone", "aa": None}
    assert in_tree_order(parents) == [
        ("aa", 0),
        ("b", 0),
        ("a", 1),
        ("c", 2),
        ("z", 1),
        ("orphan", 0),
    ]


def test_a_tree_of_ten_thousand_is_told_by_pages() -> None:
    census = Census()
    for number in range(10_000):
        census.learn(facts(f"db-{number:05}", "db-00000" if number else None))
    page = census.page(9_990, 500)
    assert page["total"] == 10_000
    assert [row["name"] for row in page["rows"]] == [f"db-{n:05}" for n in range(9_990, 10_000)]


def told(rows: list[Any], news: dict[str, Any]) -> list[Any]:
    """What a page makes of news, as static/store.js does."""
    new = {row["name"]: row for row in news["rows"]}
    moved = [row for row in news["rows"] if row["moved"]]
    elsewhere = {row["name"] for row in moved} | set(news["gone"])
    kept = [new.get(row["name"], row) for row in rows if row["name"] not in elsewhere]
    for row in sorted(moved, key=lambda row: row["index"]):
        kept.insert(row["index"], row)
    return kept


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from([None, *"abcdef", "gone"])),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 5),
)
def test_who_follows_the_news_has_what_the_whole_list_says(
    steps: list[tuple[str, str | None]], each: int
) -> None:
    """Whatever comes, goes or gets another parent, in whatever order it is heard of."""
    census = Census()
    rows: list[Any] = []
    version = 0
    for number, (name, parent) in enumerate(steps, 1):
        if parent is not None and parent >= name:
            census.forget(name)
        else:
            census.learn(facts(name, parent))
        if number % each == 0:
            news = census.since(version)
            rows, version = told(rows, news), news["version"]
            whole = census.page(0, 100)["rows"]
            places = [(row["name"], row["depth"]) for row in whole]
            assert [(row["name"], row["depth"]) for row in rows] == places


def test_only_what_has_changed_is_news() -> None:
    census = Census()
    census.learn(facts("app"))
    census.learn(facts("try", "app"))
    seen = census.version
    census.learn(facts("app"))
    assert census.since(seen)["rows"] == []
    census.learn(facts("app", lsn="0/200"))
    census.learn_awake([{"name": "try", "state": "awake", "sessions": 1, "why": None}])
    news = census.since(seen)
    assert {row["name"]: row["state"] for row in news["rows"]} == {"app": "asleep", "try": "awake"}
    seen = census.version
    census.learn_awake([{"name": "try", "state": "awake", "sessions": 1, "why": None}])
    assert census.version == seen
    census.forget("app")
    assert census.since(seen)["gone"] == ["app"]
    assert names(census) == [("try", 0)]
    census.learn(facts("app"))
    assert census.since(seen)["gone"] == []
    assert names(census) == [("app", 0), ("try", 1)]


def test_where_a_database_stands_is_learned_besides() -> None:
    census = Census()
    census.learn(facts("app"))
    seen = census.version
    census.learn_figures([replace(facts("app", lsn="0/900"), physical_bytes=99), facts("unknown")])
    (row,) = census.since(seen)["rows"]
    assert (row["lsn"], row["at"], row["bytes"]) == ("0/900", 0x900, 99)
    census.learn(replace(facts("app"), compute="running"))
    assert census.page(0, 1)["rows"][0]["lsn"] == "0/900"


def test_a_branch_stands_where_it_began_until_more_is_known() -> None:
    census = Census()
    census.learn(facts("try", "app", lsn="0/0"))
    assert census.page(0, 1)["rows"][0]["at"] == 0x80
    census.learn_figures([facts("try", "app", lsn="0/900")])
    assert census.page(0, 1)["rows"][0]["at"] == 0x900


def test_what_went_while_nobody_listened_is_gone() -> None:
    census = Census()
    for name in ("a", "b", "c"):
        census.learn(facts(name))
    seen = census.version
    census.keep_only(["b"])
    assert sorted(census.since(seen)["gone"]) == ["a", "c"]


def test_news_wakes_who_waits() -> None:
    async def story() -> None:
        census = Census()
        waiting = asyncio.create_task(census.news(census.version, 60))
        await asyncio.sleep(0)
        census.learn(facts("app"))
        assert await waiting
        assert not await census.news(census.version, 0.01)

    asyncio.run(story())


def test_a_link_holds_once_and_not_for_long() -> None:
    now = [0.0]
    login = Login(access.guard(), hosts_of("127.0.0.1:7474"), lambda: now[0])
    word = login.new_link()
    assert login.by_link(word)
    for spoilt in (word, ""):
        with pytest.raises(Unauthenticated):
            login.by_link(spoilt)
    word = login.new_link()
    now[0] += LINK_SECONDS + 1
    with pytest.raises(Unauthenticated):
        login.by_link(word)


@pytest.mark.parametrize("listen", ["", "7474", "127.0.0.1", "127.0.0.1:x"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(InvalidInput):
        hosts_of(listen)
