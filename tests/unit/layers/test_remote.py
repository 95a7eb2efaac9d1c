"""Layers that are elsewhere, fetched by a callable of Python: slow ones, and ones that fail."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore._native import Layer, LayerSummary, LayerWriter, PageReaders, Remote, Snapshot
from pagestore.errors import DataLoss, PagestoreError, Unavailable
from pagestore.keyspace import PAGE_SIZE, ValueKind
from pagestore.layers.native import LayerKind, store_errors
from pagestore.v1 import page_pb2 as pb

from .model import TENANT, TIMELINE, batch_of

BLOCKS = 200
LSN = 100
CHUNK = 256 << 10


class Elsewhere:
    """An object store with one layer; `before` is called by each fetch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.summary = _write(path / "whole")
        self.bytes = (path / "whole").read_bytes()
        (path / "cache").mkdir()
        self.asked: list[tuple[int, int]] = []
        self.before: Callable[[], object] = lambda: None
        self.remote = Remote(path / "cache", 1 << 30, self.fetch, lambda *_: True)

    def fetch(self, *asked: object) -> bytes:
        *name, at, n = asked
        assert isinstance(at, int)
        assert isinstance(n, int)
        assert name == [TENANT, TIMELINE, 7, LayerKind.IMAGE]
        self.asked.append((at, n))
        self.before()
        return self.bytes[at : at + n]

    def layer(self) -> Layer:
        return Layer(self.path / "absent", TENANT, TIMELINE, 7, self.summary, self.remote)


def _write(path: Path) -> LayerSummary:
    writer = LayerWriter(path, TENANT, TIMELINE, 7, LayerKind.IMAGE, level=1)
    size = keyspace.rel_size(1663, 5, 1, 0).pack()
    values = [(_key(n), LSN, ValueKind.IMAGE, 0, _page(n)) for n in range(BLOCKS)]
    values.append((size, LSN, ValueKind.IMAGE, 0, BLOCKS.to_bytes(4, "little")))
    values.sort()
    assert writer.put(batch_of(values)) == len(values)
    return writer.finish()


def _key(block: int) -> bytes:
    return keyspace.rel_block(1663, 5, 1, 0, block).pack()


def _page(block: int) -> bytes:
    return random.Random(block).randbytes(PAGE_SIZE)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path)


def test_all_ways_to_read_find_what_is_elsewhere(elsewhere: Elsewhere) -> None:
    layer = elsewhere.layer()
    snapshot = Snapshot([layer])
    assert len(layer.heads(10)) == 10
    assert layer.depth() == 0
    layer.verify()
    assert snapshot.read_pages(_key(17) + _key(150), LSN) == _page(17) + _page(150)
    assert len(snapshot.scan(_key(0), _key(BLOCKS), LSN)) == BLOCKS
    stats = elsewhere.remote.stats()
    assert stats["fetched_bytes"] == len(elsewhere.bytes), "each range once"
    del snapshot, layer
    assert not list((elsewhere.path / "absent").parent.glob("absent*"))


def test_only_what_is_read_is_fetched(elsewhere: Elsewhere) -> None:
    assert Snapshot([elsewhere.layer()]).read_pages(_key(0), LSN) == _page(0)
    assert elsewhere.remote.stats()["fetched_bytes"] <= 3 * CHUNK < len(elsewhere.bytes)


def test_a_fetch_that_fails_is_unavailable_and_the_next_one_finds_it(elsewhere: Elsewhere) -> None:
    layer = elsewhere.layer()

    def fail() -> None:
        raise Unavailable("OBJECT_STORE_UNAVAILABLE", "The object store is on holiday.")

    elsewhere.before = fail
    with pytest.raises(PagestoreError, match="on holiday") as raised, store_errors():
        layer.verify()
    assert (raised.value.code, raised.value.reason) == ("UNAVAILABLE", "OBJECT_STORE_UNAVAILABLE")
    elsewhere.before = lambda: None
    layer.verify()


def test_what_is_nowhere_is_lost(elsewhere: Elsewhere) -> None:
    remote = Remote(elsewhere.path / "cache", 0, lambda *_: "it is nowhere", lambda *_: False)
    layer = Layer(elsewhere.path / "absent", TENANT, TIMELINE, 7, elsewhere.summary, remote)
    with pytest.raises(DataLoss, match="it is nowhere"), store_errors():
        layer.verify()


def test_a_short_answer_is_no_answer(elsewhere: Elsewhere) -> None:
    elsewhere.bytes = elsewhere.bytes[:CHUNK]
    with pytest.raises(Unavailable, match="not as many came"), store_errors():
        elsewhere.layer().verify()


def test_a_closed_store_fetches_nothing_and_keeps_what_it_has(elsewhere: Elsewhere) -> None:
    layer = elsewhere.layer()
    snapshot = Snapshot([layer])
    assert snapshot.read_pages(_key(0), LSN) == _page(0)
    elsewhere.remote.close()
    assert snapshot.read_pages(_key(0), LSN) == _page(0)
    with pytest.raises(Unavailable, match="closed"), store_errors():
        layer.verify()


def test_threads_that_wait_for_one_range_leave_python_to_others(elsewhere: Elsewhere) -> None:
    """A fetch needs the GIL, so nobody may have it while he waits for one."""
    layer = elsewhere.layer()
    gate = threading.Event()
    elsewhere.before = lambda: gate.wait(30)
    ways: list[Callable[[], object]] = [
        layer.verify,
        layer.depth,
        lambda: layer.heads(5),
        lambda: Snapshot([layer]).read_pages(_key(0), LSN),
        lambda: Snapshot([layer]).scan(_key(0), _key(3), LSN),
    ]
    with ThreadPoolExecutor(len(ways)) as pool:
        done = [pool.submit(way) for way in ways]
        until = time.monotonic() + 30
        while not elsewhere.asked and time.monotonic() < until:
            time.sleep(0.01)
        assert not any(item.done() for item in done)
        gate.set()
        for item in done:
            item.result(30)
    assert len(set(elsewhere.asked)) == len(elsewhere.asked)


def test_the_event_loop_hands_a_read_over_and_closing_waits_for_it(elsewhere: Elsewhere) -> None:
    layer = elsewhere.layer()
    snapshot = Snapshot([layer])
    gate = threading.Event()
    elsewhere.before = lambda: gate.wait(30)
    readers = PageReaders(2, 2)
    request = pb.GetPagesRequest(
        request_id=1,
        tenant_id=TENANT,
        timeline_id=TIMELINE,
        rel=pb.RelTag(spc_oid=1663, db_oid=5, rel_number=1),
        blocks=[3],
    ).SerializeToString()
    ticket = readers.serve_pages(snapshot, request, LSN, None)
    assert isinstance(ticket, int), "it would have waited"
    until = time.monotonic() + 30
    while not elsewhere.asked and time.monotonic() < until:
        time.sleep(0.01)
    threading.Timer(0.1, gate.set).start()
    readers.close()  # joins the thread that waits for Python
    ((taken, raw),) = readers.take()
    answer = pb.GetPagesResponse.FromString(raw)
    assert taken == ticket
    assert answer.status.code == 0
    assert list(answer.pages) == [_page(3)]
