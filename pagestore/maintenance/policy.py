"""What to compact next, given the figures of a timeline's layers. Pure.

A *run* is what one pass has written: a file of a flush, or the files of a merge, which say the same
range of LSNs and share the keys between them. Runs follow each other by LSN. A read goes from the
newest to older ones, until it has a whole page.

*Merges.* Runs next to each other become one, when the newer ones weigh several times the oldest of
them, so that there are a few of each size, and each value is rewritten as often as sizes grow by
that factor; or when a read of the worst page may have to apply too much of all runs together, in
which case a single flushed file is worth it, since a merge puts images into long chains. Bytes and
depth decide, never how many files there are: an idle timeline's few small files cost nothing.

*Images.* When what lies above the last images weighs enough against the images of all that it
changed, those are made, at the LSN of the newest run. Reads from there on need nothing older. The
files cover the keyspace one behind the other (native/core/store/compaction.h), so a pass that was
cut off is seen as such, and goes on where it was. Runs below images are left as they are: they are
history, and so become one before. At rest, when nothing comes any more, less is enough; and
nothing at all of a branch of many branches, once: a read of it would look for a few records at each
of them. Of what nobody names any more no images are made: nobody reads its end.

*Images of ancestors.* Those of a branch of many may have what its ancestors changed, too: then its
reads, and those of its branches, find in one place what they would look for in each. Along an
ancestry such passes follow the rule of merges. One is made when enough ancestors without one lie
above the last, and it takes in what is older, step by step, as long as that has not many more keys
than all that is newer: so passes grow by a factor, a read meets one of each size, and what a
timeline changed is copied once for each. It stops before what is large, or was imported.

*What is dead.* Where history is kept no longer (timeline/retained.py), values are left out by every
merge. Who waits for one would wait long, so a run of which enough is dead is rewritten by itself.
Images are their passes' alone, and where no LSN is kept between two passes the lower one's stand
for nothing that the upper one changed: once enough of them is dead, all become one, at the LSN of
the uppermost, published as it goes.

Nothing here counts time or reads a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from pagestore.ids import Lsn
from pagestore.layers.native import LayerKind
from pagestore.timeline.retained import NOTHING, Retained

RECORD_WEIGHT = 8
"""Of `Layer.depth`, in which a patch weighs 1."""
LEAST_KEY, GREATEST_KEY = bytes(18), b"\xff" * 18
LZ4 = 0
EVERYTHING = Retained()
MOST_LEVEL = 255


@dataclass(frozen=True, slots=True)
class Figures:
    """What the catalog says of a layer; its depth, which is 0 of one that has no long chain; and
    about how many of its bytes nobody reads."""

    number: int
    kind: int
    level: int
    first_lsn: int
    last_lsn: int
    least: bytes
    greatest: bytes
    bytes: int
    keys: int
    depth: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What a branch sees of one of its ancestors, the nearest of which is the first step.

    ``keys`` that it has itself changed, or, with ``reach``, that are in its images: these have the
    changes of so many more ancestors. ``base``: it has all there is, by an import or a copy.
    """

    keys: int = 0
    reach: int = 0
    base: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far things may go. Bytes are of files; weights those of `Layer.depth`."""

    file_bytes: int = 32 << 20
    run_bytes: int = 512 << 20
    """A run of so many is not merged any more; nor is more written by one merge, roughly."""
    most_inputs: int = 64
    factor: float = 3.0
    """A run is merged with newer ones that weigh so many times as much together."""
    open_weight: int = 16 * RECORD_WEIGHT
    """Of a page's values in one run with no image below them."""
    chain_weight: int = 64 * RECORD_WEIGHT
    """Between two images."""
    chain_bytes: int = 128 << 10
    deep_weight: int = 192 * RECORD_WEIGHT
    """Of all runs above the last images together."""
    image_bytes: int = 3000
    """What a page's image takes in a file, as a guess."""
    image_part: float = 0.5
    image_floor: int = 32 << 20
    rest_part: float = 1 / 16
    rest_floor: int = 1 << 20
    deep_branch: int = 8
    """So many ancestors with layers are many."""
    loose_branches: int = 16
    """So many timelines with layers, one behind the other, share images."""
    taken_in: float = 2.0
    """And what is older, as long as that is no more than so many times what is newer."""
    dead_part: float = 0.3
    rest_dead_part: float = 0.125
    dead_floor: int = 1 << 20
    """What has so much that is dead is rewritten without it."""
    settled_bytes: int = 64 << 20
    """A run of so many is written with zstd, a smaller one with LZ4: it is merged again soon."""
    zstd: int = -3
    images_zstd: int = 1
    """Images are written once, and are what is read."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Runs made one. ``codec`` is zstd's level, or LZ4."""

    inputs: tuple[int, ...]
    level: int
    codec: int


