"""WAL that nobody needs: one budget for all, and none at all for a log at rest."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pagestore.consensus.acceptor import Attachment, Heard, WalPosition
from pagestore.errors import OutOfRange
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.walservice import segments
from pagestore.walservice.budget import REST_SECONDS, Budget
from pagestore.walservice.horizon import Horizon
from pagestore.walservice.retention import is_consumed, spare
from pagestore.walservice.safekeeper import Safekeeper, Settings
from pagestore.walservice.watch import TimelineKey
from tests.unit.walservice.test_retention import (
    END,
    KEY,
    LONG,
    MEMBERS,
    START,
    filled,
    names,
    release,
    state_of_three,
)
from tests.unit.walservice.test_segments import SEGMENT, Log

OTHERS = [TimelineKey(DEFAULT_TENANT, TimelineId.generate()) for _ in range(3)]


def following(log: Log, *lengths: int) -> Log:
    """Records that go on where a log ends."""
    more = Log(log.end.flush_lsn)
    more.ends[0] = log.end
    for length in lengths:
        more.add(bytes([7]) * length)
    return more


def test_who_grows_has_what_the_others_leave() -> None:
    budget = Budget(100)
    assert budget.share(KEY, 40, 1) == 100
    assert budget.share(OTHERS[0], 50, 2) == 60
    assert budget.share(OTHERS[1], 90, 3) == 10
    assert budget.total == 180
    assert budget.share(OTHERS[1], 10, 4) == 10
    budget.forget(OTHERS[0])
    assert (budget.total, budget.share(OTHERS[1], 5, 5)) == (50, 60)


def test_the_longest_at_rest_lets_go_first_and_only_while_too_much_is_kept() -> None:
    budget = Budget(100)
    for at, key in enumerate(OTHERS):
        budget.share(key, 40, at)
    assert budget.to_rest(REST_SECONDS - 1) is None
    assert budget.to_rest(REST_SECONDS) == OTHERS[0]
    budget.put_off(OTHERS[0], REST_SECONDS)
    assert budget.to_rest(REST_SECONDS + 0.5) is None
    assert budget.to_rest(REST_SECONDS + 1) == OTHERS[1]
    budget.share(OTHERS[1], 0, REST_SECONDS + 1)
    assert budget.total == 80
    assert budget.to_rest(10**9) is None


def test_a_log_is_consumed_when_everybody_has_all_of_it() -> None:
    everybody_past = Horizon(0, {"page": END})
    state = state_of_three()
    at_end = state.position
    assert is_consumed(state, at_end, everybody_past)
    assert spare(state, at_end, everybody_past) == 10 * SEGMENT
    assert not is_consumed(state, at_end, Horizon())
    assert not is_consumed(state, at_end, everybody_past.released("slow", END - 8))
    assert not is_consumed(state, WalPosition(END - 8, 0), everybody_past)
    uncommitted = replace(state, known_commit_lsn=START, heard=state.heard[:1])
    assert not is_consumed(uncommitted, at_end, everybody_past)
    behind = (state.heard[0], Heard(MEMBERS[2], 2, 1, END - 8, START))
    assert not is_consumed(replace(state, heard=behind), at_end, everybody_past)
    attached = replace(state, attachment=Attachment(2, "host=/tmp port=1"))
    assert not is_consumed(attached, at_end, everybody_past)
    assert spare(attached, at_end, everybody_past) == 9 * SEGMENT
    assert spare(state, at_end, Horizon(END, {"page": END})) == 0


def test_a_log_at_rest_needs_no_file_and_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = await filled(tmp_path, LONG)
        await release(keeper, LONG.end.flush_lsn)
        assert len(names(keeper)) == 1
        assert await keeper.rest(KEY)
        assert names(keeper) == []
        assert keeper.budget.total == 0
        end = LONG.end.flush_lsn
        for _ in range(2):
            async with keeper.use(KEY) as timeline:
                assert (timeline.base_lsn, timeline.state.position) == (end, LONG.end)
                assert await timeline.align(end) == LONG.end
                with pytest.raises(OutOfRange, match="it is kept from"):
                    await timeline.align(end - 8)
            await keeper.close()
            keeper = await Safekeeper.open(tmp_path, Settings(keep_bytes=0))
        more = following(LONG, 100, 3000, SEGMENT)
        async with keeper.use(KEY) as timeline:
            await timeline.vote(2)
            await timeline.append(2, end, more.data)
            assert await timeline.read(end, 500) == more.data[:500]
            assert timeline.state.position == more.end
        await keeper.close()
        keeper = await Safekeeper.open(tmp_path, Settings(keep_bytes=0))
        async with keeper.use(KEY) as timeline:
            assert timeline.state.position == more.end
        await keeper.close()

    asyncio.run(main())


def test_what_is_needed_does_not_rest(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = await filled(tmp_path, LONG)
        assert not await keeper.rest(KEY)
        await release(keeper, LONG.ends[-2].flush_lsn)
        before = names(keeper)
        assert not await keeper.rest(KEY)
        assert names(keeper) == before
        await keeper.close()

    asyncio.run(main())


def test_a_crash_between_the_horizon_and_the_files_of_a_log_at_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise OSError(5, "the process died here")

    async def main() -> None:
        keeper = await filled(tmp_path, LONG)
        await release(keeper, LONG.end.flush_lsn)
        with monkeypatch.context() as patch:
            patch.setattr(segments, "remove_all", dies)
            assert not await keeper.rest(KEY)
        assert len(names(keeper)) == 1
        await keeper.close()
        keeper = await Safekeeper.open(tmp_path, Settings(keep_bytes=0))
        more = following(LONG, 100, 300)
        async with keeper.use(KEY) as timeline:
            await timeline.vote(2)
            await timeline.append(2, LONG.end.flush_lsn, more.data)
            assert timeline.state.position == more.end
        await keeper.close()

    asyncio.run(main())


def test_ten_thousand_that_rest_keep_no_more_than_the_budget() -> None:
    """By the policy alone: each wrote a little, and was consumed."""
    budget = Budget(64 << 20)
    keys = [TimelineKey(DEFAULT_TENANT, TimelineId.generate()) for _ in range(10_000)]
    for at, key in enumerate(keys):
        budget.share(key, SEGMENT, at)
    gone = 0
    while (resting := budget.to_rest(20_000)) is not None:
        budget.share(resting, 0, 20_000)
        gone += 1
    assert (budget.total, gone) == (64 << 20, 10_000 - 4)
