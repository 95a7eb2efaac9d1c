"""Which WAL may go, what the horizon file says of it, and what is left to be read."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pagestore._native import crc32c
from pagestore.consensus.acceptor import Heard, State, TermSwitch, WalPosition, initial
from pagestore.consensus.members import Configuration, Member
from pagestore.errors import DataLoss, OutOfRange, Unavailable
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.walservice import horizon, segments
from pagestore.walservice.horizon import NEVER_AGAIN, Horizon
from pagestore.walservice.owner import Owner
from pagestore.walservice.retention import droppable
from pagestore.walservice.safekeeper import Safekeeper, Settings
from pagestore.walservice.watch import TimelineKey
from tests.unit.walservice.test_segments import SEGMENT, Log

KEY = TimelineKey(DEFAULT_TENANT, TimelineId.generate())
OWNER = Owner(*KEY, 1)
START = SEGMENT + 40
END = 10 * SEGMENT + 800
MEMBERS = (Member(1), Member(2), Member(3))


def log_of(segments_long: int) -> Log:
    """Its records run over the ends of segments, and one of them over more than a page."""
    log = Log(START, *[SEGMENT // 2 - 4096] * 2 * segments_long, 1000)
    assert all(at.flush_lsn % SEGMENT for at in log.ends)
    return log


LONG = log_of(2)


def state_of_three(**changes: object) -> State:
    """Elected in term 2, everything flushed by all and committed."""
    heard = tuple(Heard(member, 2, 1, END, END) for member in MEMBERS[1:])
    state = replace(
        initial(WalPosition(START, 0), 1, MEMBERS[0], Configuration(1, MEMBERS)),
        term=2,
        history=(TermSwitch(2, START),),
        position=WalPosition(END, 0),
        known_commit_lsn=END,
        heard=heard,
    )
    return replace(state, **changes)  # type: ignore[arg-type]


def test_all_but_what_somebody_may_ask_for_can_go() -> None:
    everybody_past = Horizon(0, {"page": END})
    state = state_of_three()
    at_end = state.position
    first = 10 * SEGMENT
    assert droppable(state, at_end, everybody_past, 0) == first
    assert droppable(state, at_end, everybody_past, 800) == 9 * SEGMENT
    assert droppable(state, at_end, everybody_past, 3 * SEGMENT) == 7 * SEGMENT
    assert droppable(state, at_end, everybody_past, 100 * SEGMENT) == 0
    slow = everybody_past.released("other", 4 * SEGMENT + 1)
    assert droppable(state, at_end, slow, 0) == 4 * SEGMENT
    assert droppable(state, at_end, slow.released("other", 3), 0) == 4 * SEGMENT, "never less"
    assert droppable(state, at_end, slow.released("other", NEVER_AGAIN), 0) == first
    assert droppable(state, WalPosition(2 * SEGMENT, 0), everybody_past, 0) == SEGMENT
    committed = replace(state, known_commit_lsn=5 * SEGMENT + 8)
    assert droppable(committed, at_end, everybody_past, 0) == 5 * SEGMENT


def test_nothing_goes_while_nobody_has_come_for_it() -> None:
    state = state_of_three()
    assert droppable(state, state.position, Horizon(), 0) == 0
    left = Horizon(0, {"page": END}).released("page", NEVER_AGAIN)
    assert droppable(state, state.position, left, 0) == 0


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        (Heard(MEMBERS[2], 2, 1, 6 * SEGMENT + 8, START), 6 * SEGMENT),
        (Heard(MEMBERS[2], 1, 1, END, END), 0),
        (Heard(Member(3, 77), 2, 1, END, END), 0),
    ],
    ids=["behind", "of another term", "of a lost one"],
)
def test_members_count_by_what_they_have_of_this_log(heard: Heard, expected: int) -> None:
    state = state_of_three(heard=(Heard(MEMBERS[1], 2, 1, END, END), heard))
    assert droppable(state, state.position, Horizon(0, {"page": END}), 0) == expected


def test_the_layout_of_the_horizon_file() -> None:
    known = Horizon(0x5000000, {"page": 0x6000028, "b": 7})
    whose = KEY.tenant.raw + KEY.timeline.raw + struct.pack("<I", 1)
    consumers = struct.pack("<QI", 7, 1) + b"b" + struct.pack("<QI", 0x6000028, 4) + b"page"
    body = struct.pack("<8sIIQ", b"PSSKHOR\0", 2, 2, 0x5000000) + whose + consumers
    assert horizon.encode(known, OWNER) == body + struct.pack("<I", crc32c(body))
    assert horizon.decode(horizon.encode(known, OWNER), OWNER, "here") == known
    old = struct.pack("<8sIIQ", b"PSSKHOR\0", 1, 2, 0x5000000) + consumers
    assert horizon.decode(old + struct.pack("<I", crc32c(old)), OWNER, "here") == known


def test_the_horizon_of_another_log_is_refused() -> None:
    raw = horizon.encode(Horizon(SEGMENT, {"page": 3}), OWNER)
    for other in (OWNER._replace(number=2), OWNER._replace(timeline=TimelineId.generate())):
        with pytest.raises(DataLoss, match="/x/horizon") as refusal:
            horizon.decode(raw, other, "/x/horizon")
        assert refusal.value.reason == "HORIZON_FOREIGN"


def test_a_damaged_horizon_file_is_named(tmp_path: Path) -> None:
    assert horizon.read(tmp_path, OWNER) == Horizon()
    horizon.replace(tmp_path, Horizon(SEGMENT, {"page": 3}), OWNER)
    raw = bytearray((tmp_path / "horizon").read_bytes())
    raw[20] ^= 1
    (tmp_path / "horizon").write_bytes(raw)
    with pytest.raises(DataLoss, match="horizon") as damage:
        horizon.read(tmp_path, OWNER)
    assert damage.value.reason == "HORIZON_DAMAGED"


async def filled(data_dir: Path, log: Log, keep_bytes: int = 0) -> Safekeeper:
    """A safekeeper that is alone, with this log."""
    keeper = await Safekeeper.open(data_dir, Settings(keep_bytes=keep_bytes))
    await keeper.create(KEY, log.start, 42)
    async with keeper.use(KEY) as timeline:
        await timeline.vote(1)
        await timeline.append(1, START, log.data)
    return keeper


def names(keeper: Safekeeper) -> list[str]:
    directory = keeper.data_dir / str(KEY.tenant) / str(KEY.timeline)
    return sorted(path.name for path in directory.iterdir() if len(path.name) == 24)


async def release(keeper: Safekeeper, lsn: int, consumer: str = "page") -> None:
    async with keeper.use(KEY) as timeline:
        await timeline.release(consumer, lsn)


def test_released_segments_go_and_the_rest_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = await filled(tmp_path, LONG)
        assert len(names(keeper)) == 3
        await release(keeper, LONG.end.flush_lsn)
        assert len(names(keeper)) == 1
        await keeper.close()
        keeper = await Safekeeper.open(tmp_path, Settings(keep_bytes=0))
        async with keeper.use(KEY) as timeline:
            oldest = timeline.base_lsn
            assert oldest == (LONG.end.flush_lsn - 1) // SEGMENT * SEGMENT
            with pytest.raises(OutOfRange, match="has been dropped; it is kept from") as old:
                await timeline.check_readable(oldest - 1)
            assert old.value.reason == "LSN_TOO_OLD"
            assert await timeline.read(oldest, SEGMENT) == LONG.data[oldest - START :]
        await keeper.close()

    asyncio.run(main())


def test_lsns_align_as_far_as_wal_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = await filled(tmp_path, LONG)
        await release(keeper, LONG.ends[2].flush_lsn + 8)
        async with keeper.use(KEY) as timeline:
            oldest = timeline.base_lsn
            kept = [at for at in LONG.ends if at.flush_lsn >= oldest]
            assert len(kept) < len(LONG.ends)
            first = kept[0] = WalPosition(kept[0].flush_lsn, 0)
            for before, after in pairwise(kept):
                assert await timeline.align(after.flush_lsn - 8) == before
            assert await timeline.align(first.flush_lsn) == first
            with pytest.raises(OutOfRange, match="it is kept from"):
                await timeline.align(first.flush_lsn - 8)
            assert segments.first_end(timeline.directory, oldest, END) == first.flush_lsn
        await keeper.close()

    asyncio.run(main())


def test_a_crash_between_the_horizon_and_the_files_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise OSError(5, "the process died here")

    async def main() -> None:
        keeper = await filled(tmp_path, LONG)
        with monkeypatch.context() as patch:
            patch.setattr(segments, "remove_before", dies)
            await release(keeper, LONG.ends[2].flush_lsn)
        assert len(names(keeper)) == 3
        await keeper.close()
        keeper = await Safekeeper.open(tmp_path, Settings(keep_bytes=0))
        async with keeper.use(KEY) as timeline:
            with pytest.raises(OutOfRange, match="has been dropped"):
                await timeline.check_readable(START)
        await release(keeper, LONG.end.flush_lsn)
        assert len(names(keeper)) == 1
        await keeper.close()

    asyncio.run(main())


def test_a_consumer_that_is_not_stored_is_not_promised_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a crash would forget it, and drop what it still needs."""

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async def main() -> None:
        keeper = await filled(tmp_path, LONG)
        with monkeypatch.context() as patch:
            patch.setattr(horizon, "replace", fails)
            with pytest.raises(Unavailable) as failure:
                await release(keeper, LONG.end.flush_lsn)
            assert failure.value.reason == "WAL_WRITE_FAILED"
        assert len(names(keeper)) == 3
        await release(keeper, START, "slow")
        await keeper.close()
        keeper = await Safekeeper.open(tmp_path, Settings(keep_bytes=0))
        await release(keeper, LONG.end.flush_lsn)
        assert len(names(keeper)) == 3, "the slow one is remembered"
        await release(keeper, NEVER_AGAIN, "slow")
        assert len(names(keeper)) == 1
        await keeper.close()

    asyncio.run(main())


def test_the_newest_wal_stays(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = await filled(tmp_path, LONG, keep_bytes=SEGMENT)
        await release(keeper, LONG.end.flush_lsn)
        async with keeper.use(KEY) as timeline:
            assert timeline.state.position.flush_lsn - timeline.base_lsn >= SEGMENT
            assert timeline.base_lsn > START
        await keeper.close()

    asyncio.run(main())
