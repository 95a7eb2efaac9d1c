"""Names that nobody should use get a clear error, and nothing else notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.installation import Whole, whole_pagestore

BAD_NAMES = {
    "empty": "",
    "slash": "a/b",
    "dots": "..",
    "newline": "a\nb",
    "long": "x" * 65536,
    "spaces": "  ",
    "bell": "a\x07b",
}


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        running.json("create", "app")
        running.sql("app", "CREATE TABLE t AS SELECT 1 AS one")
        running.json("checkpoint", "app", "start")
        yield running


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
@pytest.mark.parametrize(
    "verb", [["create"], ["branch", "app"], ["checkpoint", "app"]], ids=lambda v: v[0]
)
def test_a_bad_name_is_refused(whole: Whole, verb: list[str], name: str) -> None:
    error = whole.error(*verb, "--", name)
    assert error["reason"] == "INVALID_NAME"
    assert error["hint"]
    assert whole.sql("app", "SELECT one FROM t") == [(1,)]


@pytest.mark.parametrize("name", ["Ünïcode", "数据库", 'quo"te', "with space", "semi;colon", "50%"])
def test_an_odd_name_works_like_any_other(whole: Whole, name: str) -> None:
    made = whole.json("create", name)
    assert made["name"] == name
    assert whole.sql(name, "SELECT current_database()") == [(name,)]
    whole.json("rm", name)


def test_unknown_names_and_points_say_so(whole: Whole) -> None:
    cases = [
        (("show", "nobody"), "DATABASE_NOT_FOUND"),
        (("branch", "nobody", "b"), "DATABASE_NOT_FOUND"),
        (("restore", "app", "never"), "CHECKPOINT_NOT_FOUND"),
        (("branch", "app", "b", "--at", "FFFF/0"), "LSN_BEYOND_HEAD"),
        (("branch", "app", "b", "--at", "0/10"), "POINT_TOO_OLD"),
    ]
    for command, reason in cases:
        error = whole.error(*command)
        assert error["reason"] == reason, command
    assert [row["name"] for row in whole.json("ls")["databases"]] == ["app"]


def test_a_name_taken_is_a_conflict_unless_asked(whole: Whole) -> None:
    error = whole.error("create", "app")
    assert error["reason"] == "DATABASE_EXISTS"
    assert whole.json("create", "app", "--if-not-exists")["created"] is False
