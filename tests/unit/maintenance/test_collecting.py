"""What collection drops of a timeline, and what it leaves; killed in the midst of it, too."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore.errors import OutOfRange
from pagestore.ids import DEFAULT_TENANT, Lsn
from pagestore.keyspace import Key, ValueKind
from pagestore.maintenance.collecting import Collected, collect, drop_unneeded
from pagestore.maintenance.policy import LEAST_KEY, Bounds, Images
from pagestore.maintenance.rewriting import rewrite
from pagestore.services.page_retention import commit_by_time
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import Horizon
from pagestore.timeline.horizons import DAY, LEAST_SECONDS, Quiet, Window
from pagestore.timeline.retained import NOTHING
from tests.unit.layers.model import Entry
from tests.unit.timeline.model import ROOT_LSN, image, make_root, put, timeline_id

SIZE = keyspace.rel_size(1, 2, 3, 0)
BLOCK = keyspace.rel_block(1, 2, 3, 0, 5)
KEY = keyspace.database(1, 7)
BEGIN = 1_700_000_000


class Clock:
    now = float(BEGIN)


def commit(seconds: int, lsn: int) -> list[Entry]:
    """A transaction's end, so many seconds after BEGIN."""
    micros, value = (BEGIN + seconds) * 1_000_000, struct.pack("<Q", lsn)
    return [image(keyspace.commit_time(micros), lsn, value)]


class Store:
    """A repository with a root at ROOT_LSN."""

    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.repository = Repository.open(root, clock=lambda: self.clock.now)
        if not self.repository.list(None):
            size = image(SIZE, ROOT_LSN, (10).to_bytes(4, "little"))
            make_root(self.repository, 1, [size])
        self.retention = self.repository.retention

    @property
    def timeline(self) -> Timeline:
        return self.repository.get(DEFAULT_TENANT, timeline_id(1))

    def write(self, lsn: int, *entries: Entry) -> None:
        """A record, and a file of its own."""
        put(self.timeline, sorted(entries), lsn)
        self.timeline.freeze()
        self.timeline.flush()

    def page(self, lsn: int) -> None:
        self.write(lsn, image(BLOCK, lsn, lsn.to_bytes(8, "little") * 1024))

    def move(self, lsn: int) -> None:
        self.retention.move(self.timeline, Horizon(Lsn(lsn)))

    def drop(self) -> int:
        return len(drop_unneeded(self.timeline, self.retention.retained(self.timeline)))

    def files(self) -> int:
        return len(list(self.timeline.directory.iterdir()))

    def read(self, lsn: int) -> int:
        self.retention.check(self.timeline, lsn)
        return self.timeline.snapshot().chain(BLOCK.pack(), lsn)[0][0]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.repository.close()


def test_files_that_only_the_past_read_go(store: Store) -> None:
    for lsn in range(2001, 2011):
        store.page(lsn)
    assert store.drop() == 0, "all history is kept"
    store.move(2008)
    assert store.drop() == 7
    assert store.files() == 1 + 3
    assert [store.read(lsn) for lsn in (2008, 2009, 2010)] == [2008, 2009, 2010]
    assert store.drop() == 0


def test_below_the_cutoff_a_read_is_refused_with_the_oldest_lsn(store: Store) -> None:
    for lsn in range(2001, 2011):
        store.page(lsn)
    store.move(2008)
    with pytest.raises(OutOfRange, match=r"is kept from 0/7D8 on; 0/7D7 is older") as refusal:
        store.read(2007)
    assert refusal.value.reason == "LSN_TOO_OLD"
    with pytest.raises(OutOfRange, match="older"):
        store.repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), 2007)
    with pytest.raises(OutOfRange, match="older"):
        store.retention.take_lease(store.timeline, 2007, 10)
    assert store.retention.tell(store.timeline, None, [2007, 2009]) == [2007]


