"""`pagestore diff` on real branches: each way of changing a table; what was not is not read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.installation import Whole, whole_pagestore

SETUP = [
    "CREATE TABLE big (id int PRIMARY KEY, word text)",
    "INSERT INTO big SELECT n, 'word ' || n FROM generate_series(1, 30000) n",
    "CREATE TABLE untouched AS SELECT generate_series(1, 5000) AS n",
    'CREATE TABLE "odd ""name" (a int, "B c" text, PRIMARY KEY ("B c", a))',
    "INSERT INTO \"odd \"\"name\" VALUES (1, E'tab\\there'), (2, 'back\\slash')",
    "CREATE TABLE keyless (a int, b text)",
    "INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, NULL)",
    "CREATE TABLE toasted (id int PRIMARY KEY, body text)",
    "INSERT INTO toasted SELECT n, repeat(md5(n::text), 2000) FROM generate_series(1, 5) n",
    "CREATE TABLE rewritten (id int PRIMARY KEY)",
    "INSERT INTO rewritten SELECT generate_series(1, 2000)",
    "CREATE TABLE parted (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
    "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100)",
    "VACUUM",
    "CREATE TABLE last (a int)",  # behind that commit nothing was touched
]
CHANGES = [
    "UPDATE big SET word = 'other' WHERE id IN (7, 20000)",
    "DELETE FROM big WHERE id = 8",
    "INSERT INTO big VALUES (40000, 'new')",
    'UPDATE "odd ""name" SET a = 3 WHERE a = 2',
    "DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless)",
    "UPDATE toasted SET body = body || '!' WHERE id = 3",
    "DELETE FROM rewritten WHERE id = 5",
    "VACUUM FULL rewritten",
    "INSERT INTO parted VALUES (1)",
    "ALTER TABLE untouched ADD CONSTRAINT positive CHECK (n > 0)",
    "CREATE TABLE fresh (a int)",
]


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as made:
        made.json("create", "app", "--set", "autovacuum=off")
        for statement in SETUP:
            made.sql("app", statement)
        yield made


def counts(told: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    return {
        item["name"]: (item["inserted"], item["updated"], item["deleted"])
        for item in told["tables"]
    }


def test_a_branch_is_as_its_parent_until_it_is_changed(whole: Whole) -> None:
    whole.json("branch", "app", "same")
    told = whole.json("diff", "app", "same")
    assert (told["differs"], told["tables_read"]) == (False, 0)
    assert told["changed_blocks_known"]


def test_all_that_was_changed_is_told_and_little_is_read(whole: Whole) -> None:
    whole.json("branch", "app", "try")
    for statement in CHANGES:
        whole.sql("try", statement)
    told = whole.json("diff", "app", "try")
    assert counts(told) == {
        "big": (1, 2, 1),
        'odd "name': (1, 0, 1),
        "keyless": (0, 0, 1),
        "toasted": (0, 1, 0),
        "rewritten": (0, 0, 1),
        "parted_1": (1, 0, 0),
    }
    rows = {item["name"]: item["rows"] for item in told["tables"]}
    assert {"kind": "updated", "before": '{"id":7,"word":"word 7"}',
            "after": '{"id":7,"word":"other"}'} in rows["big"]  # fmt: skip
    assert told["only_in_other"] == ["public.fresh"]
    assert [(item["kind"], item["name"]) for item in told["schema"]] == [
        ("TABLE", "fresh"),
        ("TABLE", "untouched"),
    ]
    (blocks,) = whole.sql("app", "SELECT pg_relation_size('big') / 8192")[0]
    assert told["blocks_read"] < blocks, "of both"
    all_read = whole.json("diff", "app", "try", "--whole")
    assert (all_read["tables"], all_read["schema"]) == (told["tables"], told["schema"])
    assert all_read["blocks_read"] > 2 * blocks
    back = whole.json("diff", "try", "app")
    assert counts(back)["big"] == (1, 2, 1)
    assert counts(back)["parted_1"] == (0, 0, 1)
    shown = whole.run("diff", "app", "try", "--exit-code", check=False)
    assert shown.returncode == 1
    assert "table public.big: 1 inserted, 2 updated, 1 deleted" in shown.stdout
    assert '  ~ {"id":7,"word":"other"}' in shown.stdout


def test_what_both_have_changed_since_is_told(whole: Whole) -> None:
    whole.json("branch", "app", "mine")
    whole.sql("mine", "UPDATE big SET word = 'mine' WHERE id = 100")
    whole.sql("app", "UPDATE big SET word = 'app' WHERE id IN (100, 101)")
    told = whole.json("diff", "app", "mine")
    assert told["changed_blocks_known"]
    assert counts(told) == {"big": (0, 2, 0)}
    assert whole.json("diff", "app", "mine", "--whole")["tables"] == told["tables"]
    whole.json("stop", "mine")
    assert counts(whole.json("diff", "mine", "app")) == {"big": (0, 2, 0)}, "asleep, too"


def test_a_transaction_that_was_under_way_at_the_branch_is_told(whole: Whole) -> None:
    """Its rows are in blocks that neither side has touched since."""
    with whole.connect("app") as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO untouched SELECT generate_series(-200, -1)")
        whole.sql("app", "INSERT INTO keyless VALUES (9, 'committed behind it')")
        whole.json("branch", "app", "early")
        session.execute("COMMIT")
    told = whole.json("diff", "early", "app")
    assert counts(told) == {"untouched": (200, 0, 0)}


def test_the_same_table_made_in_both_is_no_difference(whole: Whole) -> None:
    """Although some minor releases note with each column at which LSN it was defined."""
    for name in ("left", "right"):
        whole.run("branch", "app", name)
    whole.sql("right", "CREATE TABLE only_right (i int)")
    for name in ("left", "right"):
        # Read whole, since the files have other numbers.
        whole.sql(name, "CREATE TABLE alike (i int PRIMARY KEY, t text DEFAULT 'x')")
        whole.sql(name, "CREATE TABLE keyless_too (t text, r int, k int)")
        whole.sql(name, "ALTER TABLE alike ALTER t SET (n_distinct = 5)")
        whole.sql(name, f"INSERT INTO alike VALUES (1, 'x'), (2, '{name}')")
        whole.sql(name, f"INSERT INTO keyless_too VALUES ('{name}', 1, 2), ('both', 1, 2)")
    told = whole.json("diff", "left", "right")
    assert [item["name"] for item in told["schema"]] == ["only_right"]
    assert counts(told) == {"alike": (0, 1, 0), "keyless_too": (1, 0, 1)}


def test_strangers_are_compared_whole(whole: Whole) -> None:
    whole.json("create", "stranger")
    whole.sql("stranger", "CREATE TABLE keyless (a int, b text)")
    told = whole.json("diff", "stranger", "app")
    assert not told["changed_blocks_known"] or told["tables_read"] > 0
    assert counts(told)["keyless"][2] == 0
    assert counts(told)["keyless"][0] > 0


def test_what_was_done_since_a_point_is_told_of_the_past_beside_now(
    whole: Whole, tmp_path: Path
) -> None:
    whole.json("create", "moved")
    whole.sql("moved", "CREATE TABLE kept AS SELECT generate_series(1, 3000) AS n")
    whole.json("checkpoint", "moved", "before")
    whole.sql("moved", "DELETE FROM kept WHERE n <= 4")
    whole.json("checkpoint", "moved", "between")
    whole.sql("moved", "CREATE TABLE later (a int)")
    told = whole.json("diff", "moved@before", "moved")
    assert counts(told) == {"kept": (0, 0, 4)}
    assert told["only_in_other"] == ["public.later"]
    between = whole.json("diff", "moved@before", "moved@between")
    assert counts(between) == {"kept": (0, 0, 4)}
    assert not between["schema"]
    assert not whole.json("diff", "moved@between", "moved@between")["differs"]
    whole.json("restore", "moved", "before")
    whole.sql("moved", "INSERT INTO kept VALUES (5000)")
    whole.json("checkpoint", "moved", "after")
    apart = whole.json("diff", "moved@between", "moved@after")
    assert counts(apart) == {"kept": (5, 0, 0)}, "each point is of its own history"
    whole.run("try", "moved", "2", "--at", "between", "--logs", str(tmp_path), "--", "true")
    for tried in ("try-1", "try-2"):
        assert not whole.json("diff", "moved@between", tried)["differs"]
    refused = whole.error("diff", "moved@never", "moved")
    assert refused["reason"] == "CHECKPOINT_NOT_FOUND"


def test_rows_that_have_other_columns_now_differ_whatever_block_they_are_in(whole: Whole) -> None:
    for change in ("ADD COLUMN more int DEFAULT 3", "DROP COLUMN word", "RENAME word TO term"):
        whole.json("branch", "app", "columns")
        whole.sql("columns", f"ALTER TABLE big {change}")
        told = whole.json("diff", "app", "columns")
        assert counts(told) == {"big": (0, 30000, 0)}, change
        assert told["tables_read"] == 1
        whole.json("rm", "columns")


def test_the_past_has_a_url_and_a_psql(whole: Whole) -> None:
    whole.json("create", "named")
    whole.sql("named", "CREATE TABLE it AS SELECT 1 AS n")
    lsn = whole.json("checkpoint", "named", "before it's gone")["lsn"]
    whole.sql("named", "DROP TABLE it")
    assert whole.json("diff", f"named@{lsn}", "named")["differs"]
    past = "named@before it's gone"
    assert whole.json("url", past)["url"] == whole.json("url", "named")["url"] + (
        "@before%20it%27s%20gone"
    )
    assert whole.run("psql", past, "-Atc", "TABLE it").stdout == "1\n"
    refused = whole.run("psql", past, "-c", "INSERT INTO it VALUES (2)", check=False)
    assert "read-only" in refused.stderr
    assert whole.json("url", f"named@{lsn}")["url"].endswith("/named@" + quote(lsn, safe=""))
    assert whole.run("psql", f"named@{lsn}", "-Atc", "TABLE it").stdout == "1\n"
    assert whole.error("url", past, "--direct")["reason"] == "PAST_WITHOUT_SOCKET"
    assert whole.error("url", "named@other")["reason"] == "CHECKPOINT_NOT_FOUND"
    assert whole.error("url", "nobody@other")["reason"] == "DATABASE_NOT_FOUND"
