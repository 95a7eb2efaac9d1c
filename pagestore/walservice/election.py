"""How a compute wins a term over several safekeepers: the twin of the acceptor.

The problem. Before a compute starts, somebody must make sure that no other can commit any more,
find the log that has everything ever acknowledged, and bring a majority to it. Safekeepers come
and go meanwhile, answers are lost, and another election may run at the same time.

The words. The *ballot* of a safekeeper is what it says with its promise: how far its log goes
and which terms wrote it. The *donor* is the voter with the best log, by (last log term, flush
LSN). The *start* is where the donor's log ends: the compute begins there. A *blank* safekeeper
is one without any memory of the timeline.

The course. Ask all for their vote. When all have answered, or a majority has and the time for
the others is over, choose the donor; its history, with the new term at the start as the last
entry, is the elected one. Tell it to all who promised, who cut their logs where they part from
it; those behind the start are filled by a peer. When a majority has reached the start, the
election is won, and all below the start is committed.

The invariants:

1. At most one election of a term is won, since a safekeeper promises a term once.
2. A log is better by its term first: the longer log of a lower term is one that lost already.
3. A blank safekeeper has no vote. It is admitted, as a new incarnation, when *all* the others
   have been elected and told of it and a majority has reached the start: then no promise that it
   forgot can be of use to anybody, and what it had made durable is on a majority without it. One
   that becomes blank after its promise has to wait for another election.

What it is not. No clock, socket or file: messages in, actions out. Whoever drives it asks
`retry` again for what may have been lost, and gives up for a higher term when it takes too long.
It only gets a compute as far as its start; from there on the compute's own stream counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pagestore.walservice.acceptor import (
    Elect,
    Member,
    Position,
    State,
    TermSwitch,
    last_log_term,
    majority,
)


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a safekeeper says with its promise of `term`."""

    member: Member
    peers: tuple[Member, ...]
    term: int
    history: tuple[TermSwitch, ...]
    start: Position
    position: Position
    system_id: int

    @classmethod
    def of(cls, state: State) -> Ballot:
        return cls(
            state.member,
            state.peers,
            state.term,
            state.history,
            state.start,
            state.position,
            state.system_id,
        )


# Messages


@dataclass(frozen=True, slots=True)
class Declined:
    """No promise: `term` has been promised already, perhaps to us in an answer that was lost."""

    number: int
    term: int


@dataclass(frozen=True, slots=True)
class Blank:
    """It knows nothing of the timeline."""

    number: int


@dataclass(frozen=True, slots=True)
class Reached:
    """Elected in `term`, its log is durable up to `flush_lsn`."""

    number: int
    term: int
    flush_lsn: int


Message = Ballot | Declined | Blank | Reached


# Actions


@dataclass(frozen=True, slots=True)
class AskVote:
    number: int
    term: int


@dataclass(frozen=True, slots=True)
class SendElect:
    """Answered by Reached."""

    number: int
    elect: Elect


@dataclass(frozen=True, slots=True)
class Admit:
    """Make the timeline on a blank safekeeper, elected from its first moment. One that has been
    admitted by an earlier election after all promises the term and is elected. By Reached."""

    number: int
    elect: Elect
    start: Position
    system_id: int


@dataclass(frozen=True, slots=True)
class Fill:
    """Have it append from one of these peers, from its flush LSN on. By Reached."""

    number: int
    donors: tuple[int, ...]
    term: int


Action = AskVote | SendElect | Admit | Fill


@dataclass(frozen=True, slots=True)
class Choice:
    """What the ballots of a majority lead to."""

    elect: Elect
    donor: Ballot
    blanks: frozenset[int]

    @property
    def start(self) -> Position:
        return self.donor.position


def rank(ballot: Ballot) -> tuple[int, int]:
    """The best log has the highest."""
    flush_lsn = ballot.position.flush_lsn
    return last_log_term(ballot.history, flush_lsn), flush_lsn


def choose(
    term: int, numbers: Iterable[int], ballots: Iterable[Ballot], blanks: frozenset[int]
) -> Choice | None:
    """None while there is no majority of ballots that count."""
    newest = dict.fromkeys(numbers, 1)
    for ballot in ballots:
        for member in (ballot.member, *ballot.peers):
            newest[member.number] = max(newest[member.number], member.incarnation)
    voters = [item for item in ballots if item.member.incarnation == newest[item.member.number]]
    if len(voters) < majority(len(newest)):
        return None
    donor = max(voters, key=rank)
    end = donor.position.flush_lsn
    written = tuple(item for item in donor.history if item.start_lsn < end)
    members = tuple(Member(item, newest[item] + (item in blanks)) for item in newest)
    elect = Elect(
        term,
        (*written, TermSwitch(term, end)),
        tuple(item.member for item in voters),
        members,
    )
    return Choice(elect, donor, blanks)