def test_children_points_and_leases_hold_what_they_read_and_no_more(store: Store) -> None:
    for lsn in range(2001, 2011):
        store.page(lsn)
    store.repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), 2002)
    store.retention.tell(store.timeline, None, [2004])
    store.retention.take_lease(store.timeline, 2006, 60)
    store.move(2010)
    assert store.drop() == 6
    assert [store.read(lsn) for lsn in (2002, 2004, 2006, 2010)] == [2002, 2004, 2006, 2010]
    child = store.repository.get(DEFAULT_TENANT, timeline_id(2))
    assert child.snapshot().chain(BLOCK.pack(), 2002)[0][0] == 2002
    for lsn in (2003, 2005, 2009):
        with pytest.raises(OutOfRange):
            store.read(lsn)
    store.repository.delete(DEFAULT_TENANT, timeline_id(2))
    assert store.drop() == 1
    store.retention.tell(store.timeline, None, [])
    assert store.drop() == 1
    store.clock.now += 61
    assert store.drop() == 1
    for lsn in (2002, 2004, 2006):
        with pytest.raises(OutOfRange):
            store.read(lsn)
    assert store.read(2010) == 2010


def test_what_is_kept_outlives_a_restart(store: Store, tmp_path: Path) -> None:
    for lsn in range(2001, 2011):
        store.page(lsn)
    store.retention.tell(store.timeline, Window(9, 8), [2004])
    store.move(2010)
    store.repository.close()
    again = Store(tmp_path)
    assert again.read(2004) == 2004
    with pytest.raises(OutOfRange):
        again.read(2005)
    key = DEFAULT_TENANT, timeline_id(1)
    assert again.retention.window(key) == Window(9, 8)
    assert again.retention.told() == {key}
    assert again.drop() == 8
    again.repository.close()


def test_a_block_beyond_its_relation_holds_nothing(store: Store) -> None:
    store.page(2001)
    store.write(2002, image(SIZE, 2002, (5).to_bytes(4, "little")))
    store.page(2003)
    store.move(2002)
    assert store.drop() == 2, "the block as it was, and the length before"


def test_what_ceased_to_exist_goes_and_then_the_word_of_it(store: Store) -> None:
    store.write(2001, image(KEY, 2001, b"here"))
    store.write(2002, (KEY.pack(), 2002, ValueKind.TOMBSTONE, 0, b""))
    store.write(2003, image(keyspace.database(1, 8), 2003, b"else"))
    store.move(2003)
    assert store.drop() == 2
    assert store.timeline.snapshot().get(KEY.pack(), 2003) is None


def test_a_childs_word_that_something_ceased_to_exist_stays(store: Store) -> None:
    store.write(2001, image(KEY, 2001, b"here"))
    child = store.repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), 2001)
    put(child, [(KEY.pack(), 2002, ValueKind.TOMBSTONE, 0, b"")], 2002)
    child.freeze()
    child.flush()
    store.retention.move(child, Horizon(Lsn(2002)))
    assert drop_unneeded(child, store.retention.retained(child)) == {}
    assert child.snapshot().get(KEY.pack(), 2002) is None


def test_times_of_commits_go_with_the_history(store: Store) -> None:
    for number in range(1, 9):
        store.write(2000 + number, *commit(number, 2000 + number))
    store.move(2006)
    assert store.drop() == 5
    left = store.timeline.snapshot().scan_keys(
        *keyspace.kind_range(keyspace.Kind.COMMIT_TIME), 2008
    )
    found = [keyspace.commit_time_micros(Key.unpack(bytes(key))) for key in left]
    assert found == [(BEGIN + number) * 1_000_000 for number in (6, 7, 8)]


def test_a_time_that_is_not_kept_is_refused_and_a_branch_stands_where_it_left(store: Store) -> None:
    for number in range(1, 7):
        store.write(2000 + number, *commit(number, 2000 + number))
    child = store.repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), 2003)
    store.write(2010, *commit(10, 2010))
    store.retention.tell(store.timeline, None, [2005])
    store.move(2006)
    store.drop()

    def at(timeline: Timeline, seconds: float) -> int:
        return commit_by_time(timeline, int((BEGIN + seconds) * 1e6)).lsn

    assert [at(store.timeline, seconds) for seconds in (6, 7, 10)] == [2006, 2006, 2010]
    for seconds in (3, 4.5, 5.5):
        with pytest.raises(OutOfRange) as refusal:
            at(store.timeline, seconds)
        assert refusal.value.reason == "LSN_TOO_OLD"
    put(child, commit(20, 2020), 2020)
    assert [at(child, seconds) for seconds in (3, 19, 20)] == [2003, 2003, 2020]
    store.retention.move(child, Horizon(Lsn(2015)))
    with pytest.raises(OutOfRange):
        at(child, 19)


