"""GetPages from bytes to bytes: the hand-written messages against protobuf's own."""

from __future__ import annotations

import random
import select
from pathlib import Path

import hypothesis.strategies as st
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings

from pagestore import _native, keyspace
from pagestore.keyspace import PAGE_SIZE, WILL_INIT, ValueKind
from pagestore.v1 import page_pb2 as pb
from tests.unit.layers.model import TENANT, TIMELINE, Entry, batch_of, page

REL = pb.RelTag(spc_oid=1663, db_oid=5, rel_number=16384, fork=0)
SIZE_KEY = keyspace.rel_size(1663, 5, 16384, 0).pack()


def block(number: int) -> bytes:
    return keyspace.rel_block(1663, 5, 16384, 0, number).pack()


def size(lsn: int, blocks: int) -> Entry:
    return SIZE_KEY, lsn, ValueKind.IMAGE, 0, blocks.to_bytes(4, "little")


def open_snapshot(entries: list[Entry]) -> _native.Snapshot:
    layer = _native.OpenLayer()
    layer.put(batch_of(entries))
    return _native.Snapshot([layer])


PATCH = b"\x02\x00\x03\x00\xff\x09"  # bytes 2, 3 and 4 become 9
SNAPSHOT = open_snapshot(
    [
        size(10, 2),
        (block(0), 10, ValueKind.IMAGE, 0, page(1)),
        (block(1), 10, ValueKind.ZERO, 0, b""),
        (block(1), 20, ValueKind.PATCH, 0, PATCH),
        size(30, 3),
        (block(2), 30, ValueKind.IMAGE, 0, page(3)),
        (block(0), 40, ValueKind.IMAGE, 0, page(4)),
        size(50, 4),  # block 3 has no value: the invariant is broken
        (SIZE_KEY, 60, ValueKind.TOMBSTONE, 0, b""),
    ]
)


def request(blocks: list[int], **fields: object) -> pb.GetPagesRequest:
    defaults = {"request_id": 7, "tenant_id": TENANT, "timeline_id": TIMELINE, "rel": REL}
    return pb.GetPagesRequest(**{**defaults, **fields}, blocks=blocks)  # type: ignore[arg-type]


READERS = _native.PageReaders(2, 1)


def serve(
    message: pb.GetPagesRequest | bytes,
    lsn: int,
    snapshot: _native.Snapshot = SNAPSHOT,
    redo: _native.RedoPool | None = None,
) -> pb.GetPagesResponse:
    """The response, whether it has to wait for something or not."""
    raw = message if isinstance(message, bytes) else message.SerializeToString()
    answer = READERS.serve_pages(snapshot, raw, lsn, redo)
    return pb.GetPagesResponse.FromString(waited(answer) if isinstance(answer, int) else answer)


def waited(ticket: int) -> bytes:
    assert select.select([READERS], [], [], 10)[0]
    [(found, response)] = READERS.take()
    assert found == ticket
    assert READERS.take() == []
    return response


def test_pages_come_in_the_order_asked_for() -> None:
    patched = bytearray(PAGE_SIZE)
    patched[2:5] = b"\x09\x09\x09"
    assert list(serve(request([1, 0, 0]), 10).pages) == [bytes(PAGE_SIZE), page(1), page(1)]
    served = serve(request([2, 1, 0]), 30)
    assert list(served.pages) == [page(3), bytes(patched), page(1)]
    assert served.request_id == 7
    assert not served.HasField("status")
    assert list(serve(request([0], request_id=0), 45).pages) == [page(4)]
    assert list(serve(request([0] * 1024, request_id=2**64 - 1), 45).pages) == [page(4)] * 1024


