"""Where ``undo`` and ``redo`` go.

An agent that types ``undo`` has usually just broken data, and may type it again: out of doubt,
or because no answer came. So ``undo`` undoes what was done *to the database*, once, and nothing
else; it goes by the log of the name and by positions in the WAL, never by a clock.

Words. The log has **marks**: the checkpoints that a user made, and the **moves**, after which the
name stands on another timeline: ``restore``, ``reset``, ``undo``, ``redo``, ``upgrade``. A mark
has a position: a checkpoint where it was taken, a move where it went to. What a move left is kept
as an automatic checkpoint. *Committed since* a mark means that the last commit of the present
timeline lies beyond the mark's position; all marks that count lie on the present timeline or at its
beginning, because every change of timeline is itself a mark. Positions that nobody committed
between are the same state: a compute that starts or stops, or the server's own housekeeping, writes
WAL too.

The latest mark, and whether anything was committed since, decide alone::

    latest mark        committed since       nothing committed since
    ----------------   -------------------   --------------------------------------------
    checkpoint         undo: back to it      undo: nothing
    restore, reset,    undo: back to it      undo: what the restore (the reset, the upgrade) left
    upgrade
    redo               undo: back to it      undo: what the redo left, as if undone again
    undo               undo: back to it      undo: nothing    redo: what the undo left
    none               undo: refused         undo: nothing

``redo`` looks through checkpoints, since these change nothing: it asks for the latest *move*, and
where that is an undo after which nothing was committed, it goes to what that left.

It follows, and tests/unit/control/test_undo.py holds for every short sequence of verbs:

- a second ``undo`` right after one that moved is nothing, and so is a second ``redo``;
- ``undo`` never passes the latest checkpoint, so what was checkpointed is never undone;
- ``undo`` never goes to what an earlier undo left, whatever was done since: only ``redo`` does,
  or a restore of its automatic checkpoint by name;
- whatever a move leaves can be named afterwards.

A checkpoint that was deleted is no mark any more, as if it had never been made. With
commits and no mark at all, ``undo`` refuses: it could only go back to an empty database, or be
silent about the damage. ``undo --to CHECKPOINT`` goes to one that it names, the latest or none:
a target to be at, so that repeating it is harmless at any later time too.

Not here: what is at a position, and how a name gets there (past.py). A known edge: an autovacuum
ANALYZE commits. If one runs right after a restore, ``undo`` goes back to the restored state once
more, which changes nothing that can be seen, and the restore itself is then undone only by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagestore.control.records import BEGINNINGS, MOVES, EventRecord, Verb
from pagestore.errors import FailedPrecondition, NotFound

UNDONE_BY_UNDO = frozenset({Verb.RESTORE, Verb.RESET, Verb.REDO, Verb.UPGRADE, Verb.PROMOTE})


@dataclass(frozen=True, slots=True)
class Stay:
    """Nothing is to be done."""

    why: str


@dataclass(frozen=True, slots=True)
class ToMark:
    """To the position of a mark."""

    mark: EventRecord
    words: str


@dataclass(frozen=True, slots=True)
class ToLeft:
    """To what a move left. It was decided on that nothing is committed beyond the move."""

    move: EventRecord
    words: str


Step = Stay | ToMark | ToLeft


@dataclass(frozen=True, slots=True)
class Marks:
    """What the log of a name says."""

    name: str
    began: EventRecord | None
    """How the database came to be."""
    marks: tuple[EventRecord, ...]
    """Oldest first, without the checkpoints that were deleted."""
    deleted: frozenset[str]
    """Checkpoints deleted since the latest move, the automatic ones among them."""

    @classmethod
    def of(cls, name: str, events: Sequence[EventRecord]) -> Marks:
        """From a name's log, oldest first."""
        marks: list[EventRecord] = []
        deleted: set[str] = set()
        for event in events:
            if event.verb is Verb.DELETE_CHECKPOINT:
                marks = [mark for mark in marks if not _is_checkpoint(mark, event.checkpoint)]
                deleted.add(event.checkpoint)
            elif event.verb is Verb.CHECKPOINT:
                marks.append(event)
            elif event.verb in MOVES:
                marks.append(event)
                deleted.clear()
        began = next((event for event in events if event.verb in BEGINNINGS), None)
        return cls(name, began, tuple(marks), frozenset(deleted))

    @property
    def latest(self) -> EventRecord | None:
        return self.marks[-1] if self.marks else None

    @property
    def last_move(self) -> EventRecord | None:
        return next((mark for mark in reversed(self.marks) if mark.verb in MOVES), None)

    def undo(self, last_commit: int) -> Step:
        """
        Args:
            last_commit: LSN of the last commit on the timeline that the name stands on.

        Raises:
            FailedPrecondition: NO_MARK.
        """
        mark = self.latest
        if mark is None:
            return self._without_mark(last_commit)
        if last_commit > mark.lsn:
            return ToMark(mark, self.words(mark))
        if mark.verb in UNDONE_BY_UNDO:
            return self._to_left(mark)
        return Stay(f"Nothing was committed in {self.name!r} since {self.words(mark)}.")

    def redo(self, last_commit: int) -> Step:
        """As :meth:`undo`."""
        move = self.last_move
        if move is None or move.verb is not Verb.UNDO:
            last = f", but a {move.verb}" if move else ""
            return Stay(f"The last move of {self.name!r} was not an undo{last}.")
        if last_commit > move.lsn:
            return Stay(
                f"{self.name!r} was written to since the undo. "
                f"What that undid is checkpoint {move.checkpoint}."
            )
        return self._to_left(move)

    def undo_to(self, checkpoint: str, last_commit: int, *, here: bool) -> Step:
        """
        Args:
            here: whether the present timeline begins where the checkpoint is.

        Raises:
            NotFound: CHECKPOINT_NOT_FOUND; the user made none of that name.
            FailedPrecondition: NEWER_CHECKPOINT.
        """
        mark = self.checkpoint(checkpoint)
        newer = [event for event in self.marks if event.verb is Verb.CHECKPOINT][-1]
        if newer is not mark:
            raise FailedPrecondition(
                "NEWER_CHECKPOINT",
                f"Checkpoint {newer.checkpoint} of {self.name!r} is newer than {checkpoint}: "
                "an undo never passes it.",
                f"pagestore restore {self.name} {checkpoint} goes there all the same.",
            )
        latest = self.latest
        assert latest is not None
        if last_commit <= latest.lsn and (latest is mark or here):
            return Stay(f"{self.name!r} is at {self.words(mark)} already.")
        return ToMark(mark, self.words(mark))

    def checkpoint(self, name: str) -> EventRecord:
        """
        Raises:
            NotFound: CHECKPOINT_NOT_FOUND.
        """
        found = [mark for mark in self.marks if _is_checkpoint(mark, name)]
        if not found:
            raise NotFound(
                "CHECKPOINT_NOT_FOUND",
                f"Nobody made a checkpoint {name[:80]!r} of {self.name!r}.",
                f"`pagestore log {self.name}` lists them; to an automatic one goes `restore`.",
            )
        return found[-1]

    def words(self, mark: EventRecord) -> str:
        if mark.verb is Verb.CHECKPOINT:
            return f"checkpoint {mark.checkpoint}"
        return f"the state right after the last {mark.verb}"

    def _to_left(self, move: EventRecord) -> Step:
        if move.checkpoint in self.deleted:
            return Stay(f"What {self.name!r} was before the {move.verb} was deleted.")
        return ToLeft(move, f"where it was before the {move.verb} ({move.checkpoint})")

    def _without_mark(self, last_commit: int) -> Step:
        if self.began is None or last_commit <= self.began.lsn:
            return Stay(f"Nothing was committed in {self.name!r} since it was made.")
        raise FailedPrecondition(
            "NO_MARK",
            f"{self.name!r} was written to, and has no checkpoint to go back to.",
            f"Any moment of its past will do: pagestore restore {self.name} --at '10m ago'.",
        )


def _is_checkpoint(mark: EventRecord, name: str) -> bool:
    return mark.verb is Verb.CHECKPOINT and mark.checkpoint == name
