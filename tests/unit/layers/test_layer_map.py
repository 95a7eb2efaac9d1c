"""Random layers with bounds, branches, flushes, images and compactions, against dicts.

Keys are read at LSNs of all kinds, of every branch: what they hold, and by which values. Snapshots
are made from each other as timelines make them, and those that were made before something changed
go on to answer as they did.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pagestore import _native, keyspace
from pagestore.keyspace import PAGE_SIZE, ValueKind
from pagestore.layers.native import LayerKind

from .model import TENANT, TIMELINE, Entry, batch_of, page

BLOCKS = [keyspace.rel_block(1663, 5, 1, 0, block).pack() for block in range(5)]
SIZES = [keyspace.rel_size(1663, 5, rel, 0).pack() for rel in range(3)]
KEYS = sorted([*BLOCKS, *SIZES])
META = SIZES[0], keyspace.rel_size(1663, 5, 99, 0).pack()
FIRST_LSN = 100


class Folder:
    """Numbers are given out at random, for they mean nothing."""

    def __init__(self, rng: random.Random) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="layer-map-"))
        self._numbers = list(range(1, 5000))
        rng.shuffle(self._numbers)

    def layer(self, kind: int, entries: list[Entry]) -> _native.Layer:
        number = self._numbers.pop()
        writer = _native.LayerWriter(self.path / str(number), TENANT, TIMELINE, number, kind)
        batch = batch_of(sorted(entries, key=lambda entry: (entry[0], -entry[1])))
        assert writer.put(batch) == len(batch)
        return _native.Layer(self.path / str(number), TENANT, TIMELINE, number, writer.finish())


@dataclass
class Branch:
    """`contents` is the model: what each key holds from an LSN on; None if it does not exist."""

    parent: Branch | None
    branch_lsn: int
    lsn: int
    contents: dict[bytes, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    whole: set[tuple[bytes, int]] = field(default_factory=set)  # where a chain may begin
    files: _native.Snapshot = field(default_factory=_native.Snapshot)
    deltas: list[tuple[_native.Layer, list[Entry]]] = field(default_factory=list)
    memory: _native.OpenLayer = field(default_factory=_native.OpenLayer)
    in_memory: list[Entry] = field(default_factory=list)

    def snapshot(self) -> _native.Snapshot:
        own = self.files.replace((), [self.memory])
        return own if self.parent is None else own.over(self.parent.snapshot(), self.branch_lsn)

    def content(self, key: bytes, lsn: int) -> bytes | None:
        for at, content in reversed(self.contents.get(key, [])):
            if at <= lsn:
                return content
        return self.parent.content(key, min(lsn, self.branch_lsn)) if self.parent else None

    def chain(self, key: bytes, lsn: int) -> list[int]:
        """The LSNs of the values that a read needs."""
        here = {at for at, _ in self.contents.get(key, [])} | {
            at for k, at in self.whole if k == key
        }
        found = []
        for at in sorted(here, reverse=True):
            if at <= lsn:
                found.append(at)
                if (key, at) in self.whole:
                    return found
        return found + (self.parent.chain(key, min(lsn, self.branch_lsn)) if self.parent else [])

    def put(self, key: bytes, choice: int, advance: int) -> None:
        self.lsn += advance
        before = self.content(key, self.lsn)
        entry, after = value_of(key, self.lsn, choice, before)
        self.contents.setdefault(key, []).append((self.lsn, after))
        if entry[2] != ValueKind.PATCH:
            self.whole.add((key, self.lsn))
        self.memory.put(batch_of([entry]))
        self.in_memory.append(entry)

    def flush(self, folder: Folder) -> None:
        """What was in memory is a file, in one step."""
        if self.in_memory:
            layer = folder.layer(LayerKind.DELTA, self.in_memory)
            self.files = self.files.replace((self.memory,), (layer,))
            self.deltas.append((layer, self.in_memory))
            self.memory, self.in_memory = _native.OpenLayer(), []


def value_of(key: bytes, lsn: int, choice: int, before: bytes | None) -> tuple[Entry, bytes | None]:
    if key in SIZES:
        if choice == 0:
            return (key, lsn, ValueKind.TOMBSTONE, 0, b""), None
        size = lsn.to_bytes(4, "little")
        return (key, lsn, ValueKind.IMAGE, 0, size), size
    if choice == 0 or before is None:
        return (key, lsn, ValueKind.ZERO, 0, b""), bytes(PAGE_SIZE)
    if choice == 1:
        return (key, lsn, ValueKind.IMAGE, 0, page(lsn % 256)), page(lsn % 256)
    at, value = lsn % 64, lsn % 255 + 1
    patch = at.to_bytes(2, "little") + b"\x02\x00\xff" + bytes([value])
    after = before[:at] + bytes([value]) * 2 + before[at + 2 :]
    return (key, lsn, ValueKind.PATCH, 0, patch), after


Expected = dict[tuple[bytes, int], tuple[bytes | None, list[int]]]


def check(snapshot: _native.Snapshot, answers: Expected) -> None:
    expected = {place: content for place, (content, _) in answers.items()}
    for (key, lsn), (_, chain) in answers.items():
        assert [value[0] for value in snapshot.chain(key, lsn)] == chain
    for lsn in sorted({lsn for _, lsn in expected}):
        sizes = [(key, expected[key, lsn]) for key in SIZES if expected[key, lsn] is not None]
        assert snapshot.scan(*META, lsn) == sizes
        assert snapshot.last_before(*META, lsn) == (sizes[-1] if sizes else None)
        assert [snapshot.get(key, lsn) for key in SIZES] == [expected[key, lsn] for key in SIZES]
        there = [key for key in BLOCKS if expected[key, lsn] is not None]
        pages = snapshot.read_pages(b"".join(reversed(there)), lsn)
        assert pages == b"".join(expected[key, lsn] or b"" for key in reversed(there))


branches = st.integers(0, 1000)
keys = st.sampled_from(KEYS)
choices = st.integers(0, 3)


class LayerMap(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = Folder(self.rng)
        self.branches = [Branch(None, FIRST_LSN, FIRST_LSN)]
        self.kept: list[Callable[[], None]] = []

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for recheck in self.kept:
                recheck()
            shutil.rmtree(self.folder.path)

    def branch_at(self, index: int) -> Branch:
        return self.branches[index % len(self.branches)]

    def expected(self, branch: Branch) -> Expected:
        lsns = {branch.lsn, branch.branch_lsn, branch.branch_lsn - 1, FIRST_LSN - 1}
        lsns |= set(self.rng.sample(range(FIRST_LSN, branch.lsn + 1), min(8, branch.lsn - 99)))
        return {
            (key, lsn): (branch.content(key, lsn), branch.chain(key, lsn))
            for key in KEYS
            for lsn in lsns
        }

    @rule(at=branches, key=keys, choice=choices, advance=st.integers(1, 3))
    def put(self, at: int, key: bytes, choice: int, advance: int) -> None:
        self.branch_at(at).put(key, choice, advance)

    @rule(at=branches)
    def flush(self, at: int) -> None:
        self.branch_at(at).flush(self.folder)

    @rule(at=branches, count=st.sampled_from([2, 5, 20, 45]))
    def flush_often(self, at: int, count: int) -> None:
        """So many files that they have a table."""
        branch = self.branch_at(at)
        for _ in range(count):
            for _ in range(self.rng.randint(1, 3)):
                branch.put(self.rng.choice(KEYS), self.rng.randint(0, 3), 1)
            branch.flush(self.folder)

    @rule(at=branches, chosen=st.sets(keys, min_size=1), back=st.integers(0, 30))
    def make_image(self, at: int, chosen: set[bytes], back: int) -> None:
        """Of some keys at some LSN of the branch, though deltas of its own span it."""
        branch = self.branch_at(at)
        lsn = max(branch.lsn - back, branch.branch_lsn)
        found = {key: branch.content(key, lsn) for key in chosen}
        values = [(key, lsn, ValueKind.IMAGE, 0, v) for key, v in found.items() if v is not None]
        if values:
            branch.files = branch.files.replace((), [self.folder.layer(LayerKind.IMAGE, values)])
            branch.whole |= {(key, lsn) for key, *_ in values}

    @rule(at=branches, cut=keys)
    def compact(self, at: int, cut: bytes) -> None:
        """All deltas become two, that share their LSNs and have a range of keys each."""
        branch = self.branch_at(at)
        entries = [entry for _, held in branch.deltas for entry in held]
        halves = [[e for e in entries if e[0] < cut], [e for e in entries if e[0] >= cut]]
        made = [(self.folder.layer(LayerKind.DELTA, half), half) for half in halves if half]
        self.rng.shuffle(made)
        branch.files = branch.files.replace(
            [layer for layer, _ in branch.deltas], [layer for layer, _ in made]
        )
        branch.deltas = made

    @rule(at=branches, back=st.integers(0, 20), files=st.integers(0, 2))
    def branch(self, at: int, back: int, files: int) -> None:
        parent = self.branch_at(at)
        lsn = max(parent.lsn - back, parent.branch_lsn)
        self.branches.append(Branch(parent, lsn, lsn))
        for _ in range(files):
            self.branches[-1].put(self.rng.choice(KEYS), 3, 1)
            self.branches[-1].flush(self.folder)

    @rule(at=branches)
    def keep_a_snapshot(self, at: int) -> None:
        branch = self.branch_at(at)
        snapshot, expected = branch.snapshot(), self.expected(branch)
        self.kept.append(lambda: check(snapshot, expected))

    @invariant()
    def every_branch_reads_as_the_model_says(self) -> None:
        for branch in self.rng.sample(self.branches, min(3, len(self.branches))):
            check(branch.snapshot(), self.expected(branch))


LayerMap.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestLayerMap = LayerMap.TestCase
