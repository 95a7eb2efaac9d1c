"""Many timelines in one safekeeper: opened when used, closed when not, one object each."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from pagestore.consensus.acceptor import WalPosition
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.pgformat.wal import lay_out, record_bytes
from pagestore.walservice import control_file, safekeeper
from pagestore.walservice.safekeeper import Safekeeper, Settings
from pagestore.walservice.watch import TimelineKey
from tests.waiting import until

START = WalPosition(0x1000028, 0)


def new_key() -> TimelineKey:
    return TimelineKey(DEFAULT_TENANT, TimelineId.generate())


async def append(keeper: Safekeeper, key: TimelineKey) -> int:
    """One record behind the last; returns the new end."""
    async with keeper.use(key) as timeline:
        if timeline.state.term == 0:
            await timeline.vote(1)
        at = timeline.state.position
        record = record_bytes(0, 0x20, 0, at.prev_record_lsn, b"x" * 50)
        data, _, _ = lay_out(at.flush_lsn, record, system_id=1)
        return (await timeline.append(timeline.state.term, at.flush_lsn, data)).commit_lsn


async def create(keeper: Safekeeper, key: TimelineKey) -> None:
    await keeper.create(key, START, 1)


def test_unused_timelines_are_closed_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safekeeper, "MAX_OPEN", 4)

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path, Settings())
        keys = [new_key() for _ in range(20)]
        ends = {}
        for key in keys:
            await create(keeper, key)
        for _ in range(3):
            for key in keys:
                ends[key] = await append(keeper, key)
                assert len(keeper._open) <= 5
        for key in keys[:10]:
            control = control_file.read(keeper._directory(key), keeper.owner(key))
            assert control.clean
            assert control.state.commit_lsn == ends[key]
        await keeper.close()
        keeper = await Safekeeper.open(tmp_path, Settings())
        assert not keeper._open
        watcher = keeper.commits.watch()
        assert dict(watcher.take(1000)) == ends
        await keeper.close()

    asyncio.run(main())


def test_calls_that_are_cancelled_anywhere_leave_one_whole_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that go away at random, while timelines are evicted, deleted and made again."""
    monkeypatch.setattr(safekeeper, "MAX_OPEN", 2)
    dice = random.Random(20)
    keys = [new_key() for _ in range(6)]

    async def client(keeper: Safekeeper) -> None:
        for _ in range(25):
            key = dice.choice(keys)
            kind = dice.choices(("append", "create", "delete"), (6, 3, 1))[0]
            work = {"append": append, "create": create, "delete": Safekeeper.delete}[kind](
                keeper, key
            )
            task = asyncio.ensure_future(work)
            await asyncio.sleep(dice.choice([0, 0, 0.001, 0.003, 0.02]))
            task.cancel()
            # Of two that vote and append at once, one finds the term or the log taken.
            with contextlib.suppress(asyncio.CancelledError, PagestoreError):
                await task

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path, Settings())
        await asyncio.gather(*(client(keeper) for _ in range(8)))
        # What was begun for those who went away is finished.
        await until(lambda: not keeper._finishing._tasks)
        ends = {}
        for key in keys:
            await create(keeper, key)
            ends[key] = await append(keeper, key)
        await keeper.close()
        keeper = await Safekeeper.open(tmp_path, Settings())
        for key in keys:
            async with keeper.use(key) as timeline:
                assert timeline.state.commit_lsn == ends[key]
                await timeline.align(ends[key] - 8)
        await keeper.close()

    asyncio.run(main())


def test_a_second_safekeeper_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path, Settings())
        with pytest.raises(PagestoreError, match="Another safekeeper runs"):
            await Safekeeper.open(tmp_path, Settings())
        await keeper.close()
        await (await Safekeeper.open(tmp_path, Settings())).close()

    asyncio.run(main())
