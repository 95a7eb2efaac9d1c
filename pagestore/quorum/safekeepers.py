"""The safekeepers by number: their clients, and the actions of an election as calls.

Nothing is repeated here, and no answer is waited for longer than it may take: who asks knows
best when to ask again, and whether that one is needed at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping

from pagestore.client.wal import WalClient
from pagestore.consensus.change import Admit, Send
from pagestore.consensus.election import (
    AskVote,
    Blank,
    Declined,
    Fill,
    Message,
    Reached,
    SendElect,
)
from pagestore.consensus.members import Configuration
from pagestore.errors import Aborted, NotFound, PagestoreError, Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.quorum import wire
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice import messages

ANSWER_SECONDS = 2.0
"""For what needs little but a sync."""
FILL_SECONDS = 600.0

Key = tuple[TenantId, TimelineId]


class Safekeepers:
    """
    Args:
        addresses: of those that new timelines are made on.
    """

    def __init__(self, addresses: Mapping[int, str]) -> None:
        self.addresses = dict(addresses)
        self.first = tuple(sorted(addresses))
        self.suspects: set[int] = set()
        """Who did not answer lately: asked like the others, but not waited for."""
        self._clients: dict[int, WalClient] = {}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    def learn(self, configuration: pb.Configuration) -> None:
        """Who else there is, as another safekeeper tells; own knowledge goes before that."""
        self.addresses = {**messages.addresses_of(configuration), **self.addresses}

    def client(self, number: int) -> WalClient:
        """
        Raises:
            Unavailable: SAFEKEEPER_UNKNOWN.
        """
        if number not in self.addresses:
            raise Unavailable(
                "SAFEKEEPER_UNKNOWN",
                f"Nobody knows where safekeeper {number} is.",
                "Name it with --wal-service NUMBER=HOST:PORT.",
            )
        if number not in self._clients:
            self._clients[number] = WalClient(self.addresses[number], timeout=0)
        return self._clients[number]

    @contextlib.asynccontextmanager
    async def answer(
        self, number: int, seconds: float = ANSWER_SECONDS
    ) -> AsyncIterator[WalClient]:
        """A safekeeper's client, for one call that it answers in time.

        Raises:
            Unavailable: NO_ANSWER, or SAFEKEEPER_UNKNOWN.
        """
        try:
            async with asyncio.timeout(seconds):
                yield self.client(number)
        except TimeoutError as error:
            self.suspects.add(number)
            raise Unavailable(
                "NO_ANSWER", f"Safekeeper {number} has not answered within {seconds:g} s."
            ) from error
        except Unavailable:
            self.suspects.add(number)
            raise
        except PagestoreError:
            self.suspects.discard(number)
            raise
        self.suspects.discard(number)

    async def status(self, number: int, key: Key) -> pb.WalTimelineStatus:
        async with self.answer(number) as client:
            found = await client.get_status(*key)
        self.learn(found.configuration)
        return found

    async def ballot(self, number: int, key: Key, term: int) -> pb.VoteResponse:
        """Its promise of `term`, or, without one, what it says all the same."""
        async with self.answer(number) as client:
            found = await client.vote(*key, term)
        self.learn(found.configuration)
        return found

    async def ask(
        self, action: AskVote | SendElect | Fill | Admit | Send, key: Key, fill_to: int
    ) -> Message:
        """Carries an action out.

        Args:
            fill_to: up to where who is behind is filled.

        Raises:
            Unavailable: no answer, and perhaps no effect.
            PagestoreError: a refusal that the election does not know.
        """
        number = action.number
        try:
            match action:
                case AskVote():
                    vote = await self.ballot(number, key, action.term)
                    return wire.ballot(vote) if vote.granted else Declined(number, vote.term)
                case Fill():
                    return await self.fill(number, key, action.term, fill_to, action.donors)
                case SendElect() | Admit():
                    return await self._elect(action, key)
                case Send():
                    return await self._change(action, key)
        except NotFound:
            return Blank(number)
        except Aborted:
            # Whatever it has promised is above the term of the action.
            return Declined(number, await self._promised(number, key))

    async def fill(
        self, number: int, key: Key, term: int, end_lsn: int, donors: Iterable[int]
    ) -> Reached:
        known = [pb.Member(number=donor, address=self.addresses.get(donor, "")) for donor in donors]
        async with self.answer(number, FILL_SECONDS) as client:
            answer = await client.fill(*key, term, end_lsn, known)
        return Reached(wire.member(answer.member), term, answer.generation, answer.flush_lsn)

    async def _elect(self, action: SendElect | Admit, key: Key) -> Reached:
        elect = action.elect
        history = messages.history(elect.history)
        configuration = messages.configuration(elect.configuration, self.addresses)
        async with self.answer(action.number) as client:
            if isinstance(action, SendElect):
                answer = await client.elect(*key, elect.term, history, configuration)
            else:
                answer = await client.admit(
                    *key,
                    elect.term,
                    history,
                    configuration,
                    start_lsn=action.start.flush_lsn,
                    prev_record_lsn=action.start.prev_record_lsn,
                    system_id=action.system_id,
                )
        return Reached(wire.member(answer.member), answer.term, answer.generation, answer.flush_lsn)

    async def _change(self, action: Send, key: Key) -> Reached:
        term = action.message.term
        told = messages.configuration(action.message.configuration, self.addresses)
        async with self.answer(action.number) as client:
            answer = await client.change_members(*key, term, told)
        return Reached(wire.member(answer.member), term, answer.generation, answer.flush_lsn)

    async def _promised(self, number: int, key: Key) -> int:
        return (await self.status(number, key)).term

    async def retire(self, key: Key, before: Configuration, after: Configuration) -> None:
        """Deletes the timeline on those who are no members any more; who is away keeps what
        nobody asks for."""
        staying = {item.number for item in after.everyone}
        for number in {item.number for item in before.everyone} - staying:
            with contextlib.suppress(Unavailable, NotFound):
                async with self.answer(number) as client:
                    await client.remove_timeline(*key)
