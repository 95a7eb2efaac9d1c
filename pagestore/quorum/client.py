"""The WAL service of several safekeepers, with the verbs of one.

A verb that changes something returns when a majority has done it; those who are away, or come
back without a memory, are brought in by the keeper of the running compute (keeper.py). Which
safekeepers are the majority of a timeline is not ours to know: the safekeepers tell, with every
answer, and what is remembered here only saves questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pagestore.client.backoff import patiently
from pagestore.client.closing import Closing
from pagestore.client.walservice import WalPiece, Won
from pagestore.consensus.acceptor import Elect
from pagestore.consensus.election import Choice
from pagestore.consensus.members import Configuration, majority
from pagestore.errors import (
    NotFound,
    OutOfRange,
    PagestoreError,
    Unavailable,
    stale_term,
)
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.quorum.head import Head, Said, judge, superseded
from pagestore.quorum.majority import LONGEST_PAUSE, Calls
from pagestore.quorum.race import Led, win
from pagestore.quorum.safekeepers import ANSWER_SECONDS, Key, Safekeepers
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice import messages

HEAD_SECONDS = 1.0
"""For a position that one safekeeper has and the others do not tell of, where no compute runs."""
NEWS_SECONDS = 10.0
"""The same where one does, or where a position is known to be committed: for slow machines."""
REMOVE_SECONDS = 2.0
"""For one that is away: what is left is removed another time."""
DEFAULT_TIMEOUT = 30.0

_T = TypeVar("_T")


class QuorumClient(Closing):
    """Of one event loop.

    Args:
        addresses: the safekeepers that new timelines are made on, by number.
        generations: gives away three for a change of members, each time higher ones than ever
            before, and than the one it is given.
        timeout: seconds for which a majority that is away is waited for.
    """

    def __init__(
        self,
        addresses: Mapping[int, str],
        *,
        generations: Callable[[int], int],
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.safekeepers = Safekeepers(addresses)
        self.generations = generations
        self.timeout = timeout
        self._calls = Calls()
        self._led: dict[Key, Led] = {}
        self._numbers: dict[Key, frozenset[int]] = {}
        self._ahead: dict[Key, int] = {}

    async def close(self) -> None:
        await self._calls.close()
        await self.safekeepers.close()

    # Timelines

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.safekeepers.first

    async def create_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        start_lsn: int,
        *,
        prev_record_lsn: int = 0,
        system_id: int = 0,
        members: Sequence[int] | None = None,
    ) -> pb.WalTimelineStatus:
        """On a majority at least; the others begin without a memory of it."""
        numbers = self.numbers if members is None else tuple(members)
        # Where it was begun there was one safekeeper, which has no configuration.
        was_alone = members is not None and len(numbers) == 1
        addresses = self.safekeepers.addresses
        told = None if was_alone else messages.first_configuration(numbers, addresses)

        async def make(number: int) -> pb.WalTimelineStatus:
            async with self.safekeepers.answer(number) as client:
                return await client.create_timeline(
                    tenant,
                    timeline,
                    start_lsn,
                    prev_record_lsn=prev_record_lsn,
                    system_id=system_id,
                    configuration=told,
                )

        done = await self._enough(make, numbers, lambda some: _most(some, numbers))
        return next(iter(done.values()))

    async def remove_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        """
        Raises:
            Unavailable: one is away; the others have removed it.
        """
        key = (tenant, timeline)

        async def remove(number: int) -> None:
            async with self.safekeepers.answer(number) as client:
                await client.remove_timeline(*key)

        now, suspects = asyncio.get_running_loop().time(), self.safekeepers.suspects
        removing = (
            patiently(
                partial(remove, number),
                now + (number not in suspects) * REMOVE_SECONDS,
                longest=LONGEST_PAUSE,
            )
            for number in self.asked(key)
        )
        results = await asyncio.gather(*removing, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        for known in (self._led, self._numbers, self._ahead):
            known.pop(key, None)

    # Terms

    async def win_term(self, tenant: TenantId, timeline: TimelineId) -> Won:
        """An election; see race.py."""
        key = (tenant, timeline)
        known = self._led.get(key)
        led = await win(
            self.safekeepers,
            key,
            self.asked(key),
            known.term + 1 if known else 1,
            self.timeout,
        )
        self._led[key] = led
        self.note(key, led.configuration)
        start, configuration = led.choice.start, led.configuration
        if not configuration.generation:
            names = tuple(item.standby_name for item in configuration.members)
            return Won(led.term, start.flush_lsn, start.prev_record_lsn, 1, names)
        names = tuple(item.standby_name for item in configuration.everyone)
        return Won(led.term, start.flush_lsn, start.prev_record_lsn, configuration.any_of, names)

    async def lead(self, key: Key) -> Led:
        """Wins a term, for whoever wants to know all of it."""
        await self.win_term(*key)
        return self._led[key]

    async def check_term(self, tenant: TenantId, timeline: TimelineId, term: int) -> None:
        said, head = await self._hear((tenant, timeline), lambda head: False)
        if superseded(term, said, head):
            raise stale_term(term, max(item.ballot.term for item in said))

    async def append_wal(
        self, tenant: TenantId, timeline: TimelineId, term: int, lsn: int, data: bytes
    ) -> pb.AppendWalResponse:
        key, end = (tenant, timeline), lsn + len(data)
        led = await self._leading(key, term)

        async def append(number: int) -> int:
            at = led.reached[number]
            if at < end:
                rest = data[at - lsn :]
                async with self.safekeepers.answer(number) as client:
                    answer = await client.append_wal(*key, term, at, rest)
                led.reached[number] = answer.flush_lsn
            return end

        able = [number for number, flush_lsn in led.reached.items() if flush_lsn >= lsn]
        await self._enough(append, able, led.decided_by)
        return pb.AppendWalResponse(flush_lsn=end, commit_lsn=end)

    async def attach_compute(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        conninfo: str,
        start_lsn: int,
        *,
        hold: bool = False,
    ) -> None:
        key = (tenant, timeline)
        led = await self._leading(key, term)

        async def attach(number: int) -> None:
            async with self.safekeepers.answer(number) as client:
                await client.attach_compute(*key, term, conninfo, start_lsn, hold=hold)

        able = [number for number, flush_lsn in led.reached.items() if flush_lsn >= start_lsn]
        await self._enough(attach, able, led.decided_by)

    async def detach_compute(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        *,
        wait_flush_lsn: int = 0,
        wait_ms: int = 0,
    ) -> int:
        key = (tenant, timeline)
        led = await self._leading(key, term)

        async def detach(number: int) -> int:
            seconds = ANSWER_SECONDS + wait_ms / 1000
            async with self.safekeepers.answer(number, seconds) as client:
                led.reached[number] = await client.detach_compute(
                    *key, term, wait_flush_lsn=wait_flush_lsn, wait_ms=wait_ms
                )
            return led.reached[number]

        members = [item.number for item in led.configuration.everyone]
        ends = await self._enough(detach, members, led.decided_by)
        found = {led.member(number): end for number, end in ends.items()}
        return led.configuration.reached({item: end for item, end in found.items() if item})

    async def _leading(self, key: Key, term: int) -> Led:
        """What is known of the term: from its election, or, after a restart, from those that
        were elected in it."""
        led = self._led.get(key)
        if led is not None and led.term == term:
            return led
        said, head = await self._hear(key, lambda head: True)
        promised = max(item.ballot.term for item in said)
        if promised > term:
            raise stale_term(term, promised)
        elected = [item for item in said if item.writing_term == term]
        ballot = max(
            (item.ballot for item in elected), key=lambda item: item.position, default=None
        )
        if ballot is None:
            raise Unavailable(
                "NO_QUORUM", f"No safekeeper that answers was elected in term {term} of {key[1]}."
            )
        choice = Choice(Elect(term, ballot.history, head.configuration), ballot)
        reached = {item.member.number: item.status.flush_lsn for item in elected}
        led = self._led[key] = Led(term, choice, reached)
        return led

    # Asking

    async def get_status(self, tenant: TenantId, timeline: TimelineId) -> pb.WalTimelineStatus:
        """Waits a moment for a position that only one tells of yet; where no compute runs, an
        election decides over it.

        Raises:
            NotFound: TIMELINE_NOT_FOUND.
            Unavailable: NO_QUORUM.
        """
        key = (tenant, timeline)
        wanted = 0
        began = asyncio.get_running_loop().time()
        while True:
            said, head = await self._hear(key, lambda head: head.known)
            wanted = wanted or head.best.status.flush_lsn
            if head.committed >= wanted:
                return self._merged(key, said, head)
            flows = any(item.status.receiving for item in said)
            passed = asyncio.get_running_loop().time() - began
            if passed > (NEWS_SECONDS if flows else HEAD_SECONDS):
                break
            await asyncio.sleep(0.01)
        if flows:
            raise Unavailable(
                "NO_QUORUM",
                f"Too few safekeepers have the log of {timeline} up to {format_lsn(wanted)}, "
                f"where one of them has it; committed is {format_lsn(head.committed)}.",
                "Start the others: `pagestore status` shows which are down.",
            )
        won = await self.win_term(*key)
        said, head = await self._hear(key, lambda head: head.committed >= won.end_lsn)
        return self._merged(key, said, head, at_least=won.end_lsn)

    async def is_committed(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> bool:
        key = (tenant, timeline)
        _, head = await self._hear_once(key, lambda head: head.committed >= lsn)
        return head.committed >= lsn

    async def head(self, key: Key) -> Head:
        """Who the members are, and how far a majority of them is."""
        return (await self._hear(key, lambda head: True))[1]

    async def align_lsn(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> tuple[int, int]:
        """By whoever has it. That it is committed may be news to them for a moment."""
        key = (tenant, timeline)
        deadline = asyncio.get_running_loop().time() + NEWS_SECONDS
        while True:
            errors = []
            for number in self._able_first(key):
                try:
                    async with self.safekeepers.answer(number) as client:
                        return await client.align_lsn(*key, lsn)
                except (NotFound, OutOfRange, Unavailable) as error:
                    errors.append(error)
            late = asyncio.get_running_loop().time() > deadline
            if late or not any(error.reason == "LSN_NOT_COMMITTED" for error in errors):
                break
            await asyncio.sleep(0.005)
        raise next((error for error in errors if isinstance(error, OutOfRange)), errors[-1])

    async def read_back(
        self, tenant: TenantId, timeline: TimelineId, start_lsn: int, end_lsn: int
    ) -> AsyncIterator[WalPiece]:
        """From whoever has most of it."""
        key = (tenant, timeline)
        found = await patiently(
            partial(self._who_has, key, end_lsn),
            asyncio.get_running_loop().time() + self.timeout,
        )
        async for piece in self.safekeepers.client(found).read_back(*key, start_lsn, end_lsn):
            yield piece

    async def _who_has(self, key: Key, end_lsn: int) -> int:
        """The number of the one with the longest log up to `end_lsn`, known to be committed."""
        said, _ = await self._hear_once(key, lambda head: False)
        able = [item.status for item in said if item.status.commit_lsn >= end_lsn]
        if not able:
            raise Unavailable(
                "NO_QUORUM",
                f"No safekeeper that answers has the log of {key[1]} up to {format_lsn(end_lsn)}.",
            )
        oldest = min(able, key=lambda status: max(status.start_lsn, status.oldest_lsn))
        return oldest.number

    def _able_first(self, key: Key) -> list[int]:
        suspects, ahead = self.safekeepers.suspects, self._ahead.get(key, 0)
        return sorted(self.asked(key), key=lambda n: (n in suspects, n != ahead))

    async def _hear(self, key: Key, is_enough: Callable[[Head], bool]) -> tuple[list[Said], Head]:
        """What the safekeepers say: of a majority, and of more as long as it is not enough, until
        all have answered or cannot."""
        deadline = asyncio.get_running_loop().time() + self.timeout
        return await patiently(
            partial(self._hear_once, key, is_enough), deadline, longest=LONGEST_PAUSE
        )

    async def _hear_once(
        self, key: Key, is_enough: Callable[[Head], bool]
    ) -> tuple[list[Said], Head]:
        tasks: dict[asyncio.Task[pb.WalTimelineStatus], int] = {}
        said: dict[int, Said] = {}
        failures: dict[int, PagestoreError] = {}
        try:
            while True:
                for number in self.asked(key) - {*said, *failures, *tasks.values()}:
                    asking = self.safekeepers.status(number, key)
                    tasks[asyncio.create_task(asking)] = number
                head = judge([*said.values()])
                if head is not None and (not tasks or is_enough(head)):
                    return [*said.values()], head
                if not tasks:
                    raise _nothing_known(key, failures)
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self._heard(key, tasks.pop(task), task, said, failures)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _heard(
        self,
        key: Key,
        number: int,
        task: asyncio.Task[pb.WalTimelineStatus],
        said: dict[int, Said],
        failures: dict[int, PagestoreError],
    ) -> None:
        error = task.exception()
        if error is None:
            said[number] = Said.by(task.result())
            self.note(key, said[number].ballot.configuration)
        elif isinstance(error, PagestoreError):
            failures[number] = error
        else:
            raise error

    def _merged(
        self, key: Key, said: list[Said], head: Head, at_least: int = 0
    ) -> pb.WalTimelineStatus:
        """One status out of several: the best log's, and what is known to be committed."""
        ends = {item.member: item.status.flush_lsn for item in said}
        furthest = max(said, key=lambda item: item.status.commit_lsn)
        self._ahead[key] = furthest.member.number
        status = pb.WalTimelineStatus()
        status.CopyFrom(head.best.status)
        status.commit_lsn = max(head.committed, at_least)
        status.flush_lsn = head.configuration.reached(ends)
        if status.flush_lsn != head.best.status.flush_lsn:
            status.prev_record_lsn = 0  # that of where the best one ends
        status.receiving = any(item.status.receiving for item in said)
        return status

    def asked(self, key: Key) -> set[int]:
        """The numbers of all that may be members."""
        return {*self._numbers.get(key, self.safekeepers.first)}

    def changed(self, key: Key, term: int, configuration: Configuration) -> None:
        """The members are others from now on, in a term that goes on."""
        self.note(key, configuration)
        led = self._led.get(key)
        if led is not None and led.term == term:
            del self._led[key]

    def note(self, key: Key, configuration: Configuration) -> None:
        """Who are members, as a safekeeper tells."""
        numbers = frozenset(item.number for item in configuration.everyone)
        first = frozenset(self.safekeepers.first)
        if numbers <= first:
            self._numbers.pop(key, None)
        else:
            self._numbers[key] = numbers | first

    async def _enough(
        self,
        call: Callable[[int], Awaitable[_T]],
        numbers: Iterable[int],
        are_enough: Callable[[Iterable[int]], bool],
    ) -> dict[int, _T]:
        calls = {number: partial(call, number) for number in numbers}
        return await self._calls.enough(calls, are_enough, self.timeout)


def _most(some: Iterable[int], of: Iterable[int]) -> bool:
    return len({*some}) >= majority(len({*of}))


def _nothing_known(key: Key, failures: Mapping[int, PagestoreError]) -> PagestoreError:
    if failures and all(isinstance(error, NotFound) for error in failures.values()):
        return NotFound("TIMELINE_NOT_FOUND", f"No safekeeper has WAL of timeline {key[1]}.")
    said = "; ".join(f"{number}: {error}" for number, error in sorted(failures.items()))
    return Unavailable(
        "NO_QUORUM",
        f"Too few safekeepers answer for timeline {key[1]}. {said}",
        "Start them: `pagestore status` shows which are down.",
    )
