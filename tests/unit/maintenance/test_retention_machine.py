"""Retention against dicts: written, branched, told, leased, detached, compacted, collected,
reopened.

At every LSN that is kept every value is what it always was; anywhere else a read is refused. The
model keeps all values for ever, and knows only which LSNs are kept. Relations grow and are
truncated, clocks of commits are set back. And whether that finds planted bugs.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pagestore import keyspace
from pagestore._native import NativeError, Snapshot
from pagestore.errors import OutOfRange, PagestoreError, Unavailable
from pagestore.ids import DEFAULT_TENANT, Lsn
from pagestore.keyspace import PAGE_SIZE, ValueKind
from pagestore.layers.native import LayerKind
from pagestore.maintenance import policy, rewriting
from pagestore.maintenance.ancestry import steps
from pagestore.maintenance.collecting import drop_unneeded
from pagestore.maintenance.detaching import detach
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.policy import LEAST_KEY, Images, Merge, next_job
from pagestore.maintenance.rewriting import rewrite
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import Horizon
from pagestore.timeline.horizons import Window
from pagestore.timeline.retained import ALL, NOTHING, Retained
from pagestore.timeline.retention import Retention
from tests.unit.layers.model import Entry, History
from tests.unit.maintenance.store import TINY
from tests.unit.maintenance.stories import some
from tests.unit.timeline.model import ROOT_LSN, ModelTimeline, image, make_root, put, timeline_id

SIZE = keyspace.rel_size(1, 2, 3, 0)
TIMES = keyspace.kind_range(keyspace.Kind.COMMIT_TIME)
GREEDY = replace(TINY, dead_floor=1, dead_part=0.01, rest_dead_part=0.01)
"""Rewrites whatever has anything dead."""
keys = st.one_of(
    st.builds(keyspace.rel_block, *map(st.just, (1, 2, 3, 0)), st.integers(0, 2)),
    st.builds(keyspace.database, st.just(1), st.integers(1, 2)),
    st.just(SIZE),
    st.just(keyspace.commit_time(0)),
)
words = st.lists(st.tuples(keys, st.integers(0, 4), st.booleans()), min_size=3, max_size=8)


def block(number: int) -> bytes:
    return keyspace.rel_block(1, 2, 3, 0, number).pack()


def values_of(key: keyspace.Key, lsn: int, choice: int, length: int) -> list[Entry]:
    """What a record says; the relation has `length` blocks before it."""
    if key.kind == keyspace.Kind.REL_BLOCK:
        if key.block >= length:
            return []
        if choice < 2:
            patch = struct.pack("<HHBB", choice, 1, 0xFF, lsn % 251)
            return [(key.pack(), lsn, ValueKind.PATCH, 0, patch)]
        return [(key.pack(), lsn, ValueKind.IMAGE, 0, lsn.to_bytes(8, "little") * 1024)]
    if key == SIZE:
        wanted = 1 + choice % 3
        new = [(block(n), lsn, ValueKind.ZERO, 0, b"") for n in range(length, wanted)]
        return [image(SIZE, lsn, wanted.to_bytes(4, "little")), *new]
    if key.kind == keyspace.Kind.COMMIT_TIME:
        micros = lsn - (7 if choice == 0 else 0)
        return [image(keyspace.commit_time(micros), lsn, lsn.to_bytes(8, "little"))]
    if choice == 0:
        return [(key.pack(), lsn, ValueKind.TOMBSTONE, 0, b"")]
    return [image(key, lsn, b"%04d" % lsn)]


def length_of(view: History, lsn: int) -> int:
    return int.from_bytes(view.chain(SIZE.pack(), lsn)[0][3], "little")


def page_of(view: History, key: bytes, lsn: int) -> bytes:
    made = bytearray(PAGE_SIZE)
    for _, kind, _, payload in reversed(view.chain(key, lsn)):
        if kind == ValueKind.IMAGE:
            made[:] = payload
        elif kind == ValueKind.PATCH:
            at, _, _, value = struct.unpack("<HHBB", payload)
            made[at] = value
    return bytes(made)


@dataclass
class Kept(ModelTimeline):
    horizon: int = ALL
    points: set[int] = field(default_factory=set)
    leases: dict[int, float] = field(default_factory=dict)

    def reads(self, lsn: int, children: list[int], now: float) -> bool:
        """Of its own history."""
        leased = [at for at, end in self.leases.items() if end >= now]
        return lsn >= self.horizon or lsn in {*children, *self.points, *leased}


class RetentionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="pagestore-retention-"))
        self.now = 1000.0
        self.counted: Counter[str] = Counter()
        self.repository = self.opened()
        self.model: dict[int, Kept] = {}

    def opened(self) -> Repository:
        return Repository.open(self.root, max_idle=2, clock=lambda: self.now)

    def teardown(self) -> None:
        self.repository.close()
        shutil.rmtree(self.root)

    def real(self, number: int) -> Timeline:
        return self.repository.kept(DEFAULT_TENANT, timeline_id(number))

    def pick(self, choice: int) -> tuple[int, Kept, Timeline]:
        visible = [number for number, model in self.model.items() if not model.hidden]
        number = visible[choice % len(visible)]
        return number, self.model[number], self.real(number)

    def owner(self, model: Kept, lsn: int) -> Kept:
        while lsn < model.branch_lsn and model.parent is not None:
            assert isinstance(model.parent, Kept)
            model = model.parent
        return model

    def is_kept(self, model: Kept, lsn: int) -> bool:
        owner = self.owner(model, lsn)
        if lsn == owner.branch_lsn and owner.parent is not None:
            return True
        children = [m.branch_lsn for m in self.model.values() if m.parent is owner]
        return lsn >= owner.branch_lsn and owner.reads(lsn, children, self.now)

    @initialize(first=words, then=words, last=words, back=st.integers(0, 5))
    def begin(self, first: list, then: list, last: list, back: int) -> None:
        """What every story has: a past, a branch of it, a checkpoint, passes of images between."""
        self.make_root()
        self.append(0, first)
        self.compact(0, 9, "settle", 0, 3)
        self.branch(0, back)
        self.append(0, then)
        self.tell(0, {back})
        self.compact(0, back // 2, "settle", 0, 3)
        self.append(0, last)
        self.append(1, last)
        self.compact(0, 1, "reaching", 0, 1)
        self.compact(0, 0, "replace", 0, 1)

    def make_root(self) -> None:
        blocks = [(block(n), ROOT_LSN, ValueKind.IMAGE, 0, bytes(PAGE_SIZE)) for n in range(2)]
        entries = [image(SIZE, ROOT_LSN, (2).to_bytes(4, "little")), *blocks]
        make_root(self.repository, 1, entries)
        self.model[1] = Kept(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
        self.model[1].own.put(entries)

    @rule(
        choice=st.integers(0, 9),
        items=words,
        then=st.sampled_from(["", "point", "compact", "collect"]),
    )
    def write(self, choice: int, items: list[tuple[keyspace.Key, int, bool]], then: str) -> None:
        """Values, and files: most have one or two values."""
        self.append(choice, items)
        if then == "point":
            self.tell(choice, {len(items) // 2, 2 * len(items)})
        elif then == "compact":
            self.compact(choice, len(items) // 2, "settle", 0, 2)
        elif then == "collect":
            self.collect(choice, 1)

    def append(self, choice: int, items: list[tuple[keyspace.Key, int, bool]]) -> None:
        _, model, timeline = self.pick(choice)
        if timeline.ancestor_behind() is not None or model.horizon == NOTHING:
            return
        for key, word, flush in items:
            model.last += 1
            length = length_of(model.view(model.last), model.last)
            entries = values_of(key, model.last, word, length)
            put(timeline, entries, model.last)
            model.own.put(entries)
            if flush:
                timeline.freeze()
                timeline.flush()
                model.durable = model.last

    @rule(choice=st.integers(0, 9), back=st.integers(0, 12))
    def branch(self, choice: int, back: int) -> None:
        number, model, timeline = self.pick(choice)
        lsn, child = model.last - back, max(self.model) + 1
        arguments = DEFAULT_TENANT, timeline_id(number), timeline_id(child), lsn
        self.repository.retention.retained(timeline.owner(lsn))
        if lsn < ROOT_LSN or not self.is_kept(model, lsn):
            with pytest.raises(OutOfRange, match="older"):
                self.repository.branch(*arguments)
            return
        self.repository.branch(*arguments)
        self.model[child] = Kept(self.owner(model, lsn), lsn, lsn, lsn)

    @rule(choice=st.integers(1, 9))
    def delete(self, choice: int) -> None:
        number, model, _ = self.pick(choice)
        if number == 1:
            return
        try:
            self.repository.delete(DEFAULT_TENANT, timeline_id(number))
        except Unavailable:
            return
        model.hidden, model.horizon, model.durable = True, NOTHING, model.last
        model.leases.clear()
        self.forget_leaves()

    def forget_leaves(self) -> None:
        while gone := [n for n, m in self.model.items() if m.hidden and self.is_leaf(m)]:
            for name in gone:
                del self.model[name]

    @rule(choice=st.integers(1, 9))
    def detach(self, choice: int) -> None:
        _, model, timeline = self.pick(choice)
        if timeline.ancestor_behind() is not None or model.parent is None:
            return
        detach(self.repository, timeline, None, threading.Event())
        before = model.view(model.branch_lsn).alive(model.branch_lsn)
        length = length_of(model.view(model.branch_lsn), model.branch_lsn)
        flat = History()
        for key, value in before:
            if key[0] == keyspace.Kind.REL_BLOCK:
                if keyspace.Key.unpack(key).block >= length:
                    continue
                value = page_of(model.view(model.branch_lsn), key, model.branch_lsn)
            flat.put([(key, model.branch_lsn, ValueKind.IMAGE, 0, value)])
        for key, values in model.own.values.items():
            flat.values.setdefault(key, []).extend(values)
        model.own, model.parent = flat, None
        self.forget_leaves()

    def is_leaf(self, model: Kept) -> bool:
        return all(other.parent is not model for other in self.model.values())

    @rule(choice=st.integers(0, 9), backs=st.sets(st.integers(0, 12), max_size=3))
    def tell(self, choice: int, backs: set[int]) -> None:
        _, model, timeline = self.pick(choice)
        points = {model.last - back for back in backs if model.last - back > model.branch_lsn}
        self.repository.retention.retained(timeline)
        lost = {point for point in points if not self.is_kept(model, point)}
        told = self.repository.retention.tell(timeline, Window(5, 6), points)
        assert set(told) == lost
        model.points = points - lost

    @rule(choice=st.integers(1, 9))
    def nobody_names_it(self, choice: int) -> None:
        number, model, timeline = self.pick(choice)
        if number == 1:
            return
        try:
            self.repository.retention.tell(timeline, None, [], named=False)
        except Unavailable:
            return
        model.horizon, model.durable, model.points = NOTHING, model.last, set()

    @rule(choice=st.integers(0, 9), back=st.integers(0, 12), seconds=st.integers(1, 60))
    def lease(self, choice: int, back: int, seconds: int) -> None:
        _, model, timeline = self.pick(choice)
        lsn = max(model.last - back, model.branch_lsn + 1)
        if lsn > model.last:
            return
        self.repository.retention.retained(timeline)
        if not self.is_kept(model, lsn):
            with pytest.raises(OutOfRange, match="older"):
                self.repository.retention.take_lease(timeline, lsn, seconds)
            return
        end = self.repository.retention.take_lease(timeline, lsn, seconds)
        model.leases[lsn] = end

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(choice=st.integers(0, 9), back=st.integers(0, 6))
    def collect(self, choice: int, back: int) -> None:
        """Or merely moves a cutoff, where somebody is at work on files."""
        self.move(choice, back)
        self.drop()

    @rule(
        choice=st.integers(0, 9),
        back=st.integers(0, 6),
        how=st.sampled_from(
            ["settle", "settle", "merge", "images", "reaching", "replace", "replace"]
        ),
        then=st.integers(0, 3),
        rounds=st.integers(1, 2),
    )
    def compact(self, choice: int, back: int, how: str, then: int, rounds: int) -> None:
        """All of them; `then` with a cutoff that moves, and a collection, while it is at work."""
        self.move(choice, back)
        for number in list(self.model) * rounds:
            timeline = self.real(number)
            if timeline.ancestor_behind() is not None:
                continue
            kept = self.repository.retention.retained(timeline)
            for job in self.jobs(timeline, kept, how):
                self.move(choice, then)
                self.do(timeline, job, kept, collecting=then > 1)

    def jobs(self, timeline: Timeline, kept: Retained, how: str) -> list[policy.Job]:
        files = Depths().figures(timeline, kept)
        deltas = sorted((f for f in files if f.kind == LayerKind.DELTA), key=lambda f: f.last_lsn)
        numbers = tuple(file.number for file in deltas)
        if how == "merge" and deltas:
            return [Merge(numbers[len(numbers) // 3 :], 1, 0)]
        if how in ("images", "reaching") and deltas:
            reach = len(list(steps(timeline))) if how == "reaching" else 0
            return [Images(numbers, Lsn(deltas[-1].last_lsn), LEAST_KEY, 0, reach=reach)]
        if how == "replace":
            return [
                Images(tuple(f.number for f in group), lsn, LEAST_KEY, 0, replaces=True)
                for lsn, group in policy.superseded(files, kept)[-1:]
            ]
        return [job] if (job := next_job(files, GREEDY, at_rest=True, kept=kept)) else []

    def do(self, timeline: Timeline, job: policy.Job, kept: Retained, *, collecting: bool) -> None:
        bounds = GREEDY if isinstance(job, Images) else replace(GREEDY, file_bytes=2000)
        begun: Callable[[Any], None] = (
            (lambda work: self.drop()) if collecting else lambda work: None
        )
        try:
            done = rewrite(timeline, job, None, bounds, begun, kept=kept)
        except PagestoreError as error:
            if error.reason != "UNKNOWN_LAYER":  # it was collected meanwhile
                raise
            return
        kind = "replaced" if isinstance(job, Images) and job.replaces else type(job).__name__
        self.counted[kind] += 1
        self.counted["reaching"] += isinstance(job, Images) and job.reach > 0
        self.counted["dead in " + kind] += done.dead

    def move(self, choice: int, back: int) -> None:
        _, model, timeline = self.pick(choice)
        lsn = model.durable - back
        if model.branch_lsn < lsn and model.horizon < lsn:
            self.repository.retention.move(timeline, Horizon(Lsn(lsn)))
            model.horizon = lsn

    def drop(self) -> None:
        for number in self.model:
            timeline = self.real(number)
            kept = self.repository.retention.retained(timeline)
            if kept.cutoff != ALL and timeline.ancestor_behind() is None:
                self.counted["dropped"] += len(drop_unneeded(timeline, kept))

    @rule()
    def crash(self) -> None:
        self.repository.close()
        self.repository = self.opened()
        for model in self.model.values():
            model.crash(model.durable)

    @invariant()
    def reads_agree(self) -> None:
        for number, model in self.model.items():
            timeline = self.real(number)
            if timeline.ancestor_behind() is not None:
                continue
            self.repository.retention.retained(timeline)
            for lsn in range(max(ROOT_LSN, model.branch_lsn - 2), model.last + 1):
                assert self.repository.retention.reads(timeline, lsn) == self.is_kept(model, lsn)
                if self.is_kept(model, lsn):
                    self.check(timeline, model, lsn)

    def check(self, timeline: Timeline, model: Kept, lsn: int) -> None:
        snapshot, view = timeline.snapshot(), model.view(lsn)
        alive = dict(view.alive(lsn))
        for key in view.values:
            if key[0] not in (keyspace.Kind.REL_BLOCK, keyspace.Kind.COMMIT_TIME):
                assert snapshot.get(key, lsn) == alive.get(key)
        blocks = [block(number) for number in range(length_of(view, lsn))]
        pages = snapshot.read_pages(b"".join(blocks), lsn, None)
        assert pages == b"".join(page_of(view, key, lsn) for key in blocks)
        times = [key for key in alive if key[0] == keyspace.Kind.COMMIT_TIME]
        last = snapshot.last_before(*TIMES, lsn)
        assert (None if last is None else bytes(last[0])) == max(times, default=None)


TestRetention = RetentionMachine.TestCase
TestRetention.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)

_some = partial(some, steps=25)


def _other_boundaries(
    patch: pytest.MonkeyPatch, wrong: Callable[[tuple[int, ...]], tuple[int, ...]]
) -> None:
    """Whoever rewrites goes by other LSNs than those that are kept."""
    real = rewriting.Compaction

    def work(*args: Any, boundaries: tuple[int, ...], **more: Any) -> Any:
        return real(*args, boundaries=wrong(boundaries), **more)

    patch.setattr(rewriting, "Compaction", work)


def point_ignored(patch: pytest.MonkeyPatch) -> None:
    _other_boundaries(patch, lambda boundaries: boundaries[-1:])


def boundary_one_too_high(patch: pytest.MonkeyPatch) -> None:
    _other_boundaries(patch, lambda boundaries: tuple(lsn + 1 for lsn in boundaries))


def boundary_one_too_low(patch: pytest.MonkeyPatch) -> None:
    """Of points: that of a cutoff would only keep more."""
    _other_boundaries(patch, lambda lsns: (*(lsn - 1 for lsn in lsns[:-1]), *lsns[-1:]))


def childs_branch_lsn_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = Retention._read

    def read(self: Retention, timeline: Timeline) -> Retained:
        kept = real(self, timeline)
        children = {
            at for _, at in self._catalog.children(timeline.tenant_id, timeline.timeline_id)
        }
        return Retained.of(kept.cutoff, [at for at in kept.points if at not in children])

    patch.setattr(Retention, "_read", read)


def kept_lsn_between_two_passes_ignored(patch: pytest.MonkeyPatch) -> None:
    """Images of several passes become one whoever reads between them."""
    real = policy.superseded

    def superseded(files: Any, kept: Retained) -> Any:
        return real(files, Retained(kept.cutoff))

    patch.setattr(policy, "superseded", superseded)


def tombstone_with_something_below(patch: pytest.MonkeyPatch) -> None:
    """What is not among the inputs is taken for nothing."""
    real = rewriting.Compaction

    def work(layers: list, snapshot: Snapshot, *args: Any, **more: Any) -> Any:
        return real(layers, snapshot if "image_lsn" in more else Snapshot(layers), *args, **more)

    patch.setattr(rewriting, "Compaction", work)


@pytest.mark.parametrize(
    "bug",
    [
        point_ignored,
        boundary_one_too_high,
        boundary_one_too_low,
        childs_branch_lsn_forgotten,
        kept_lsn_between_two_passes_ignored,
        tombstone_with_something_below,
    ],
)
def test_planted_bugs_are_found(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, PagestoreError, NativeError)):
        run_state_machine_as_test(RetentionMachine, settings=_some(1000))


def test_the_machine_leaves_out_what_is_dead_in_each_way() -> None:
    """Else it would say nothing of it."""
    counted: Counter[str] = Counter()

    class Counting(RetentionMachine):
        def teardown(self) -> None:
            counted.update(self.counted)
            super().teardown()

    run_state_machine_as_test(Counting, settings=_some(30))
    assert counted["dropped"] > 20
    assert counted["dead in Merge"] > 20
    assert counted["replaced"] > 5
    assert counted["dead in replaced"] > 5
    assert counted["reaching"] > 2
