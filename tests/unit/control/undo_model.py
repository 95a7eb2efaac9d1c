"""What a user expects of undo and redo.

The model knows nothing of logs, marks and positions. It is a database as its user sees it: what it
contains, what it contained at the latest mark, and what the last verb would be taken back to.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Content = tuple[str, ...]
VERBS = ("commit", "checkpoint", "restore", "undo", "redo")


@dataclass
class Model:
    content: Content = ()
    base: Content | None = None
    """What undo goes back to where something was committed: the latest mark's content."""
    dirty: bool = False
    undoable: Content | None = None
    """Right after a restore or redo: what it left."""
    redoable: Content | None = None
    checkpoints: dict[str, Content] = field(default_factory=dict)

    def commit(self, said: str) -> None:
        self.content += (said,)
        self.dirty, self.undoable, self.redoable = True, None, None

    def checkpoint(self, name: str) -> None:
        self.checkpoints[name] = self.base = self.content
        self.dirty, self.undoable = False, None

    def restore(self, name: str) -> None:
        self._go(self.checkpoints[name], undoable=self.content)

    def undo(self) -> bool | None:
        if self.dirty and self.base is None:
            return None
        back = self.base if self.dirty else self.undoable
        if back is None:
            return False
        self._go(back, redoable=self.content)
        return True

    def redo(self) -> bool:
        if self.redoable is None:
            return False
        self._go(self.redoable, undoable=self.content)
        return True

    def _go(
        self, to: Content, undoable: Content | None = None, redoable: Content | None = None
    ) -> None:
        self.content = self.base = to
        self.dirty, self.undoable, self.redoable = False, undoable, redoable
