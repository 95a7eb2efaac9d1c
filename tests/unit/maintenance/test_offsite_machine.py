"""Timelines that are written, branched, compacted, deleted, put into an object store, evicted, and
made anew from it, in any order, against dicts; and whether that finds planted bugs.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

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

from pagestore._native import NativeError
from pagestore.errors import FailedPrecondition, NotFound, PagestoreError
from pagestore.ids import DEFAULT_TENANT
from pagestore.maintenance.backlog import Backlog
from pagestore.maintenance.offsite import Offsite
from pagestore.objects.claims import Claim
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.elsewhere import Elsewhere
from pagestore.timeline.entries import LAYER, LayerEntry, Place
from tests.unit.maintenance.offsite import evict_all, recover, settle, upload_all
from tests.unit.maintenance.store import beginning, changes, check
from tests.unit.maintenance.store import settle as compact_really
from tests.unit.maintenance.stories import some
from tests.unit.objects.faulty import faulty
from tests.unit.timeline.model import ROOT_LSN, ModelTimeline, compact, make_root, put, timeline_id

STEP = 4


turns = st.tuples(
    st.integers(0, 9),
    st.lists(st.lists(changes, min_size=2, max_size=5), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["nothing", "layers", "journal", "all", "all"]),
    st.booleans(),
)
"""Of which timeline, what is written, whether merged, what is kept, whether all is evicted."""


class OffsiteMachine(RuleBasedStateMachine):
    """Timeline 1 is a root; others branch from what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="pagestore-offsite-"))
        self.objects, self.backend, _ = faulty()
        self.machines = 0
        self.deleted = self.fetches = 0  # of those that were closed
        self.stalled: list[tuple[Repository, Offsite]] = []
        self.model: dict[int, ModelTimeline] = {}
        self.open(self.fresh())

    def fresh(self) -> Path:
        self.machines += 1
        return self.root / str(self.machines)

    def open(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.repository = Repository.open(directory / "store", max_idle=2, objects=self.objects)
        self.offsite = Offsite(self.repository, directory)
        self.offsite.start()

    def close(self) -> None:
        self.deleted += self.offsite.totals.deleted
        assert self.repository.store.elsewhere is not None
        self.fetches += self.repository.store.elsewhere.remote.stats()["fetches"]
        self.repository.close()

    def teardown(self) -> None:
        self.close()
        for repository, _ in self.stalled:
            repository.close()
        shutil.rmtree(self.root)

    @initialize()
    def begin(self) -> None:
        make_root(self.repository, 1, beginning())
        self.model[1] = ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
        self.model[1].own.put(beginning())
        settle(self.offsite)

    def pick(self, choice: int) -> tuple[Timeline, ModelTimeline]:
        numbers = list(self.model)
        number = numbers[choice % len(numbers)]
        return self.repository.get(DEFAULT_TENANT, timeline_id(number)), self.model[number]

    @rule(
        turns=st.lists(turns, min_size=1, max_size=4),
        then=st.sampled_from(["go on", "crash", "recover", "recover", "stall"]),
    )
    def write(self, turns: list, then: str) -> None:
        """Files of timelines, perhaps merged, and a part of what there is to do with them."""
        for choice, batches, compacted, kept, evicted in turns:
            timeline, model = self.pick(choice)
            if timeline.ancestor_behind() is not None:
                continue
            for items in batches:
                self.put(timeline, model, items)
            if compacted:
                compact(timeline, model)
            self.keep(kept)
            if evicted:
                evict_all(self.repository, self.offsite)
            self.every_page_at_every_lsn()
        if then == "crash":
            self.crash()
        elif then != "go on":
            self.recover(stalled=then == "stall")

    def put(self, timeline: Timeline, model: ModelTimeline, items: list) -> None:
        entries = [
            (key, model.last + 1 + i // 2, kind, 0, payload)
            for i, (key, (kind, payload)) in enumerate(items)
        ]
        last = entries[-1][1] + STEP
        put(timeline, entries, last)
        model.own.put(entries)
        model.last = last
        timeline.freeze()
        timeline.flush()
        model.durable = model.last

    def keep(self, what: str) -> None:
        if what == "all":
            return settle(self.offsite)
        self.offsite.take()
        if what == "layers":
            upload_all(self.offsite)
            self.offsite.take()
        if what == "journal":
            self.offsite.journal()
        return self.offsite.clean()

    @rule(choice=st.integers(0, 9), back=st.integers(0, 30))
    def branch(self, choice: int, back: int) -> None:
        parent, model = self.pick(choice)
        lsn = max(model.last - back, model.branch_lsn)
        if len(self.model) >= 4 or lsn > parent.last_record_lsn:
            return
        number = max(self.model) + 1
        self.repository.branch(DEFAULT_TENANT, parent.timeline_id, timeline_id(number), lsn)
        self.model[number] = ModelTimeline(model, lsn, lsn, lsn)

    @rule()
    def delete(self) -> None:
        number = max(self.model)
        if number > 1:
            self.repository.delete(DEFAULT_TENANT, timeline_id(number))
            del self.model[number]

    def crash(self) -> None:
        self.close()
        self.open(self.directory)
        for model in self.model.values():
            model.crash(model.durable)

    def recover(self, stalled: bool) -> None:
        """On an empty machine, as far as was said to be durable, or further."""
        said = {
            number: self.offsite.durable_lsn((DEFAULT_TENANT, timeline_id(number)))
            for number in self.model
        }
        if stalled:
            self.stalled.append((self.repository, self.offsite))
        else:
            self.close()
        directory = self.fresh()
        recover(self.objects, directory)
        self.open(directory)
        for number in [*self.model]:
            try:
                found = self.repository.get(DEFAULT_TENANT, timeline_id(number))
            except NotFound:
                assert said[number] == 0, "it was said to be durable"
                del self.model[number]
                continue
            there, most = found.disk_consistent_lsn, self.model[number].durable
            assert said[number] <= there <= most, (number, said[number], there, most)
            self.model[number].crash(found.disk_consistent_lsn)
            self.model[number].durable = found.disk_consistent_lsn
        # Until its successor has written something, what a stalled one writes is found by the next.
        settle(self.offsite)
        for summary in self.repository.list(DEFAULT_TENANT):
            number = int.from_bytes(summary.timeline_id.raw, "big")
            if number not in self.model:  # its deletion had not been journaled
                self.repository.delete(DEFAULT_TENANT, summary.timeline_id)
        self.stalled_go_on()

    def stalled_go_on(self) -> None:
        """And do no harm."""
        for repository, stalled in self.stalled:
            for summary in repository.list(DEFAULT_TENANT):
                timeline = repository.get(DEFAULT_TENANT, summary.timeline_id)
                if timeline.ancestor_behind() is None:
                    with contextlib.suppress(PagestoreError):  # objects may have gone by now
                        compact_really(timeline)
            with contextlib.suppress(FailedPrecondition):
                settle(stalled)
            stalled.clean()

    @invariant()
    def every_page_at_every_lsn(self) -> None:
        for number, model in self.model.items():
            timeline = self.repository.get(DEFAULT_TENANT, timeline_id(number))
            if timeline.ancestor_behind() is None:
                snapshot = timeline.snapshot()
                for lsn in {*range(ROOT_LSN, model.last, 5), model.branch_lsn, model.last}:
                    check(snapshot, model, lsn)


TestOffsite = OffsiteMachine.TestCase
TestOffsite.settings = settings(max_examples=6, stateful_step_count=8, deadline=None)

_some = partial(some, steps=8)


def stale_writer_let_in(patch: pytest.MonkeyPatch) -> None:
    """Who has been superseded does not notice."""
    patch.setattr(Claim, "check", lambda self: None)


def eviction_before_upload(patch: pytest.MonkeyPatch) -> None:
    """Files go that are only here, and nobody looks for their objects."""
    real = Offsite._place

    def place(self: Offsite, key: bytes, value: bytes | None) -> None:
        real(self, key, value)
        if key.startswith(LAYER) and value is not None:
            entry = LayerEntry.unpack(key, value, "")
            if entry.place & Place.LOCAL:
                self.here[key] = entry.summary.bytes
                self._here_bytes = sum(self.here.values())

    patch.setattr(Offsite, "_place", place)
    patch.setattr(Elsewhere, "bytes_there", lambda self, key, entry: entry.summary.bytes)


def journal_before_layers(patch: pytest.MonkeyPatch) -> None:
    """Transactions are journaled as they come."""
    patch.setattr(Backlog, "ready", lambda self: list(self._batches))


def objects_gone_before_the_journal_knows(patch: pytest.MonkeyPatch) -> None:
    real = Elsewhere.deletable
    patch.setattr(Elsewhere, "deletable", lambda self, transaction: real(self, 1 << 60))


def said_to_be_durable_too_early(patch: pytest.MonkeyPatch) -> None:
    """As of the file, not of the journal."""

    def lsn(self: Offsite, key: tuple) -> int:
        record = self._store.catalog.timeline(*key)
        return record.disk_consistent_lsn if record is not None else 0

    patch.setattr(Offsite, "durable_lsn", lsn)


@pytest.mark.parametrize(
    "bug",
    [
        stale_writer_let_in,
        eviction_before_upload,
        journal_before_layers,
        objects_gone_before_the_journal_knows,
        said_to_be_durable_too_early,
    ],
)
def test_planted_bugs_are_found(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, PagestoreError, NativeError)):
        run_state_machine_as_test(OffsiteMachine, settings=_some(600))


def test_the_machine_does_what_it_is_to_show() -> None:
    """Else it would say nothing of it."""
    seen: dict[str, int] = {"recoveries": 0, "fetches": 0, "deleted": 0}

    class Counting(OffsiteMachine):
        def teardown(self) -> None:
            super().teardown()
            seen["recoveries"] += self.machines - 1
            seen["deleted"] += self.deleted
            seen["fetches"] += self.fetches

    wanted = {"recoveries": 5, "fetches": 10, "deleted": 3}
    for number in range(1, 9):  # which stories they are depends on what else is imported
        run_state_machine_as_test(Counting, settings=_some(12 * number))
        if all(seen[name] >= least for name, least in wanted.items()):
            return
    raise AssertionError(seen)
