"""Timelines against dicts: written, branched, flushed, compacted, deleted, reopened, in any order.

A reopen is what a crash is: everything that was not flushed is gone, and the timeline stands
at its last durable position, from which ingest would begin again.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagestore import keyspace
from pagestore.errors import NotFound, OutOfRange, Unavailable
from pagestore.ids import DEFAULT_TENANT
from pagestore.keyspace import ValueKind
from pagestore.timeline import Repository, Timeline

from .model import ROOT_LSN, ModelTimeline, check, compact, image, make_root, put, timeline_id

keys = st.builds(keyspace.rel_size, st.just(1), st.just(2), st.integers(1, 4), st.just(0))
values = st.one_of(
    st.tuples(st.just(ValueKind.IMAGE), st.binary(min_size=4, max_size=4)),
    st.tuples(st.just(ValueKind.TOMBSTONE), st.just(b"")),
)


class RepositoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="pagestore-machine-"))
        self.repository = Repository.open(self.root, max_idle=2)
        self.model: dict[int, ModelTimeline] = {}
        self.next = 1

    def teardown(self) -> None:
        self.repository.close()
        shutil.rmtree(self.root)

    def real(self, number: int) -> Timeline:
        return self.repository.get(DEFAULT_TENANT, timeline_id(number))

    def visible(self) -> list[int]:
        return [number for number, model in self.model.items() if not model.hidden]

    def pick(self, choice: int) -> int:
        visible = self.visible()
        return visible[choice % len(visible)]

    @initialize()
    def make_roots(self) -> None:
        self.import_root()

    @rule()
    def import_root(self) -> None:
        number, self.next = self.next, self.next + 1
        entries = [image(keyspace.rel_size(1, 2, 1, 0), ROOT_LSN, b"root")]
        make_root(self.repository, number, entries)
        model = ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
        model.own.put(entries)
        self.model[number] = model

    @precondition(visible)
    @rule(choice=st.integers(0, 99), items=st.lists(st.tuples(keys, values), max_size=4))
    def append(self, choice: int, items: list) -> None:
        number = self.pick(choice)
        model, timeline = self.model[number], self.real(number)
        if timeline.ancestor_behind() is not None:
            return
        last = model.last + 10
        entries = [
            (key.pack(), model.last + 1 + i, kind, 0, value)
            for i, (key, (kind, value)) in enumerate(items)
        ]
        put(timeline, entries, last)
        model.own.put(entries)
        model.last = last

    @precondition(visible)
    @rule(choice=st.integers(0, 99), freeze_only=st.booleans())
    def flush(self, choice: int, freeze_only: bool) -> None:
        number = self.pick(choice)
        model, timeline = self.model[number], self.real(number)
        timeline.freeze()
        if not freeze_only:
            timeline.flush()
            model.durable = model.last
        assert timeline.disk_consistent_lsn == model.durable

    @precondition(visible)
    @rule(choice=st.integers(0, 99))
    def compact(self, choice: int) -> None:
        number = self.pick(choice)
        compact(self.real(number), self.model[number])

    @precondition(visible)
    @rule(choice=st.integers(0, 99), back=st.integers(0, 30))
    def branch(self, choice: int, back: int) -> None:
        parent = self.pick(choice)
        model = self.model[parent]
        lsn = model.last - back
        number, self.next = self.next, self.next + 1
        arguments = DEFAULT_TENANT, timeline_id(parent), timeline_id(number), lsn
        while lsn < model.branch_lsn and model.parent is not None:
            model = model.parent  # whose history that is
        # After a crash it may be behind what was branched from it.
        if lsn < ROOT_LSN or lsn > model.last:
            with pytest.raises(OutOfRange):
                self.repository.branch(*arguments)
            return
        child = self.repository.branch(*arguments)
        assert self.repository.branch(*arguments) is child
        self.model[number] = ModelTimeline(model, lsn, lsn, lsn)

    @precondition(visible)
    @rule(choice=st.integers(0, 99))
    def delete(self, choice: int) -> None:
        number = self.pick(choice)
        model = self.model[number]
        children = [m for m in self.model.values() if m.parent is model]
        needed = max((child.branch_lsn for child in children), default=0)
        if model.last < needed:
            with pytest.raises(Unavailable, match="caught up"):
                self.repository.delete(DEFAULT_TENANT, timeline_id(number))
            return
        self.repository.delete(DEFAULT_TENANT, timeline_id(number))
        model.hidden = True
        model.durable = model.last  # of what children read, at least
        self.forget_childless()
        with pytest.raises(NotFound):
            self.real(number)

    def forget_childless(self) -> None:
        while True:
            parents = [model.parent for model in self.model.values()]
            gone = [n for n, m in self.model.items() if m.hidden and m not in parents]
            if not gone:
                return
            for number in gone:
                del self.model[number]

    @rule()
    def crash(self) -> None:
        self.repository.close()
        self.repository = Repository.open(self.root, max_idle=2)
        for number, model in self.model.items():
            if not model.hidden:
                model.crash(model.durable)
                assert self.real(number).last_record_lsn == model.durable

    @invariant()
    def reads_agree(self) -> None:
        summaries = {s.timeline_id: s for s in self.repository.list(DEFAULT_TENANT)}
        assert set(summaries) == {timeline_id(number) for number in self.visible()}
        for number in self.visible():
            model, timeline = self.model[number], self.real(number)
            assert timeline.last_record_lsn == model.last
            assert summaries[timeline.timeline_id].last_record_lsn == model.last
            if timeline.ancestor_behind() is not None:
                with pytest.raises(Unavailable):
                    timeline.snapshot()
                continue
            for lsn in (model.last, model.branch_lsn, model.last - 5):
                if lsn >= ROOT_LSN:
                    check(timeline.snapshot(), model, lsn)

    @invariant()
    def only_what_is_named_is_on_disk(self) -> None:
        directories = {path.name for path in self.root.glob("*/*") if path.is_dir()}
        assert directories <= {str(timeline_id(number)) for number in self.model}


TestRepository = RepositoryMachine.TestCase
TestRepository.settings = settings(max_examples=40, stateful_step_count=25)
