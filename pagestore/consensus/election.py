"""How a compute wins a term over several safekeepers: the twin of the acceptor.

The problem. Before a compute starts, somebody must make sure that no other can commit any more,
find the log that has everything ever acknowledged, and bring a majority to it. Safekeepers come
and go meanwhile, answers are lost, and another election may run at the same time.

The words. The *ballot* of a safekeeper is what it says with its promise: how far its log goes
and which terms wrote it. The *donor* is the voter with the best log, by (last log term, flush
LSN). The *start* is where the donor's log ends: the compute begins there. The *ruling*
configuration is that of the ballot that was elected last, and changed last; a joint one asks for
two majorities. A *blank* safekeeper is one without any memory of the timeline.

The course. Ask those who are thought to be members for their vote, and whoever a ballot names.
When all have answered, or a majority has and the time for the others is over, choose the donor;
its history, with the new term at the start as the last entry, is the elected one. Tell it, with
the ruling configuration, to all who promised, who cut their logs where they part from it; those
behind the start are filled by a peer. When a majority has reached the start, the election is
won, and all below the start is committed.

The invariants:

1. At most one election of a term is won, since a safekeeper promises a term once.
2. A log is better by its term first: the longer log of a lower term is one that lost already.
3. The ruling configuration is that of a majority, which every later majority meets: a change
   of members that was carried out is never forgotten, and one that only began may be.
4. A blank safekeeper has no vote, and is told nothing. It comes back by a change of members,
   under the won term (pagestore.consensus.change).

What it is not. No clock, socket or file: messages in, actions out. Whoever drives it asks
`retry` again for what may have been lost, and gives up for a higher term when it takes too long.
It only gets a compute as far as its start; from there on the compute's own stream counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pagestore.consensus.acceptor import (
    Elect,
    State,
    TermSwitch,
    WalPosition,
    last_log_term,
)
from pagestore.consensus.members import Configuration, Member


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a safekeeper says with its promise of `term`."""

    member: Member
    configuration: Configuration
    term: int
    history: tuple[TermSwitch, ...]
    start: WalPosition
    position: WalPosition
    system_id: int

    @classmethod
    def of(cls, state: State, number: int) -> Ballot:
        return cls(
            named(state, number),
            state.configuration,
            state.term,
            state.history,
            state.start,
            state.position,
            state.system_id,
        )


def named(state: State, number: int) -> Member:
    """As whom the safekeeper of this number answers; who is alone has no name of its own."""
    return state.member if state.configuration.members else Member(number)


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
    """Elected in `term`, its log is durable up to `flush_lsn`; `generation` is that of its
    configuration."""

    member: Member
    term: int
    generation: int
    flush_lsn: int

    @classmethod
    def of(cls, state: State, number: int) -> Reached:
        generation = state.configuration.generation
        return cls(named(state, number), state.writing_term, generation, state.position.flush_lsn)


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
class Fill:
    """Have it append from one of these peers, from its flush LSN on. By Reached."""

    number: int
    donors: tuple[int, ...]
    term: int


Action = AskVote | SendElect | Fill


@dataclass(frozen=True, slots=True)
class Choice:
    """What the ballots of a majority lead to."""

    elect: Elect
    donor: Ballot

    @property
    def start(self) -> WalPosition:
        return self.donor.position


def rank(ballot: Ballot) -> tuple[int, int]:
    """The best log has the highest."""
    flush_lsn = ballot.position.flush_lsn
    return last_log_term(ballot.history, flush_lsn), flush_lsn


def ruling(ballots: Iterable[Ballot]) -> Configuration:
    """What was elected last, and changed last in that term, whether or not a majority has it.
    Of a safekeeper that was alone so far, a configuration of that one."""
    last = max(ballots, key=_changed_last)
    return last.configuration if last.configuration.members else Configuration(0, (last.member,))


def _changed_last(ballot: Ballot) -> tuple[int, int]:
    return ballot.history[-1].term if ballot.history else 0, ballot.configuration.generation


