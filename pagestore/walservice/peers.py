"""What the other safekeepers tell: how far their logs are.

One stream to each other process, not one a timeline; a timeline that nobody writes costs one
entry here. A stream that breaks, or says nothing for too long, is opened again, for ever and
quietly: the present positions come first, so nothing that was missed matters.

News come when they are due, which is soon enough for most. Who waits for a commit does not wait
for that: the peers are asked.

What was heard is kept although the timeline be closed, or not here yet: its log may have to be
counted with it when it is opened. It is also what this one remembers of a peer when that asks,
after a start, whether its log is the one that it had (trial.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

from pagestore import tasks
from pagestore.client.wal import WalClient
from pagestore.consensus.acceptor import Heard
from pagestore.errors import PagestoreError
from pagestore.ids import TenantId, TimelineId
from pagestore.pauses import Pauses
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice import messages
from pagestore.walservice.addresses import AddressBook
from pagestore.walservice.memory_of_peers import MemoryOfPeers
from pagestore.walservice.trial import Trials
from pagestore.walservice.watch import TimelineKey

HEARTBEAT_SECONDS = 2.0
"""A stream of positions says something at least this often."""
SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
_log = structlog.get_logger(__name__)


class Peers:
    """Listens to whom some timeline is shared with, from `start` on. Of one event loop."""

    def __init__(
        self,
        number: int,
        book: AddressBook,
        memory: MemoryOfPeers,
        trials: Trials,
        on_heard: Callable[[TimelineKey, Heard], None],
    ) -> None:
        self._number = number
        self._book = book
        self._memory = memory
        self._trials = trials
        self._on_heard = on_heard
        self._shared: dict[TimelineKey, frozenset[int]] = {}
        self._wanted: Counter[int] = Counter()
        self._heard: dict[int, dict[TimelineKey, Heard]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._clients: dict[int, WalClient] = {}
        self._asking: dict[tuple[int, TimelineKey], asyncio.Task[None]] = {}
        self._started = False

    def start(self) -> None:
        """All timelines are known: what peers tell first is not told again."""
        self._started = True
        self._trials.start()
        self._book.on_change(self._moved)
        for number in list(self._wanted):
            self._listen_or_not(number)

    def share(self, key: TimelineKey, numbers: frozenset[int]) -> None:
        """Says with whom a timeline is shared from now on; with nobody when it has gone."""
        before = self._shared.get(key, frozenset())
        if numbers == before:
            return
        self._shared[key] = numbers
        if not numbers:
            del self._shared[key]
            for number, heard in self._heard.items():
                heard.pop(key, None)
                self._memory.forget(number, key)
        self._wanted.update(numbers - before)
        self._wanted.subtract(before - numbers)
        for number in numbers ^ before:
            self._listen_or_not(number)

    def remember(self, number: int, key: TimelineKey, heard: Heard) -> None:
        """What was heard in an earlier life."""
        self._heard.setdefault(number, {})[key] = heard

    def furthest(self, number: int, key: TimelineKey) -> Heard | None:
        """The most that a peer has ever said of its log."""
        return self._heard.get(number, {}).get(key)

    def recall(self, key: TimelineKey) -> list[Heard]:
        """What was heard of a timeline last."""
        return [heard[key] for heard in self._heard.values() if key in heard]

    def ask(self, key: TimelineKey) -> None:
        """Has those who are there say now how far a timeline is."""
        for number in self._shared.get(key, ()):
            client = self._clients.get(number)
            if client is not None and (number, key) not in self._asking:
                asking = self._ask(number, client, key)
                self._asking[number, key] = tasks.errand(asking, f"ask peer {number}")

    async def _ask(self, number: int, client: WalClient, key: TimelineKey) -> None:
        try:
            self._note(number, key, messages.heard_in(await client.get_status(*key)))
        except PagestoreError as error:
            _log.debug("peer did not answer", number=number, error=str(error))
        finally:
            del self._asking[number, key]

    async def close(self) -> None:
        running = [*self._tasks.values(), *self._asking.values()]
        self._tasks.clear()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _moved(self, numbers: set[int]) -> None:
        for number in numbers:
            task = self._tasks.pop(number, None)
            if task is not None:
                task.cancel()
            self._listen_or_not(number)

    def _listen_or_not(self, number: int) -> None:
        address = self._book.addresses.get(number)
        wanted = self._started and self._wanted[number] > 0 and address is not None
        if wanted and number not in self._tasks:
            listening = self._listen(number, str(address))
            self._tasks[number] = tasks.endless(listening, f"listen to peer {number}")
        elif not wanted and number in self._tasks:
            self._tasks.pop(number).cancel()

    async def _listen(self, number: int, address: str) -> None:
        pauses, lost = Pauses(FIRST_PAUSE, LONGEST_PAUSE), False
        while True:
            try:
                async with WalClient(address, timeout=0) as client:
                    self._forget_strangers(number)
                    self._clients[number] = client
                    async for update in client.watch_positions(
                        self._number, silence=SILENCE_SECONDS
                    ):
                        lost = False
                        pauses.reset()
                        self._take_in(number, update)
            except PagestoreError as error:
                if not lost:
                    _log.info("peer lost", number=number, address=address, error=str(error))
                lost = True
            finally:
                self._clients.pop(number, None)
            await pauses.sleep()

    def _take_in(self, number: int, update: pb.PositionUpdate) -> None:
        for position in update.positions:
            if position.member.number != number:
                continue
            key = TimelineKey(TenantId(position.tenant_id), TimelineId(position.timeline_id))
            if position.HasField("remembered"):
                self._trials.testify(number, key, messages.heard_of(position.remembered))
            self._note(number, key, messages.heard_of(position))
        self._trials.spoken(number, all_of_it=update.snapshot_complete)

    def _note(self, number: int, key: TimelineKey, heard: Heard) -> None:
        known = self._heard.setdefault(number, {})
        before = known.get(key)
        says_something = heard.flush_lsn > 0  # else it is on trial itself: what is known stays
        if says_something and (before is None or before.member != heard.member or before < heard):
            known[key] = heard
            self._memory.keep(number, key, heard)
        self._on_heard(key, heard)

    def _forget_strangers(self, number: int) -> None:
        """Of timelines that are not here: whatever still is will be told again."""
        known = self._heard.get(number, {})
        for key in [key for key in known if key not in self._shared]:
            del known[key]
            self._memory.forget(number, key)
