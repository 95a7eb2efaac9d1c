"""Reads that wait, on an event loop: woken once they are done, and let go when nobody waits."""

from __future__ import annotations

import asyncio
import sys
import time
import weakref
from pathlib import Path

import pytest

from pagestore import _native, keyspace
from pagestore.errors import PagestoreError
from pagestore.keyspace import WILL_INIT, ValueKind
from pagestore.reader.threads import ReadThreads
from pagestore.v1 import page_pb2 as pb
from tests.unit.garbage import uncollected
from tests.unit.layers.model import TENANT, TIMELINE, batch_of
from tests.waiting import until

REL = pb.RelTag(spc_oid=1663, db_oid=5, rel_number=16384, fork=0)
BLOCKS = 100
MUTE = ["/bin/sleep", "60"]
"""In the place of a redo helper: it comes up, and never says hello."""


@pytest.fixture(scope="module")
def snapshot() -> _native.Snapshot:
    layer = _native.OpenLayer()
    size = keyspace.rel_size(1663, 5, 16384, 0).pack()
    keys = [keyspace.rel_block(1663, 5, 16384, 0, block).pack() for block in range(BLOCKS)]
    layer.put(
        batch_of(
            [
                (size, 10, ValueKind.IMAGE, 0, BLOCKS.to_bytes(4, "little")),
                *((key, 10, ValueKind.IMAGE, 0, bytes([i]) * 8192) for i, key in enumerate(keys)),
                (keys[0], 20, ValueKind.RECORD, WILL_INIT, b"record"),
            ]
        )
    )
    return _native.Snapshot([layer])


def request(number: int, blocks: list[int]) -> bytes:
    return pb.GetPagesRequest(
        request_id=number, tenant_id=TENANT, timeline_id=TIMELINE, rel=REL, blocks=blocks
    ).SerializeToString()


def mute_pool(tmp_path: Path, start_ms: int) -> _native.RedoPool:
    return _native.RedoPool(MUTE, [str(tmp_path)], start_ms=start_ms)


def children() -> list[str]:
    """Of this process: the helpers that were started."""
    tasks = Path("/proc/self/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


def test_each_of_many_reads_gets_its_own_response(snapshot: _native.Snapshot) -> None:
    async def main() -> None:
        threads = ReadThreads(1)

        async def read(number: int) -> None:
            blocks = [(number + i) % BLOCKS for i in range(70)]
            answer = threads.serve_pages(snapshot, request(number, blocks), 10, None)
            assert isinstance(answer, int)
            response = pb.GetPagesResponse.FromString(await threads.served(answer))
            assert response.request_id == number
            assert [page[0] for page in response.pages] == blocks

        await asyncio.gather(*(read(number) for number in range(1, 200)))
        threads.close()

    asyncio.run(main())


def test_the_loop_goes_on_while_a_helper_does_not_come_up(
    snapshot: _native.Snapshot, tmp_path: Path
) -> None:
    async def main() -> None:
        threads = ReadThreads(1)
        begun = time.monotonic()
        ticket = threads.serve_pages(snapshot, request(1, [0]), 20, mute_pool(tmp_path, 300))
        assert isinstance(ticket, int)
        waits = asyncio.create_task(threads.served(ticket))
        await asyncio.sleep(0)
        assert isinstance(threads.serve_pages(snapshot, request(2, [1]), 20, None), bytes)
        assert time.monotonic() - begun < 0.2
        response = pb.GetPagesResponse.FromString(await waits)
        assert response.status.reason == "REDO_FAILED"
        threads.close()

    asyncio.run(main())


def test_a_read_that_is_cancelled_ends_when_its_memory_is_free(
    snapshot: _native.Snapshot, tmp_path: Path
) -> None:
    async def main() -> None:
        threads = ReadThreads(1)
        pool = mute_pool(tmp_path, 300)
        before = sys.getrefcount(pool)
        tickets = [threads.serve_pages(snapshot, request(n, [0]), 20, pool) for n in range(5)]
        assert sys.getrefcount(pool) == before + 5
        reads = [asyncio.create_task(threads.served(int(ticket))) for ticket in tickets]
        # All are waited for, and the first is under way: a helper is started for it.
        await until(lambda: len(threads._waiting) == 5 and children())
        for task in reads:
            task.cancel()
        begun = time.monotonic()
        for task in reads[1:]:
            with pytest.raises(asyncio.CancelledError):
                await task
        assert time.monotonic() - begun < 0.2
        assert sys.getrefcount(pool) == before + 1
        assert not reads[0].done()
        with pytest.raises(asyncio.CancelledError):
            await reads[0]
        assert sys.getrefcount(pool) == before
        threads.close()

    asyncio.run(main())


class Kept:
    """What a read is given."""


def test_a_read_that_fails_holds_nothing_of_what_was_read() -> None:
    def fail(kept: Kept) -> None:
        raise PagestoreError("PAGE_MISSING", "It is not there.")

    async def main() -> None:
        threads = ReadThreads(1)
        kept = Kept()
        known = weakref.ref(kept)
        try:
            await threads.read(fail, kept)
        except PagestoreError:
            del kept
        threads.close()  # the thread has let go, too,
        await asyncio.sleep(0)  # and so has the event loop
        assert known() is None

    with uncollected():
        asyncio.run(main())


def test_closing_answers_who_waits(snapshot: _native.Snapshot, tmp_path: Path) -> None:
    async def main() -> None:
        threads = ReadThreads(1)
        pool = mute_pool(tmp_path, 200)
        tickets = [threads.serve_pages(snapshot, request(n, [0]), 20, pool) for n in range(3)]
        reads = [asyncio.create_task(threads.served(int(ticket))) for ticket in tickets]
        await until(lambda: len(threads._waiting) == 3 and children())
        threads.close()
        raw = await asyncio.gather(*reads)
        reasons = [pb.GetPagesResponse.FromString(one).status.reason for one in raw]
        assert reasons == ["REDO_FAILED", "CLOSED", "CLOSED"]

    asyncio.run(main())
