"""What a safekeeper answers to requests, right and wrong; no compute is needed for these."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest

from pagestore.client.errors import from_rpc_error
from pagestore.client.wal import WalClient
from pagestore.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    OutOfRange,
    PagestoreError,
)
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.pgformat.wal import lay_out, record_bytes
from pagestore.v1 import wal_pb2 as pb
from pagestore.v1 import wal_pb2_grpc
from tests import access
from tests.safekeeper_process import SafekeeperProcess

START = 0x5000028
PREV = 0x5000000 - 0x78
T = DEFAULT_TENANT
NOWHERE = "host=/nowhere port=1 user=nobody"


def record_at(lsn: int, prev: int, size: int = 100, fill: bytes = b"w") -> tuple[bytes, int, int]:
    """(bytes, the record's own LSN, its end)."""
    return lay_out(lsn, record_bytes(0, 0x20, 0, prev, fill * size), system_id=9)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafekeeperProcess]:
    process = SafekeeperProcess(tmp_path_factory.mktemp("wal") / "sk")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SafekeeperProcess]:
    process = SafekeeperProcess(tmp_path / "sk")
    process.start()
    yield process
    process.stop()


async def made(client: WalClient) -> TimelineId:
    timeline = TimelineId.generate()
    await client.create_timeline(T, timeline, START, prev_record_lsn=PREV, system_id=9)
    return timeline


async def raises(call: Awaitable[Any], kind: type[PagestoreError], reason: str) -> PagestoreError:
    with pytest.raises(PagestoreError) as caught:
        await call
    assert (type(caught.value), caught.value.reason) == (kind, reason), caught.value
    return caught.value


def test_the_life_of_a_log(shared: SafekeeperProcess) -> None:
    async def work(client: WalClient) -> None:
        timeline = await made(client)
        vote = await client.vote_next(T, timeline)
        assert (vote.granted, vote.term, vote.last_log_term) == (True, 1, 0)
        assert (vote.end_lsn, vote.prev_record_lsn) == (START, PREV)
        data, record, end = record_at(START, PREV)
        for _ in range(2):
            answer = await client.append_wal(T, timeline, 1, START, data)
            assert (answer.flush_lsn, answer.commit_lsn) == (end, end)
        assert [chunk.data async for chunk in client.read_wal(T, timeline, START)] == [data]
        assert await client.align_lsn(T, timeline, end) == (end, record)
        assert await client.align_lsn(T, timeline, end - 8) == (START, PREV)
        assert await client.align_lsn(T, timeline, START) == (START, PREV)
        again = await client.vote_next(T, timeline)
        assert (again.term, again.end_lsn, again.prev_record_lsn) == (2, end, record)
        assert again.last_log_term == 1
        assert not (await client.vote(T, timeline, 2)).granted
        status = await client.get_status(T, timeline)
        assert (status.term, status.flush_lsn, status.wal_bytes) == (2, end, end - START)
        await client.delete_timeline(T, timeline)
        await client.delete_timeline(T, timeline)
        await raises(client.get_status(T, timeline), NotFound, "TIMELINE_NOT_FOUND")

    shared.call(work)


def test_creation_is_idempotent_for_the_same_start(shared: SafekeeperProcess) -> None:
    async def work(client: WalClient) -> None:
        timeline = await made(client)
        same = await client.create_timeline(T, timeline, START, prev_record_lsn=PREV, system_id=9)
        assert same.start_lsn == START
        for change in ({"start_lsn": START + 8}, {"system_id": 8}):
            arguments = {"start_lsn": START, "prev_record_lsn": PREV, "system_id": 9, **change}
            call = client.create_timeline(T, timeline, **arguments)
            await raises(call, AlreadyExists, "TIMELINE_EXISTS")

    shared.call(work)


def test_who_has_voted_before_asks_once(shared: SafekeeperProcess) -> None:
    async def work(client: WalClient) -> None:
        timeline = await made(client)
        asked: list[int] = []
        vote = client.vote

        async def counted(tenant: TenantId, of: TimelineId, term: int) -> pb.VoteResponse:
            asked.append(term)
            return await vote(tenant, of, term)

        client.vote = counted  # type: ignore[method-assign]
        try:
            for term in (1, 2, 3):
                assert (await client.vote_next(T, timeline)).term == term
            await vote(T, timeline, 7)
            assert (await client.vote_next(T, timeline)).term == 8
        finally:
            del client.vote
        assert asked == [1, 2, 3, 4, 8]

    shared.call(work)


