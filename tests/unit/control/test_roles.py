"""The roles of a database are read once, until something is committed to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pagestore.control.logs import End
from pagestore.control.roles import Roles
from pagestore.errors import NotFound
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.pgformat import relmap
from pagestore.postgres.shared_catalogs import PG_AUTHID

TIMELINE = TimelineId.generate()
XID = 800


def page(*rows: bytes) -> bytes:
    """A heap page of these tuples."""
    pointers, body, end = b"", b"", 8192
    for row in rows:
        end -= len(row)
        pointers += (end | 1 << 15 | len(row) << 17).to_bytes(4, "little")
        body = row + body
    lower = 24 + len(pointers)
    head = bytes(12) + lower.to_bytes(2, "little") + bytes(10)
    return (head + pointers).ljust(end, b"\0") + body


def role(name: str, *, xmin: int = 2, xmax: int = 0) -> bytes:
    """A row of pg_authid without password and end, and without hint bits."""
    header = xmin.to_bytes(4, "little") + xmax.to_bytes(4, "little") + bytes(10)
    header += (12).to_bytes(2, "little") + (0x0001).to_bytes(2, "little") + b"\x20"
    nulls = (0b0011_1111_1111).to_bytes(2, "little")
    data = (99).to_bytes(4, "little") + name.encode().ljust(64, b"\0") + b"\0\0\0\0\1\0\0"
    row = (header + nulls).ljust(0x20, b"\0") + data
    return row.ljust(-(-len(row) // 4) * 4, b"\0") + (-1).to_bytes(4, "little", signed=True)


class Fakes:
    """A page server, the logs and a history in one; counts what it is asked."""

    def __init__(self) -> None:
        self.commit_lsn = 100
        self.pages = [page(role("postgres"))]
        self.xact = bytearray(32 * 8192)
        self.number = PG_AUTHID
        self.oldest_segment = 0
        self.asked: list[str] = []

    def commit(self, xid: int) -> None:
        self.xact[xid // 4] |= 1 << xid % 4 * 2

    async def end(self, _: TimelineId) -> End:
        self.asked.append("status")
        await asyncio.sleep(0)
        return End(self.commit_lsn)

    async def last_record(self, _: TimelineId, end: End) -> Any:
        return type("Point", (), {"lsn": end.commit_lsn})

    async def get_relation_map(self, *_: object) -> bytes:
        self.asked.append("map")
        await asyncio.sleep(0)
        return relmap.pack({PG_AUTHID: self.number})

    async def get_rel_size(self, tenant: Any, timeline: Any, lsn: int, rel: Any) -> int | None:
        return len(self.pages) if rel == (1664, 0, self.number, 0) else None

    async def get_pages(self, tenant: Any, timeline: Any, lsn: int, rel: Any, blocks: Any) -> Any:
        if rel != (1664, 0, self.number, 0) or max(blocks) >= len(self.pages):
            raise NotFound("BLOCK_BEYOND_END", "there is no such block")
        self.asked.append(f"pages {list(blocks)}")
        return [self.pages[block] for block in blocks]

    async def get_slru_segment(self, *asked: Any) -> bytes:
        if asked[-1] < self.oldest_segment:
            raise NotFound("SEGMENT_NOT_FOUND", "there is no such segment")
        self.asked.append(f"xact {asked[-1]}")
        return bytes(self.xact)


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


def roles_of(fakes: Fakes) -> Roles:
    parts: Any = fakes
    return Roles(parts, parts, parts)


def test_an_unchanged_database_costs_no_read(fakes: Fakes) -> None:
    async def story() -> None:
        roles = roles_of(fakes)
        for _ in range(5):
            assert set(await roles.of(DEFAULT_TENANT, TIMELINE)) == {"postgres"}
        assert fakes.asked.count("map") == 1
        fakes.pages.append(page(role("ann", xmin=XID)))
        fakes.commit(XID)
        assert set(await roles.of(DEFAULT_TENANT, TIMELINE)) == {"postgres"}, "nothing committed"
        fakes.commit_lsn += 1
        assert set(await roles.of(DEFAULT_TENANT, TIMELINE)) == {"postgres", "ann"}
        assert fakes.asked.count("map") == 2

    asyncio.run(story())


def test_rows_without_hint_bits_are_judged_by_pg_xact(fakes: Fakes) -> None:
    fakes.pages = [
        page(
            role("committed", xmin=XID),
            role("aborted", xmin=XID + 1),
            role("dropped", xmin=XID, xmax=XID + 2),
            role("kept", xmin=XID, xmax=XID + 1),
        )
    ]
    fakes.commit(XID)
    fakes.commit(XID + 2)
    found = asyncio.run(roles_of(fakes).of(DEFAULT_TENANT, TIMELINE))
    assert set(found) == {"committed", "kept"}


def test_one_round_of_questions_is_enough_for_nearly_all(fakes: Fakes) -> None:
    fakes.pages = [page(role("ann", xmin=XID))]
    fakes.commit(XID)
    asyncio.run(roles_of(fakes).of(DEFAULT_TENANT, TIMELINE))
    assert sorted(fakes.asked) == ["map", "pages [0]", "status", "xact 0"]


def test_what_was_guessed_wrongly_is_asked_for(fakes: Fakes) -> None:
    """pg_authid was rewritten, and its rows are of transactions beyond the first million, whose
    log is gone."""
    late = 32 * 8192 * 4 + XID
    fakes.number, fakes.oldest_segment = 4711, 1
    fakes.pages = [page(role("ann", xmin=late)), page(role("bob", xmin=late))]
    fakes.commit(XID)
    found = asyncio.run(roles_of(fakes).of(DEFAULT_TENANT, TIMELINE))
    assert set(found) == {"ann", "bob"}
    fakes.pages = []
    assert asyncio.run(roles_of(fakes).of(DEFAULT_TENANT, TIMELINE)) == {}


def test_who_comes_at_once_shares_what_is_asked_after_they_came(fakes: Fakes) -> None:
    async def story() -> None:
        roles = roles_of(fakes)
        await asyncio.gather(*(roles.of(DEFAULT_TENANT, TIMELINE) for _ in range(50)))
        assert fakes.asked.count("map") == 1
        assert fakes.asked.count("status") <= 3

    asyncio.run(story())


def test_a_stranger_costs_what_a_database_costs(fakes: Fakes) -> None:
    async def story() -> None:
        roles = roles_of(fakes)
        await roles.of(DEFAULT_TENANT, TIMELINE)
        known, fakes.asked = fakes.asked, []
        await roles.of(DEFAULT_TENANT, TIMELINE, "nothing")
        assert fakes.asked == known, "at first"
        fakes.asked = []
        await roles.of(DEFAULT_TENANT, TIMELINE, "nothing")
        assert fakes.asked == ["status"], "and afterwards"

    asyncio.run(story())
