"""A process that is killed (SIGKILL) before each of its steps by which something comes to stay.

What a process leaves that was killed behind a step is what one leaves that was killed before the
next: so each step is tried done and not done. The process is forked anew for each from one that
has not begun anything yet.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pagestore.layers.files import Files
from pagestore.objects.backends import Data, Object, connect
from pagestore.objects.store import ObjectStore

T = TypeVar("T")


class Steps:
    """Numbered from 1; ours is killed before one of them."""

    def __init__(self, last: int) -> None:
        self._left = last

    def __call__(self, act: Callable[[], T]) -> T:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act()


class NumberedFiles(Files):
    """Writes with their syncs, renames, syncs of directories, removals, commits."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def write(self, path: Path, writer: Callable[[], T]) -> T:
        return self._steps(lambda: super(NumberedFiles, self).write(path, writer))

    def rename(self, source: Path, target: Path) -> None:
        self._steps(lambda: super(NumberedFiles, self).rename(source, target))

    def sync_directory(self, path: Path) -> None:
        self._steps(lambda: super(NumberedFiles, self).sync_directory(path))

    def remove(self, path: Path) -> None:
        self._steps(lambda: super(NumberedFiles, self).remove(path))

    def commit(self, transaction: Callable[[], T]) -> T:
        return self._steps(lambda: super(NumberedFiles, self).commit(transaction))


class NumberedRequests:
    """Of a real object store: those that change something."""

    def __init__(self, url: str, steps: Steps) -> None:
        self._real = connect(url, {})
        self._steps = steps

    def make(self) -> None:
        self._real.make()

    def create(self, name: str, data: Data) -> None:
        if name.startswith("race/"):
            return self._real.create(name, data)
        return self._steps(lambda: self._real.create(name, data))

    def delete(self, names: Sequence[str]) -> None:
        self._steps(lambda: self._real.delete(names))

    def get(self, name: str) -> bytes:
        return self._real.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._real.get_range(name, offset, length)

    def size(self, name: str) -> int:
        return self._real.size(name)

    def list(self, prefix: str) -> Iterator[Object]:
        return self._real.list(prefix)

    def sweep(self, now: float) -> int:
        return self._real.sweep(now)


def url_of(directory: Path) -> str:
    return f"file://{directory}/objects"


def store_of(directory: Path, steps: Steps | None = None) -> ObjectStore:
    url = url_of(directory)
    return (
        ObjectStore.open(url, {})
        if steps is None
        else ObjectStore(url, NumberedRequests(url, steps))
    )


def say(directory: Path, *words: object) -> None:
    """What was told to somebody, who may rely on it."""
    with (directory / "said").open("a") as said:
        said.write(" ".join(map(str, words)) + "\n")


def said(directory: Path) -> list[list[str]]:
    path = directory / "said"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def tell_all(story: Callable[[Path, Steps], None], root: Path) -> None:
    """In the process that a test has started: one child for each step, in a folder of its own."""
    for number in itertools.count(1):
        directory = root / str(number)
        directory.mkdir()
        child = os.fork()
        if child == 0:
            try:
                story(directory, Steps(number))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(os.WEXITSTATUS(status))


def left_by(module: str, root: Path) -> list[Path]:
    """What `tell_all` of a module's main has left: of each step, and of the story at its end."""
    root.mkdir()
    subprocess.run(
        [sys.executable, "-m", module, str(root)], cwd=Path(__file__).parents[3], check=True
    )
    return sorted(root.iterdir(), key=lambda path: int(path.name))
