"""What can be said without a database: rows beside rows, dumps beside dumps, what to read."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.difference import schemas, session
from pagestore.difference.parting import settled_later
from pagestore.difference.rows import Row, TableDifference, compare
from pagestore.difference.session import SqlSession, lines_of
from pagestore.difference.tables import Place, Table, TableName, blocks_to_read, unescaped


async def stream(rows: Sequence[tuple[str, str]]) -> AsyncIterator[Row]:
    for key, row in sorted(rows, key=lambda item: (item[0].encode(), item[1].encode())):
        yield Row(key, row)


def compared(
    ours: Sequence[tuple[str, str]], theirs: Sequence[tuple[str, str]], limit: int = 100
) -> TableDifference:
    return asyncio.run(compare(stream(ours), stream(theirs), limit))


rows_by_key = st.dictionaries(st.text(max_size=2), st.text(max_size=1), max_size=8)


@given(rows_by_key, rows_by_key)
def test_rows_with_a_key_are_told_as_dictionaries_would(
    ours: dict[str, str], theirs: dict[str, str]
) -> None:
    found = compared([*ours.items()], [*theirs.items()])
    assert found.deleted == len(ours.keys() - theirs.keys())
    assert found.inserted == len(theirs.keys() - ours.keys())
    assert found.updated == sum(ours[key] != theirs[key] for key in ours.keys() & theirs.keys())
    assert len(found.rows) == found.total


@given(st.lists(st.text(max_size=1), max_size=8), st.lists(st.text(max_size=1), max_size=8))
def test_rows_without_a_key_count_as_often_as_they_are_there(
    ours: list[str], theirs: list[str]
) -> None:
    found = compared([(row, row) for row in ours], [(row, row) for row in theirs])
    assert found.updated == 0
    values = {*ours, *theirs}
    assert found.deleted == sum(max(0, ours.count(v) - theirs.count(v)) for v in values)
    assert found.inserted == sum(max(0, theirs.count(v) - ours.count(v)) for v in values)


def test_only_so_many_rows_are_told() -> None:
    found = compared([], [(f"{n:03}", "x") for n in range(50)], limit=3)
    assert (found.inserted, len(found.rows)) == (50, 3)


DUMP = """
--
-- PostgreSQL database dump
--
\\restrict {token}
SET statement_timeout = 0;

--
-- Name: kind; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.kind AS ENUM (
    'a'{more}
);

--
-- Name: t; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.t (
    a integer,
    b public.kind
);
{extra}
\\unrestrict {token}
"""
VIEW = """
--
-- Name: v; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.v AS
 SELECT t.a FROM public.t;
"""
RULE = """
--
-- Name: w; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.w AS
 SELECT v.a FROM public.v;