def choose(term: int, ballots: Iterable[Ballot]) -> Choice | None:
    """None while there is no majority of ballots that count."""
    everybody = {item.member: item for item in ballots}
    configuration = ruling(everybody.values()) if everybody else Configuration()
    if not configuration.decided_by(everybody):
        return None
    donor = max((everybody[item] for item in configuration.everyone if item in everybody), key=rank)
    end = donor.position.flush_lsn
    written = tuple(item for item in donor.history if item.start_lsn < end)
    return Choice(Elect(term, (*written, TermSwitch(term, end)), configuration), donor)


class Election:
    """One attempt to win `term`; the safekeepers of these numbers are asked first."""

    def __init__(self, term: int, numbers: Iterable[int]) -> None:
        self.term = term
        self.numbers = tuple(sorted(numbers))
        self.choice: Choice | None = None
        self.start: WalPosition | None = None
        """Where the compute begins; None until the election is won."""
        self.lost_to = 0
        self._ballots: dict[int, Ballot] = {}
        self._blanks: set[int] = set()
        self._promised: set[int] = set()
        self._reached: dict[Member, int] = {}

    @property
    def blanks(self) -> frozenset[int]:
        """Those who have no memory of the timeline."""
        return frozenset(self._blanks)

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
                self._blanks.add(message.number)
                self._ballots.pop(message.number, None)
                return self._choose_if_all_answered()
            case Reached():
                return self._note_reached(message)

    def retry(self) -> list[Action]:
        """All that has not been answered. Those that have not voted by now are not waited for."""
        return self._choose() or self._due(self.numbers)

    def reconfigure(self, configuration: Configuration) -> None:
        """Whoever is told from now on, in a term that goes on, is told of this configuration."""
        assert self.choice is not None
        elect = replace(self.choice.elect, configuration=configuration)
        self.choice = replace(self.choice, elect=elect)
        self._ask(configuration)

    def _ask(self, configuration: Configuration) -> list[int]:
        """Also these; returns who had not been asked."""
        named = {item.number for item in configuration.everyone}
        new = sorted(named - {*self.numbers})
        self.numbers = tuple(sorted({*self.numbers, *named}))
        return new

    def _count(self, ballot: Ballot) -> list[Action]:
        number = ballot.member.number
        if ballot.term != self.term or number in self._blanks:
            return []
        self._promised.add(number)
        if self.choice is not None:
            return self._due((number,))
        self._ballots[number] = ballot
        new = self._ask(ruling(self._ballots.values()))
        return self._due(new) or self._choose_if_all_answered()

    def _choose_if_all_answered(self) -> list[Action]:
        """More answers make a better choice."""
        answered = len(self._ballots.keys() | self._blanks)
        return self._choose() if answered >= len(self.numbers) else []

    def _choose(self) -> list[Action]:
        if self.choice is None:
            self.choice = choose(self.term, self._ballots.values())
            if self.choice is not None:
                self._ask(self.choice.elect.configuration)
                return self._due(self.numbers)
        return []

    def _note_reached(self, message: Reached) -> list[Action]:
        if message.term != self.term or self.choice is None:
            return []
        known = self._reached.get(message.member, 0)
        self._reached[message.member] = max(known, message.flush_lsn)
        if self.choice.elect.configuration.decided_by(self._at_start(self.choice)):
            self.start = self.choice.start
        return self._due((message.member.number,))

    def _at_start(self, choice: Choice) -> list[Member]:
        start = choice.start.flush_lsn
        return [member for member, flush_lsn in self._reached.items() if flush_lsn >= start]

    def _due(self, numbers: Iterable[int]) -> list[Action]:
        if self.lost_to:
            return []
        return [action for number in numbers if (action := self._next(number)) is not None]

    def _next(self, number: int) -> Action | None:
        """What this safekeeper has to be asked now."""
        choice = self.choice
        if number in self._blanks or (choice is None and number in self._ballots):
            return None
        reached = [lsn for item, lsn in self._reached.items() if item.number == number]
        if choice is not None and reached:
            donors = tuple(item.number for item in self._at_start(choice))
            behind = max(reached) < choice.start.flush_lsn
            return Fill(number, donors, self.term) if behind and donors else None
        if choice is not None and number in self._promised:
            return SendElect(number, choice.elect)
        return AskVote(number, self.term)
