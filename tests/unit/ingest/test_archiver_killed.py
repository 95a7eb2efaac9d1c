"""An archiver is killed before each PUT and deletion: the next one has all WAL, and none twice."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

from pagestore.ingest.archiver import Archiver
from pagestore.ingest.sources import Sources
from pagestore.objects.archived_wal import ArchivedWal
from pagestore.objects.claims import establish
from pagestore.objects.store import ObjectStore
from tests.unit.ingest.test_archiver import KEY, STORE, Kept, Safekeeper, until
from tests.unit.objects import killed

PIECES = (b"0123456789", b"abcdefghij", b"ABCDEFGHIJ")
LOG = b"".join(PIECES)
START = 100


class Life:
    """An archiver, from its start to its end."""

    def __init__(self, store: ObjectStore, generation: int) -> None:
        self.store, self.kept, self.safekeeper = store, Kept(), Safekeeper()
        self.kept.generation = generation
        self.sources = Sources([self.safekeeper])  # type: ignore[list-item]
        self.archiver = Archiver(store, STORE, self.sources, self.kept, lambda key: True, age=0.005)

    def commit(self, data: bytes) -> None:
        self.safekeeper.log += data
        self.sources.all[0].commits[KEY] = START + len(self.safekeeper.log)
        self.archiver.note(KEY)

    def journal(self, lsn: int) -> None:
        self.kept.durable = lsn
        self.archiver.note_durable(KEY)

    async def archived(self, end: int) -> None:
        await until(lambda: self.archiver.reached(KEY) >= end)

    def names(self) -> list[str]:
        return [found.name for found in self.store.list("wal/")]


async def tell(life: Life, directory: Path) -> None:
    for piece in PIECES:
        life.commit(piece)
        end = START + len(life.safekeeper.log)
        await life.archived(end)
        killed.say(directory, "archived", end)
        if piece == PIECES[1]:
            durable = START + len(PIECES[0])
            killed.say(directory, "journaled", durable)
            life.journal(durable)
            await until(lambda: len(life.names()) == 1)


async def goes_on(life: Life, directory: Path) -> None:
    """What the killed one was told counts: as layers that are journaled, or as WAL."""
    told = {verb: int(lsn) for verb, lsn in killed.said(directory)}
    life.kept.durable = told.get("journaled", 0)
    begin = life.kept.durable or START
    before = ArchivedWal(life.store, STORE)
    assert before.end(KEY, begin) >= told.get("archived", START)
    life.commit(LOG)
    await life.archived(START + len(LOG))
    after = ArchivedWal(life.store, STORE)
    assert b"".join(item.data for item in after.read(KEY, begin)) == LOG[begin - START :]
    ranges = sorted(after.ranges[KEY])
    assert all(older.end <= newer.start for older, newer in pairwise(ranges)), ranges
    life.journal(START + len(LOG))
    await until(lambda: not life.names())


def live(
    store: ObjectStore,
    generation: int,
    what: Callable[[Life, Path], Coroutine[Any, Any, None]],
    directory: Path,
) -> None:
    async def whole() -> None:
        life = Life(store, generation)
        running = asyncio.create_task(life.archiver.run())
        await what(life, directory)
        running.cancel()

    asyncio.run(whole())


def story(directory: Path, steps: killed.Steps) -> None:
    establish(killed.store_of(directory))
    live(killed.store_of(directory, steps), 1, tell, directory)


def test_an_archiver_that_is_killed_at_any_request_has_a_successor(tmp_path: Path) -> None:
    left = killed.left_by(__name__, tmp_path / "killed")
    assert len(left) == len(PIECES) + 1 + 1, "three PUTs, a deletion, and the end"
    for directory in left:
        live(killed.store_of(directory), 2, goes_on, directory)


if __name__ == "__main__":
    killed.tell_all(story, Path(sys.argv[1]))
