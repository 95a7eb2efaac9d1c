"""How a timeline goes on with other safekeepers, while its compute may be writing.

The problem. One set of members shall be followed by another, and at no moment may there be two
majorities, one of each, that know nothing of each other. So there is a joint configuration
between the two, in which a majority of both has to agree, and no step is taken before the one
before it can not be forgotten any more.

The words. A configuration is *established* when a majority of each of its sets has stored it.
The *rule* is by whose confirmations the compute tells its clients that they have committed. The
*level* is the end of all that was ever committed by the rule before the joint one.

The course, under an elected term, by its winner:

1. Establish the configuration that is in force: a step of somebody who died may be half taken.
2. Admit the newcomers as learners, and have them filled up to where the log has come, so that
   nobody has to wait for them later. One that lost its disk is a newcomer too. Nothing else is
   begun until they are there, and of all who shall be members a majority.
3. Establish the joint configuration.
4. Make the rule joint. It answers with the level.
5. Wait until a majority of the new members has come to the level.
6. Establish the final configuration, and only then make it the rule.

Whoever finds a joint configuration in force goes on at 4, whoever began it. There is no way
back from there, since the final one may have been sent already.

What it is not. No clock, socket or file: messages in, actions out, as an election, with whom it
shares its messages. Whoever drives it asks `retry` again for what may have been lost, attaches
learners to the compute, and ends it when a higher term was promised. The generations that it
takes, three from the one it is given, must be higher than all that were ever given to anybody:
one of two that began in the same term may have been sent to a few, and must not rule later.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pagestore.consensus.acceptor import ChangeMembers, Elect, WalPosition
from pagestore.consensus.election import Blank, Fill, Reached
from pagestore.consensus.members import Configuration, Member


@dataclass(frozen=True, slots=True)
class RuleIs:
    """No commit is told any more by an older rule; all that ever were end at `lsn` or before."""

    generation: int
    lsn: int


Message = Reached | Blank | RuleIs


@dataclass(frozen=True, slots=True)
class Admit:
    """Make the timeline on a safekeeper without memory of it, as a learner under an incarnation
    that it draws by lot: nobody ever had it, so that a request that comes twice, before and after
    a disk was lost, makes two different ones. Who has a memory stays whom it is, and follows the
    elected log. Answered by Reached."""

    number: int
    elect: Elect
    start: WalPosition
    system_id: int


@dataclass(frozen=True, slots=True)
class Send:
    """Answered by Reached, or Blank."""

    number: int
    message: ChangeMembers


@dataclass(frozen=True, slots=True)
class SetRule:
    """Answered by RuleIs. Without a compute there is nothing to do, and the level is where the
    elected log ends."""

    configuration: Configuration


Action = Admit | Send | SetRule | Fill


class Stage(enum.Enum):
    ESTABLISH = "establish"
    ADMIT = "admit"
    RULE = "rule"
    LEVEL = "level"
    DONE = "done"


class MembershipChange:
    """To the members of the numbers in `target`, from those that were elected.

    Args:
        elect: what the term was won with, and the configuration in force now.
        start, system_id: of the log, for those who begin it.
        target: the numbers that shall be members; those in `lost` have lost their disk.
        level: where newcomers have to be before anything else changes.
        generation: the first of three, higher than all that were ever given away.
    """

    def __init__(
        self,
        elect: Elect,
        start: WalPosition,
        system_id: int,
        *,
        target: Collection[int],
        lost: Collection[int] = (),
        level: int = 0,
        generation: int,
    ) -> None:
        self.configuration = elect.configuration
        self.stage = Stage.ESTABLISH
        self._elect, self._start, self._system_id = elect, start, system_id
        self._target, self._lost = frozenset(target), set(lost)
        self.level, self._generation = level, generation
        self._told: dict[Member, tuple[int, int]] = {}
        self._learners: dict[int, Member] = {}
        self._began = False

    @property
    def done(self) -> bool:
        return self.stage is Stage.DONE

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """The numbers of the safekeepers that have not done what this stage needs of them."""
        everyone = self.configuration.everyone
        match self.stage:
            case Stage.ADMIT:
                return tuple(self._late())
            case Stage.ESTABLISH:
                return tuple(item.number for item in everyone if item not in self._aware())
            case Stage.LEVEL:
                joining = self.configuration.joining
                return tuple(item.number for item in joining if item not in self._level_ones())
        return ()

    def step(self, message: Message) -> list[Action]:
        """What to do next because of an answer."""
        match message:
            case Reached():
                self._note(message)
            case Blank():
                self._miss(message.number)
            case RuleIs() if self.stage is Stage.RULE:
                if message.generation == self.configuration.generation:
                    self.level = message.lsn
                    self.stage = Stage.LEVEL if self.configuration.joint else Stage.DONE
        before = self.stage, self.configuration
        while self._move():
            pass
        if isinstance(message, RuleIs) or before != (self.stage, self.configuration):
            return self._due()
        return self._fill_on(message) if isinstance(message, Reached) else []

    def retry(self) -> list[Action]:
        """All that this stage waits for."""
        while self._move():
            pass
        return self._due()

    def _note(self, message: Reached) -> None:
        if message.term != self._elect.term:
            return
        known = self._told.get(message.member, (0, 0))
        self._told[message.member] = max(known, (message.generation, message.flush_lsn))
        if message.member in self.configuration.everyone:
            self._lost.discard(message.member.number)
        else:
            self._learners[message.member.number] = message.member
            self._miss(message.member.number)

    def _miss(self, number: int) -> None:
        """Who has no memory, or answers as somebody else, is not the member any more. From the
        joint configuration on that is for the next change."""
        if not self.configuration.joint and not self._began:
            self._lost.add(number)

    def _move(self) -> bool:
        """To the next stage, when all that this one is for has come about."""
        configuration = self.configuration
        match self.stage:
            case Stage.ESTABLISH if self._is_established():
                ready = configuration.joint or self._began or not self._is_to_change()
                self.stage = Stage.RULE if ready else Stage.ADMIT
                return True
            case Stage.ADMIT if not self._is_to_change():
                self.stage = Stage.RULE
                return True
            case Stage.ADMIT if not self._late():
                self._began = True
                self._go_on(configuration.followed_by(self._generation, self._next_members()))
                return True
            case Stage.LEVEL if Configuration(0, configuration.joining).decided_by(
                self._level_ones()
            ):
                self._go_on(configuration.final(self._generation))
                return True
        return False

    def _go_on(self, configuration: Configuration) -> None:
        self._generation += 1
        self.configuration = configuration
        self.stage = Stage.ESTABLISH

    def _is_established(self) -> bool:
        return self.configuration.generation == 0 or self.configuration.decided_by(self._aware())

    def _aware(self) -> set[Member]:
        generation = self.configuration.generation
        return {item for item, (known, _) in self._told.items() if known >= generation}

    def _level_ones(self) -> set[Member]:
        return {item for item, (_, flush_lsn) in self._told.items() if flush_lsn >= self.level}

    def _kept(self) -> list[Member]:
        wanted = self._target - self._lost
        return [item for item in self.configuration.members if item.number in wanted]

    def _is_to_change(self) -> bool:
        return bool(self._newcomers()) or len(self._kept()) < len(self.configuration.members)

    def _newcomers(self) -> list[int]:
        return sorted(self._target - {item.number for item in self._kept()})

    def _next_members(self) -> tuple[Member, ...]:
        return (*self._kept(), *(self._learners[number] for number in self._newcomers()))

    def _late(self) -> list[int]:
        """Who is waited for before anything changes: all newcomers, and of those who stay as many
        as make a majority."""
        newcomers = [item for item in self._newcomers() if not self._is_level(item)]
        there = self._told.keys()
        if newcomers or Configuration(0, self._next_members()).decided_by(there):
            return newcomers
        return [item.number for item in self._kept() if item not in there]

    def _is_level(self, number: int) -> bool:
        learner = self._learners.get(number)
        return learner is not None and self._told[learner][1] >= self.level

    def _due(self) -> list[Action]:
        configuration = self.configuration
        match self.stage:
            case Stage.ESTABLISH | Stage.LEVEL:
                return self._send(configuration.everyone)
            case Stage.ADMIT:
                stay = self._send(self._kept())
                come = [item for number in self._newcomers() for item in self._admit(number)]
                return [*stay, *come]
            case Stage.RULE:
                return [SetRule(configuration)]
        return []

    def _send(self, members: Iterable[Member]) -> list[Action]:
        message = ChangeMembers(self._elect.term, self.configuration)
        return [Send(item.number, message) for item in members]

    def _admit(self, number: int) -> list[Action]:
        if self._is_level(number):
            return []
        elect = Elect(self._elect.term, self._elect.history, self.configuration)
        return [Admit(number, elect, self._start, self._system_id), *self._fill(number)]

    def _fill(self, number: int) -> list[Action]:
        if self._is_level(number) or number not in self._learners:
            return []
        donors = [item.number for item in self.configuration.everyone if item in self._told]
        donors.sort(key=lambda donor: donor in self._lost)
        return [Fill(number, tuple(donors), self._elect.term)] if donors else []

    def _fill_on(self, message: Reached) -> list[Action]:
        """Also a member that is not level. If it follows the compute's stream it refuses, and is
        on the way already."""
        member = message.member
        if self.stage is Stage.LEVEL and member in self.configuration.joining:
            level = self._level_ones()
            donors = tuple(item.number for item in level)
            behind = member not in level and donors
            return [Fill(member.number, donors, self._elect.term)] if behind else []
        return self._fill(member.number) if self.stage is Stage.ADMIT else []
