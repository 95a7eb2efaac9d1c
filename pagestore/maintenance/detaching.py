"""A branch becomes independent: what it reads of its parent is copied, and then it has none.

The copy is of one moment, the branch LSN: image layers of all keys that are there, made from what
the branch reads, beside everything else that happens to it. That LSN is held meanwhile by the
child's entry. One transaction then names the files, and takes the parent away. Killed before it,
nothing has happened: the files have unfinished names until all are there. Done again, it finds no
parent.

What lies before the branch LSN is the parent's own, and cannot be read from the branch any more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from pagestore import keyspace
from pagestore._native import Batch, LayerSummary, LayerWriter, RedoPool, Snapshot
from pagestore.errors import Aborted
from pagestore.ids import Lsn
from pagestore.keyspace import Kind, ValueKind
from pagestore.layers.files import layer_name, temporary
from pagestore.layers.native import LayerKind, store_errors
from pagestore.pgformat.layout import PAGE_SIZE
from pagestore.reader import sizes
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import LayerEntry
from pagestore.timeline.rootimport import MAX_LAYER_BYTES

KEYS_AT_ONCE = 128
Value = tuple[bytes, bytes]


def detach(
    repository: Repository,
    timeline: Timeline,
    redo: RedoPool | None,
    stopped: threading.Event,
) -> None:
    """Blocks for as long as it takes to read all of the branch.

    Args:
        stopped: set to have it end before it is done, as if it had not begun.

    Raises:
        NotFound: TIMELINE_NOT_FOUND. ResourceExhausted: STORE_FULL.
        Unavailable: ANCESTOR_BEHIND; what it reads cannot be had now. Aborted: DETACH_STOPPED.
        DataLoss: what it reads is damaged.
    """
    if timeline.ancestor is None:
        return
    files = _Files(timeline)
    try:
        with store_errors():
            for value in inherited(timeline.snapshot(), timeline.branch_lsn, redo):
                files.put(value)
                if stopped.is_set():
                    raise Aborted(
                        "DETACH_STOPPED", f"Timeline {timeline.timeline_id} has its parent."
                    )
        layers = files.named()
        repository.detach(timeline, layers)
    except BaseException:
        files.remove()
        raise


def inherited(snapshot: Snapshot, lsn: Lsn, redo: RedoPool | None) -> Iterator[Value]:
    """Every key that is there at an LSN with its whole value, ascending. Of the times of commits
    only the last: those before are of a history that cannot be read any more."""
    for kind in Kind:
        low, high = keyspace.kind_range(kind)
        if kind == Kind.COMMIT_TIME:
            last = snapshot.last_before(low, high, lsn)
            if last is not None:
                yield bytes(last[0]), bytes(last[1])
        elif kind == Kind.SLRU_PAGE:
            yield from _pages(snapshot, list(snapshot.scan_keys(low, high, lsn)), lsn, redo)
        elif kind == Kind.REL_BLOCK:
            for relation in sizes.relations(snapshot, lsn):
                spc, db, rel, fork, blocks = relation
                keys = [keyspace.rel_block(spc, db, rel, fork, b).pack() for b in range(blocks)]
                yield from _pages(snapshot, keys, lsn, redo)
        else:
            yield from _scanned(snapshot, low, high, lsn)


def _scanned(snapshot: Snapshot, low: bytes, high: bytes, lsn: Lsn) -> Iterator[Value]:
    while True:
        some = snapshot.scan(low, high, lsn, limit=KEYS_AT_ONCE)
        yield from ((bytes(key), bytes(value)) for key, value in some)
        if len(some) < KEYS_AT_ONCE:
            return
        low = (int.from_bytes(some[-1][0], "big") + 1).to_bytes(len(low), "big")


def _pages(
    snapshot: Snapshot, keys: list[bytes], lsn: Lsn, redo: RedoPool | None
) -> Iterator[Value]:
    for begin in range(0, len(keys), KEYS_AT_ONCE):
        some = keys[begin : begin + KEYS_AT_ONCE]
        data = memoryview(snapshot.read_pages(b"".join(some), lsn, redo))
        for at, key in enumerate(some):
            yield key, bytes(data[at * PAGE_SIZE : (at + 1) * PAGE_SIZE])


class _Files:
    """Image layers that have unfinished names until they are whole, all of them."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._steps = timeline.file_steps
        self._made: list[tuple[int, LayerSummary]] = []
        self._numbers: list[int] = []
        self._writer: LayerWriter | None = None

    def put(self, value: Value) -> None:
        if self._writer is None:
            self._begin()
        assert self._writer is not None
        batch = Batch()
        batch.put(value[0], self._timeline.branch_lsn, ValueKind.IMAGE, 0, value[1])
        with store_errors():
            self._writer.put(batch)
        if self._writer.nbytes >= MAX_LAYER_BYTES:
            self._end()

    def named(self) -> list[tuple[int, LayerEntry]]:
        """All of them, durable under their names."""
        self._end()
        for number, _ in self._made:
            self._steps.rename(temporary(self._path(number)), self._path(number))
        self._steps.sync_directory(self._timeline.directory)
        return [(number, LayerEntry.fresh(summary)) for number, summary in self._made]

    def remove(self) -> None:
        if self._writer is not None:
            self._writer.abort()
        for number in self._numbers:
            temporary(self._path(number)).unlink(missing_ok=True)
            self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._timeline.directory / layer_name(number, LayerKind.IMAGE)

    def _begin(self) -> None:
        timeline, number = self._timeline, self._timeline.reserve_number()
        self._steps.make_directory(timeline.directory)
        self._numbers.append(number)
        with store_errors():
            self._writer = LayerWriter(
                temporary(self._path(number)),
                timeline.tenant_id.raw,
                timeline.timeline_id.raw,
                number,
                LayerKind.IMAGE,
            )

    def _end(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            number = self._numbers[-1]
            summary = self._steps.write(temporary(self._path(number)), writer.finish)
            self._made.append((number, summary))
