"""Sessions are parted from their backends: since their place goes to sleep, since somebody is about
to end what runs there, or only for a moment, to have their state.

All of them come down before any backend of a place ends: one that cannot be carried keeps the
place awake, and the others go on where they were. The front has the sessions, and knows who is
just being brought to a backend.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

from pagestore.proxy.places import Place
from pagestore.proxy.session import Session

MOVE_SECONDS = 3.0
"""For a session's state, when its backend is about to be ended by somebody else."""
LAST_WORDS_SECONDS = 1.0
"""For a backend to end the message behind which its client hears why it is dismissed."""
PAUSE_SECONDS = 0.01
"""Between two looks at sessions that are just coming or going."""


class Parting:
    """
    Args:
        sessions: those that are joined, or were, whoever has gone since.
        is_entered: whether somebody is being brought to a backend at a place.
        take_up: brings a session back whose client has spoken.
    """

    def __init__(
        self,
        sessions: Callable[[], Collection[Session]],
        is_entered: Callable[[Place], bool],
        take_up: Callable[[Session], None],
    ) -> None:
        self._sessions = sessions
        self._is_entered = is_entered
        self._take_up = take_up
        self.hindrances: dict[Place, str] = {}
        """Why a place was kept awake when it was last to sleep; empty words for no reason."""

    def at(self, place: Place) -> list[Session]:
        return [item for item in self._sessions() if item.destination.place == place]

    async def take_down(self, place: Place) -> bool:
        """Carries every session of a place out of it; all of them, or none."""
        sessions = self._joined(place)
        if any(session.going_down for session in sessions):
            self.hindrances[place] = "the state of a session is being written down"
            return False
        if self._is_entered(place):
            self.hindrances[place] = "a session is coming in"  # whose state nobody has
            return False
        hindrances = await asyncio.gather(*(session.take_down() for session in sessions))
        self.hindrances[place] = next(filter(None, hindrances), "")
        if self.hindrances[place]:
            self._go_on(sessions)
            return False
        await self._let_sleep(sessions)
        return True

    async def carry_out(self, place: Place, words: bytes, seconds: float) -> tuple[int, int]:
        """Parts every session of a place whose backends are about to end; how many go on, and how
        many ended.

        Args:
            words: what sessions that cannot be carried are told.
            seconds: for sessions at work to come to rest.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        carried = ended = 0
        while True:
            left = deadline - clock()
            joined = [item for item in self._joined(place) if not item.going_down]
            went = await asyncio.gather(*(self._part(item, words, left) for item in joined))
            carried, ended = carried + went.count(True), ended + went.count(False)
            await self._let_sleep(
                [item for item, goes_on in zip(joined, went, strict=True) if goes_on]
            )
            if not (self._is_entered(place) or self._joined(place)) or left < 0:
                return carried, ended
            await asyncio.sleep(PAUSE_SECONDS)

    async def end_all(self, place: Place, words: bytes) -> int:
        """How many ended."""
        there = self.at(place)
        await asyncio.gather(*(_dismiss(session, words) for session in there))
        return len(there)

    async def write_down(self, session: Session) -> None:
        """Keeps a session's state while it goes on, so that it outlives a crash of its backend."""
        if session.backend_link is not None and not session.going_down:
            await session.take_down()
            self._go_on([session])

    def heed(self, session: Session) -> None:
        """Takes a session up whose client spoke while it had no backend to hear it."""
        if session.backend_link is None and session.spoke:
            session.spoke = False
            self._take_up(session)

    def _joined(self, place: Place) -> list[Session]:
        return [session for session in self.at(place) if session.backend_link is not None]

    async def _part(self, session: Session, words: bytes, seconds: float) -> bool:
        """Whether it goes on."""
        hindrance = await session.take_down(max(seconds, PAUSE_SECONDS), MOVE_SECONDS)
        if hindrance:
            await _dismiss(session, words)
        return session.state is not None and not session.client.ended

    async def _let_sleep(self, sessions: list[Session]) -> None:
        """Ends the backends of sessions that were taken down."""
        # Those that came down first may have been notified by those that came last.
        await asyncio.gather(*(session.hear_all() for session in sessions))
        for session in sessions:
            session.let_go()
            self.heed(session)

    def _go_on(self, sessions: list[Session]) -> None:
        """After they were taken down, and one may have lost its backend by that."""
        for session in sessions:
            session.go_on()
            self.heed(session)


async def _dismiss(session: Session, words: bytes) -> None:
    """Ends it; returns when its backend is not needed for that any more."""
    backend = session.backend_link
    session.lose(words)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_SECONDS):
            while backend is not None and not backend.ended:
                await asyncio.sleep(PAUSE_SECONDS)
