"""The steps by which a layer file becomes durable, each of which a crash may cut off.

Write ``<name>.tmp`` and sync it, rename it, sync the directory; only then may the catalog name
it. The steps are methods of one small object so that tests can stop the world at each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pagestore import durable, lost_found
from pagestore._native import LayerSummary
from pagestore.errors import of_disk
from pagestore.layers.native import LayerKind, store_errors

T = TypeVar("T")

SUFFIXES = {LayerKind.DELTA: "delta", LayerKind.IMAGE: "image"}


def layer_name(number: int, kind: int) -> str:
    return f"{number:012x}.{SUFFIXES[LayerKind(kind)]}"


def temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


@contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise of_disk(error, str(error)) from error


class Files:
    """The real steps."""

    def write(self, path: Path, writer: Callable[[], T]) -> T:
        """``writer`` makes the file at ``path``, synced, or leaves nothing."""
        with store_errors():
            return writer()

    def rename(self, source: Path, target: Path) -> None:
        with _os_errors():
            source.rename(target)

    def sync_directory(self, path: Path) -> None:
        with _os_errors():
            durable.sync_directory(path)

    def make_directory(self, path: Path) -> None:
        """With its parents; each new name is synced."""
        if path.is_dir():
            return
        self.make_directory(path.parent)
        with _os_errors():
            path.mkdir(exist_ok=True)
        self.sync_directory(path.parent)

    def remove(self, path: Path) -> None:
        with _os_errors():
            path.unlink(missing_ok=True)

    def move_aside(self, root: Path, path: Path, now: float) -> Path | None:
        """Into lost+found below `root`, where it is now; None where there is no such file.

        Args:
            now: Unix seconds.
        """
        with _os_errors():
            try:
                return lost_found.move_aside(root, path, now)
            except FileNotFoundError:
                return None

    def commit(self, transaction: Callable[[], T]) -> T:
        """Runs a catalog transaction."""
        return transaction()

    def install(self, path: Path, writer: Callable[[Path], LayerSummary]) -> LayerSummary:
        """Makes a layer file at ``path``, durable under its name. Leaves nothing on failure."""
        work = temporary(path)
        self.make_directory(path.parent)
        try:
            self.remove(work)
            summary = self.write(work, lambda: writer(work))
            self.publish(path)
        except Exception:
            work.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        return summary

    def publish(self, path: Path) -> None:
        """Gives a written and synced temporary file its name."""
        self.rename(temporary(path), path)
        self.sync_directory(path.parent)
