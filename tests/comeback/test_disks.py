"""Each part on a disk that is full or fails: it says so, the others go on, and it comes back.

What waits meanwhile is done afterwards without anybody's help, and nothing acknowledged is lost.
Seconds count from when there is room again, or syncs succeed again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterator

import psycopg
import pytest

from pagestore.errors import PagestoreError
from tests.comeback.client import PATIENCE, Behind, Client
from tests.comeback.conftest import Table
from tests.comeback.disks import Disks
from tests.integration.installation import patiently

BRANCHES = 300
"""Some hundreds of kilobytes of records."""
FULL, FAILS = "No space|no room|STORE_FULL", "Input/output error"


def rows(*quick: str, parts: tuple[str, ...]) -> list[object]:
    """All parts, only some of them in the default run."""
    return [p if p in quick else pytest.param(p, marks=pytest.mark.slow) for p in parts]


class Observer:
    """What is to be seen of an installation while a disk is at fault."""

    def __init__(self, disks: Disks, client: Client) -> None:
        self.disks, self.whole, self.client = disks, disks.whole, client
        self.other = self.whole.json("create", "other")["url"]
        self._numbers = itertools.count()
        self.whole.sql("other", "CREATE TABLE o AS SELECT generate_series(1, 1000) i")

    def provoke(self, part: str) -> Behind | None:
        """Has the part write something; what waits for it, if anything may."""
        if part == "control":
            return None
        return self.client.behind(self.client.bulk)

    def words(self, part: str, waiting: Behind | None) -> str:
        """All that is said, by whoever is asked."""
        said = [self._ask("status"), *self._asked(part)]
        return "\n".join([*said, repr(waiting.error if waiting else "")])

    def _asked(self, part: str) -> Iterator[str]:
        if part != "control":
            yield self._ask("show", "app")
            return
        # What finds room within its file goes on; so many do not find it.
        with contextlib.suppress(PagestoreError), self.whole.control() as control:
            for _ in range(BRANCHES):
                control.branch("app", f"another-{next(self._numbers)}")
        yield self._ask("branch", "app", f"another-{next(self._numbers)}")

    def _ask(self, *verb: str) -> str:
        done = self.whole.run(*verb, "--json", check=False)
        return json.dumps(json.loads(done.stdout or "{}")) + done.stderr

    def others_serve(self) -> None:
        """Another database answers, to who is connected and to who comes."""
        with psycopg.connect(self.other, autocommit=True, connect_timeout=5) as session:
            assert session.execute("SELECT count(*) FROM o").fetchone() == (1000,)

    def wait_for(self, complaint: str, part: str) -> Behind | None:
        """Until somebody says so, of a disk that is at fault all the while; what waits for it."""
        deadline = time.monotonic() + PATIENCE
        waiting = self.provoke(part)
        while not re.search(complaint, words := self.words(part, waiting)):
            assert time.monotonic() < deadline, f"{part}: nobody says so: {words}"
            # The files of a compute that was killed are removed: there is room again.
            self.disks.fill(part)
            if waiting is not None and not waiting.waits:
                waiting = self.provoke(part)
        return waiting

    def comes_back(self, part: str, waiting: Behind | None) -> float:
        seconds = self.client.seconds_to_serve()
        if waiting is not None:
            # Where the compute itself went down, its client has an error: it was promised nothing.
            errors = (psycopg.Error,) if part == "compute" else ()
            with contextlib.suppress(*errors):
                waiting.join(PATIENCE)
        patiently(self._remove_branches)
        patiently(self.client.bulk)
        return seconds

    def _remove_branches(self) -> None:
        with self.whole.control() as control:
            for database in control.databases():
                if database.name.startswith("another-"):
                    control.delete(database.name)


@pytest.fixture(scope="module")
def observer(disks: Disks, client: Client) -> Observer:
    return Observer(disks, client)


SYNC = ("pageserver", "safekeeper", "control")
"""A compute syncs nothing: its files are a cache of what these have."""
ALL = (*SYNC, "compute")


@pytest.mark.parametrize("part", rows("pageserver", "safekeeper", parts=ALL))
def test_full(disks: Disks, observer: Observer, table: Table, part: str) -> None:
    observer.client.commit()
    with disks.full(part):
        waiting = observer.wait_for(FULL, part)
        observer.others_serve()
    table[part, "full"] = observer.comes_back(part, waiting)


@pytest.mark.parametrize("part", rows("control", parts=ALL))
def test_killed_while_full(disks: Disks, observer: Observer, table: Table, part: str) -> None:
    observer.client.commit()
    with disks.full(part):
        before = observer.client.pid(part)
        observer.client.kill(part)
        waiting = observer.wait_for(FULL, part)
        observer.others_serve()
    table[part, "full, kill"] = observer.comes_back(part, waiting)
    assert observer.client.pid(part) != before


@pytest.mark.parametrize("part", rows("safekeeper", parts=SYNC))
def test_failing(disks: Disks, observer: Observer, table: Table, part: str) -> None:
    observer.client.commit()
    with disks.failing(part):
        waiting = observer.wait_for(FAILS, part)
        observer.others_serve()
    table[part, "EIO"] = observer.comes_back(part, waiting)