"""


def test_objects_that_came_went_and_changed_are_told_in_an_order_that_works() -> None:
    plain = DUMP.format(token="abc", more="", extra="")
    assert schemas.changed(plain, DUMP.format(token="xyz", more="", extra="")) == []
    assert schemas.objects("SET statement_timeout = 0;") == {}, "nothing was made yet"
    rich = DUMP.format(token="abc", more=",\n    'b'", extra=VIEW + RULE)
    came = schemas.changed(plain, rich)
    assert [str(item.what) for item in came] == [
        "TYPE public.kind",
        "VIEW public.v",
        "VIEW public.w",
    ]
    assert "+    'b'" in came[0].lines
    assert came[1].before is None
    gone = schemas.changed(rich, plain)
    assert [str(item.what) for item in gone] == [
        "VIEW public.w",
        "VIEW public.v",
        "TYPE public.kind",
    ]


def test_when_one_side_fails_nobody_still_reads_of_the_other() -> None:
    told: list[str] = []

    async def failing() -> AsyncIterator[Row]:
        raise ValueError("cannot be read")
        yield Row("", "")

    async def slow() -> AsyncIterator[Row]:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        told.append("read")
        yield Row("a", "a")

    async def both(ours: AsyncIterator[Row], theirs: AsyncIterator[Row]) -> None:
        with pytest.raises(ValueError, match="cannot be read"):
            await compare(ours, theirs, 1)
        assert told == ["read"]

    asyncio.run(both(failing(), slow()))
    told.clear()
    asyncio.run(both(slow(), failing()))


VERSIONED = """\
--
-- Name: t; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.t (
    i integer,
    t text
);
ALTER TABLE ONLY public.t ALTER COLUMN i SET (pg_attver={version});
ALTER TABLE ONLY public.t ALTER COLUMN t SET (n_distinct={distinct}, pg_attver={version});
ALTER TABLE ONLY public.t ALTER COLUMN u SET (pg_attver={version}, n_distinct=1);
"""


def test_when_a_column_was_defined_is_no_difference() -> None:
    one, other = (VERSIONED.format(version=version, distinct=5) for version in (35322832, 9))
    without = re.sub(
        r"^.*SET \(pg_attver=9\);\n|, pg_attver=9|pg_attver=9, ", "", other, flags=re.MULTILINE
    )
    assert "attver" not in without
    assert "u SET (n_distinct=1)" in without
    assert schemas.changed(one, other) == []
    assert schemas.changed(one, without) == []
    (found,) = schemas.changed(one, VERSIONED.format(version=9, distinct=6))
    assert [line for line in found.lines if line[:1] in "+-"] == [
        "-ALTER TABLE ONLY public.t ALTER COLUMN t SET (n_distinct=5);",
        "+ALTER TABLE ONLY public.t ALTER COLUMN t SET (n_distinct=6);",
    ]


def table(blocks: int = 100, rel: int = 1, heap: bool = True) -> Table:
    return Table(TableName("public", "t"), Place(1663, 5, rel), blocks, "a", heap, "a 23")


def numbers(*blocks: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array(blocks, np.uint32)


def test_only_blocks_that_were_changed_are_read() -> None:
    both = blocks_to_read(table(), table(), [numbers(3, 5), numbers(5, 9)])
    assert both is not None
    assert both.tolist() == [3, 5, 9]
    nothing = blocks_to_read(table(), table(), [numbers(), numbers()])
    assert nothing is not None
    assert len(nothing) == 0


def test_what_one_side_has_cut_off_is_read() -> None:
    both = blocks_to_read(table(97), table(100), [numbers(3), numbers()])
    assert both is not None
    assert both.tolist() == [3, 97, 98, 99]


@pytest.mark.parametrize(
    ("ours", "theirs", "changed"),
    [
        pytest.param(table(), table(), None, id="unknown"),
        pytest.param(table(), table(rel=2), [numbers(), numbers()], id="written anew"),
        pytest.param(table(heap=False), table(), [numbers(), numbers()], id="not a heap"),
        pytest.param(table(), table(), [numbers(*range(60)), numbers()], id="most of it"),
    ],
)
def test_else_a_table_is_read_whole(
    ours: Table, theirs: Table, changed: Sequence[np.ndarray[tuple[int], np.dtype[np.uint32]]]
) -> None:
    assert blocks_to_read(ours, theirs, changed) is None


@pytest.mark.parametrize("number", range(9))
def test_a_transaction_that_came_to_an_end_later_is_seen(number: int) -> None:
    before, after = bytearray(8), bytearray(8)
    after[number // 4] = 1 << 2 * (number % 4)
    assert settled_later(bytes(before), bytes(after), 9)
    assert not settled_later(bytes(before), bytes(after), number), "it had not begun"
    assert not settled_later(bytes(after), bytes(after), 9), "it had ended"
    after[number // 4] <<= 1
    assert not settled_later(bytes(before), bytes(after), 9), "what was rolled back is nowhere"
    assert not settled_later(b"", bytes(after), 9)


@given(st.text(st.sampled_from("\\\t\n\r\b\f\vanN x"), max_size=8))
def test_what_copy_escapes_is_understood(text: str) -> None:
    escapes = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
    assert unescaped("".join({**escapes, "\v": "\\v"}.get(c, c) for c in text)) == text


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=12)),
    st.integers(1, 7),
)
def test_lines_are_the_same_in_whatever_pieces_they_come(texts: list[str], size: int) -> None:
    async def read() -> list[str]:
        stream = asyncio.StreamReader()
        raw = "".join(f"{text}\n" for text in texts).encode() + b"no end"
        for at in range(0, len(raw), size):
            stream.feed_data(raw[at : at + size])
        stream.feed_eof()
        return [line async for line in lines_of(stream)]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(session, "_PIECE_BYTES", size)
        assert asyncio.run(read()) == texts


def test_what_is_not_read_yet_waits_with_whoever_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an endless table, by a psql that has no end."""
    program = tmp_path / "psql"
    program.write_text(f"#!/bin/sh\necho '{session._END}'\nexec yes\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    async def written() -> int:
        async with await SqlSession.open("app", "postgresql://u:p@127.0.0.1:1/app") as opened:
            async for _ in opened.lines("TABLE t"):
                break
            await asyncio.sleep(0.5)
            told = Path(f"/proc/{opened._process.pid}/io").read_text()
        return int(dict(line.split(": ") for line in told.splitlines())["wchar"])

    assert asyncio.run(written()) <= 8 * session._PIECE_BYTES
