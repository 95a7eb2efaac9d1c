"""Retention against dicts: written, branched, told, leased, merged, collected, reopened.

At every LSN that is kept every value is what it always was; anywhere else a read is refused. The
model keeps all values for ever, and knows only which LSNs are kept.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pagestore import keyspace
from pagestore._native import OpenLayer
from pagestore.errors import OutOfRange, Unavailable
from pagestore.ids import DEFAULT_TENANT, Lsn
from pagestore.keyspace import ValueKind
from pagestore.layers.files import layer_name
from pagestore.layers.native import LayerKind
from pagestore.maintenance.collecting import drop_unneeded
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import Horizon, LayerEntry
from pagestore.timeline.horizons import Window
from pagestore.timeline.retained import ALL, NOTHING, Retained
from tests.unit.layers.model import Entry, batch_of, ends_chain
from tests.unit.timeline.model import ROOT_LSN, ModelTimeline, image, make_root, put, timeline_id

PATCH = bytes([0, 0, 1, 0, 255, 7])
SIZE = keyspace.rel_size(1, 2, 3, 0)
keys = st.one_of(
    st.builds(keyspace.rel_block, *map(st.just, (1, 2, 3, 0)), st.integers(1, 2)),
    st.builds(keyspace.database, st.just(1), st.just(1)),
)
words = st.lists(st.tuples(keys, st.integers(0, 4), st.booleans()), min_size=3, max_size=8)


def value_of(key: keyspace.Key, lsn: int, choice: int) -> Entry:
    if key.kind == keyspace.Kind.REL_BLOCK:
        if choice < 2:
            return key.pack(), lsn, ValueKind.PATCH, 0, PATCH
        return key.pack(), lsn, ValueKind.IMAGE, 0, lsn.to_bytes(8, "little") * 1024
    if choice == 0:
        return key.pack(), lsn, ValueKind.TOMBSTONE, 0, b""
    return key.pack(), lsn, ValueKind.IMAGE, 0, b"%04d" % lsn


@dataclass
class Kept(ModelTimeline):
    horizon: int = ALL
    points: set[int] = field(default_factory=set)
    leases: dict[int, float] = field(default_factory=dict)

    def reads(self, lsn: int, children: list[int], now: float) -> bool:
        """Of its own history."""
        leased = [at for at, end in self.leases.items() if end >= now]
        return lsn >= self.horizon or lsn in {*children, *self.points, *leased}


def merge(timeline: Timeline, model: Kept, kept: Retained) -> None:
    """One delta layer in the place of all of a timeline's, without what is dead."""
    store, number = timeline._store, timeline.reserve_number()
    listed = store.catalog.layers(timeline.tenant_id, timeline.timeline_id)
    deltas = [n for n, entry in listed if entry.summary.kind == LayerKind.DELTA]
    values = []
    for key, history in model.own.upto(timeline.disk_consistent_lsn).values.items():
        chain = [value for value in reversed(history) if value[0] > model.branch_lsn]
        dead = kept.dead([(lsn, ends_chain(kind, flags)) for lsn, kind, flags, _ in chain])
        values += [(key, *value) for value, is_dead in zip(chain, dead, strict=True) if not is_dead]
    if not deltas or not values:
        return
    merged = OpenLayer()
    merged.put(batch_of(sorted(values, key=lambda value: value[1])))
    merged.freeze()
    tenant, name = timeline.tenant_id.raw, timeline.timeline_id.raw
    summary = store.files.install(
        timeline.directory / layer_name(number, LayerKind.DELTA),
        lambda work: merged.flush(work, tenant, name, number),
    )
    timeline.replace_layers(deltas, [(number, LayerEntry.fresh(summary, level=1))])


class RetentionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="pagestore-retention-"))
        self.now = 1000.0
        self.dropped = 0
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

    @initialize()
    def make_root(self) -> None:
        entries = [image(SIZE, ROOT_LSN, (2).to_bytes(4, "little"))]
        make_root(self.repository, 1, entries)
        self.model[1] = Kept(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
        self.model[1].own.put(entries)

    @rule(choice=st.integers(0, 9), items=words)
    def append(self, choice: int, items: list[tuple[keyspace.Key, int, bool]]) -> None:
        """Values, and files: most have one or two values."""
        _, model, timeline = self.pick(choice)
        if timeline.ancestor_behind() is not None or model.horizon == NOTHING:
            return
        for key, word, flush in items:
            model.last += 1
            entries = [value_of(key, model.last, word)]
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
        while gone := [n for n, m in self.model.items() if m.hidden and self.is_leaf(m)]:
            for name in gone:
                del self.model[name]

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

    @rule(choice=st.integers(0, 9), back=st.integers(0, 6), merged=st.booleans())
    def collect(self, choice: int, back: int, merged: bool) -> None:
        _, model, timeline = self.pick(choice)
        lsn = model.durable - back
        if model.branch_lsn < lsn and model.horizon < lsn:
            self.repository.retention.move(timeline, Horizon(Lsn(lsn)))
            model.horizon = lsn
        for number, model in self.model.items():
            timeline = self.real(number)
            kept = self.repository.retention.retained(timeline)
            if merged:
                merge(timeline, model, kept)
            if kept.cutoff != ALL and timeline.ancestor_behind() is None:
                self.dropped += len(drop_unneeded(timeline, kept))

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
        for key in view.values:
            blocks = view.chain(SIZE.pack(), lsn)[0][3]
            block = keyspace.Key.unpack(key)
            if block.kind == keyspace.Kind.REL_BLOCK and block.block >= blocks[0]:
                continue
            read, known = snapshot.chain(key, lsn), view.chain(key, lsn)
            if known and known[0][1] == ValueKind.TOMBSTONE:
                known = read if not read else known
            assert read == known


TestRetention = RetentionMachine.TestCase
TestRetention.settings = settings(max_examples=60, stateful_step_count=25)
