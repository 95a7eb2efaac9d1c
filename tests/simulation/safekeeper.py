"""A safekeeper on a simulated disk: drives the real acceptor as a service would."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, NamedTuple

from pagestore.consensus import acceptor, election
from pagestore.consensus.acceptor import (
    Append,
    Attach,
    Attachment,
    CompareLog,
    CutLog,
    Flushed,
    Heard,
    Persist,
    StartStream,
    State,
    Step,
    StopStream,
    Vote,
    WalPosition,
    WriteLog,
    step,
)
from pagestore.consensus.change import Admit, Send
from pagestore.consensus.election import AskVote, Ballot, Blank, Declined, Fill, Reached, SendElect
from pagestore.consensus.members import Member
from pagestore.consensus.testimony import contradicts, may_speak
from tests.simulation.ledger import Ledger, Violation
from tests.simulation.world import Crash, Record, World

_start, _end = attrgetter("start"), attrgetter("end")


class Fetch(NamedTuple):
    """Asks a peer for the log of `term` from `lsn` on; `reply_to` waits for the outcome."""

    term: int
    lsn: int
    reply_to: str


class Records(NamedTuple):
    """An append, by the compute or by a peer."""

    term: int
    lsn: int
    records: tuple[Record, ...]
    reply_to: str


class AttachTo(NamedTuple):
    term: int
    start_lsn: int


class Pull(NamedTuple):
    """What a connection to the compute's walsender asks for."""

    term: int
    lsn: int


class Pushed(NamedTuple):
    term: int
    lsn: int
    records: tuple[Record, ...]


class Confirmed(NamedTuple):
    member: Member
    term: int
    flush_lsn: int


class AskState(NamedTuple):
    """Answered by a ballot, without any promise."""

    number: int


class Told(NamedTuple):
    ballot: Ballot


class Retire(NamedTuple):
    """No member any more: delete the timeline, if it is still you."""

    member: Member


class ReadWal(NamedTuple):
    lsn: int


class WalRead(NamedTuple):
    lsn: int
    records: tuple[Record, ...]


class AskMemory(NamedTuple):
    """By one that has started: what do you remember of me?"""

    number: int


class Remembered(NamedTuple):
    number: int
    heard: Heard | None


@dataclass
class Disk:
    """What survives a crash; `memory` is of what peers have said."""

    stored: State | None = None
    clean: bool = True
    log: list[Record] = field(default_factory=list)
    memory: dict[int, Heard] = field(default_factory=dict)

    def copy(self) -> Disk:
        return Disk(self.stored, self.clean, [*self.log], {**self.memory})


