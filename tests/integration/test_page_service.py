"""The page server's calls over gRPC: one imported cluster, good and bad questions about it.

Bad input gets a clear status with a stable reason and disturbs nobody: each test of it ends by
asking a good question.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from pagestore import errors
from pagestore.client import AsyncPageClient, PageClient, ReadLsn, Rel
from pagestore.client.errors import from_rpc_error
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.v1 import page_pb2 as pb
from tests import access
from tests.integration.imported import Imported, imported, listed, local_blocks, remote_blocks

TENANT = DEFAULT_TENANT
PG_DATABASE = Rel(1664, 0, 1262)
SETUP = """
    CREATE TABLE items (id int PRIMARY KEY, body text);
    INSERT INTO items SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i;
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    with imported(tmp_path_factory.mktemp("store"), setup=SETUP, start=False) as made:
        yield made


@pytest.fixture
def client(store: Imported) -> Iterator[PageClient]:
    with store.pages.client() as made:
        yield made


def refused(call: Any, *args: Any, **kwargs: Any) -> PagestoreError:
    with pytest.raises(PagestoreError) as caught:
        call(*args, **kwargs)
    return caught.value


def test_every_block_equals_the_imported_files(store: Imported, client: PageClient) -> None:
    relations, _, _ = listed(client, store.timeline, store.import_lsn)
    compared = 0
    for rel, blocks in local_blocks(store.cluster.data):
        assert relations.pop(rel) == len(blocks)
        remote = remote_blocks(client, store.timeline, store.import_lsn, rel, len(blocks))
        for block, page in zip(blocks, remote, strict=True):
            assert page == block
            compared += 1
    assert not relations
    assert compared > 2000


def test_files_of_the_base_backup_equal_the_clusters(store: Imported, client: PageClient) -> None:
    _, files, hot = listed(client, store.timeline, store.import_lsn)
    data = store.cluster.data
    for path, content in files.items():
        assert (data / path).read_bytes() == content, path
    assert {"PG_VERSION", "global/pg_filenode.map", "pg_xact/0000"} <= set(files)
    assert {f"base/{n}/PG_VERSION" for n in (1, 4, 5)} <= set(files)
    assert 50 < len(hot) < 300
    relations, _, _ = listed(client, store.timeline, store.import_lsn)
    assert all(block < relations[rel] for rel, block in hot)
    for (rel, block), page in hot.items():
        [remote] = client.get_pages(TENANT, store.timeline, store.import_lsn, rel, [block])
        assert page == remote


def test_sizes(store: Imported, client: PageClient) -> None:
    lsn = store.import_lsn
    assert client.get_rel_size(TENANT, store.timeline, lsn, PG_DATABASE) == 1
    assert client.get_rel_size(TENANT, store.timeline, lsn, Rel(1663, 5, 999999)) is None
    total = sum(8192 * len(b) for rel, b in local_blocks(store.cluster.data) if rel.db_oid == 5)
    assert client.get_db_size(TENANT, store.timeline, lsn, 5) == total
    assert refused(client.get_db_size, TENANT, store.timeline, lsn, 77).reason == (
        "DATABASE_NOT_FOUND"
    )
    xact = client.get_slru_segment(TENANT, store.timeline, lsn, pb.SLRU_KIND_XACT, 0)
    assert xact == (store.cluster.data / "pg_xact" / "0000").read_bytes()
    missing = refused(client.get_slru_segment, TENANT, store.timeline, lsn, pb.SLRU_KIND_XACT, 99)
    assert missing.reason == "SEGMENT_NOT_FOUND"


def test_an_array_has_the_same_bytes(store: Imported, client: PageClient) -> None:
    args = TENANT, store.timeline, store.import_lsn, Rel(1663, 5, 1249), [3, 1, 2]
    array = client.get_pages(*args, array=True)
    assert array.shape == (3, 8192)
    assert [row.tobytes() for row in array] == client.get_pages(*args)


def test_the_documented_example_runs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/client.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    with imported(tmp_path, start=False) as alone:
        assert code.count("127.0.0.1:7431") == 1
        exec(code.replace("127.0.0.1:7431", alone.pages.address), {})


