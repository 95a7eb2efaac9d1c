"""A page server's store as dicts: the model that a repository is held against."""

from __future__ import annotations

from dataclasses import dataclass, field

from pagestore import keyspace
from pagestore._native import Batch, OpenLayer, Snapshot
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.keyspace import ValueKind
from pagestore.layers.files import layer_name
from pagestore.layers.native import LayerKind
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import LayerEntry
from tests.unit.layers.model import Entry, History, Value, batch_of

LOW, HIGH = keyspace.Key(0).pack(), keyspace.Key(0x40).pack()
ROOT_LSN = 1000


@dataclass
class ModelTimeline:
    parent: ModelTimeline | None
    branch_lsn: int
    last: int
    durable: int
    own: History = field(default_factory=History)
    hidden: bool = False

    def view(self, lsn: int) -> History:
        """All that a read at an LSN may see, the ancestors' part included."""
        merged: dict[bytes, list[Value]] = {}
        if self.parent is not None:
            merged = self.parent.view(min(lsn, self.branch_lsn)).values
        for key, values in self.own.upto(lsn).values.items():
            merged[key] = merged.get(key, []) + values
        return History(merged)

    def crash(self, at: int) -> None:
        self.own = self.own.upto(at)
        self.last = at


def timeline_id(number: int) -> TimelineId:
    return TimelineId(number.to_bytes(16, "big"))


def make_root(repository: Repository, number: int, entries: list[Entry]) -> Timeline:
    with repository.create_root(DEFAULT_TENANT, timeline_id(number), ROOT_LSN, 900) as root:
        root.put(batch_of(entries))
        return root.commit()


def put(timeline: Timeline, entries: list[Entry], last: int) -> None:
    timeline.append(batch_of(entries) if entries else Batch(), last, last - 1)


def compact(timeline: Timeline, model: ModelTimeline) -> None:
    """One delta layer in the place of all of a timeline's, of what the model has of them."""
    store, number = timeline._store, timeline.reserve_number()
    listed = store.catalog.layers(timeline.tenant_id, timeline.timeline_id)
    deltas = [n for n, entry in listed if entry.summary.kind == LayerKind.DELTA]
    if not deltas:
        return
    values = [
        (key, *value)
        for key, chain in model.own.upto(timeline.disk_consistent_lsn).values.items()
        for value in chain
        if value[0] > model.branch_lsn
    ]
    merged = OpenLayer()
    merged.put(batch_of(sorted(values, key=lambda value: value[1])))
    merged.freeze()
    tenant, name = timeline.tenant_id.raw, timeline.timeline_id.raw
    summary = store.files.install(
        timeline.directory / layer_name(number, LayerKind.DELTA),
        lambda work: merged.flush(work, tenant, name, number),
    )
    timeline.replace_layers(deltas, [(number, LayerEntry.fresh(summary, level=1))])


def image(key: keyspace.Key, lsn: int, value: bytes) -> Entry:
    return key.pack(), lsn, ValueKind.IMAGE, 0, value


def check(snapshot: Snapshot, model: ModelTimeline, lsn: int) -> None:
    view = model.view(lsn)
    assert snapshot.scan(LOW, HIGH, lsn) == view.alive(lsn)
    for key in view.values:
        assert snapshot.chain(key, lsn) == view.chain(key, lsn)
