"""Drives elections over gRPC: asks, waits, and asks again, until a term is won.

The decisions are pagestore.consensus.election's. Here is only patience: how long those who
have not voted are waited for when a majority has, when to ask again, and when to try a higher
term. A safekeeper that did not answer lately is a *suspect*: it is asked like the others, but
not waited for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from pagestore.consensus.election import (
    Action,
    Ballot,
    Choice,
    Declined,
    Election,
    Message,
    Reached,
)
from pagestore.consensus.members import Configuration, Member, majority
from pagestore.errors import Aborted, NotFound, PagestoreError, Unavailable
from pagestore.ids import format_lsn
from pagestore.quorum.safekeepers import Key, Safekeepers

PATIENCE = 0.25
"""Seconds for those who have not answered when a majority has; and between two askings."""
SPREAD = 0.02
"""Seconds for the others to reach the start, once a majority has."""
_log = structlog.get_logger(__name__)


@dataclass
class Led:
    """A term that was won.

    Args:
        reached: how far the elected ones are durable, by their numbers.
        blanks: who had no memory of the timeline.
    """

    term: int
    choice: Choice
    reached: dict[int, int] = field(default_factory=dict)
    blanks: frozenset[int] = frozenset()

    @property
    def configuration(self) -> Configuration:
        return self.choice.elect.configuration

    def member(self, number: int) -> Member | None:
        return next((item for item in self.configuration.everyone if item.number == number), None)

    def decided_by(self, numbers: Iterable[int]) -> bool:
        found = {self.member(number) for number in numbers}
        return self.configuration.decided_by({item for item in found if item is not None})


class Race:
    """One attempt to win one term."""

    def __init__(self, safekeepers: Safekeepers, key: Key, election: Election) -> None:
        self._safekeepers, self._key, self._election = safekeepers, key, election
        self._suspects = safekeepers.suspects
        self._asked: dict[int, asyncio.Task[Message]] = {}
        self._reached: dict[int, int] = {}
        self._voted: set[int] = set()
        self._taken: set[int] = set()
        """Who has promised this term already, and not to us, or in an answer that was lost."""
        self.failures: dict[int, PagestoreError] = {}

    @property
    def lost(self) -> bool:
        """Whether another term has to be tried: this one is another's, or nobody's."""
        split = self._election.choice is None and self._taken
        return bool(self._election.lost_to or (split and self._asked.keys() <= self._suspects))

    async def run(self, deadline: float) -> Led | None:
        """None when it was lost to a higher term.

        Raises:
            NotFound: TIMELINE_NOT_FOUND; no safekeeper knows the timeline.
            Unavailable: NO_QUORUM; too few answer.
        """
        election = self._election
        try:
            self._do(election.retry())
            while election.start is None and not self.lost:
                if len(election.blanks) == len(election.numbers):
                    raise NotFound(
                        "TIMELINE_NOT_FOUND", f"No safekeeper has WAL of timeline {self._key[1]}."
                    )
                if asyncio.get_running_loop().time() > deadline:
                    raise self._no_quorum()
                if not await self._some(PATIENCE):
                    self._suspects.update(self._asked)
                    self._do(election.retry())
            if election.choice is None or self.lost:
                return None
            await self._others()
            return Led(election.term, election.choice, self._reached, election.blanks)
        finally:
            for task in self._asked.values():
                task.cancel()
            await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def _some(self, seconds: float) -> bool:
        """Takes in the answers that come; whether it is worth while to wait for more."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._asked:
            done, _ = await asyncio.wait(
                self._asked.values(), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        else:
            done = set()
            await asyncio.sleep(seconds / 5)
        for number, task in list(self._asked.items()):
            if task in done:
                del self._asked[number]
                self._take(number, task)
        enough = len(self._voted) >= majority(len(self._election.numbers))
        if self._election.choice is None and enough and self._asked.keys() <= self._suspects:
            self._do(self._election.retry())
        return bool(done) and loop.time() - began < seconds

    def _take(self, number: int, task: asyncio.Task[Message]) -> None:
        error = task.exception()
        if isinstance(error, PagestoreError):
            self.failures[number] = error
            return
        message = task.result()
        if isinstance(message, Reached):
            self._reached[message.member.number] = message.flush_lsn
        elif isinstance(message, Ballot):
            self._voted.add(number)
        elif isinstance(message, Declined):
            self._taken.add(message.number)
        self._do(self._election.step(message))

    def _do(self, actions: Iterable[Action]) -> None:
        """One question at a time to each."""
        choice = self._election.choice
        start = choice.start.flush_lsn if choice is not None else 0
        for action in actions:
            number = action.number
            if number not in self._asked:
                asking = self._safekeepers.ask(action, self._key, start)
                self._asked[number] = asyncio.create_task(asking)

    async def _others(self) -> None:
        """Those who answer at once need not be brought in later."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SPREAD
        while self._asked.keys() - self._suspects and loop.time() < deadline:
            await self._some(deadline - loop.time())

    def _no_quorum(self) -> PagestoreError:
        silent = sorted({*self._asked, *self.failures})
        said = "; ".join(str(error) for error in self.failures.values())
        return Unavailable(
            "NO_QUORUM",
            f"Too few safekeepers answer for timeline {self._key[1]}; away: "
            f"{', '.join(map(str, silent)) or 'none'}. {said}".rstrip(),
            "Start them: `pagestore status` shows which are down.",
        )


async def win(
    safekeepers: Safekeepers,
    key: Key,
    numbers: Iterable[int],
    term: int,
    seconds: float,
) -> Led:
    """Wins `term`, or a higher one where that has been promised.

    Raises:
        Aborted: TERM_LOST; others keep winning.
        NotFound, Unavailable: as Race.run.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    asked = tuple(numbers)
    while True:
        election = Election(term, asked)
        led = await Race(safekeepers, key, election).run(deadline)
        if led is not None:
            start = format_lsn(led.choice.start.flush_lsn)
            _log.debug("elected", timeline=str(key[1]), term=led.term, start=start)
            return led
        if asyncio.get_running_loop().time() > deadline:
            raise Aborted(
                "TERM_LOST",
                f"The safekeepers have promised term {term} of {key[1]}, or a higher one.",
            )
        # Whoever is in the same race shall not meet us again at the same moment.
        term = max(term, election.lost_to) + 1
        await asyncio.sleep(random.uniform(0, 0.02))  # noqa: S311
