"""Responses in flight: how many bytes of them there may be, over all streams and connections.

A response takes memory from when its pages are read until its peer has taken it, and a peer may
take as long as it likes: forty connections that read slowly held 2.2 GB. So a stream asks for
room *before* it makes a response, keeps the room until the response is written (gRPC's write
returns when flow control has let it go), and waits when there is none. That is back-pressure:
its next request stays unread.

Who waits must get its turn. Small responses (those of backends: up to 64 blocks, and the pieces
of base backups) have room of their own, which large ones cannot take. In each room the peer that
holds least is next, then streams that have taken a response before, then who came first. And a
peer that does not take its response within WRITE_SECONDS and a second for each SLOWEST_BYTES,
while others wait for the room, loses its connection: SLOW_READER in the log. One response always
fits, whatever its size.

Sizes here are bytes of memory: gRPC holds a copy while it sends, so a response counts twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

COPIES = 2
SMALL_BYTES = 1 << 20
WRITE_SECONDS = 5.0
SLOWEST_BYTES = 1 << 20
"""A second: whoever reads more slowly than that gives way to others."""
LOOK_SECONDS = 0.5
_log = structlog.get_logger(__name__)


class Stream:
    """The room that one stream holds; nothing to begin with."""

    def __init__(self, responses: Responses, peer: str) -> None:
        self.peer = peer
        self.held = 0
        self.taken = False
        """Whether the peer has taken a response of it."""
        self.written_since: float | None = None
        self._responses = responses
        self._room: Room | None = None

    def try_reserve(self, size: int) -> bool:
        """Whether there is room for a response of `size` bytes, which may now be made."""
        room, cost = self._responses.room_for(size * COPIES)
        self._room = room
        return room.try_take(self, cost)

    async def reserve(self, size: int) -> None:
        """Returns when there is room."""
        if not self.try_reserve(size):
            room, cost = self._responses.room_for(size * COPIES)
            await room.wait(self, cost)

    def writing(self) -> None:
        """The response is made: from now on it is the peer's to take."""
        self.written_since = self._responses.clock()

    def written(self) -> None:
        """The peer has taken it."""
        self.taken = True

    def give_back(self) -> None:
        """Of whatever it holds, however its response ended. Repeatable."""
        self.written_since = None
        if self._room is not None:
            self._room.give_back(self)
            self._room = None


class Room:
    """So many bytes, and who holds and who waits for how many of them."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0
        self.holders: set[Stream] = set()
        self.waiting: list[tuple[Stream, int, asyncio.Future[None]]] = []

    def try_take(self, stream: Stream, cost: int) -> bool:
        if self.waiting or self.held + cost > self.total:
            return False
        self._take(stream, cost)
        return True

    async def wait(self, stream: Stream, cost: int) -> None:
        place = (stream, cost, asyncio.get_running_loop().create_future())
        self.waiting.append(place)
        try:
            await place[2]
        except asyncio.CancelledError:
            if place in self.waiting:
                self.waiting.remove(place)
                self._let_in()
            self.give_back(stream)  # its turn came at the same moment
            raise

    def give_back(self, stream: Stream) -> None:
        if stream.held == 0:
            return
        self.held -= stream.held
        self.holders.discard(stream)
        stream.held = 0
        if self.waiting:
            self._let_in()

    def _take(self, stream: Stream, cost: int) -> None:
        stream.held = cost
        self.held += cost
        self.holders.add(stream)

    def _let_in(self) -> None:
        """Strictly in order, so that a large response is not passed by small ones for ever."""
        self.waiting = [place for place in self.waiting if not place[2].cancelled()]
        held = Counter[str]()  # made when somebody waits: nobody does nearly always
        for holder in self.holders:
            held[holder.peer] += holder.held
        while self.waiting:
            place = min(self.waiting, key=lambda it: (held[it[0].peer], not it[0].taken))
            stream, cost, turn = place
            if self.held + cost > self.total:
                return
            self.waiting.remove(place)
            self._take(stream, cost)
            held[stream.peer] += cost
            turn.set_result(None)

    def overdue(self, now: float) -> list[Stream]:
        """Whose peers must give way: those that take too long while others wait."""
        if not self.waiting:
            return []
        return [
            stream
            for stream in self.holders
            if stream.written_since is not None
            and now - stream.written_since > WRITE_SECONDS + stream.held / COPIES / SLOWEST_BYTES
        ]


class Responses:
    """All responses in flight of one page server.

    Args:
        total: bytes of memory; a fifth of them for small responses.
        end: ends the connection of a peer, as gRPC names it; False when it cannot.
        clock: seconds.
    """

    def __init__(self, total: int, end: Callable[[str], bool], clock: Callable[[], float]) -> None:
        self.small = Room(total // 5)
        self.large = Room(total - total // 5)
        self.clock = clock
        self._end = end

    def stream(self, peer: str) -> Stream:
        return Stream(self, peer)

    def room_for(self, cost: int) -> tuple[Room, int]:
        room = self.small if cost <= SMALL_BYTES else self.large
        return room, min(cost, room.total)

    async def run(self) -> None:
        """Ends the connections of those that must give way; until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        now = self.clock()
        overdue = self.small.overdue(now) + self.large.overdue(now)
        for peer in {stream.peer for stream in overdue}:
            _log.warning(
                "a peer does not take its pages, and others wait: its connection is ended",
                reason="SLOW_READER",
                peer=peer,
                ended=self._end(peer),
            )
