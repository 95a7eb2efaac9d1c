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

The invariants, each with a test:

1. The promised term never falls, and is durable before anybody is told of it.
2. Nothing is appended or confirmed under a term other than the promised one. A promise ends
   the running stream before it is answered, so that the answer's end of log is final.
3. The log ends at a record's end. A started record is nobody's: it is neither confirmed nor
   served, and whoever continues the log writes over it.
4. The term history has rising terms at rising positions (two terms may begin at one position
   only if the first wrote nothing, and then only the later is kept).
5. The flush LSN never falls.

What it is not. It knows no clock, socket or file: `step` is a function of a state and a message.
Whoever drives it (pagestore.walservice.timeline) carries the actions out *in order*, and takes
the new state only when all have succeeded. Elections across several safekeepers, and the
truncation of a log that lost one, belong here when there are several.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pagestore.errors import Aborted, FailedPrecondition, PagestoreError
from pagestore.ids import format_lsn

MAX_TERM = 2**63
"""Bound on terms, so that one more always exists."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
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
    conninfo: str


@dataclass(frozen=True, slots=True)
class State:
    """All a safekeeper knows of one timeline. `position` alone is not only changed by `step`
    but also found again from the log after a crash."""

    start: Position
    system_id: int
    term: int
    history: tuple[TermSwitch, ...]
    attachment: Attachment | None
    position: Position

    @property
    def commit_lsn(self) -> int:
        """One safekeeper is its own majority."""
        return self.position.flush_lsn

    @property
    def last_log_term(self) -> int:
        """The term that wrote the last record; 0 while the log is empty."""
        return self.history[-1].term if self.history else 0


def initial(start: Position, system_id: int) -> State:
    return State(start, system_id, 0, (), None, start)


# Messages


@dataclass(frozen=True, slots=True)
class Vote:
    """Promise `term`, or with 0 one more than the highest promised."""

    term: int = 0


@dataclass(frozen=True, slots=True)
class Append:
    """Append `length` bytes of whole records at `lsn`."""

    term: int
    lsn: int
    length: int


@dataclass(frozen=True, slots=True)
class Attach:
    term: int
    conninfo: str
    start_lsn: int


@dataclass(frozen=True, slots=True)
class Detach:
    term: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """The log of `term` is durable up to `position`."""

    term: int
    position: Position


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
class WriteLog:
    """Append the message's bytes, durably, then report with Flushed."""


@dataclass(frozen=True, slots=True)
class CompareLog:
    """Refuse the message unless its bytes are in the log already."""


@dataclass(frozen=True, slots=True)
class StartStream:
    """Pull from the attached compute, from the flush LSN on, and report with Flushed."""


Message = Vote | Append | Attach | Detach | Flushed
Action = StopStream | Persist | WriteLog | CompareLog | StartStream


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
        case Append():
            return _append(state, message)
        case Attach():
            return _attach(state, message)
        case Detach():
            return _detach(state, message)
        case Flushed():
            return _flushed(state, message)


def _vote(state: State, message: Vote) -> Step:
    """The refusal of a vote is a plain answer, not an error: the state's term tells."""
    term = message.term or state.term + 1
    if not state.term < term < MAX_TERM:
        return Step(state)
    promised = replace(state, term=term, attachment=None)
    if state.attachment is None:
        return Step(promised, (Persist(clean=True),))
    return Step(promised, (StopStream(), Persist(clean=True)))


def _append(state: State, message: Append) -> Step:
    refusal = _wrong_term(state, message.term)
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
    refusal = _wrong_term(state, message.term)
    if refusal is not None:
        return Step(state, refusal=refusal)
    attachment = Attachment(message.term, message.conninfo)
    if state.attachment == attachment:
        return Step(state)
    if state.attachment is not None:
        return Step(state, refusal=_attached(state))
    end = state.position.flush_lsn
    if message.start_lsn != end:
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
    if message.term != state.last_log_term or message.position < state.position:
        return Step(
            state,
            refusal=Aborted(
                "STALE_TERM",
                f"WAL of term {message.term} up to {format_lsn(message.position.flush_lsn)} came "
                f"for a log of term {state.last_log_term}.",
            ),
        )
    return Step(replace(state, position=message.position))


def _in_history(state: State) -> State:
    """The state in which the promised term writes from the flush LSN on."""
    if state.last_log_term == state.term:
        return state
    end = state.position.flush_lsn
    before = tuple(switch for switch in state.history if switch.start_lsn < end)
    return replace(state, history=(*before, TermSwitch(state.term, end)))


def _wrong_term(state: State, term: int) -> PagestoreError | None:
    if term < state.term:
        return Aborted(
            "STALE_TERM",
            f"Term {term} is over: {state.term} has been promised.",
            "Another compute of this timeline was started; this one cannot commit any more.",
        )
    if term > state.term or term == 0:
        return FailedPrecondition(
            "TERM_NOT_PROMISED",
            f"Term {term} has not been promised; the highest is {state.term}.",
            "Ask for the vote first.",
        )
    return None


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