Case = tuple[str, type[PagestoreError], dict[str, Any]]
UNKNOWN = TimelineId(b"\xee" * 16)
BAD_READS: list[Case] = [
    ("LSN_REQUIRED", errors.InvalidInput, {"lsn": 0}),
    ("LSN_TOO_OLD", errors.OutOfRange, {"lsn": 1}),
    ("LSN_NOT_REACHED", errors.DeadlineExceeded, {"lsn": 1 << 40, "wait_ms": 20}),
    ("INVALID_LSN", errors.InvalidInput, {"lsn": ReadLsn(1 << 20, 1 << 40)}),
    ("TIMELINE_NOT_FOUND", errors.NotFound, {"timeline": UNKNOWN}),
    ("TIMELINE_NOT_FOUND", errors.NotFound, {"tenant": TenantId(b"\xee" * 16)}),
    ("RELATION_NOT_FOUND", errors.NotFound, {"rel": Rel(1663, 5, 999999)}),
    ("RELATION_NOT_FOUND", errors.NotFound, {"rel": Rel(0, 0, 0)}),
    ("BLOCK_BEYOND_END", errors.OutOfRange, {"blocks": [2**32 - 1]}),
    ("BLOCK_BEYOND_END", errors.OutOfRange, {"blocks": [0, 1]}),
]


@pytest.mark.parametrize(("reason", "kind", "change"), BAD_READS)
def test_a_bad_read_is_refused_by_name(
    store: Imported, client: PageClient, reason: str, kind: type, change: dict[str, Any]
) -> None:
    good: dict[str, Any] = {
        "tenant": TENANT,
        "timeline": store.timeline,
        "lsn": store.import_lsn,
        "rel": PG_DATABASE,
        "blocks": [0],
    }
    error = refused(client.get_pages, **(good | change))
    assert (error.reason, type(error)) == (reason, kind)
    assert len(client.get_pages(**good)) == 1


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("LSN_REQUIRED", {"lsn": 0}),
        ("LSN_TOO_OLD", {"lsn": 1}),
        ("TIMELINE_NOT_FOUND", {"timeline": UNKNOWN}),
    ],
)
def test_other_reads_refuse_alike(
    store: Imported, client: PageClient, reason: str, change: dict[str, Any]
) -> None:
    good = {"tenant": TENANT, "timeline": store.timeline, "lsn": store.import_lsn}
    bad = good | change
    assert refused(client.get_rel_size, **bad, rel=PG_DATABASE).reason == reason
    assert refused(client.get_db_size, **bad, db_oid=5).reason == reason
    assert refused(client.lease, **bad, ttl_seconds=5).reason == reason
    with pytest.raises(PagestoreError) as caught:
        list(client.base_backup(**bad))
    assert caught.value.reason == reason


def raw_stream(store: Imported, *messages: bytes) -> list[pb.GetPagesResponse]:
    """What one GetPages stream answers to raw messages, one by one."""

    async def main() -> list[pb.GetPagesResponse]:
        async with access.channel(store.pages.address) as channel:
            call = channel.stream_stream("/pagestore.v1.PageService/GetPages")()
            answers = []
            for message in messages:
                await call.write(message)
                answers.append(pb.GetPagesResponse.FromString(await call.read()))
            await call.done_writing()
            return answers

    return asyncio.run(main())


def good_request(store: Imported, **change: Any) -> pb.GetPagesRequest:
    request = pb.GetPagesRequest(
        request_id=7,
        tenant_id=TENANT.raw,
        timeline_id=store.timeline.raw,
        read_lsn=pb.ReadLsn(request_lsn=store.import_lsn),
        rel=pb.RelTag(spc_oid=1664, rel_number=1262),
        blocks=[0],
    )
    for name, value in change.items():
        request.ClearField(name)  # type: ignore[arg-type]
        if isinstance(value, list):
            getattr(request, name).extend(value)
        else:
            setattr(request, name, value)
    return request


def test_a_stream_outlives_requests_that_make_no_sense(store: Imported) -> None:
    good = good_request(store)
    bad: list[tuple[bytes, str]] = [
        (b"", "MALFORMED_REQUEST"),
        (b"\xff" * 50, "MALFORMED_REQUEST"),
        (good.SerializeToString()[:-3] + b"\x80", "MALFORMED_REQUEST"),
        (good_request(store, blocks=[]).SerializeToString(), "NO_BLOCKS"),
        (good_request(store, blocks=[0] * 1025).SerializeToString(), "TOO_MANY_BLOCKS"),
        (good_request(store, blocks=[0] * 100_000).SerializeToString(), "TOO_MANY_BLOCKS"),
    ]
    for field in ("tenant_id", "timeline_id"):
        for length in (0, 15, 17, 65536):
            wrong = good_request(store, **{field: bytes(length)})
            bad.append((wrong.SerializeToString(), "MALFORMED_REQUEST INVALID_ID"))
    messages = [m for raw, _ in bad for m in (raw, good.SerializeToString())]
    answers = raw_stream(store, *messages)
    for (_, reason), refusal, fine in zip(bad, answers[::2], answers[1::2], strict=True):
        assert refusal.status.reason in reason.split()
        assert not refusal.pages
        assert (fine.request_id, len(fine.pages)) == (7, 1)


