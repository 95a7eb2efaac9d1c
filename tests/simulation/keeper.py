"""The control plane beside a running compute: sees to it that its members are those wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pagestore.consensus.change import MembershipChange, Message, RuleIs, SetRule
from pagestore.consensus.election import Ballot, Blank, Choice, Reached, ruling
from pagestore.consensus.members import Configuration
from tests.simulation.safekeeper import AskState, Retire, Told

if TYPE_CHECKING:
    from tests.simulation.compute import SimCompute


class Plan(Protocol):
    """What the control plane remembers, whatever is killed."""

    wanted: frozenset[int]
    out_of_reach: set[int]

    def asked_first(self) -> frozenset[int]:
        """Who are members, as far as is known."""

    def everybody(self) -> list[int]: ...

    def is_last(self, name: str) -> bool:
        """Whether no later compute was started."""

    def generations(self) -> int:
        """The first of three that were never given away."""

    def changed(self, term: int, configuration: Configuration) -> None:
        """A change was carried out."""


class Keeper:
    """Forgets all now and then, as a control plane does that starts anew; what is in force it
    then learns from the safekeepers."""

    forgets = 0.03

    def __init__(self, compute: SimCompute) -> None:
        self.compute, self.plan, self.world = compute, compute.plan, compute.world
        self.change: MembershipChange | None = None
        self.known: Configuration | None = None
        self._lost: set[int] = set()
        self._told: dict[int, Ballot] = {}

    def tick(self) -> None:
        if self.world.chance(self.forgets):
            self.change, self.known, self._lost, self._told = None, None, set(), {}
        if self.change is not None:
            self._carry_out(self.change, self.change.retry())
        elif self.known is None:
            self.compute.act(AskState(number) for number in self.plan.everybody())
        else:
            self._look_after(self.known)

    def receive(self, message: Reached | Blank | Told) -> None:
        if isinstance(message, Told):
            self._learn(message.ballot)
            self._miss(message.ballot)
            return
        if isinstance(message, Blank):
            self._lost.add(message.number)
        if self.change is not None:
            self._carry_out(self.change, self.change.step(message))

    def _learn(self, ballot: Ballot) -> None:
        """In force is what a majority of its own cannot have forgotten."""
        if self.known is not None or ballot.term > self.compute.term:
            return
        self._told[ballot.member.number] = ballot
        configuration = ruling(self._told.values())
        if configuration.decided_by({item.member for item in self._told.values()}):
            self._go_on_with(configuration)

    def _go_on_with(self, configuration: Configuration) -> None:
        self.known = configuration
        self.compute.election.reconfigure(configuration)

    def _look_after(self, configuration: Configuration) -> None:
        numbers = frozenset(item.number for item in configuration.members)
        lost, self._lost = self._lost & numbers, set()
        done = numbers == self.plan.wanted == self.plan.asked_first()
        if configuration.joint or lost or not done:
            self._begin(configuration, lost)
            return
        number = self.world.random.choice(sorted(numbers))
        self.compute.act([AskState(number)])

    def _miss(self, ballot: Ballot) -> None:
        """Who answers for a member and is not the one has lost its disk, and begun to learn."""
        if self.known is not None and ballot.member not in self.known.everyone:
            self._lost.add(ballot.member.number)

    def _begin(self, configuration: Configuration, lost: set[int]) -> None:
        ballot = self._choice.donor
        self.change = MembershipChange(
            replace(self._choice.elect, configuration=configuration),
            ballot.start,
            ballot.system_id,
            target=self.plan.wanted,
            lost=lost,
            level=self.compute.acknowledged,
            generation=self.plan.generations(),
        )
        self._carry_out(self.change, self.change.retry())

    @property
    def _choice(self) -> Choice:
        choice = self.compute.election.choice
        assert choice is not None
        return choice

    def _carry_out(self, change: MembershipChange, actions: list[object]) -> None:
        self._go_on_with(change.configuration)
        for action in actions:
            if isinstance(action, SetRule):
                lsn = self.compute.set_rule(action.configuration)
                answer: Message = RuleIs(action.configuration.generation, lsn)
                self._carry_out(change, change.step(answer))
            else:
                self.compute.act([action])
        if change.done and self.change is change:
            self.change = None
            self._end(change.configuration)

    def _end(self, configuration: Configuration) -> None:
        self.plan.changed(self.compute.term, configuration)
        for member in self.compute.reached:
            if member not in configuration.everyone:
                self.world.send(self.compute.name, f"sk{member.number}", Retire(member))
