"""The consensus state machine of a safekeeper: messages in; new state and actions out.

The problem. A timeline's log may be written by one compute at a time, but nobody can be sure
that the compute of yesterday is dead: it may be frozen, or cut off, and wake up still writing.
What decides is not who runs but what is confirmed: a commit returns only after the safekeepers
have made its WAL durable, so the one who may not write is the one to whom they confirm nothing.

The words. A *term* numbers the right to write; each start of a compute wins a higher one.
A *promise* of a term is the vow to confirm nothing for a lower one; it is durable before it is
given. The *flush LSN* is the end of the last whole record that is durable here; the *commit
LSN* is what a majority has flushed in the current term, and with one safekeeper the two are
the same. The *term history* says where in the log each term's writing began.

Several safekeepers. Each has a copy of the log, and a *majority* of them decides. Copies may
diverge: a compute writes to some, dies, and the next one continues from others. `Elect` tells a
safekeeper the term history of the log that the winner of the term continues; comparing it with
its own, the safekeeper knows up to where both are the same, and cuts its own there. Lengths
prove nothing: two logs of one length may differ. The entry of the new term in the history is
itself part of the log, even before the term's first byte: a log that has reached it counts as
of that term. What is missing below it comes from a peer whose log is of that term too.

Who they are is the timeline's *configuration* (pagestore.consensus.members). It is told with
`Elect`, and changed under an elected term with `ChangeMembers`; of two, that of the later elected
term counts, and within one term that of the higher generation. A safekeeper that knows nothing
of a timeline is admitted as a *learner*: it follows the log, and is counted by nobody until a
configuration names it. One that lost its disk has forgotten promises, and what it made durable:
it is admitted again as another member (docs/consensus.md).

The invariants, each with a test:

1. The promised term never falls, and is durable before anybody is told of it.
2. Nothing is appended or confirmed under a term other than the promised one. A promise ends
   the running stream before it is answered, so that the answer's end of log is final.
3. The log ends at a record's end. A started record is nobody's: it is neither confirmed nor
   served, and whoever continues the log writes over it.
4. The term history has rising terms at rising positions (two terms may begin at one position
   only if the first wrote nothing, and then only the later is kept).
5. The flush LSN falls only by an election of a higher term, to where the two logs part.
6. The commit LSN is what a majority, or of a joint configuration two, had flushed in one and
   the same term, and at or behind the term's start; it never passes the flush LSN, and a log is
   never cut below it.
7. Who counts with a configuration takes no account of those who have gone on to a later one.

What it is not. It knows no clock, socket or file: `step` is a function of a state and a message.
Whoever drives it (pagestore.walservice.timeline) carries the actions out *in order*, and takes
the new state only when all have succeeded. How a term is won is pagestore.consensus.election.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pagestore.consensus.members import ALONE, UNCONFIGURED, Configuration, Member
from pagestore.errors import Aborted, DataLoss, FailedPrecondition, PagestoreError, stale_term
from pagestore.ids import format_lsn

MAX_TERM = 2**63
"""Bound on terms, so that one more always exists."""
MAX_LSN = 2**64


@dataclass(frozen=True, slots=True, order=True)
class WalPosition:
    """The end of a log: a record's end, and the start of that record (0 if unknown)."""

    flush_lsn: int
    prev_record_lsn: int


@dataclass(frozen=True, slots=True)
class TermSwitch:
    """From `start_lsn` on the log is of `term`."""

    term: int
    start_lsn: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """The compute that WAL is pulled from, and the term that allows it."""

    term: int
    conninfo: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class State:
    """All a safekeeper knows of one timeline. `position` alone is not only changed by `step`
    but also found again from the log after a crash; `heard` need not survive one."""

    start: WalPosition
    system_id: int
    term: int
    history: tuple[TermSwitch, ...]
    attachment: Attachment | None
    position: WalPosition
    member: Member = ALONE
    configuration: Configuration = UNCONFIGURED
    known_commit_lsn: int = 0
    heard: tuple[Heard, ...] = field(default=(), compare=False)

    @property
    def alone(self) -> bool:
        """One safekeeper is its own majority, and its log the only one."""
        everyone = self.configuration.everyone
        return len(everyone) < 2 and everyone in ((), (self.member,))

    @property
    def peers(self) -> tuple[Member, ...]:
        return tuple(item for item in self.configuration.everyone if item != self.member)

    @property
    def commit_lsn(self) -> int:
        return self.position.flush_lsn if self.alone else self.known_commit_lsn

    @property
    def writing_term(self) -> int:
        """The term that may move the log on; 0 before the first."""
        return self.history[-1].term if self.history else 0

    @property
    def last_log_term(self) -> int:
        """The term that the log has reached; 0 while there is none."""
        return last_log_term(self.history, self.position.flush_lsn)