@dataclass(frozen=True, slots=True)
class Images:
    """Of what the inputs changed, at an LSN, for keys from ``low`` on.

    ``reach``: they have what so many ancestors changed, too. ``replaces``: the inputs are images at
    or below the LSN, which go as those are there.
    """

    inputs: tuple[int, ...]
    lsn: Lsn
    low: bytes
    codec: int
    replaces: bool = False
    reach: int = 0

    @property
    def level(self) -> int:
        return 1 + min(self.reach, MOST_LEVEL - 1)


Job = Merge | Images


@dataclass(frozen=True, slots=True)
class Run:
    files: tuple[Figures, ...]
    weight: int
    """The most that a read has to apply of it before it goes on to older ones."""
    bytes: int = field(init=False)
    last_lsn: int = field(init=False)
    fresh: bool = field(init=False)
    """It was never merged."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes", sum(file.bytes for file in self.files))
        object.__setattr__(self, "last_lsn", max(file.last_lsn for file in self.files))
        object.__setattr__(self, "fresh", all(file.level == 0 for file in self.files))


@dataclass(frozen=True, slots=True)
class Covered:
    """Where images are: all of a pass at ``lsn`` is there; the next, if one was begun, goes on at
    ``low``."""

    lsn: int = 0
    begun_lsn: int = 0
    low: bytes = LEAST_KEY
    begun_reach: int = 0


def behind(key: bytes) -> bytes:
    """The next key; that of the greatest is the least."""
    return ((int.from_bytes(key) + 1) % (1 << 8 * len(key))).to_bytes(len(key))


def covered(files: Sequence[Figures]) -> Covered:
    """What the images of passes say, whatever was left out of them by a crash."""
    whole, begun = 0, (0, LEAST_KEY, 0)
    images = [f for f in files if f.kind == LayerKind.IMAGE and f.level > 0]
    images.sort(key=lambda file: (file.first_lsn, file.least))
    for lsn, group in groupby(images, key=lambda file: file.first_lsn):
        low = LEAST_KEY
        for file in group:
            # Of a pass that is being made again some overlap.
            if file.least > low:
                break
            if file.greatest == GREATEST_KEY:
                whole = lsn
                break
            low = max(low, behind(file.greatest))
        else:
            begun = (lsn, low, file.level - 1)
    if begun[0] <= whole:
        return Covered(whole)
    return Covered(whole, *begun)


def runs_above(files: Sequence[Figures], lsn: int, bounds: Bounds) -> list[Run]:
    """Those that hold what came behind an LSN, the newest first."""
    deltas = [f for f in files if f.kind == LayerKind.DELTA and f.last_lsn > lsn]
    deltas.sort(key=lambda f: (-f.last_lsn, -f.first_lsn, f.least))
    runs = []
    for _, group in groupby(deltas, key=lambda f: (f.last_lsn, f.first_lsn, f.level > 0)):
        of_run = tuple(group)
        merged = of_run[0].level > 0
        runs.append(Run(of_run, bounds.open_weight if merged else sum(f.depth for f in of_run)))
    return runs


def read_weight(files: Sequence[Figures], bounds: Bounds) -> int:
    """The most that a read at the newest LSN in files may have to apply."""
    return sum(run.weight for run in runs_above(files, covered(files).lsn, bounds))


def next_job(
    files: Sequence[Figures],
    bounds: Bounds,
    *,
    at_rest: bool,
    kept: Retained = EVERYTHING,
    ancestors: int = 0,
    steps: Iterable[Step] = (),
) -> Job | None:
    """None when all is well as it is.

    Args:
        ancestors: of the timeline, those that have layers.
        steps: up along all of them; asked for only where they matter.
    """
    images = covered(files)
    runs = runs_above(files, images.lsn, bounds)
    part = bounds.rest_dead_part if at_rest else bounds.dead_part
    if images.begun_lsn not in kept:
        # It was whole, and retention has taken what nobody reads of it.
        images = Covered(images.lsn)
    job = None
    if kept.cutoff != NOTHING:
        is_deep = at_rest and ancestors >= bounds.deep_branch
        reach = _reach(files, runs, steps, bounds) if is_deep and runs else 0
        wanted = reach > 0 or (is_deep and images.lsn == 0)
        job = _for_reads(images, runs, bounds, at_rest, wanted, reach)
    return job or _for_space(files, bounds, part, kept)


def _reach(
    files: Sequence[Figures], runs: Sequence[Run], steps: Iterable[Step], bounds: Bounds
) -> int:
    """How many ancestors' changes images are to have besides; 0: none."""
    if any(file.kind == LayerKind.IMAGE and file.level > 1 for file in files):
        return 0  # it has such
    newer = sum(file.keys for run in runs for file in run.files)
    loose, reach, within, met = 1, 0, 0, False
    for step in steps:
        if within > 0:  # what it changed is in images that were taken in
            within -= 1
        elif step.base or step.keys > bounds.taken_in * newer:
            break
        else:
            newer, within, met = newer + step.keys, step.reach, met or step.reach > 0
            loose += step.keys > 0 and not met
        reach += 1
    return reach if loose >= bounds.loose_branches else 0