def test_random_bytes_are_answered_in_band(store: Imported) -> None:
    seed = time.time_ns()
    source = random.Random(seed)
    good = good_request(store).SerializeToString()
    messages = []
    for _ in range(300):
        mutated = bytearray(good)
        for _ in range(source.randint(1, 8)):
            mutated[source.randrange(len(mutated))] = source.randrange(256)
        messages.append(bytes(mutated[: source.randint(0, len(mutated))]))
    # A mutated LSN may lie in the future: the wait must not be long.
    messages = [m + pb.GetPagesRequest(wait_ms=1).SerializeToString() for m in messages]
    answers = raw_stream(store, *messages, good)
    assert len(answers[-1].pages) == 1, f"seed {seed}"


def test_a_huge_message_ends_only_its_stream(store: Imported, client: PageClient) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raw_stream(store, bytes(65 << 20))
    assert from_rpc_error(caught.value).code == "RESOURCE_EXHAUSTED"
    assert client.get_pages(TENANT, store.timeline, store.import_lsn, PG_DATABASE, [0])


def test_wrong_ids_outside_streams(store: Imported) -> None:
    async def main() -> None:
        async with access.channel(store.pages.address) as channel:
            for service, name, request in (
                ("PageService", "GetRelSize", pb.GetRelSizeRequest(tenant_id=b"x")),
                ("TimelineService", "GetTimeline", pb.GetTimelineRequest(tenant_id=bytes(17))),
                ("TimelineService", "CreateTimeline", pb.CreateTimelineRequest()),
                ("TimelineService", "ListTimelines", pb.ListTimelinesRequest(tenant_id=b"x")),
            ):
                call = channel.unary_unary(f"/pagestore.v1.{service}/{name}")
                with pytest.raises(grpc.RpcError) as caught:
                    await call(request.SerializeToString())  # type: ignore[attr-defined]
                assert from_rpc_error(caught.value).reason == "INVALID_ID"

    asyncio.run(main())


def test_many_streams_at_once(store: Imported, client: PageClient) -> None:
    async def main() -> None:
        async with AsyncPageClient(store.pages.address) as many:

            async def read(number: int) -> bytes:
                rel = Rel(1663, 5, 1249)
                lsn = 1 << 40 if number % 10 == 0 else store.import_lsn
                [page] = await many.get_pages(
                    TENANT, store.timeline, lsn, rel, [number % 8], wait_ms=50
                )
                return page

            found = await asyncio.gather(*(read(n) for n in range(500)), return_exceptions=True)
        for number, page in enumerate(found):
            if number % 10 == 0:
                assert isinstance(page, errors.DeadlineExceeded)
            else:
                assert page == expected[number % 8]

    expected = client.get_pages(
        TENANT, store.timeline, store.import_lsn, Rel(1663, 5, 1249), list(range(8))
    )
    asyncio.run(main())


def test_a_waiting_stream_does_not_hold_up_another(store: Imported, client: PageClient) -> None:
    with ThreadPoolExecutor(1) as pool, store.pages.client() as other:
        waiting = pool.submit(
            other.get_pages,
            *(TENANT, store.timeline, 1 << 40, PG_DATABASE, [0]),
            wait_ms=1500,
        )
        for _ in range(20):
            assert client.get_pages(TENANT, store.timeline, store.import_lsn, PG_DATABASE, [0])
        assert not waiting.done()
        assert isinstance(waiting.exception(), errors.DeadlineExceeded)


def test_not_modified_since_reads_without_waiting(store: Imported, client: PageClient) -> None:
    lsn = ReadLsn(1 << 40, store.import_lsn)
    [page] = client.get_pages(TENANT, store.timeline, lsn, PG_DATABASE, [0], wait_ms=1)
    assert page == client.get_pages(TENANT, store.timeline, store.import_lsn, PG_DATABASE, [0])[0]