def last_log_term(history: tuple[TermSwitch, ...], flush_lsn: int) -> int:
    return max((item.term for item in history if item.start_lsn <= flush_lsn), default=0)


def initial(
    start: WalPosition,
    system_id: int,
    member: Member = ALONE,
    configuration: Configuration = UNCONFIGURED,
) -> State:
    committed = start.flush_lsn if configuration.members else 0
    return State(start, system_id, 0, (), None, start, member, configuration, committed)


# Messages


@dataclass(frozen=True, slots=True)
class Vote:
    """Promise `term`, if it is higher than every promised one."""

    term: int


@dataclass(frozen=True, slots=True)
class Append:
    """Append `length` bytes of whole records at `lsn`, as the winner of `term` wrote them or a
    peer has them. Who is alone needs no `Elect` before."""

    term: int
    lsn: int
    length: int


@dataclass(frozen=True, slots=True)
class Elect:
    """The winner of `term` continues the log of this history, whose last entry is its own.

    For a safekeeper that is alone there is nothing to tell: see `Append`.
    """

    term: int
    history: tuple[TermSwitch, ...]
    configuration: Configuration


@dataclass(frozen=True, slots=True)
class ChangeMembers:
    """The winner of `term` goes on with another configuration."""

    term: int
    configuration: Configuration


@dataclass(frozen=True, slots=True, order=True)
class Heard:
    """A peer that was elected in `term`, and had come to the configuration of `generation`, had
    its log durable up to `flush_lsn`; it had promised a term as high as `promised`. What a
    safekeeper says of itself is :func:`position_of`."""

    member: Member
    term: int
    generation: int
    flush_lsn: int
    commit_lsn: int
    promised: int = 0


@dataclass(frozen=True, slots=True)
class Attach:
    term: int
    conninfo: str = field(repr=False)
    start_lsn: int


@dataclass(frozen=True, slots=True)
class Detach:
    term: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """The log of `term` is durable up to `position`."""

    term: int
    position: WalPosition


# Actions, to be carried out in order


@dataclass(frozen=True, slots=True)
class StopStream:
    """End the running stream for good, and report its last position with Flushed."""


@dataclass(frozen=True, slots=True)
class Persist:
    """Make the new state durable. `clean`: its position is the log's, and stays so until the
    next Persist; else the log may grow and is to be searched for its end after a crash."""

    clean: bool


@dataclass(frozen=True, slots=True)
class CutLog:
    """Durably forget the log behind `position`. A crash leaves the whole log or the shorter
    one, under the history that is stored."""

    position: WalPosition


@dataclass(frozen=True, slots=True)
class WriteLog:
    """Append the message's bytes, durably, then report with Flushed."""


@dataclass(frozen=True, slots=True)
class CompareLog:
    """Refuse the message unless its bytes are in the log already."""


@dataclass(frozen=True, slots=True)
class StartStream:
    """Pull from the attached compute, from the flush LSN on, and report with Flushed."""


Message = Vote | Elect | ChangeMembers | Append | Attach | Detach | Flushed | Heard
Action = StopStream | Persist | CutLog | WriteLog | CompareLog | StartStream


@dataclass(frozen=True, slots=True)
class Step:
    """What a message leads to. A refusal changes nothing."""

    state: State
    actions: tuple[Action, ...] = ()
    refusal: PagestoreError | None = None


def step(state: State, message: Message) -> Step:
    """The whole of the protocol."""
    match message:
        case Vote():
            return _vote(state, message)
        case Elect():
            return _elect(state, message)
        case ChangeMembers():
            return _change(state, message)
        case Append():
            return _append(state, message)
        case Attach():
            return _attach(state, message)
        case Detach():
            return _detach(state, message)
        case Flushed():
            return _flushed(state, message)
        case Heard():
            return Step(_hear(state, message))


def _vote(state: State, message: Vote) -> Step:
    """The refusal of a vote is a plain answer, not an error: the state's term tells."""
    if not state.term < message.term < MAX_TERM:
        return Step(state)
    promised = replace(state, term=message.term, attachment=None)
    if state.attachment is None:
        return Step(promised, (Persist(clean=True),))
    return Step(promised, (StopStream(), Persist(clean=True)))


