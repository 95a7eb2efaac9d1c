"""Where ``undo`` goes.

The log of a name has **marks**: checkpoints that the user made, and the points that a restore
or an undo went to. ``undo`` goes back to the latest mark if data was committed since; else it
reverses the latest restore or undo. So it mends what was just broken, and what was just undone
by mistake; either way the position left becomes an automatic checkpoint, so that nothing is
ever lost by it. With no mark there is nothing to go back to: an undo never goes back to
an empty database by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagestore.control.records import EventRecord, Verb
from pagestore.errors import FailedPrecondition

_MOVES = frozenset({Verb.RESTORE, Verb.UNDO})
_MARKS = _MOVES | {Verb.CHECKPOINT}


@dataclass(frozen=True, slots=True)
class Marks:
    latest: EventRecord | None
    """The latest checkpoint, restore or undo."""
    last_move: EventRecord | None
    """The latest restore or undo."""

    @classmethod
    def of(cls, events: Sequence[EventRecord]) -> Marks:
        """From a name's log, oldest first."""
        moves = [event for event in events if event.verb in _MOVES]
        marks = [event for event in events if event.verb in _MARKS]
        return cls(marks[-1] if marks else None, moves[-1] if moves else None)

    def words(self, mark: EventRecord) -> str:
        if mark.verb is Verb.CHECKPOINT:
            return f"checkpoint {mark.checkpoint}"
        return f"the state right after the last {mark.verb}"

    def nothing_to_undo(self, name: str) -> FailedPrecondition:
        if self.latest is not None:
            message = f"Nothing was committed in {name!r} since {self.words(self.latest)}."
        else:
            message = f"{name!r} has no checkpoint to go back to."
        return FailedPrecondition(
            "NOTHING_TO_UNDO",
            message,
            f"Any moment of its past will do: pagestore restore {name} --at '10m ago'.",
        )