class SimSafekeeper:
    """`stream` is the thread of the real one: it writes and confirms by itself until stopped."""

    pull_every = 8.0
    gossip_every = 7.0
    patience = 10.0

    def __init__(self, world: World, ledger: Ledger, number: int, first: State | None) -> None:
        self.world, self.ledger, self.number = world, ledger, number
        self.name = f"sk{number}"
        self.alive = True
        self.disk = Disk(first)
        self.state: State | None = None
        self.stream: Attachment | None = None
        self.written: list[Record] = []
        self.epoch = 0
        self.reached_term = 0
        self.on_trial = False
        self.outdated = False
        self.doubtful = False
        """Its disk was put back, and nobody has said so yet, or it has."""
        self.spoken: set[int] = set()
        self.booted_at = 0.0
        world.nodes[self.name] = self
        self.boot()

    # Life

    def boot(self) -> None:
        self.alive = True
        self.epoch += 1
        stored = self.disk.stored
        if stored is not None:
            end = self._position(stored.start)
            if self.disk.clean and stored.position.flush_lsn != end.flush_lsn:
                raise Violation(f"{self.name} trusts {stored.position}, its log ends at {end}")
            self.state = replace(stored, position=end, heard=())
            self.stream = stored.attachment
        self.on_trial, self.spoken, self.booted_at = stored is not None, set(), self.world.now
        self._ask_memory()
        self._repeat(self.pull_every, self._pull)
        self._repeat(self.gossip_every, self._gossip)

    def crash(self) -> None:
        self.alive = False
        self.epoch += 1
        self.state = None
        self.stream = None
        self.written = []

    def wipe(self) -> None:
        self.crash()
        self.disk = Disk()
        self.reached_term = 0
        self.outdated = self.doubtful = False

    def put_back(self, older: Disk) -> None:
        self.crash()
        self.disk = older
        self.reached_term = 0
        self.doubtful = True
        self.boot()

    # The trial

    def _ask_memory(self) -> None:
        """An older copy comes back only while the others are there to say so."""
        if self.state is None or not self._is_on_trial(self.state):
            return
        for peer in self.state.peers:
            if peer.number not in self.spoken:
                self.world.send(self.name, f"sk{peer.number}", AskMemory(self.number))

    def _is_on_trial(self, state: State) -> bool:
        if self.on_trial and not self.outdated:
            patient = self.doubtful or self.world.now < self.booted_at + self.patience
            alone = not state.peers
            if alone or may_speak(state.member, state.configuration, self.spoken, patient=patient):
                self.on_trial = self.doubtful = False
        return self.on_trial

    def _take_testimony(self, message: Remembered, state: State) -> None:
        own = acceptor.position_of(state)
        if message.heard is not None and contradicts(message.heard, own):
            self.outdated = self.on_trial = True
        self.spoken.add(message.number)

    def _memorize(self, heard: Heard) -> None:
        memory, number = self.disk.memory, heard.member.number
        known = memory.get(number)
        if known is None or known.member != heard.member or known < heard:
            memory[number] = heard

    def _repeat(self, every: float, action: Callable[[], None]) -> None:
        epoch = self.epoch

        def again() -> None:
            if self.epoch == epoch:
                action()
                self.world.after(self.world.spread(every), again)

        self.world.after(every * self.world.random.random(), again)

    def _position(self, start: WalPosition) -> WalPosition:
        if not self.disk.log:
            return start
        return WalPosition(self.disk.log[-1].end, self.disk.log[-1].start)

    def _from(self, lsn: int, to: int) -> list[Record]:
        log = self.disk.log
        return log[bisect_left(log, lsn, key=_start) : bisect_right(log, to, key=_end)]

    # The driver of the acceptor

    def drive(self, message: acceptor.Message, records: tuple[Record, ...] = ()) -> Step:
        assert self.state is not None
        outcome = step(self.state, message)
        if outcome.refusal is None:
            self.become(self.carry_out(outcome, records))
        elif outcome.refusal.reason == "LOG_DIVERGED":
            raise Violation(f"{self.name}: {outcome.refusal}")
        return outcome

    def carry_out(self, outcome: Step, records: tuple[Record, ...]) -> State:
        state = outcome.state
        for action in outcome.actions:
            self.world.may_crash()
            state = self._act(action, state, records)
        return state

    def _act(self, action: acceptor.Action, state: State, records: tuple[Record, ...]) -> State:
        match action:
            case Persist():
                self.disk.stored, self.disk.clean = state, action.clean
            case StopStream():
                if self.world.chance(0.5):
                    self.sync()
                self.stream, self.written = None, []
                assert self.state is not None
                return replace(
                    state,
                    position=self.state.position,
                    known_commit_lsn=self.state.known_commit_lsn,
                )
            case CutLog():
                self._cut(action.position)
            case WriteLog():
                self.disk.log.extend(records)
                return step(state, Flushed(state.term, self._position(state.start))).state
            case CompareLog():
                if tuple(self._from(records[0].start, records[-1].end)) != records:
                    raise Violation(f"{self.name} has other WAL in the same term than {records}")
            case StartStream():
                self.stream = state.attachment
                self._pull()
        return state

    def _cut(self, position: WalPosition) -> None:
        assert self.disk.stored is not None
        self.disk.stored = replace(self.disk.stored, position=position)
        self.disk.clean = False
        self.world.may_crash()
        self.ledger.cut([r for r in self.disk.log if r.end > position.flush_lsn], self.name)
        self.disk.log = [r for r in self.disk.log if r.end <= position.flush_lsn]

    def become(self, state: State) -> None:
        before, self.state = self.state, state
        if state.commit_lsn > state.position.flush_lsn:
            raise Violation(f"{self.name} has committed more than it has")
        known = before.commit_lsn if before else state.start.flush_lsn
        if state.commit_lsn > known:
            committed = self._from(known, state.commit_lsn)
            self.ledger.commit(committed, state.writing_term, self.name)
        if self.reached_term < state.writing_term == state.last_log_term:
            self.reached_term = state.writing_term
            log = frozenset(self._from(0, state.history[-1].start_lsn))
            self.ledger.reached(state.writing_term, log, self.name)

    # The stream

    def _written_end(self) -> int:
        assert self.state is not None
        if self.written:
            return self.written[-1].end
        return self.disk.log[-1].end if self.disk.log else self.state.start.flush_lsn

    def _pull(self) -> None:
        if self.state is None or self._is_on_trial(self.state):
            return
        if self.stream is not None:
            pull = Pull(self.stream.term, self._written_end())
            self.world.send(self.name, self.stream.conninfo, pull)

    def _pushed(self, message: Pushed) -> None:
        if self.stream is None or self.stream.term != message.term:
            return
        if message.lsn != self._written_end():
            return
        self.written.extend(message.records)
        epoch = self.epoch

        def sync_and_go_on() -> None:
            if self.epoch == epoch:
                self.sync()
                self._pull()

        self.world.after(0.1 + 2 * self.world.random.random(), sync_and_go_on)

    def sync(self) -> None:
        """Makes durable, confirms, and only then tells the acceptor, as the receiver does."""
        if self.stream is None or not self.written or self.state is None:
            return
        self.disk.log.extend(self.written)
        self.written = []
        position = self._position(self.state.start)
        confirmed = Confirmed(self._identity(), self.stream.term, position.flush_lsn)
        self.world.send(self.name, self.stream.conninfo, confirmed)
        outcome = step(self.state, Flushed(self.stream.term, position))
        if outcome.refusal is None:
            self.become(outcome.state)

    def _identity(self) -> Member:
        assert self.state is not None
        return election.named(self.state, self.number)

    # Requests

    def receive(self, sender: str, message: Any) -> None:
        try:
            if isinstance(message, AskMemory):
                heard = self.disk.memory.get(message.number)
                self.world.send(self.name, sender, Remembered(self.number, heard))
            elif self.state is not None:
                self._receive(sender, message, self.state)
            elif isinstance(message, Admit):
                self._join(sender, message)
            elif isinstance(message, AskVote | SendElect | Send | AskState):
                self.world.send(self.name, sender, Blank(self.number))
        except Crash:
            self.crash()

    def _receive(self, sender: str, message: Any, state: State) -> None:
        if isinstance(message, Remembered):
            self._take_testimony(message, state)
        elif isinstance(message, Heard):
            self._memorize(message)
            self.become(step(state, message).state)
        elif isinstance(message, ReadWal) or not self._is_on_trial(state):
            self._serve(sender, message, state)

    def _serve(self, sender: str, message: Any, state: State) -> None:
        match message:
            case Pushed():
                self._pushed(message)
            case ReadWal():
                records = tuple(self._from(message.lsn, state.commit_lsn)[:20])
                self.world.send(self.name, sender, WalRead(message.lsn, records))
            case Fill():
                fetch = Fetch(message.term, state.position.flush_lsn, sender)
                donor = self.world.random.choice(message.donors)
                self.world.send(self.name, f"sk{donor}", fetch)
            case Fetch():
                self._fetch(sender, message, state)
            case Retire() if message.member == state.member:
                self.wipe()
                self.boot()
            case AskState():
                self.world.send(self.name, sender, Told(Ballot.of(state, self.number)))
            case _:
                self._drive_by(sender, message)

    def _drive_by(self, sender: str, message: Any) -> None:
        match message:
            case AskVote():
                self._vote(sender, message.term)
            case SendElect():
                self._answer(sender, self.drive(message.elect))
            case Admit():
                self.drive(Vote(message.elect.term))
                self._answer(sender, self.drive(message.elect))
            case Send():
                self._answer(sender, self.drive(message.message))
            case AttachTo():
                self.drive(Attach(message.term, sender, message.start_lsn))
            case Records():
                length = message.records[-1].end - message.lsn
                done = self.drive(Append(message.term, message.lsn, length), message.records)
                self._answer(message.reply_to, done)

    def _vote(self, sender: str, term: int) -> None:
        assert self.state is not None
        before = self.state.term
        self.drive(Vote(term))
        answer: election.Message = Declined(self.number, self.state.term)
        if self.state.term > before:
            answer = Ballot.of(self.state, self.number)
        self.world.send(self.name, sender, answer)

    def _join(self, sender: str, message: Admit) -> None:
        me = Member(self.number, self.world.random.getrandbits(31))
        joined = acceptor.admit(me, message.elect, message.start, message.system_id)
        self.become(self.carry_out(joined, ()))
        self._answer(sender, joined)

    def _answer(self, receiver: str, outcome: Step) -> None:
        assert self.state is not None
        answer: election.Message = Declined(self.number, self.state.term)
        if outcome.refusal is None:
            answer = Reached.of(self.state, self.number)
        elif outcome.refusal.reason != "STALE_TERM":
            return
        self.world.send(self.name, receiver, answer)

    def _fetch(self, sender: str, message: Fetch, state: State) -> None:
        if not acceptor.may_fill(state, message.term):
            return
        some = self.world.random.randint(1, 20)
        records = tuple(self._from(message.lsn, state.position.flush_lsn)[:some])
        if records and records[0].start == message.lsn:
            self.world.send(self.name, sender, Records(*message[:2], records, message.reply_to))

    def _gossip(self) -> None:
        if self.state is None:
            return
        if self._is_on_trial(self.state):
            self._ask_memory()
            return
        position = acceptor.position_of(self.state)
        for peer in self.state.peers:
            self.world.send(self.name, f"sk{peer.number}", position)