def _elect(state: State, message: Elect) -> Step:
    refusal = _wrong_term(state, message.term)
    if refusal is not None:
        return Step(state, refusal=refusal)
    if state.writing_term == message.term:
        return _configured(state, message.configuration)
    elected = replace(state, history=message.history, known_commit_lsn=state.commit_lsn)
    if message.configuration.generation:
        elected = replace(elected, configuration=message.configuration)
    end = common_end(state.history, state.position.flush_lsn, message.history)
    if end == state.position.flush_lsn:
        return Step(_counted(elected), (Persist(clean=True),))
    if end < state.commit_lsn:
        return Step(state, refusal=_diverged(state, end))
    position = WalPosition(end, 0) if end > state.start.flush_lsn else state.start
    cut = _counted(replace(elected, position=position))
    return Step(cut, (CutLog(position), Persist(clean=True)))


def admit(member: Member, elect: Elect, start: WalPosition, system_id: int) -> Step:
    """The first step of a safekeeper that knows nothing of the timeline: it becomes a learner of
    the elected log. Who is named by the configuration has been somebody, and cannot begin anew."""
    learner = initial(start, system_id, member, elect.configuration)
    if member in elect.configuration.everyone:
        return Step(learner, refusal=_known_member(member))
    return _elect(replace(learner, term=elect.term), elect)


def _change(state: State, message: ChangeMembers) -> Step:
    refusal = _wrong_term(state, message.term) or _not_elected(state)
    if refusal is not None:
        return Step(state, refusal=refusal)
    return _configured(state, message.configuration)


def _configured(state: State, configuration: Configuration) -> Step:
    """A message of the same term that is late has a lower generation."""
    if configuration.generation <= state.configuration.generation:
        return Step(state)
    before = _named(_in_history(state), configuration) if state.alone else state
    changed = replace(before, configuration=configuration, known_commit_lsn=state.commit_lsn)
    return Step(_counted(changed), (Persist(clean=state.attachment is None),))


def _named(state: State, configuration: Configuration) -> State:
    """Who was alone learns its number: it is the one who has been a member so far."""
    return replace(state, member=configuration.members[0]) if state.member == ALONE else state


def common_end(own: tuple[TermSwitch, ...], flush_lsn: int, elected: tuple[TermSwitch, ...]) -> int:
    """Up to where a log that ends at `flush_lsn` is the same as the elected one.

    One compute writes in a term, so what two logs have of the same term from the same position
    on is the same as far as both go.
    """
    for mine, theirs in zip(_stretches(own, flush_lsn), _stretches(elected, MAX_LSN), strict=False):
        if mine[:2] != theirs[:2]:
            return mine[1]
        if mine[2] != theirs[2]:
            return min(mine[2], theirs[2])
    return flush_lsn


def _stretches(history: tuple[TermSwitch, ...], flush_lsn: int) -> Iterator[tuple[int, int, int]]:
    """(term, start, end) of what each term wrote."""
    ends = (*(item.start_lsn for item in history[1:]), flush_lsn)
    for item, end in zip(history, ends, strict=False):
        if item.start_lsn < flush_lsn:
            yield item.term, item.start_lsn, min(end, flush_lsn)


def position_of(state: State) -> Heard:
    """What the others are told, durable as it is, whenever it changes and now and then."""
    end, generation = state.position.flush_lsn, state.configuration.generation
    return Heard(state.member, state.writing_term, generation, end, state.commit_lsn, state.term)


def _hear(state: State, message: Heard) -> State:
    """Nobody is told of flushes by the compute, which is a stock one: the members tell."""
    if message.member == state.member or message.member not in state.configuration.everyone:
        return state
    others = tuple(item for item in state.heard if item.member != message.member)
    if any(item >= message for item in state.heard if item.member == message.member):
        return state
    return _counted(replace(state, heard=(*others, message)))


def _counted(state: State) -> State:
    """With the commit LSN that follows from what is flushed here and has been heard."""
    if state.alone:
        return state
    committed = min(commit_by(state), state.position.flush_lsn)
    if committed <= state.known_commit_lsn:
        return state
    return replace(state, known_commit_lsn=committed)


def commit_by(state: State) -> int:
    """What a majority has flushed in the term of this log, or a peer knows to be committed.

    A log that has not come to where the term begins does not count: a majority may have the
    same old WAL, and still another log, of a term between, may win over it. Nor does one whose
    owner is of a later configuration: what it has flushed since may need others to agree.
    """
    if not state.history:
        return 0
    term, begins = state.history[-1].term, state.history[-1].start_lsn
    told, ends = 0, {state.member: state.position.flush_lsn}
    for item in state.heard:
        if item.term == term:
            told = max(told, item.commit_lsn)
            if item.generation <= state.configuration.generation:
                ends[item.member] = item.flush_lsn
    counted = state.configuration.reached(ends)
    return max(told, counted if counted >= begins else 0)


