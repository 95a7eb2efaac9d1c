"""What the policy chooses, on figures; and a year of its choices, carried out on figures too."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from pagestore.ids import Lsn
from pagestore.layers.native import LayerKind
from pagestore.maintenance.policy import (
    GREATEST_KEY,
    LEAST_KEY,
    LZ4,
    RECORD_WEIGHT,
    Bounds,
    Figures,
    Images,
    Merge,
    behind,
    covered,
    next_job,
    runs_above,
    superseded,
)
from pagestore.timeline.retained import NOTHING, Retained

MB = 1 << 20
BOUNDS = Bounds()
SOME, OTHER = b"\x20" + bytes(17), b"\x21" + bytes(17)


def delta(number: int, first: int, last: int, size: int, **more: int) -> Figures:
    depth, level, keys = more.get("depth", 0), more.get("level", 0), more.get("keys", 1)
    return Figures(number, LayerKind.DELTA, level, first, last, SOME, OTHER, size, keys, depth)


def image(number: int, lsn: int, least: bytes, greatest: bytes, level: int = 1) -> Figures:
    return Figures(number, LayerKind.IMAGE, level, lsn, lsn, least, greatest, MB, 300)


def fresh(count: int, size: int, **more: int) -> list[Figures]:
    return [delta(n, n * 10, n * 10 + 9, size, **more) for n in range(1, count + 1)]


def choose(files: list[Figures], *, at_rest: bool = False) -> Merge | Images | None:
    return next_job(files, BOUNDS, at_rest=at_rest)


def test_few_shallow_files_are_left_alone() -> None:
    assert choose([]) is None
    assert choose(fresh(3, 14 * MB, keys=10**6)) is None
    assert choose([image(1, 5, SOME, OTHER, level=0)]) is None


def test_runs_are_merged_when_newer_ones_weigh_several_times_as_much() -> None:
    files = fresh(4, 10 * MB, keys=10**6)
    assert choose(files) == Merge((1, 2, 3, 4), 1, LZ4)
    files[0] = replace(files[0], bytes=31 * MB)
    assert choose(files) is None
    # What has settled is written with zstd.
    files = fresh(4, 20 * MB, keys=10**6)
    assert choose(files) == Merge((1, 2, 3, 4), 1, BOUNDS.zstd)


def test_one_that_is_large_enough_is_merged_no_more_nor_what_is_below_it() -> None:
    files = [replace(f, level=1) for f in fresh(5, 600 * MB, keys=10**9)]
    assert choose(files) is None
    files += [replace(f, number=f.number + 10) for f in fresh(9, 10 * MB, keys=10**6)[5:]]
    assert choose(files) == Merge((16, 17, 18, 19), 1, LZ4)


def test_one_merge_takes_no_more_than_it_may() -> None:
    """After a long absence there are many; the oldest come first, side by side."""
    job = choose(fresh(300, 20 * MB, keys=10**9))
    assert isinstance(job, Merge)
    assert job.inputs == tuple(range(1, 26))  # half a gigabyte
    job = choose(fresh(300, MB, keys=10**9))
    assert isinstance(job, Merge)
    assert job.inputs == tuple(range(1, BOUNDS.most_inputs + 1))


def test_a_deep_file_is_merged_by_itself_however_small_it_is() -> None:
    deep = BOUNDS.deep_weight + 1
    assert choose(fresh(1, 5000, depth=deep)) == Merge((1,), 1, LZ4)
    assert choose(fresh(1, 5000, depth=deep - 1)) is None
    # Of many that are deep together, as few of the newest as help.
    files = fresh(30, 5000, depth=20 * RECORD_WEIGHT)
    files[0] = replace(files[0], bytes=MB)
    job = choose(files)
    assert isinstance(job, Merge)
    left = sum(f.depth for f in files) - sum(f.depth for f in files if f.number in job.inputs)
    assert left + BOUNDS.open_weight <= BOUNDS.deep_weight
    assert 1 not in job.inputs


def test_what_no_merge_can_make_shallow_gets_images() -> None:
    files = [replace(f, level=1) for f in fresh(30, 600 * MB, keys=10**9)]
    assert len(files) * BOUNDS.open_weight > BOUNDS.deep_weight
    job = choose(files)
    assert isinstance(job, Images)
    assert (job.lsn, job.low, len(job.inputs)) == (309, LEAST_KEY, 30)


def test_images_come_when_what_lies_above_them_weighs_enough() -> None:
    enough = [replace(f, level=1) for f in fresh(1, 60 * MB, keys=40_000)]
    assert choose(enough) == Images((1,), 19, LEAST_KEY, BOUNDS.images_zstd)
    assert choose([replace(enough[0], keys=60_000)]) is None
    small = [replace(enough[0], bytes=20 * MB, keys=100)]
    assert choose(small) is None
    assert choose(small, at_rest=True) == Images((1,), 19, LEAST_KEY, BOUNDS.images_zstd)
    assert choose([replace(small[0], bytes=MB // 2)], at_rest=True) is None


def test_at_rest_what_several_runs_have_is_taken_for_the_same_keys() -> None:
    files = [replace(f, level=1) for f in fresh(3, MB, keys=8_000)]
    assert choose(files) is None
    assert choose(files, at_rest=True) == Merge((1, 2, 3), 2, LZ4)


def test_a_branch_of_many_branches_gets_images_at_its_first_rest_and_no_more() -> None:
    files = fresh(1, 5000, keys=100)
    many = BOUNDS.deep_branch

    def job(at_rest: bool, ancestors: int) -> Merge | Images | None:
        return next_job(files, BOUNDS, at_rest=at_rest, ancestors=ancestors)

    assert (job(False, many), job(True, many - 1)) == (None, None)
    assert job(True, many) == Images((1,), 19, LEAST_KEY, BOUNDS.images_zstd)
    files.append(image(5, 19, LEAST_KEY, GREATEST_KEY))
    files.append(delta(6, 20, 29, 5000, keys=100))
    assert job(True, many) is None


def test_nobody_reads_the_end_of_what_nobody_names() -> None:
    files = [replace(f, level=1) for f in fresh(1, 60 * MB, keys=40_000)]
    kept = Retained.of(NOTHING, [12])
    assert next_job(files, BOUNDS, at_rest=True, kept=kept, ancestors=99) is None
    dead = [replace(files[0], dead=50 * MB)]
    assert next_job(dead, BOUNDS, at_rest=True, kept=kept) == Merge((1,), 2, LZ4)


def test_what_is_small_becomes_one_before_images_are_made_above_it() -> None:
    files = [replace(f, level=1) for f in fresh(3, 25 * MB, keys=10_000)]
    assert choose(files) == Merge((1, 2, 3), 2, BOUNDS.zstd)


def test_below_images_all_stays_as_it_is() -> None:
    files = fresh(9, 14 * MB, depth=10**6)
    files.append(image(20, 99, LEAST_KEY, GREATEST_KEY))
    assert choose(files, at_rest=True) is None
    files.append(delta(21, 100, 109, 5000, depth=10**6))
    assert choose(files) == Merge((21,), 1, LZ4)


def test_a_pass_that_was_cut_off_goes_on_where_it_was() -> None:
    files = [replace(f, level=1) for f in fresh(2, 60 * MB, keys=40_000)]
    first = image(5, 29, LEAST_KEY, SOME)
    assert covered([first]) == covered([image(6, 10, OTHER, GREATEST_KEY), first])
    newer = delta(7, 30, 39, MB, depth=10**6)
    assert choose([*files, first, newer]) == Images((2, 1), 29, behind(SOME), BOUNDS.images_zstd)
    second = image(8, 29, behind(SOME), GREATEST_KEY)
    assert covered([*files, first, second]).lsn == 29
    assert choose([*files, first, second, newer]) == Merge((7,), 1, LZ4)


def test_what_retention_has_left_of_a_pass_is_not_begun_again() -> None:
    first = image(5, 29, LEAST_KEY, SOME)
    assert choose([first]) is None
    merged = delta(7, 30, 39, MB, level=1)
    assert choose([*fresh(2, MB, keys=10**6), first, merged]) is None


def test_images_with_a_gap_between_them_cover_nothing_behind_it() -> None:
    """A boundary that is off by one is a gap."""
    images = [image(1, 29, LEAST_KEY, SOME), image(2, 29, behind(behind(SOME)), GREATEST_KEY)]
    assert covered(images).lsn == 0
    images[1] = image(2, 29, behind(SOME), GREATEST_KEY[:-1] + b"\xfe")
    assert covered(images).lsn == 0
    assert covered(images).low == GREATEST_KEY


def test_images_of_an_import_are_not_those_of_a_pass() -> None:
    assert covered([image(1, 29, LEAST_KEY, GREATEST_KEY, level=0)]).lsn == 0


KEPT = Retained.of(100, [30, 60])


def test_a_pass_whose_lsn_is_kept_no_more_is_not_gone_on_with() -> None:
    """It may have been whole: then what was made would be collected, again and again."""
    run = [replace(f, level=1) for f in fresh(2, MB, keys=10**6)]
    files = [*run, image(5, 29, LEAST_KEY, SOME)]
    assert isinstance(choose(files), Images)
    for cutoff, points in ((29, []), (40, [29])):
        kept = Retained.of(cutoff, points)
        assert isinstance(next_job(files, BOUNDS, at_rest=False, kept=kept), Images)
    for cutoff, points in ((30, []), (40, [28, 30])):
        kept = Retained.of(cutoff, points)
        assert next_job(files, BOUNDS, at_rest=False, kept=kept) is None


def images_at(number: int, lsn: int, dead: int = 0, size: int = 10 * MB) -> Figures:
    return replace(image(number, lsn, LEAST_KEY, GREATEST_KEY), bytes=size, dead=dead)


def test_a_run_of_which_enough_is_dead_is_rewritten_by_itself() -> None:
    run = [replace(f, level=3, last_lsn=19) for f in fresh(2, 10 * MB, keys=10**6)]
    run[1] = replace(run[1], first_lsn=10)
    some = [replace(f, dead=3 * MB) for f in run]
    assert next_job(some, BOUNDS, at_rest=False, kept=KEPT) == Merge((1, 2), 4, LZ4)
    few = [replace(f, dead=2 * MB) for f in run]
    assert next_job(few, BOUNDS, at_rest=False, kept=KEPT) is None
    assert next_job(few, BOUNDS, at_rest=True, kept=KEPT) == Merge((1, 2), 4, LZ4)
    small = [replace(run[0], bytes=MB // 2, dead=MB // 2)]
    assert next_job(small, BOUNDS, at_rest=True, kept=KEPT) is None


def test_passes_between_which_no_lsn_is_kept_become_one() -> None:
    files = [images_at(n, lsn, 4 * MB) for n, lsn in [(1, 10), (2, 35), (3, 50), (4, 70), (5, 99)]]
    assert [(lsn, [f.number for f in group]) for lsn, group in superseded(files, KEPT)] == [
        (10, [1]),
        (50, [2, 3]),
        (99, [4, 5]),
    ]
    job = next_job(files[1:], BOUNDS, at_rest=False, kept=KEPT)
    assert job == Images((2, 3), Lsn(50), LEAST_KEY, BOUNDS.images_zstd, replaces=True)
    alive = [replace(f, dead=MB) for f in files]
    assert next_job(alive, BOUNDS, at_rest=False, kept=KEPT) is None
    assert superseded(files, Retained()) == [], "all history is kept"


def test_images_above_the_last_whole_pass_are_left_to_it() -> None:
    """And those of which some may still be read by whoever reads everything beyond the cutoff."""
    files = [images_at(1, 70), images_at(2, 80), image(3, 90, LEAST_KEY, SOME), images_at(4, 101)]
    assert [(lsn, [f.number for f in group]) for lsn, group in superseded(files, KEPT)] == [
        (80, [1, 2])
    ]


def test_a_pass_that_is_half_made_again_is_still_whole() -> None:
    files = [image(1, 29, LEAST_KEY, SOME), image(2, 29, LEAST_KEY, OTHER)]
    files.append(image(3, 29, behind(SOME), GREATEST_KEY))
    assert covered(files).lsn == 29


def test_files_of_one_merge_are_one_run() -> None:
    files = [delta(n, 10, 99, MB, level=2) for n in range(1, 9)]
    [run] = runs_above(files, 0, BOUNDS)
    assert (len(run.files), run.weight, run.bytes) == (8, BOUNDS.open_weight, 8 * MB)
    assert choose(files) is None
    assert runs_above(files, 99, BOUNDS) == []


class Played:
    """A timeline of figures: flushes come, and the policy's jobs are done to them."""

    def __init__(self) -> None:
        self.files: list[Figures] = []
        self.numbers = itertools.count(1)
        self.lsn = 0
        self.flushed = self.written = self.jobs = 0

    def flush(self, size: int, keys: int, depth: int) -> None:
        self.lsn += 10
        self.files.append(
            delta(next(self.numbers), self.lsn - 9, self.lsn, size, keys=keys, depth=depth)
        )
        self.flushed += size
        self.settle(at_rest=False)

    def settle(self, *, at_rest: bool) -> None:
        while (job := choose(self.files, at_rest=at_rest)) is not None:
            self.jobs += 1
            self.play(job)

    def play(self, job: Merge | Images) -> None:
        inputs = [f for f in self.files if f.number in job.inputs]
        number, keys = next(self.numbers), max(f.keys for f in inputs)
        if isinstance(job, Images):
            made = replace(image(number, job.lsn, LEAST_KEY, GREATEST_KEY), bytes=keys * 3000)
        else:
            first, last = min(f.first_lsn for f in inputs), max(f.last_lsn for f in inputs)
            size = sum(f.bytes for f in inputs)
            made = delta(number, first, last, size, keys=keys, level=job.level)
            self.files = [f for f in self.files if f not in inputs]
        self.files.append(made)
        self.written += made.bytes

    @property
    def depth(self) -> int:
        return sum(r.weight for r in runs_above(self.files, covered(self.files).lsn, BOUNDS))


def test_a_trickle_for_months_leaves_a_handful_of_layers() -> None:
    """A write every 11 s, flushed each hour: one hot page, and a few others."""
    played = Played()
    for _ in range(24 * 100):
        played.flush(20_000, 8, 327 * RECORD_WEIGHT)
        assert len(played.files) < 40
        assert played.depth <= BOUNDS.deep_weight
    assert len(played.files) < 25
    assert played.written < 12 * played.flushed


def test_a_day_of_the_trickle_is_cheap() -> None:
    played = Played()
    for _ in range(24):
        played.flush(20_000, 8, 327 * RECORD_WEIGHT)
    assert len(played.files) < 15
    assert played.written < 3 * played.flushed


@pytest.mark.parametrize("depth", [3, 1000])
def test_an_hour_of_work_stays_shallow_and_is_not_written_again_and_again(depth: int) -> None:
    """Flushes of 14 MB that touch 30,000 pages each, 16 GB of WAL."""
    played = Played()
    for _ in range(400):
        played.flush(14 * MB, 30_000, depth * RECORD_WEIGHT)
        assert played.depth <= BOUNDS.deep_weight
    assert played.written < 5 * played.flushed
    played.settle(at_rest=True)
    assert choose(played.files, at_rest=True) is None