@pytest.mark.parametrize(
    ("message", "lsn", "code", "reason"),
    [
        (request([0]), 9, 5, "RELATION_NOT_FOUND"),
        (request([0]), 60, 5, "RELATION_NOT_FOUND"),
        (request([0], rel=pb.RelTag(spc_oid=1663, fork=1)), 30, 5, "RELATION_NOT_FOUND"),
        (request([0, 2]), 29, 11, "BLOCK_BEYOND_END"),
        (request([2**32 - 1]), 30, 11, "BLOCK_BEYOND_END"),
        (request([3]), 50, 15, "PAGE_MISSING"),
        (request([]), 30, 3, "NO_BLOCKS"),
        (request([0] * 1025), 30, 3, "TOO_MANY_BLOCKS"),
        (request([0] * 100_000), 30, 3, "TOO_MANY_BLOCKS"),
        (request([0], rel=pb.RelTag(fork=4)), 30, 3, "MALFORMED_REQUEST"),
        (request([0], tenant_id=b"short"), 30, 3, "MALFORMED_REQUEST"),
        (request([0], timeline_id=b""), 30, 3, "MALFORMED_REQUEST"),
        (b"", 30, 3, "MALFORMED_REQUEST"),
        (b"\xff" * 40, 30, 3, "MALFORMED_REQUEST"),
    ],
)
def test_what_is_wrong_is_answered_in_band(message, lsn: int, code: int, reason: str) -> None:
    served = serve(message, lsn)
    assert (served.status.code, served.status.reason) == (code, reason)
    assert served.status.message
    assert not served.pages
    well_formed = reason != "MALFORMED_REQUEST"
    assert served.request_id == 7 or not well_formed


def test_a_chain_with_records_needs_a_pool() -> None:
    snapshot = open_snapshot([size(10, 1), (block(0), 10, ValueKind.RECORD, WILL_INIT, b"record")])
    served = serve(request([0]), 10, snapshot)
    assert (served.status.code, served.status.reason) == (9, "POSTGRES_MISSING")
    with pytest.raises(_native.NativeError, match="it needs redo"):
        snapshot.read_pages(block(0), 10)


def test_a_damaged_layer_is_named_and_not_served(tmp_path: Path) -> None:
    layer = _native.OpenLayer()
    layer.put(batch_of([size(10, 1), (block(0), 10, ValueKind.IMAGE, 0, bytes(range(256)) * 32)]))
    path = tmp_path / "damaged.delta"
    summary = layer.flush(path, TENANT, TIMELINE, 1)
    raw = bytearray(path.read_bytes())
    raw[300] ^= 1
    path.write_bytes(raw)
    file = _native.Layer(path, TENANT, TIMELINE, 1, summary)
    snapshot = _native.Snapshot([file])
    for _ in range(2):
        served = serve(request([0]), 10, snapshot)
        assert (served.status.code, served.status.reason) == (15, "LAYER_CORRUPT")
        assert "damaged.delta: offset " in served.status.message
        assert not served.pages


def flushed(entries: list[Entry], path: Path) -> _native.Snapshot:
    layer = _native.OpenLayer()
    layer.put(batch_of(entries))
    summary = layer.flush(path, TENANT, TIMELINE, 1)
    return _native.Snapshot([_native.Layer(path, TENANT, TIMELINE, 1, summary)])


def at_once(message: pb.GetPagesRequest, snapshot: _native.Snapshot) -> bool:
    answer = READERS.serve_pages(snapshot, message.SerializeToString(), 10, None)
    if isinstance(answer, int):
        waited(answer)
    return isinstance(answer, bytes)


def test_only_what_is_not_in_memory_is_waited_for(tmp_path: Path) -> None:
    entries = [size(10, 2), (block(0), 10, ValueKind.IMAGE, 0, page(1))]
    snapshot = flushed(entries, tmp_path / "some.delta")
    assert not at_once(request([0]), snapshot)  # its index is not in memory
    assert at_once(request([0]), snapshot)
    assert list(serve(request([0]), 10, snapshot).pages) == [page(1)]


