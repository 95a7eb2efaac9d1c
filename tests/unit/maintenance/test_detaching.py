"""A branch that becomes independent: what it reads stays, and its parent may go."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore.errors import Aborted, DataLoss, OutOfRange
from pagestore.ids import DEFAULT_TENANT, Lsn
from pagestore.maintenance import detaching
from pagestore.maintenance.collecting import drop_unneeded
from pagestore.maintenance.detaching import detach
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import Horizon
from tests.unit.layers.model import Entry
from tests.unit.maintenance.test_collecting import KEY, SIZE, commit
from tests.unit.timeline.model import ROOT_LSN, image, make_root, put, timeline_id

BLOCKS = 300
PAGES = [keyspace.rel_block(1, 2, 3, 0, block) for block in range(BLOCKS)]
SLRU = keyspace.slru_page(1, 0)
NEVER = threading.Event()


def written(key: keyspace.Key, lsn: int) -> Entry:
    return image(key, lsn, bytes([lsn % 251 + key.block % 5]) * 8192)


def write(timeline: Timeline, lsn: int, *entries: Entry) -> None:
    put(timeline, sorted(entries), lsn)
    timeline.freeze()
    timeline.flush()


class Family:
    """A root, its branch at 2003 and a branch of that at 2007; each wrote something."""

    def __init__(self, root: Path) -> None:
        self.repository = Repository.open(root)
        if not self.repository.list(None):
            self.make()

    def make(self) -> None:
        size = image(SIZE, ROOT_LSN, BLOCKS.to_bytes(4, "little"))
        make_root(
            self.repository,
            1,
            [size, written(SLRU, ROOT_LSN)] + [written(key, ROOT_LSN) for key in PAGES],
        )
        write(
            self.get(1), 2001, *commit(1, 2001), image(KEY, 2001, b"one"), written(PAGES[7], 2001)
        )
        write(self.get(1), 2003, *commit(3, 2003), written(PAGES[250], 2003))
        self.branch(1, 2, 2003)
        write(self.get(1), 2009, written(PAGES[7], 2009))
        write(self.get(2), 2005, *commit(5, 2005), written(PAGES[9], 2005))
        self.branch(2, 3, 2007 - 1)
        write(self.get(3), 2020, written(PAGES[10], 2020))

    def get(self, number: int) -> Timeline:
        return self.repository.get(DEFAULT_TENANT, timeline_id(number))

    def branch(self, parent: int, child: int, lsn: int) -> None:
        if lsn > self.get(parent).last_record_lsn:
            write(self.get(parent), lsn)
        self.repository.branch(DEFAULT_TENANT, timeline_id(parent), timeline_id(child), lsn)

    def contents(self, number: int, lsn: int) -> list[object]:
        snapshot = self.get(number).snapshot()
        keys = b"".join(key.pack() for key in [*PAGES, SLRU])
        low, high = keyspace.Key(0).pack(), keyspace.Key(keyspace.Kind.COMMIT_TIME).pack()
        newest = keyspace.kind_range(keyspace.Kind.COMMIT_TIME)
        return [
            bytes(snapshot.read_pages(keys, lsn)),
            snapshot.scan(low, high, lsn),
            snapshot.last_before(*newest, lsn),
        ]

    def delete(self, number: int) -> None:
        self.repository.delete(DEFAULT_TENANT, timeline_id(number))


READS = [(2, 2003), (2, 2005), (2, 2006), (3, 2006), (3, 2020)]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    made = Family(tmp_path)
    yield made
    made.repository.close()


def test_it_reads_as_before_and_so_do_its_branches(family: Family, tmp_path: Path) -> None:
    before = [family.contents(*read) for read in READS]
    detach(family.repository, family.get(2), None, NEVER)
    assert [family.contents(*read) for read in READS] == before
    assert (family.get(2).parent, family.get(2).earliest_lsn) == (None, 2003)
    assert family.get(3).earliest_lsn == 2003
    with pytest.raises(OutOfRange, match="begins at 0/7D3"):
        family.repository.retention.check(family.get(2), 2002)
    family.delete(1)
    assert not (family.get(2).directory.parent / str(timeline_id(1))).exists()
    assert [family.contents(*read) for read in READS] == before
    family.repository.close()
    again = Family(tmp_path)
    assert [again.contents(*read) for read in READS] == before
    write(again.get(2), 2050, written(PAGES[3], 2050))
    assert again.contents(2, 2050) != before[2]
    again.repository.close()


def test_what_is_damaged_is_told_and_leaves_it_as_it_was(family: Family, tmp_path: Path) -> None:
    parent = family.get(1).directory
    family.repository.close()
    for layer in parent.glob("*.*"):
        content = bytearray(layer.read_bytes())
        content[len(content) // 3] ^= 1
        layer.write_bytes(content)
    again = Family(tmp_path)
    with pytest.raises(DataLoss):
        detach(again.repository, again.get(2), None, NEVER)
    assert again.get(2).parent == timeline_id(1)
    again.repository.close()


def test_done_again_it_does_nothing(family: Family) -> None:
    detach(family.repository, family.get(2), None, NEVER)
    files = sorted(family.get(2).directory.iterdir())
    detach(family.repository, family.get(2), None, NEVER)
    assert sorted(family.get(2).directory.iterdir()) == files


def test_a_parent_that_was_deleted_before_goes_with_its_last_branch(family: Family) -> None:
    family.delete(1)
    before = [family.contents(*read) for read in READS]
    parent = family.get(2).directory.parent / str(timeline_id(1))
    assert parent.exists()
    detach(family.repository, family.get(2), None, NEVER)
    assert not parent.exists()
    assert [family.contents(*read) for read in READS] == before


def test_what_it_writes_meanwhile_counts(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = detaching._Files._begin

    def meanwhile(files: detaching._Files) -> None:
        begin(files)
        write(family.get(2), 2030, written(PAGES[4], 2030))
        put(family.get(2), [written(PAGES[5], 2031)], 2031)

    monkeypatch.setattr(detaching._Files, "_begin", meanwhile)
    detach(family.repository, family.get(2), None, NEVER)
    pages = b"".join(written(PAGES[at], lsn)[4] for at, lsn in ((4, 2030), (5, 2031)))
    keys = PAGES[4].pack() + PAGES[5].pack()
    assert bytes(family.get(2).snapshot().read_pages(keys, 2031)) == pages


def test_with_the_history_its_own_copy_goes(family: Family) -> None:
    detach(family.repository, family.get(2), None, NEVER)
    everything = [written(key, 2040) for key in PAGES] + [written(SLRU, 2040)]
    rest = [image(SIZE, 2040, BLOCKS.to_bytes(4, "little")), image(KEY, 2040, b"two")]
    write(family.get(2), 2040, *commit(40, 2040), *everything, *rest)
    family.delete(3)
    timeline, retention = family.get(2), family.repository.retention
    retention.move(timeline, Horizon(Lsn(2040)))
    assert len(drop_unneeded(timeline, retention.retained(timeline))) == 2


def test_one_that_is_stopped_leaves_nothing(family: Family) -> None:
    stopped = threading.Event()
    stopped.set()
    files = sorted(family.get(2).directory.iterdir())
    with pytest.raises(Aborted):
        detach(family.repository, family.get(2), None, stopped)
    assert sorted(family.get(2).directory.iterdir()) == files
    assert family.get(2).parent == timeline_id(1)


# Killed


def detach_and_say(root: Path) -> None:
    family = Family(root)
    sys.stdout.write("now\n")
    sys.stdout.flush()
    detach(family.repository, family.get(2), None, NEVER)
    sys.stdout.write("done\n")
    sys.stdout.flush()
    threading.Event().wait()


@pytest.mark.parametrize("milliseconds", [0, 2, 5, 10, 20, None])
def test_killed_anywhere_it_has_a_parent_or_none(tmp_path: Path, milliseconds: int | None) -> None:
    family = Family(tmp_path)
    before = [family.contents(*read) for read in READS]
    family.repository.close()
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "now\n"
    if milliseconds is None:
        assert child.stdout.readline() == "done\n"
    else:
        threading.Event().wait(milliseconds / 1000)
    child.send_signal(signal.SIGKILL)
    said = child.stdout.read()
    child.wait()
    family = Family(tmp_path)
    family.repository.sweep()
    assert milliseconds is not None or family.get(2).parent is None
    assert "done" not in said or family.get(2).parent is None
    assert [family.contents(*read) for read in READS] == before
    detach(family.repository, family.get(2), None, NEVER)
    assert [family.contents(*read) for read in READS] == before
    family.repository.close()


if __name__ == "__main__":
    detach_and_say(Path(sys.argv[1]))
