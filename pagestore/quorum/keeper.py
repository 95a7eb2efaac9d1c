"""Looks after the safekeepers of a running compute.

An election needs a majority, and a compute starts with those who were there. Whoever was away
is brought in while clients write: it promises the term, takes the elected history, is filled by
the others up to where the log has come, and follows the compute from there. Whoever has lost its
disk, or never heard of the timeline, comes back as a new member, by a change of members.

It asks once a second while anything is amiss, and seldom otherwise; and it keeps no state of
its own, since the safekeepers tell everything: a control plane that was restarted goes on. When
a majority has promised a higher term, the compute can never commit again: it is ended, so that
its clients get an error instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psycopg
import structlog

from pagestore.compute.running import RunningCompute
from pagestore.consensus.acceptor import Elect
from pagestore.consensus.change import MembershipChange
from pagestore.consensus.election import Ballot, Declined, SendElect
from pagestore.consensus.members import Configuration
from pagestore.errors import FailedPrecondition, NotFound, PagestoreError, Unavailable
from pagestore.postgres.operator_session import operator_session
from pagestore.postgres.slots import OUR_SLOTS
from pagestore.quorum import wire
from pagestore.quorum.changing import Changing
from pagestore.quorum.client import QuorumClient
from pagestore.quorum.head import Head, Said, judge, superseded
from pagestore.quorum.safekeepers import Key

AMISS_SECONDS = 1.0
WELL_SECONDS = 5.0
CONNECT_SECONDS = 5
_USELESS_SLOTS = (
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
    " WHERE starts_with(slot_name, %s) AND NOT active"
    " AND (wal_status = 'lost' OR slot_name <> ALL (%s))"
)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class View:
    """What all safekeepers say at one moment.

    Args:
        blank: those who know nothing of the timeline.
        head: None while no majority speaks.
    """

    said: dict[int, Said]
    blank: frozenset[int]
    head: Head | None


class Keeper:
    """Of one compute.

    Args:
        fenced: called once, when the compute cannot commit any more.
    """

    def __init__(
        self, client: QuorumClient, compute: RunningCompute, fenced: Callable[[], Awaitable[None]]
    ) -> None:
        self._client, self._compute, self._fenced = client, compute, fenced
        self._key: Key = (compute.record.tenant, compute.record.timeline)
        self._term = compute.record.term
        self._broken: set[int] = set()
        self._names: list[str] = []
        self._rule_is_known = False
        self.complaint = ""

    async def run(self) -> None:
        """Until cancelled, or the compute is fenced."""
        while True:
            well = False
            try:
                view = await self._look()
                if self._is_over(view):
                    _log.warning("a compute is fenced", timeline=str(self._key[1]), term=self._term)
                    await self._fenced()
                    return
                well = await self._tend(view)
                self.complaint = ""
            except (PagestoreError, psycopg.Error, OSError) as error:
                self._complain(str(error))
            await asyncio.sleep(WELL_SECONDS if well else AMISS_SECONDS)

    def _complain(self, text: str) -> None:
        if text != self.complaint:
            _log.info("safekeepers are amiss", timeline=str(self._key[1]), error=text)
        self.complaint = text

    async def _look(self) -> View:
        numbers = sorted(self._client.asked(self._key))
        asking = (self._client.safekeepers.status(number, self._key) for number in numbers)
        answers = await asyncio.gather(*asking, return_exceptions=True)
        said, blank = {}, set()
        for number, answer in zip(numbers, answers, strict=True):
            if isinstance(answer, NotFound):
                blank.add(number)
            elif not isinstance(answer, BaseException):
                said[number] = Said.by(answer)
        head = judge([*said.values()])
        if head is not None:
            self._client.note(self._key, head.configuration)
            self._names = [item.standby_name for item in head.configuration.everyone]
        return View(said, frozenset(blank), head)

    def _is_over(self, view: View) -> bool:
        head = view.head
        return head is not None and superseded(self._term, view.said.values(), head)

    async def _tend(self, view: View) -> bool:
        """Whether nothing is amiss."""
        if view.head is None:
            return False
        configuration = view.head.configuration
        numbers = {item.number for item in configuration.members}
        strangers = {
            number
            for number, item in view.said.items()
            if number in numbers and item.member not in configuration.everyone
        }
        amiss = configuration.joint or strangers or numbers & view.blank
        others = numbers != {*self._client.safekeepers.first}
        if amiss or others or not await self._has_rule(configuration):
            await self._change(view, view.head, strangers | (numbers & view.blank))
            return False
        members = [item for item in view.said.values() if item.member in configuration.everyone]
        bringing = (self._bring(item, view, view.head) for item in members)
        results = await asyncio.gather(*bringing, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return all(results) and len(members) == len(configuration.everyone)

    async def _has_rule(self, configuration: Configuration) -> bool:
        """Whether the compute goes by it: not if a change broke off at its last step."""
        if not self._rule_is_known:
            self._rule_is_known = await self._compute.rule() == configuration.standby_names
        return self._rule_is_known

    async def _change(self, view: View, head: Head, lost: set[int]) -> None:
        self._rule_is_known = False
        elected = await self._elected(view, head)
        change = MembershipChange(
            Elect(self._term, elected.history, head.configuration),
            elected.start,
            elected.system_id,
            target=self._client.safekeepers.first,
            lost=lost,
            level=head.committed,
            generation=self._client.generations(head.configuration.generation),
        )
        safekeepers = self._client.safekeepers
        await Changing(safekeepers, self._key, change, self).run()
        self._client.changed(self._key, self._term, change.configuration)
        await safekeepers.retire(self._key, head.configuration, change.configuration)
        _log.info(
            "members changed",
            timeline=str(self._key[1]),
            rule=change.configuration.standby_names,
        )

    async def _elected(self, view: View, head: Head) -> Ballot:
        """The whole ballot of one who follows this term, which a vote in it tells again."""
        for number, item in view.said.items():
            if item.writing_term == self._term and item.member in head.configuration.everyone:
                return wire.ballot(
                    await self._client.safekeepers.ballot(number, self._key, self._term)
                )
        raise FailedPrecondition(
            "NOT_ELECTED", f"No safekeeper that answers was elected in term {self._term}."
        )

    async def _bring(self, item: Said, view: View, head: Head) -> bool:
        """One step of a member towards following the compute; whether it does already."""
        number, status = item.member.number, item.status
        if status.receiving:
            self._broken.discard(number)
            return True
        if item.ballot.term > self._term:
            return False
        if status.last_error and number not in self._broken:
            # It is attached, and may come back by itself.
            self._broken.add(number)
            return False
        flush_lsn = status.flush_lsn
        if item.writing_term != self._term:
            flush_lsn = await self._elect(number, view, head)
        if flush_lsn < head.committed:
            flush_lsn = await self._fill(number, view, head)
        await self.attach(number, flush_lsn)
        return False

    async def _elect(self, number: int, view: View, head: Head) -> int:
        elected = await self._elected(view, head)
        safekeepers = self._client.safekeepers
        await safekeepers.ballot(number, self._key, self._term)
        elect = Elect(self._term, elected.history, head.configuration)
        answer = await safekeepers.ask(SendElect(number, elect), self._key, 0)
        if isinstance(answer, Declined) or not hasattr(answer, "flush_lsn"):
            raise FailedPrecondition("NOT_ELECTED", f"Safekeeper {number} took another term.")
        return int(answer.flush_lsn)

    async def _fill(self, number: int, view: View, head: Head) -> int:
        """From the others; what its own stream could not bring is not waited for."""
        safekeepers = self._client.safekeepers
        donors = [
            item
            for item in view.said.values()
            if item.writing_term == self._term and item.member.number != number
        ]
        donors.sort(key=lambda item: -item.status.flush_lsn)
        numbers = [item.member.number for item in donors]
        async with safekeepers.answer(number) as client:
            await client.detach_compute(*self._key, self._term)
        reached = await safekeepers.fill(number, self._key, self._term, head.committed, numbers)
        return reached.flush_lsn

    # For a change of members

    async def attach(self, number: int, lsn: int) -> None:
        """Has a safekeeper follow the compute from the end of its log on."""
        await self._drop_slots()
        conninfo = self._compute.for_safekeepers()
        async with self._client.safekeepers.answer(number) as client:
            await client.attach_compute(*self._key, self._term, conninfo, lsn)
        _log.info("attached", timeline=str(self._key[1]), safekeeper=number)

    async def set_rule(self, rule: str) -> int:
        """Whom commits wait for. What was told by the old rule is on a majority of the old, so
        the best log of those who answer has it."""
        await self._compute.set_rule(rule)
        head = (await self._look()).head
        if head is None:
            raise Unavailable("NO_QUORUM", f"Too few safekeepers answer for {self._key[1]}.")
        return head.best.status.flush_lsn

    async def _drop_slots(self) -> None:
        """Safekeepers' that have lost their WAL already, or are nobody's any more."""
        connecting = operator_session(self._compute.conninfo(), connect_timeout=CONNECT_SECONDS)
        async with await connecting as session:
            names = [OUR_SLOTS + name for name in self._names]
            await session.execute(_USELESS_SLOTS, (OUR_SLOTS, names))