def test_redo_that_cannot_be_done_at_once_is_waited_for(tmp_path: Path) -> None:
    snapshot = open_snapshot([size(10, 1), (block(0), 10, ValueKind.RECORD, WILL_INIT, b"record")])
    pool = _native.RedoPool(["/nonexistent"], [str(tmp_path)])
    raw = request([0]).SerializeToString()
    ticket = READERS.serve_pages(snapshot, raw, 10, pool)
    assert isinstance(ticket, int)
    refused = pb.GetPagesResponse.FromString(waited(ticket))
    assert (refused.request_id, refused.status.reason) == (7, "REDO_FAILED")
    assert "could not start the redo helper" in refused.status.message


def test_what_waits_keeps_all_that_it_needs_and_closing_gives_it_out(tmp_path: Path) -> None:
    readers = _native.PageReaders(1, 1)
    tickets = {
        readers.serve_pages(
            flushed([size(10, 1), (block(0), 10, ValueKind.IMAGE, 0, page(n))], tmp_path / f"{n}"),
            request([0], request_id=n).SerializeToString(),
            10,
            None,
        ): n
        for n in range(1, 30)
    }
    assert len(tickets) == 29
    readers.close()
    for ticket, raw in readers.take():
        response = pb.GetPagesResponse.FromString(raw)
        assert response.request_id == tickets.pop(ticket)  # type: ignore[arg-type]
        assert list(response.pages) == [page(response.request_id)] or (
            response.status.reason == "CLOSED"
        )
    assert not tickets


def test_a_read_of_many_blocks_is_never_made_at_once(tmp_path: Path) -> None:
    numbers = range(4000)
    noise = random.Random(3)
    entries = [(block(n), 10, ValueKind.IMAGE, 0, noise.randbytes(PAGE_SIZE)) for n in numbers]
    snapshot = flushed([size(10, 4000), *entries], tmp_path / "large.delta")
    _native.set_store_limits(block_cache_bytes=0)
    try:
        near = request(list(range(30)))
        at_once(near, snapshot)
        assert at_once(near, snapshot)
        assert not at_once(request(list(range(65))), snapshot)
    finally:
        _native.set_store_limits()


messages = st.builds(
    pb.GetPagesRequest,
    request_id=st.integers(0, 2**64 - 1),
    tenant_id=st.binary(min_size=16, max_size=16),
    timeline_id=st.binary(min_size=16, max_size=16),
    read_lsn=st.builds(
        pb.ReadLsn,
        request_lsn=st.integers(0, 2**64 - 1),
        not_modified_since_lsn=st.integers(0, 2**64 - 1),
    ),
    blocks=st.lists(st.integers(0, 2**32 - 1), max_size=20),
    wait_ms=st.integers(0, 2**32 - 1),
)


@given(messages)
def test_parsing_agrees_with_protobuf(message: pb.GetPagesRequest) -> None:
    assert _native.parse_pages_request(message.SerializeToString()) == (
        message.request_id,
        message.tenant_id,
        message.timeline_id,
        message.read_lsn.request_lsn,
        message.read_lsn.not_modified_since_lsn,
        len(message.blocks),
        message.wait_ms,
    )


@given(messages, st.data())
@settings(max_examples=300)
def test_bytes_that_protobuf_refuses_are_refused(message: pb.GetPagesRequest, data) -> None:
    raw = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        pb.GetPagesRequest.FromString(bytes(raw))
    except DecodeError:
        with pytest.raises(_native.NativeError):
            _native.parse_pages_request(bytes(raw))


def test_a_status_is_cut_between_characters() -> None:
    raw = _native.pages_status(9, 5, "SOME_REASON", "é" * 5000)
    answer = pb.GetPagesResponse.FromString(raw)
    assert (answer.request_id, answer.status.code, answer.status.reason) == (9, 5, "SOME_REASON")
    assert 200 < len(answer.status.message) < 256
    assert set(answer.status.message) == {"é"}
