"""What belongs to a checkpoint besides the data, and has to go back together with it: the code, by
a commit and what was not committed; the run that made it; free notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pagestore.errors import InvalidInput

MOST_NOTES = 32
MAX_KEY_BYTES = 64
MAX_VALUE_BYTES = 1024
MAX_NOTES_BYTES = 8192
"""Of all keys and values of a checkpoint."""
MAX_ID_BYTES = 128
RULE = (
    f"A checkpoint has at most {MOST_NOTES} notes with {MAX_NOTES_BYTES} bytes together; a key "
    f"has 1 to {MAX_KEY_BYTES} printable bytes without `=`, a value at most {MAX_VALUE_BYTES}; "
    f"a commit, a patch and a run at most {MAX_ID_BYTES} printable ones."
)


@dataclass(frozen=True, slots=True)
class Companions:
    """
    Args:
        git_commit: empty for none, as the others.
        dirty_patch: a commit on top of that one which holds what was not committed
            (docs/decisions/2026-11-30-dirty-patch.md).
        run_id: of whatever made the checkpoint, in its own words.
        notes: by key.
    """

    git_commit: str = ""
    dirty_patch: str = ""
    run_id: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    def checked(self) -> Companions:
        """Itself.

        Raises:
            InvalidInput: INVALID_NOTE.
        """
        ids = {"commit": self.git_commit, "patch": self.dirty_patch, "run": self.run_id}
        for what, value in ids.items():
            _refuse_unless(
                len(value.encode()) <= MAX_ID_BYTES and (not value or value.isprintable()),
                f"{value[:40]!r} cannot be the {what} of a checkpoint.",
            )
        _refuse_unless(
            len(self.notes) <= MOST_NOTES, f"{len(self.notes)} notes are more than {MOST_NOTES}."
        )
        for key, value in self.notes.items():
            _check_note(key, value)
        size = sum(len(text.encode()) for note in self.notes.items() for text in note)
        _refuse_unless(size <= MAX_NOTES_BYTES, f"The notes have {size} bytes together.")
        return self


def notes_of(given: list[str]) -> dict[str, str]:
    """From what was typed, `key=value` each; of two with one key the later counts.

    Raises:
        InvalidInput: INVALID_NOTE.
    """
    found = {}
    for text in given:
        key, sign, value = text.partition("=")
        _refuse_unless(bool(sign), f"{text[:40]!r} is no note of the form key=value.")
        found[key] = value
    return found


def _check_note(key: str, value: str) -> None:
    _refuse_unless(
        0 < len(key.encode()) <= MAX_KEY_BYTES and key.isprintable() and "=" not in key,
        f"{key[:40]!r} cannot be the key of a note.",
    )
    _refuse_unless(
        len(value.encode()) <= MAX_VALUE_BYTES and (not value or value.isprintable()),
        f"The note {key!r} has {len(value.encode())} bytes, or control characters.",
    )


def _refuse_unless(right: bool, fault: str) -> None:
    if not right:
        raise InvalidInput("INVALID_NOTE", fault, RULE)
