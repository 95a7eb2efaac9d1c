"""A store whose disk fails in the midst of a commit: the process ends, and the next start says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pagestore import tasks
from pagestore.control.state import ControlState
from pagestore.ids import DEFAULT_TENANT
from pagestore.timeline.catalog import Catalog
from tests.integration.failing_disk import preload

_CONTROL = """
from pagestore.control.records import MembersRecord
from pagestore.control.state import ControlState

state = ControlState(place)

def change(number):
    with state.change() as change:
        change.put_members(MembersRecord(settled=(number,)))

def read():
    state.view().members()
"""
_CATALOG = """
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.timeline.catalog import Catalog
from pagestore.timeline.entries import TimelineEntry

catalog = Catalog(place / "catalog.lmdb")

def change(number):
    timeline = TimelineId(bytes([number]) * 16)
    entry = TimelineEntry(None, 0, 0, 0, 0)
    catalog.update(lambda writer: writer.put_timeline(DEFAULT_TENANT, timeline, entry))

def read():
    catalog.timelines()
"""
_MAIN = """
import sys
from pathlib import Path
from pagestore.errors import PagestoreError

place, fail = Path(sys.argv[1]), Path(sys.argv[2])
{store}
change(1)
fail.write_text(sys.argv[3])
try:
    change(2)
except PagestoreError as error:
    print("went on:", error.reason)
fail.unlink()
read()
change(3)
print("all well")
"""


def _run(tmp_path: Path, store: str, trigger: str, file: str) -> subprocess.CompletedProcess[str]:
    place = tmp_path / "store"
    place.mkdir()
    program = [sys.executable, "-c", _MAIN.format(store=store)]
    return subprocess.run(
        [*program, place, tmp_path / trigger, file],
        env=os.environ | preload(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _numbers(place: Path) -> set[int]:
    """What a start finds; it checks the store first."""
    if (place / "catalog.lmdb").exists():
        catalog = Catalog(place / "catalog.lmdb")
        found = {timeline.raw[0] for _, timeline, _ in catalog.timelines(DEFAULT_TENANT)}
        catalog.close()
        return found
    with ControlState(place) as state:
        return set(state.view().members().settled)


STORES = pytest.mark.parametrize(
    ("store", "file"),
    [(_CONTROL, "data.mdb"), (_CATALOG, "catalog.lmdb")],
    ids=["control", "catalog"],
)


@STORES
def test_a_meta_page_that_cannot_be_written_ends_the_process(
    tmp_path: Path, store: str, file: str
) -> None:
    """Nobody knows which transaction is in force, and LMDB would refuse even reads."""
    ended = _run(tmp_path, store, "fail-meta", file)
    assert ended.returncode == tasks.EXIT_STATUS, ended
    said = ended.stdout + ended.stderr
    assert "task ended unplanned: this process ends" in said
    assert str(tmp_path / "store" / file) in said
    assert "went on" not in ended.stdout, "nobody was told that it had not been done"
    assert _numbers(tmp_path / "store") == {1}


@STORES
def test_a_sync_that_fails_before_it_is_told_and_the_store_goes_on(
    tmp_path: Path, store: str, file: str
) -> None:
    ended = _run(tmp_path, store, "fail", file)
    assert (ended.returncode, ended.stdout) == (0, "went on: IO_ERROR\nall well\n"), ended
    assert max(_numbers(tmp_path / "store")) == 3