def may_fill(state: State, term: int) -> bool:
    """Whether what this log has is also of the log that a peer elected in `term` follows."""
    return 0 < term == state.writing_term


def _append(state: State, message: Append) -> Step:
    refusal = _wrong_term(state, message.term) or _not_elected(state)
    if refusal is not None:
        return Step(state, refusal=refusal)
    end = state.position.flush_lsn
    if state.start.flush_lsn <= message.lsn and message.lsn + message.length <= end:
        return Step(state, (CompareLog(),))
    if state.attachment is not None:
        return Step(state, refusal=_attached(state))
    if message.lsn != end:
        return Step(state, refusal=_mismatch("Append", message.lsn, end))
    return Step(_in_history(state), (Persist(clean=False), WriteLog()))


def _attach(state: State, message: Attach) -> Step:
    refusal = _wrong_term(state, message.term) or _not_elected(state)
    if refusal is not None:
        return Step(state, refusal=refusal)
    attachment = Attachment(message.term, message.conninfo)
    if state.attachment == attachment:
        return Step(state)
    if state.attachment is not None:
        # The term has one compute: what is new is where it is, or who has signed that.
        moved = replace(state, attachment=attachment)
        return Step(moved, (StopStream(), Persist(clean=False), StartStream()))
    end = state.position.flush_lsn
    unelected = state.configuration.generation == 0
    if message.start_lsn > end or (unelected and message.start_lsn != end):
        return Step(state, refusal=_mismatch("Attach", message.start_lsn, end))
    attached = replace(_in_history(state), attachment=attachment)
    return Step(attached, (Persist(clean=False), StartStream()))


def _detach(state: State, message: Detach) -> Step:
    refusal = _wrong_term(state, message.term)
    if refusal is not None:
        return Step(state, refusal=refusal)
    if state.attachment is None:
        return Step(state)
    detached = replace(state, attachment=None)
    return Step(detached, (StopStream(), Persist(clean=True)))


def _flushed(state: State, message: Flushed) -> Step:
    """Only moves the position: who may write was decided when the writing began."""
    if message.term != state.writing_term or message.position < state.position:
        return Step(
            state,
            refusal=Aborted(
                "STALE_TERM",
                f"WAL of term {message.term} up to {format_lsn(message.position.flush_lsn)} came "
                f"for a log of term {state.writing_term}.",
            ),
        )
    return Step(_counted(replace(state, position=message.position)))


def _in_history(state: State) -> State:
    """The state in which the promised term writes from the flush LSN on."""
    if state.writing_term == state.term:
        return state
    end = state.position.flush_lsn
    before = tuple(switch for switch in state.history if switch.start_lsn < end)
    return replace(state, history=(*before, TermSwitch(state.term, end)))


def _wrong_term(state: State, term: int) -> PagestoreError | None:
    if term < state.term:
        return stale_term(term, state.term)
    if term > state.term or term == 0:
        return FailedPrecondition(
            "TERM_NOT_PROMISED",
            f"Term {term} has not been promised; the highest is {state.term}.",
            "Ask for the vote first.",
        )
    return None


def _not_elected(state: State) -> PagestoreError | None:
    if state.alone or state.writing_term == state.term:
        return None
    return FailedPrecondition(
        "NOT_ELECTED",
        f"Term {state.term} has been promised, but not whose log it continues.",
        "Send the elected term history first.",
    )


def _known_member(member: Member) -> PagestoreError:
    return FailedPrecondition(
        "MEMBER_KNOWN",
        f"Safekeeper {member.number} is a member of this timeline's configuration already, as "
        f"incarnation {member.incarnation}; what it has promised is not known here any more.",
        "Admit it as another incarnation, by a change of members.",
    )


def _diverged(state: State, end: int) -> PagestoreError:
    return DataLoss(
        "LOG_DIVERGED",
        f"The elected log parts from this one at {format_lsn(end)}, before what is committed, "
        f"{format_lsn(state.commit_lsn)}.",
        "A majority of the safekeepers has lost what it promised to keep; nothing was cut here.",
    )


def _attached(state: State) -> PagestoreError:
    return FailedPrecondition(
        "ATTACHED",
        f"A compute is attached under term {state.term}.",
        "Detach it, or win a higher term.",
    )


def _mismatch(verb: str, lsn: int, end: int) -> PagestoreError:
    return FailedPrecondition(
        "LSN_MISMATCH",
        f"{verb} at {format_lsn(lsn)}, but the log ends at {format_lsn(end)}.",
        "Vote again: the answer tells where the log ends.",
    )