def test_timelines_branch_list_and_vanish(store: Imported, client: PageClient) -> None:
    child, grandchild = TimelineId.generate(), TimelineId.generate()
    at = store.import_lsn
    made = client.create_timeline(TENANT, child, store.timeline, at)
    assert (made.parent_timeline_id, made.branch_lsn) == (store.timeline.raw, at)
    assert made.last_record_lsn == at
    again = client.create_timeline(TENANT, child, store.timeline, at)
    assert again.created_unix_micros == made.created_unix_micros
    client.create_timeline(TENANT, grandchild, child, at)
    rel = Rel(1663, 5, 1249)
    assert client.get_pages(TENANT, grandchild, at, rel, [0, 1]) == client.get_pages(
        TENANT, store.timeline, at, rel, [0, 1]
    )
    ids = {info.timeline_id for info in client.list_timelines(TENANT)}
    assert {store.timeline.raw, child.raw, grandchild.raw} <= ids
    assert isinstance(
        refused(client.create_timeline, TENANT, child, grandchild, at), errors.AlreadyExists
    )
    unknown = refused(client.create_timeline, TENANT, TimelineId.generate(), UNKNOWN, at)
    assert unknown.reason == "TIMELINE_NOT_FOUND"
    future = refused(
        client.create_timeline, TENANT, TimelineId.generate(), child, 1 << 40, wait_ms=10
    )
    assert future.reason == "LSN_NOT_REACHED"
    client.delete_timeline(TENANT, grandchild)
    client.delete_timeline(TENANT, child)
    for gone in (child, grandchild):
        assert refused(client.get_timeline, TENANT, gone).reason == "TIMELINE_NOT_FOUND"
    assert client.get_pages(TENANT, store.timeline, at, rel, [0])


def test_leases(store: Imported, client: PageClient) -> None:
    expires = client.lease(TENANT, store.timeline, store.import_lsn, 100)
    assert 90 <= expires - time.time() <= 101
    assert client.lease(TENANT, store.timeline, store.import_lsn, 10) == expires
    for lsn, ttl, reason in (
        (1 << 40, 10, "LSN_NOT_REACHED"),
        (store.import_lsn, 0, "INVALID_LEASE"),
        (store.import_lsn, 1 << 31, "INVALID_LEASE"),
    ):
        assert refused(client.lease, TENANT, store.timeline, lsn, ttl, wait_ms=50).reason == reason


def test_a_broken_import_leaves_nothing(
    store: Imported, client: PageClient, tmp_path: Path
) -> None:
    from pagestore.transfer.pgdata import read_pgdata

    timeline = TimelineId.generate()
    chunks = list(read_pgdata(store.cluster.data, TENANT, timeline))
    assert refused(client.import_timeline, chunks[:-1]).reason == "INCOMPLETE_IMPORT"
    del chunks[-3]
    assert refused(client.import_timeline, chunks).reason == "INVALID_IMPORT"
    assert refused(client.get_timeline, TENANT, timeline).reason == "TIMELINE_NOT_FOUND"
    files = list((store.pages.data_dir / "store").rglob(f"*{timeline}*"))
    assert not [path for path in files if path.is_file()]
    taken = list(read_pgdata(store.cluster.data, TENANT, store.timeline))
    assert isinstance(refused(client.import_timeline, taken), errors.AlreadyExists)


def test_what_is_to_be_kept_is_told_and_what_is_kept_no_more_is_answered(store: Imported) -> None:
    async def main() -> None:
        async with AsyncPageClient(store.pages.address) as client:
            told = pb.TimelineRetention(
                tenant_id=TENANT.raw, timeline_id=store.timeline.raw, points=[1, store.import_lsn]
            )
            gone = pb.TimelineRetention(tenant_id=TENANT.raw, timeline_id=UNKNOWN.raw, points=[5])
            window = pb.RetentionWindow(seconds=60)
            request = pb.SetRetentionRequest(window=window, timelines=[told, gone], all=True)
            answer = await client.set_retention(request)
            assert [list(item.points) for item in answer.lost] == [[1]]
            request.window.seconds = 1 << 40
            with pytest.raises(errors.InvalidInput) as refusal:
                await client.set_retention(request)
            assert refusal.value.reason == "INVALID_RETENTION"
            info = await client.get_timeline(TENANT, store.timeline, sizes=True)
            assert info.kept_from_lsn == store.import_lsn
            assert info.sizes.logical_bytes > 5 << 20
            assert (info.sizes.shared_bytes, info.sizes.history_bytes) == (0, 0)

    asyncio.run(main())