def _for_reads(
    images: Covered,
    runs: Sequence[Run],
    bounds: Bounds,
    at_rest: bool,
    wanted: bool,
    reach: int,
) -> Job | None:
    # Before it is whole nothing above it is merged. What looks like one afterwards is what
    # retention has left of it.
    if not any(run.last_lsn > images.begun_lsn and not run.fresh for run in runs):
        begun = _images(runs, images.begun_lsn, images.low, bounds, images.begun_reach)
        if begun is not None:
            return begun
    deep = sum(run.weight for run in runs) > bounds.deep_weight
    merge = _deep_merge(runs, bounds) if deep else None
    merge = merge or _merge_by_bytes(runs, bounds)
    if merge is not None:
        return merge
    if runs and (deep or wanted or _is_worth_images(runs, bounds, at_rest)):
        # What lies below images stays as it is then: so first all that is small becomes one.
        young = _young(runs, bounds)
        if len(young) > 1:
            return _merge(young, bounds)
        return _images(runs, runs[0].last_lsn, LEAST_KEY, bounds, reach)
    return None


def _for_space(files: Sequence[Figures], bounds: Bounds, part: float, kept: Retained) -> Job | None:
    for lsn, group in superseded(files, kept):
        if _is_mostly_dead(group, bounds, part):
            numbers = tuple(file.number for file in group)
            reach = max(file.level for file in group) - 1
            return Images(numbers, lsn, LEAST_KEY, bounds.images_zstd, True, max(reach, 0))
    for run in runs_above(files, 0, bounds):
        if _is_mostly_dead(run.files, bounds, part):
            # Alone, though it was merged before.
            return _merge_of((run,), bounds)
    return None