class Election:
    """One attempt to win `term` among the safekeepers of these numbers."""

    def __init__(self, term: int, numbers: Iterable[int]) -> None:
        self.term = term
        self.numbers = tuple(sorted(numbers))
        self.choice: Choice | None = None
        self.lost_to = 0
        self._ballots: dict[int, Ballot] = {}
        self._blanks: set[int] = set()
        self._unreliable: set[int] = set()
        self._promised: set[int] = set()
        self._reached: dict[int, int] = {}

    @property
    def start(self) -> Position | None:
        """Where the compute begins; None until the election is won."""
        if self.choice is None or len(self._at_start()) < majority(len(self.numbers)):
            return None
        return self.choice.start

    def step(self, message: Message) -> list[Action]:
        """What to do next because of an answer."""
        match message:
            case Ballot():
                return self._count(message)
            case Declined():
                if message.term > self.term:
                    self.lost_to = max(self.lost_to, message.term)
                elif message.term == self.term:
                    self._promised.add(message.number)
                return self._due((message.number,) if self.choice else ())
            case Blank():
                return self._note_blank(message.number)
            case Reached():
                return self._note_reached(message)

    def retry(self) -> list[Action]:
        """All that has not been answered. Those that have not voted by now are not waited for."""
        return self._choose() or self._due(self.numbers)

    def _count(self, ballot: Ballot) -> list[Action]:
        number = ballot.member.number
        if ballot.term != self.term or number in self._blanks | self._unreliable:
            return []
        self._promised.add(number)
        if self.choice is not None:
            return self._due((number,))
        self._ballots[number] = ballot
        return self._choose_if_all_answered()

    def _choose_if_all_answered(self) -> list[Action]:
        """More answers make a better choice, and let the blank in."""
        answered = len(self._ballots) + len(self._blanks | self._unreliable)
        return self._choose() if answered == len(self.numbers) else []

    def _choose(self) -> list[Action]:
        if self.choice is None:
            ballots, blanks = self._ballots.values(), frozenset(self._blanks)
            self.choice = choose(self.term, self.numbers, ballots, blanks)
            return self._due(self.numbers) if self.choice else []
        return []

    def _note_blank(self, number: int) -> list[Action]:
        if self.choice is None and number not in self._blanks | self._unreliable:
            forgot = self._ballots.pop(number, None) is not None or number in self._promised
            (self._unreliable if forgot else self._blanks).add(number)
            return self._choose_if_all_answered()
        return []

    def _note_reached(self, message: Reached) -> list[Action]:
        if message.term != self.term or self.choice is None:
            return []
        known = self._reached.get(message.number, 0)
        self._reached[message.number] = max(known, message.flush_lsn)
        return self._due((message.number, *self.choice.blanks - {message.number}))

    def _at_start(self) -> list[int]:
        assert self.choice is not None
        start = self.choice.start.flush_lsn
        return [number for number, flush_lsn in self._reached.items() if flush_lsn >= start]

    def _due(self, numbers: Iterable[int]) -> list[Action]:
        if self.lost_to:
            return []
        return [action for number in numbers if (action := self._next(number)) is not None]

    def _next(self, number: int) -> Action | None:
        """What this safekeeper has to be asked now."""
        choice = self.choice
        if choice is None:
            asked = number in self._ballots or number in self._blanks | self._unreliable
            return None if asked else AskVote(number, self.term)
        if number in self._reached:
            behind = self._reached[number] < choice.start.flush_lsn
            donors = tuple(self._at_start())
            return Fill(number, donors, self.term) if behind and donors else None
        if number in choice.blanks:
            if not self._may_admit(choice):
                return None
            return Admit(number, choice.elect, choice.donor.start, choice.donor.system_id)
        if number in self._unreliable:
            return None
        if number in self._promised:
            return SendElect(number, choice.elect)
        return AskVote(number, self.term)

    def _may_admit(self, choice: Choice) -> bool:
        others = set(self.numbers) - choice.blanks
        return self.start is not None and others <= self._reached.keys()
