"""Parts are told what databases are called, all at first and then what changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from pagestore.control import naming
from pagestore.control.naming import AGAIN_SECONDS, LOOK_SECONDS, Naming
from pagestore.control.records import TenantRecord, TimelineState
from pagestore.control.state import ControlState
from pagestore.errors import Unavailable
from pagestore.ids import TenantId, TimelineId
from tests.unit.control.test_state import T1, T2, database, timeline
from tests.unit.virtual_time import play

ACME = TenantId(b"a" * 16)
LIVE = TimelineState.LIVE


class Part:
    """Knows what it was told since it was started last; is away while it has no run."""

    def __init__(self) -> None:
        self.run = 1
        self.known: dict[TimelineId, str] = {}
        self.told = 0

    def restart(self) -> None:
        self.run, self.known = self.run + 1, {}

    async def tell(self, names: Mapping[TimelineId, str]) -> int:
        if not self.run:
            raise Unavailable("AWAY", "It is away.")
        self.told += len(names)
        self.known.update(names)
        self.known = {key: name for key, name in self.known.items() if name}
        return self.run


def test_all_is_told_at_first_and_then_what_changes(tmp_path: Path) -> None:
    async def story() -> None:
        part = Part()
        with ControlState(tmp_path) as state:
            with state.change() as change:
                change.put_timeline(timeline(T1, "app", LIVE))
                change.put_timeline(timeline(TimelineId(b"t" * 16), "", LIVE))
                change.put_database(database("app"))
            names = Naming(state, [part])
            await names.tell()
            assert part.known == {T1: "app"}, "a template is no database"
            with state.change() as change:
                change.put_tenant(TenantRecord(tenant=ACME, name="acme", created_micros=1))
                theirs = timeline(T2, "app", LIVE).model_copy(update={"tenant": ACME})
                change.put_timeline(theirs)
                change.rename_database(database("app"), "shop")
            part.told = 0
            await names.tell()
            assert (part.known, part.told) == ({T1: "shop", T2: "acme/app"}, 2)
            with state.change() as change:
                change.forget_timeline(T2)
            await names.tell()
            assert part.known == {T1: "shop"}

    play(story())


def test_one_that_was_away_or_is_another_process_is_told_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "AT_ONCE", 1)

    async def story() -> None:
        part, beside = Part(), Part()
        with ControlState(tmp_path) as state:
            for number, name in enumerate(("one", "two", "three")):
                with state.change() as change:
                    change.put_timeline(timeline(TimelineId(bytes([number]) * 16), name, LIVE))
            names = Naming(state, [part, beside])
            await names.tell()
            assert sorted(part.known.values()) == ["one", "three", "two"]
            part.restart()
            part.told = beside.told = 0
            await names.tell()
            assert (len(part.known), part.told, beside.told) == (3, 3, 0)
            run, part.run = part.run, 0
            with state.change() as change:
                change.put_timeline(timeline(T1, "meanwhile", LIVE))
            await names.tell()
            part.run = run
            await names.tell()
            assert part.known[T1] == beside.known[T1] == "meanwhile"

    play(story())


def test_it_goes_on_by_itself(tmp_path: Path) -> None:
    async def story() -> None:
        part = Part()
        with ControlState(tmp_path) as state:
            running = asyncio.create_task(Naming(state, [part]).run())
            await asyncio.sleep(LOOK_SECONDS / 2)
            with state.change() as change:
                change.put_timeline(timeline(T1, "app", LIVE))
            await asyncio.sleep(LOOK_SECONDS * 2)
            assert part.known == {T1: "app"}
            part.restart()
            await asyncio.sleep(AGAIN_SECONDS * 1.1)
            assert part.known == {T1: "app"}
            running.cancel()

    play(story())