def test_terms_fence(shared: SafekeeperProcess) -> None:
    async def work(client: WalClient) -> None:
        timeline = await made(client)
        data, _, end = record_at(START, PREV)
        early = client.append_wal(T, timeline, 1, START, data)
        await raises(early, FailedPrecondition, "TERM_NOT_PROMISED")
        votes = await asyncio.gather(*(client.vote_next(T, timeline) for _ in range(10)))
        assert sorted(vote.term for vote in votes) == list(range(1, 11))
        await raises(client.append_wal(T, timeline, 9, START, data), Aborted, "STALE_TERM")
        await client.append_wal(T, timeline, 10, START, data)
        nowhere = access.address(T, timeline, 9, NOWHERE)
        stale = client.attach_compute(T, timeline, 9, nowhere, end)
        await raises(stale, Aborted, "STALE_TERM")
        await raises(client.detach_compute(T, timeline, 9), Aborted, "STALE_TERM")
        assert await client.detach_compute(T, timeline, 10) == end

    shared.call(work)


def test_appends_fit_exactly_or_not_at_all(shared: SafekeeperProcess) -> None:
    async def work(client: WalClient) -> None:
        timeline = await made(client)
        await client.vote_next(T, timeline)
        data, record, end = record_at(START, PREV)
        other, _, _ = record_at(START, PREV, fill=b"o")
        await client.append_wal(T, timeline, 1, START, data)
        for lsn, wal in ((START, other), (START + 8, data), (end + 8, data)):
            call = client.append_wal(T, timeline, 1, lsn, wal)
            await raises(call, FailedPrecondition, "LSN_MISMATCH")
        following, _, _ = record_at(end, record)
        broken = bytearray(following)
        broken[40] ^= 1
        stranger, _, _ = record_at(end, PREV)
        for wal in (b"", b"x", bytes(64), bytes(broken), following[:-8], stranger):
            await raises(client.append_wal(T, timeline, 1, end, wal), InvalidInput, "NOT_WAL")
        assert (await client.get_status(T, timeline)).flush_lsn == end
        await client.append_wal(T, timeline, 1, end, following)

    shared.call(work)


def test_wrong_requests_have_reasons(shared: SafekeeperProcess) -> None:
    async def work(client: WalClient) -> None:
        timeline = await made(client)
        await client.vote_next(T, timeline)
        nobody = TimelineId.generate()
        stranger = TenantId.generate()
        calls: list[Callable[[Any, Any], Awaitable[Any]]] = [
            client.get_status, client.vote_next,
            lambda tenant, line: client.append_wal(tenant, line, 1, START, b"x"),
            lambda tenant, line: client.attach_compute(
                tenant, line, 1, access.address(tenant, line, 1, NOWHERE), START
            ),
            lambda tenant, line: client.align_lsn(tenant, line, START),
            lambda tenant, line: client.detach_compute(tenant, line, 1),
            lambda tenant, line: anext(client.read_wal(tenant, line, START)),
        ]  # fmt: skip
        for call in calls:
            await raises(call(T, nobody), NotFound, "TIMELINE_NOT_FOUND")
            await raises(call(stranger, timeline), NotFound, "TIMELINE_NOT_FOUND")
        for lsn, prev in ((0, 0), (START + 1, 0), (START, START), (2**64 - 8, 0), (8192 + 8, 0)):
            call = client.create_timeline(T, nobody, lsn, prev_record_lsn=prev)
            await raises(call, InvalidInput, "INVALID_LSN")
        for text in ("", "host=a port", "nosuch=1", "x" * 9000, f"{NOWHERE} passfile=/etc/shadow"):
            call = client.attach_compute(T, timeline, 1, text, START)
            await raises(call, InvalidInput, "INVALID_CONNINFO")
        for lsn, reason in ((START - 8, "LSN_TOO_OLD"), (2**64 - 1, "LSN_NOT_COMMITTED")):
            await raises(client.align_lsn(T, timeline, lsn), OutOfRange, reason)
        await raises(anext(client.read_wal(T, timeline, START - 8)), OutOfRange, "LSN_TOO_OLD")
        beyond = anext(client.read_wal(T, timeline, 2**64 - 1))
        await raises(beyond, DataLoss, "LOG_ROLLED_BACK")
        waiting = client.detach_compute(T, timeline, 1, wait_flush_lsn=START + 8, wait_ms=50)
        await raises(waiting, DeadlineExceeded, "WAL_NOT_FLUSHED")

        for term in (0, 2**63):
            await raises(client.vote(T, timeline, term), InvalidInput, "INVALID_TERM")
        assert (await client.get_status(T, timeline)).term == 1

    shared.call(work)


def test_ids_of_another_length_are_refused(shared: SafekeeperProcess) -> None:
    async def work() -> None:
        async with access.channel(shared.listen) as channel:
            stub: Any = wal_pb2_grpc.WalServiceStub(channel)  # type: ignore[no-untyped-call]
            for raw in (b"", b"\0" * 15, b"../../../../etc/", b"x" * 70000):
                with pytest.raises(grpc.RpcError) as caught:
                    await stub.GetStatus(pb.WalGetStatusRequest(tenant_id=T.raw, timeline_id=raw))
                error = from_rpc_error(caught.value)
                expected = "TIMELINE_NOT_FOUND" if len(raw) == 16 else "INVALID_ID"
                assert error.reason == expected

    asyncio.run(work())