def test_the_window_moves_the_cutoff_by_the_times_of_commits(store: Store) -> None:
    for day in range(10):
        entries = [image(BLOCK, 2000 + day, bytes([day]) * 8192), *commit(day * DAY, 2000 + day)]
        store.write(2000 + day, *entries)
    store.clock.now += 9 * DAY + 60
    found = collect(store.retention, store.timeline, None)
    assert (found.layers, found.more_later) == (0, True)
    kept = store.files()
    collected = collect(store.retention, store.timeline, Window(7 * DAY))
    assert (store.timeline.horizon, collected.layers) == (2002, 2)
    assert store.files() == kept - 2
    collect(store.retention, store.timeline, Window(10))
    assert store.timeline.horizon == 2008, f"a commit of {LEAST_SECONDS} s ago and more"
    assert collect(store.retention, store.timeline, Window(7 * DAY)).layers == 0
    assert store.timeline.horizon == 2008, "never back"
    store.retention.tell(store.timeline, Window(DAY), [])
    store.clock.now += DAY
    collect(store.retention, store.timeline, Window(7 * DAY))
    assert store.timeline.horizon == 2009
    assert collect(store.retention, store.timeline, Window(7 * DAY)) == Collected()


def test_a_window_by_bytes_begins_where_a_commit_ended(store: Store) -> None:
    """Who is told of the cutoff may branch there."""
    for at in range(10):
        lsn = 2000 + 100 * at
        last = image(keyspace.LAST_COMMIT, lsn, struct.pack("<QQ", lsn, 0))
        page = image(BLOCK, lsn, bytes([at]) * 8192)
        store.write(lsn, page, last, *commit(at, lsn))
    store.clock.now += DAY
    found = collect(store.retention, store.timeline, Window(7 * DAY, wal_bytes=350))
    assert store.timeline.horizon == 2500, "350 bytes before 2900 it is 2550"
    assert (found.kept_bytes, found.more_later) == (400, True)
    assert collect(store.retention, store.timeline, Window(7 * DAY, 5000)).kept_bytes == 400


def test_what_a_compute_wrote_at_its_start_moves_no_cutoff_beyond_where_it_reads(
    store: Store,
) -> None:
    store.write(2001, *commit(0, 2001))
    reads_at = 2005
    store.write(reads_at, image(KEY, reads_at, b"before"))
    store.write(2009, image(KEY, 2009, b"its checkpoint record"))
    store.clock.now += 30 * DAY
    collect(store.retention, store.timeline, Window(7 * DAY))
    assert store.timeline.horizon == 2001
    assert store.retention.take_lease(store.timeline, reads_at, 60)


def test_what_commits_nothing_is_past_once_it_was_durable_for_the_window(store: Store) -> None:
    """Else what a compute writes at its end would hold the whole of a database that sleeps."""
    quiet, window = Quiet(), Window(3600)

    def look() -> int:
        collect(store.retention, store.timeline, window, quiet=quiet)
        return store.timeline.horizon

    store.write(2001, *commit(0, 2001))
    store.write(2009, image(KEY, 2009, b"its checkpoint record"))
    store.clock.now += 3700
    assert look() == 2001
    store.clock.now += 3500
    assert look() == 2001
    store.write(2011, image(KEY, 2011, b"another compute's"))
    lease = store.retention.take_lease(store.timeline, 2009, 10_000)
    store.clock.now += 200
    assert look() == 2009
    store.clock.now += 3300
    assert look() == 2009
    store.clock.now += 300
    assert look() == 2011
    assert lease > store.clock.now
    assert store.retention.reads(store.timeline, 2009), "who reads there holds it"
    assert collect(store.retention, store.timeline, window, quiet=quiet) == Collected()