def superseded(files: Iterable[Figures], kept: Retained) -> list[tuple[Lsn, list[Figures]]]:
    """The images that may become one, with the LSN of the uppermost pass of each such group: those
    at or below a whole one, where no LSN is kept from theirs on to below its."""
    groups: dict[int, list[Figures]] = {}
    for file in files:
        interval = kept.interval(file.first_lsn)
        if file.kind == LayerKind.IMAGE and interval < len(kept.boundaries):
            groups.setdefault(interval, []).append(file)
    whole = ((Lsn(covered(group).lsn), group) for group in groups.values())
    return [(lsn, [file for file in group if file.first_lsn <= lsn]) for lsn, group in whole if lsn]


def _is_mostly_dead(files: Sequence[Figures], bounds: Bounds, part: float) -> bool:
    dead = sum(file.dead for file in files)
    return dead > 0 and dead >= max(bounds.dead_floor, part * sum(f.bytes for f in files))


def _images(runs: Sequence[Run], lsn: int, low: bytes, bounds: Bounds, reach: int) -> Images | None:
    below = tuple(file.number for run in runs for file in run.files if file.last_lsn <= lsn)
    return Images(below, Lsn(lsn), low, bounds.images_zstd, reach=reach) if below else None


def _is_worth_images(runs: Sequence[Run], bounds: Bounds, at_rest: bool) -> bool:
    """A key that several runs have counts several times: rather too few images than too many. But
    at rest the runs become one first, which knows."""
    part, floor = bounds.image_part, bounds.image_floor
    keys = [sum(f.keys for f in run.files) for run in runs]
    count = sum(keys)
    if at_rest:
        part, floor, count = bounds.rest_part, bounds.rest_floor, max(keys, default=0)
    return sum(run.bytes for run in runs) >= max(floor, part * count * bounds.image_bytes)


def _young(runs: Sequence[Run], bounds: Bounds) -> Sequence[Run]:
    """Those that are newer than every one which is large enough."""
    for at, run in enumerate(runs):
        if run.bytes >= bounds.run_bytes:
            return runs[:at]
    return runs


def _deep_merge(runs: Sequence[Run], bounds: Bounds) -> Merge | None:
    """Of the fewest of the newest runs which helps."""
    total = sum(run.weight for run in runs)
    for count in range(1, len(_young(runs, bounds)) + 1):
        some = runs[:count]
        left = total - sum(run.weight for run in some) + bounds.open_weight
        if left <= bounds.deep_weight and left < total:
            return _merge(some, bounds)
    # No merge is enough. Of those that were never merged each gets shorter by itself.
    fresh = [run for run in runs if run.fresh and run.weight > bounds.open_weight]
    return _merge(fresh[-1:], bounds) if fresh else None


def _merge_by_bytes(runs: Sequence[Run], bounds: Bounds) -> Merge | None:
    newer, count = 0, 0
    for at, run in enumerate(_young(runs, bounds)):
        if at > 0 and newer >= bounds.factor * run.bytes:
            count = at + 1
        newer += run.bytes
    return _merge(runs[:count], bounds) if count > 0 else None


def _merge(some: Sequence[Run], bounds: Bounds) -> Merge | None:
    """Of runs next to each other; only of the oldest, if all are too many for once."""
    taken: list[Run] = []
    size = files = 0
    for run in reversed(some):
        size, files = size + run.bytes, files + len(run.files)
        if len(taken) > 1 and (size > bounds.run_bytes or files > bounds.most_inputs):
            break
        taken.append(run)
    if len(taken) == 1 and not taken[0].fresh:
        return None
    return _merge_of(taken, bounds)


def _merge_of(taken: Sequence[Run], bounds: Bounds) -> Merge:
    inputs = tuple(file.number for run in taken for file in run.files)
    level = 1 + max(file.level for run in taken for file in run.files)
    settled = sum(run.bytes for run in taken) >= bounds.settled_bytes
    return Merge(inputs, min(level, MOST_LEVEL), bounds.zstd if settled else LZ4)