def test_a_reader_of_a_deleted_timeline_is_told(shared: SafekeeperProcess) -> None:
    async def work(client: WalClient) -> None:
        timeline = await made(client)
        await client.vote_next(T, timeline)
        await client.append_wal(T, timeline, 1, START, record_at(START, PREV)[0])
        async with aclosing(client.read_wal(T, timeline, START, linger_ms=20000)) as pieces:
            await anext(pieces)  # all that there is: the next one is waited for
            await client.delete_timeline(T, timeline)
            await raises(anext(pieces), NotFound, "TIMELINE_NOT_FOUND")

    shared.call(work)


def test_watchers_get_a_snapshot_then_changes(shared: SafekeeperProcess) -> None:
    async def work(client: WalClient) -> None:
        first = await made(client)
        updates = client.watch_commits("test")
        known: dict[bytes, int] = {}
        while not (update := await anext(updates)).snapshot_complete:
            known |= {item.timeline_id: item.commit_lsn for item in update.positions}
        assert known[first.raw] == START
        second = await made(client)
        await client.vote_next(T, first)
        _, _, end = await append(client, first)
        await client.delete_timeline(T, second)
        changes: dict[bytes, int] = {}
        async with asyncio.timeout(10):
            while changes.get(first.raw) != end:
                update = await anext(updates)
                changes |= {item.timeline_id: item.commit_lsn for item in update.positions}
        assert set(changes) <= {first.raw, second.raw}

    async def append(client: WalClient, timeline: TimelineId) -> tuple[bytes, int, int]:
        made_record = record_at(START, PREV)
        await client.append_wal(T, timeline, 1, START, made_record[0])
        return made_record

    shared.call(work)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_everything_answered_survives(own: SafekeeperProcess, how: signal.Signals) -> None:
    records = [record_at(START, PREV)]
    for _ in range(30):
        _, prev, end = records[-1]
        records.append(record_at(end, prev, size=3000))

    async def write(client: WalClient) -> TimelineId:
        timeline = await made(client)
        await client.vote(T, timeline, 7)
        at = START
        for data, _, end in records:
            await client.append_wal(T, timeline, 7, at, data)
            at = end
        return timeline

    timeline = own.call(write)
    own.stop(how)
    own.start()

    async def check(client: WalClient) -> None:
        status = await client.get_status(T, timeline)
        assert (status.term, status.flush_lsn) == (7, records[-1][2])
        assert [(item.term, item.start_lsn) for item in status.term_history] == [(7, START)]
        vote = await client.vote_next(T, timeline)
        assert (vote.term, vote.end_lsn, vote.prev_record_lsn) == (
            8,
            records[-1][2],
            records[-1][1],
        )
        read = [chunk.data async for chunk in client.read_wal(T, timeline, START)]
        assert b"".join(read) == b"".join(data for data, _, _ in records)

    own.call(check)


def test_idle_timelines_hold_no_thread_and_no_descriptor(own: SafekeeperProcess) -> None:
    async def make_many(client: WalClient) -> list[TimelineId]:
        timelines = [TimelineId.generate() for _ in range(100)]
        data, _, _ = record_at(START, PREV)
        limit = asyncio.Semaphore(20)

        async def make(timeline: TimelineId) -> None:
            async with limit:
                await client.create_timeline(T, timeline, START, prev_record_lsn=PREV)
                await client.vote_next(T, timeline)
                await client.append_wal(T, timeline, 1, START, data)

        await asyncio.gather(*map(make, timelines))
        return timelines

    own.call(make_many)
    busy = (own.descriptors(), own.threads())
    own.stop()
    own.start()

    async def count(client: WalClient) -> int:
        known = 0
        async for update in client.watch_commits("test"):
            known += len(update.positions)
            if update.snapshot_complete:
                break
        return known

    assert own.call(count) == 100
    assert own.descriptors() < 60
    assert busy[0] < 60
    assert own.threads() <= busy[1] < 60


def test_damaged_control_file_is_named(own: SafekeeperProcess) -> None:
    timeline, other = own.call(made), own.call(made)
    own.stop()
    control = own.data_dir / str(T) / str(timeline) / "control"
    raw = bytearray(control.read_bytes())
    raw[30] ^= 4
    control.write_bytes(bytes(raw))
    leftover = control.parent.with_name("f" * 32)
    leftover.mkdir()
    own.start()

    async def check(client: WalClient) -> None:
        error = await raises(client.vote_next(T, timeline), DataLoss, "CONTROL_DAMAGED")
        assert str(control) in error.message
        await client.vote_next(T, other)
        await client.delete_timeline(T, timeline)

    own.call(check)
    assert not control.parent.exists()
    assert not leftover.exists()
