"""What all verbs that move a name have in common: how they are asked for and answered, and the
swing of the name.

A move that was asked for with a request id is remembered with its answer, in the transaction that
moved the name; so it can be asked for again. See past.py and upgrade.py for where names move to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pagestore.control.history import BranchPoint
from pagestore.control.records import (
    Answer,
    CheckpointRecord,
    DatabaseRecord,
    EventRecord,
    Verb,
)
from pagestore.control.state import ControlState, now_micros
from pagestore.control.timelines import Making
from pagestore.errors import InvalidInput, PagestoreError
from pagestore.ids import format_lsn


@dataclass(frozen=True, slots=True)
class Moved:
    """The answer to a move.

    Args:
        changed: whether the name stands elsewhere than before.
        kept: where it was before; None where nothing moved.
        point: where the move went, or would go.
        went_to: the user's checkpoint that lies there, if it was meant.
        remarks: what the user should know besides.
    """

    database: DatabaseRecord
    changed: bool
    summary: str
    kept: CheckpointRecord | None = None
    point: BranchPoint | None = None
    went_to: CheckpointRecord | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """How a move is asked for: `request` is the caller's id for it, empty for none; a dry run
    tells where it would go."""

    request: str = ""
    dry_run: bool = False


ONCE = Asked()


@dataclass(frozen=True, slots=True)
class Swing:
    """A name's change of timeline.

    Args:
        words: for where it goes to.
        point: likewise.
        head: where it was.
        facts: what is known of the timeline only now.
        went_to: as of :class:`Moved`.
    """

    verb: Verb
    words: str
    point: BranchPoint
    head: BranchPoint
    request: str
    facts: Mapping[str, int] = field(default_factory=dict)
    went_to: CheckpointRecord | None = None


def swing(
    state: ControlState, record: DatabaseRecord, moved: DatabaseRecord, making: Making, to: Swing
) -> Moved:
    """From `record` to `moved`, whose timeline is live then; with the event, the automatic
    checkpoint and the answer."""
    now, lsn = now_micros(), to.point.lsn
    with state.change() as change:
        kept = CheckpointRecord(
            name=_automatic_name(change.checkpoints(record.tenant, record.name), to.verb),
            timeline=record.timeline,
            lsn=to.head.lsn,
            created_micros=now,
            automatic=True,
            note=f"before the {to.verb} to {to.words}",
        )
        event = EventRecord(
            verb=to.verb,
            timeline=moved.timeline,
            lsn=lsn,
            created_micros=now,
            detail=f"to {to.words}",
            checkpoint=kept.name,
        )
        summary = (
            f"{record.name} is at {to.words}, LSN {format_lsn(lsn)}. "
            f"What it was is kept as checkpoint {kept.name}."
        )
        change.put_checkpoint(record.tenant, record.name, kept)
        change.add_event(record.tenant, record.name, event)
        making.live(change, **to.facts)
        moved = change.put_moved(moved)
        if to.request:
            answer = Answer(
                request=to.request,
                verb=to.verb,
                changed=True,
                summary=summary,
                kept=kept.name,
                went_to=to.went_to,
            )
            change.remember_answer(record.tenant, record.name, answer)
    return Moved(moved, True, summary, kept, to.point, to.went_to)


def remember(state: ControlState, moved: Moved, verb: Verb, request: str) -> None:
    """That nothing moved: a retry after later work must find nothing to do either."""
    record = moved.database
    with state.change() as change:
        change.put_moved(record)
        if request:
            answer = Answer(
                request=request,
                verb=verb,
                changed=False,
                summary=moved.summary,
                went_to=moved.went_to,
            )
            change.remember_answer(record.tenant, record.name, answer)


def answered(state: ControlState, record: DatabaseRecord, verb: Verb, request: str) -> Moved | None:
    """What the same request was answered with, if it came before.

    Raises:
        InvalidInput: REQUEST_ID_TAKEN.
    """
    view = state.view()
    found = view.answers(record.tenant, record.name).of(request) if request else None
    if found is None:
        return None
    if found.verb is not verb:
        raise InvalidInput(
            "REQUEST_ID_TAKEN",
            f"Request {request!r} was a {found.verb} of {record.name!r}, not a {verb}.",
            "Give every request an id of its own.",
        )
    kept = view.checkpoint(record.tenant, record.name, found.kept) if found.kept else None
    return Moved(record, found.changed, found.summary, kept, went_to=found.went_to)


def stayed(record: DatabaseRecord, verb: Verb, error: PagestoreError) -> PagestoreError:
    """The same error, saying first what its reader wants to know."""
    stays = f"{record.name} stays where it was"
    return error.restated(message=f"{stays}; the {verb} did not come about: {error.message}")


def _automatic_name(existing: list[CheckpointRecord], verb: Verb) -> str:
    taken = {checkpoint.name for checkpoint in existing}
    number = 1
    while f"before-{verb}-{number}" in taken:
        number += 1
    return f"before-{verb}-{number}"
