"""Elections, appends and questions over three real safekeepers, without a compute."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest

from pagestore.client.walservice import Won
from pagestore.errors import Aborted, AlreadyExists, NotFound, Unavailable
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.pgformat.wal import checkpoint_shutdown_bytes
from pagestore.quorum.client import QuorumClient
from pagestore.v1 import page_pb2
from tests.safekeepers import ALL, Safekeepers, three_safekeepers
from tests.waiting import stays_on_loop

START = 0x1000028


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Safekeepers]:
    with three_safekeepers(tmp_path_factory.mktemp("three")) as made:
        yield made


@pytest.fixture
def three(running: Safekeepers) -> Iterator[Safekeepers]:
    running.run_all()
    yield running
    for process in running.at.values():
        process.tell_if_dead()


def addresses(three: Safekeepers) -> dict[int, str]:
    return {number: three.at[number].listen for number in ALL}


@dataclass
class Log:
    """A timeline, and records made for it."""

    client: QuorumClient
    timeline: TimelineId
    tenant: TenantId = DEFAULT_TENANT

    @property
    def key(self) -> tuple[TenantId, TimelineId]:
        return self.tenant, self.timeline

    async def append(self, won: Won, lsn: int, previous: int) -> tuple[int, int]:
        """One record at `lsn`; its end and its start."""
        data, record, end = checkpoint_shutdown_bytes(
            lsn, previous, page_pb2.ControlCounters(), timestamp=1, system_id=0
        )
        await self.client.append_wal(*self.key, won.term, lsn, data)
        return end, record

    async def elected_append(self) -> tuple[Won, int]:
        won = await self.client.win_term(*self.key)
        end, _ = await self.append(won, won.end_lsn, won.prev_record_lsn)
        return won, end

    async def commit_lsn(self) -> int:
        return (await self.client.get_status(*self.key)).commit_lsn


def client_of(three: Safekeepers) -> QuorumClient:
    """That never changes members."""
    return QuorumClient(addresses(three), generations=lambda above: above + 1, timeout=10)


def on(three: Safekeepers, work: Callable[[Log], Awaitable[None]]) -> None:
    """Runs `work` on a new timeline."""

    async def main() -> None:
        async with client_of(three) as client:
            log = Log(client, TimelineId.generate())
            await client.create_timeline(*log.key, START)
            await work(log)

    asyncio.run(main())


def test_a_term_after_the_other_continues_the_log(three: Safekeepers) -> None:
    async def work(log: Log) -> None:
        first, end = await log.elected_append()
        assert (first.term, first.end_lsn) == (1, START)
        assert first.needed == 2
        assert first.standbys == ("sk1", "sk2", "sk3")
        assert await log.commit_lsn() == end
        assert (await log.client.align_lsn(*log.key, end))[0] == end
        assert (await log.client.align_lsn(*log.key, end - 8))[0] == START
        second, last = await log.elected_append()
        assert (second.term, second.end_lsn) == (2, end)
        assert await log.commit_lsn() == last
        with pytest.raises(Aborted, match="Term 1 is over"):
            await log.append(first, last, second.end_lsn)
        with pytest.raises(AlreadyExists):
            await log.client.create_timeline(*log.key, START + 8)

    on(three, work)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_any_one_may_be_away(three: Safekeepers, how: signal.Signals) -> None:
    async def work(log: Log) -> None:
        for victim in three.at.values():
            _, before = await log.elected_append()
            victim.send(how)
            _, end = await log.elected_append()
            assert end > before
            assert await log.commit_lsn() == end
            fresh = Log(log.client, TimelineId.generate())
            await log.client.create_timeline(*fresh.key, START)
            await fresh.elected_append()
            victim.stop(signal.SIGKILL)
            victim.start()

    on(three, work)


def test_two_away_are_waited_for(three: Safekeepers) -> None:
    async def work(log: Log) -> None:
        _, end = await log.elected_append()
        three.at[1].stop(signal.SIGKILL)
        three.at[3].stop(signal.SIGKILL)
        waiting = asyncio.create_task(log.elected_append())
        assert await stays_on_loop(lambda: not waiting.done(), 1)
        three.at[3].start()
        won, last = await waiting
        assert won.end_lsn == end
        assert await log.commit_lsn() == last
        log.client.timeout = 0.5
        three.at[3].stop(signal.SIGKILL)
        with pytest.raises(Unavailable, match="Too few safekeepers"):
            await log.client.win_term(*log.key)
        with pytest.raises(Unavailable, match="Too few safekeepers"):
            await log.client.get_status(*log.key)

    on(three, work)


def test_two_who_want_the_same_term_do_not_both_have_it(three: Safekeepers) -> None:
    async def work(log: Log) -> None:
        async with client_of(three) as other:
            rival = Log(other, log.timeline)
            results = await asyncio.gather(
                log.elected_append(), rival.elected_append(), return_exceptions=True
            )
            ends = [item for item in results if not isinstance(item, BaseException)]
            assert ends
            assert all(isinstance(item, tuple | Aborted) for item in results), results
            terms = [won.term for won, _ in ends]
            assert len(set(terms)) == len(terms)
            assert await log.commit_lsn() == max(end for _, end in ends)

    on(three, work)


def test_what_one_alone_has_is_decided_by_an_election(three: Safekeepers) -> None:
    """A position is told as committed only when it is, and what is undecided gets decided."""

    async def work(log: Log) -> None:
        won = await log.client.win_term(*log.key)
        end, record = await log.append(won, won.end_lsn, won.prev_record_lsn)
        three.at[2].stop(signal.SIGKILL)
        three.at[3].stop(signal.SIGKILL)
        data, _, last = checkpoint_shutdown_bytes(
            end, record, page_pb2.ControlCounters(), timestamp=2, system_id=0
        )
        await log.client.safekeepers.client(1).append_wal(*log.key, won.term, end, data)
        three.at[2].start()
        assert await log.commit_lsn() == last
        three.at[1].stop(signal.SIGKILL)
        three.at[3].start()
        assert await log.commit_lsn() == last

    on(three, work)


def test_a_removed_timeline_is_gone_everywhere(three: Safekeepers) -> None:
    async def work(log: Log) -> None:
        await log.elected_append()
        three.at[2].stop(signal.SIGKILL)
        with pytest.raises(Unavailable):
            await log.client.remove_timeline(*log.key)
        three.at[2].start()
        while True:
            # One that did not answer lately is not waited for.
            try:
                await log.client.remove_timeline(*log.key)
                break
            except Unavailable:
                await asyncio.sleep(0.2)
        await log.client.remove_timeline(*log.key)
        for call in (log.client.get_status, log.client.win_term):
            with pytest.raises(NotFound):
                await call(*log.key)

    on(three, work)