def test_what_lies_below_images_goes_once_the_window_has_passed_them(store: Store) -> None:
    for number in range(1, 9):
        lsn = 2000 + number
        pages = [keyspace.rel_block(1, 2, 3, 0, block) for block in (1, number)]
        values = [image(key, lsn, lsn.to_bytes(8, "little") * 1024) for key in set(pages)]
        store.write(lsn, *values, *commit(number, lsn), image(KEY, lsn, b"%d" % lsn))
    store.retention.tell(store.timeline, None, [2002])
    inputs = tuple(number for number, entry, _ in store.timeline.own_layers() if number > 1)
    job = Images(inputs[:6], Lsn(2006), LEAST_KEY, 3)
    rewrite(store.timeline, job, None, Bounds())

    def contents(lsn: int) -> list[object]:
        snapshot = store.timeline.snapshot()
        keys = b"".join(keyspace.rel_block(1, 2, 3, 0, n).pack() for n in range(1, lsn - 1999))
        times = keyspace.kind_range(keyspace.Kind.COMMIT_TIME)
        last = snapshot.last_before(*times, lsn)
        return [snapshot.read_pages(keys, lsn), snapshot.get(KEY.pack(), lsn), last]

    kept = 2002, 2006, 2007, 2008
    before = [contents(lsn) for lsn in kept]
    assert store.drop() == 0
    store.move(2005)
    assert store.drop() == 1, "what a later image in a delta has overwritten, and no point reads"
    store.move(2006)
    assert store.drop() == 4, "all that lies below the images, but for what the point reads"
    assert [contents(lsn) for lsn in kept] == before
    store.retention.tell(store.timeline, None, [])
    assert store.drop() == 1
    assert [contents(lsn) for lsn in kept[1:]] == before[1:]


def test_of_whom_nobody_names_only_what_children_read_stays(store: Store) -> None:
    for lsn in range(2001, 2011):
        store.page(lsn)
    store.repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), 2005)
    store.retention.tell(store.timeline, None, [], named=False)
    assert store.timeline.horizon == NOTHING
    assert store.drop() == 9
    with pytest.raises(OutOfRange, match="only what branches off it is kept"):
        store.read(2010)
    assert store.read(2005) == 2005
    again = store.repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(3), 2005)
    assert again.snapshot().chain(BLOCK.pack(), 2005)[0][0] == 2005


def test_a_hidden_timeline_keeps_what_its_children_read(store: Store) -> None:
    for lsn in range(2001, 2011):
        store.page(lsn)
    child = store.repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), 2005)
    store.repository.delete(DEFAULT_TENANT, timeline_id(1))
    hidden = store.repository.kept(DEFAULT_TENANT, timeline_id(1))
    assert collect(store.retention, hidden, Window()).layers == 9
    assert child.snapshot().chain(BLOCK.pack(), 2005)[0][0] == 2005
    assert [s.timeline_id for s in store.repository.list(None)] == [timeline_id(2)]
    directory = hidden.directory
    del hidden, child
    store.repository.delete(DEFAULT_TENANT, timeline_id(2))
    assert not directory.exists()


# Killed


def write_and_collect_for_ever(root: Path) -> None:
    """What the child does: pages, and a cutoff three behind them; each LSN is said on stdout."""
    store = Store(root)
    lsn = store.timeline.last_record_lsn
    while True:
        lsn += 1
        store.page(lsn)
        store.move(max(lsn - 3, ROOT_LSN + 1))
        sys.stdout.write(f"{lsn}\n")
        sys.stdout.flush()
        store.drop()


def killed(root: Path, lines: int) -> int:
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(root)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(lines)]
    child.send_signal(signal.SIGKILL)
    said += [int(line) for line in child.stdout.read().split()]
    child.wait()
    return said[-1]


def test_a_killed_collection_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    for kill in range(5):
        last = killed(tmp_path, lines=4 + kill)
        store = Store(tmp_path)
        store.repository.sweep()
        horizon = store.timeline.horizon
        assert last - 3 <= horizon <= store.timeline.last_record_lsn
        kept = range(horizon, store.timeline.last_record_lsn + 1)
        assert [store.read(lsn) for lsn in kept] == list(kept)
        store.drop()
        assert store.files() == len(kept) + 1, "nothing is left that nobody reads"
        store.repository.close()


if __name__ == "__main__":
    write_and_collect_for_ever(Path(sys.argv[1]))
