"""A base, the WAL of a workload, and a page server that has both; and the question of truth.

A plain cluster is imported and works on. Its WAL goes to a safekeeper as a compute's would, and
from there to a page server. At LSNs drawn at random and at the end, plain Postgres's cold replay
is compared with the timeline, and with branches made there; see also answers.py.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pagestore._native import wal_align
from pagestore.client.page import AsyncPageClient
from pagestore.errors import DeadlineExceeded
from pagestore.ids import DEFAULT_TENANT, TimelineId, parse_lsn
from pagestore.keyspace import PAGE_SIZE
from pagestore.oracle.comparison import Comparison, compare_cluster
from pagestore.oracle.replay import end_of_wal
from tests.integration.imported import WORKLOAD_SETTINGS, fresh_cluster, wait_ingested
from tests.integration.page_process import PageProcess
from tests.integration.replayed import replayed
from tests.integration.stack import Stack, running_stack
from tests.plain_postgres import PlainPostgres, reachable_dir
from tests.truth.workloads import Workload, run_step
from tests.wal_log import WalLog, waldump

WAIT_SECONDS = 300
PATIENCE = 30
"""Waits of the page server's default: images in every record are many bytes to compare."""
APPENDED = 8 << 20
OPENS_GROUP = re.compile(
    r"rmgr: (?:Btree .*desc: (?:SPLIT|MARK_PAGE|NEWROOT|UNLINK)|Gin .*desc: SPLIT"
    r"|Gist .*desc: PAGE_SPLIT|Hash .*desc: (?:SPLIT|MOVE|SQUEEZE|ADD_OVFL)|SPGist .*desc: (?:PICK|"
    r"ADD_NODE|SPLIT|MOVE)|Heap2 .*desc: MULTI_INSERT|Storage|RelMap|Database|Heap .*desc: HOT_UPD)"
)
"""Records that others follow before Postgres calls the whole done."""


@dataclass
class History:
    """What happened to one database."""

    stack: Stack
    workload: Workload
    base: Path
    timeline: TimelineId
    start: int
    wal: bytes
    records: list[int]
    """Where each record begins."""
    in_groups: list[int]
    """Where those begin that follow one which does not stand alone."""

    @property
    def end(self) -> int:
        return self.start + len(self.wal)

    @property
    def pages(self) -> PageProcess:
        return self.stack.page_server

    def record_end(self, limit: int) -> int:
        """The end of the last record at or below ``limit``."""
        found = wal_align(self.wal, self.start, limit, self.start, 0)
        assert found is not None
        return found[0]

    def draw(self, count: int, seed: int) -> list[int]:
        """LSNs at random, and the end: some by bytes of WAL, some by records, some of them within
        a group of records."""
        chooser = random.Random(seed)
        bytewise = range(self.start, self.end)
        ways = [self.in_groups or self.records, bytewise, self.records]
        some = [self.record_end(chooser.choice(ways[n % len(ways)])) for n in range(count)]
        return [*sorted({lsn for lsn in some if lsn > self.start}), self.end]

    def wait(self, server: PageProcess | None = None) -> None:
        """Until a page server has taken in everything."""
        with (server or self.pages).client() as client:
            for _ in range(PATIENCE):
                with contextlib.suppress(DeadlineExceeded):
                    wait_ingested(client, self.timeline, self.end)
                    return
            wait_ingested(client, self.timeline, self.end)

    def kill_page_server(self) -> None:
        """kill -9, and a start: what was not flushed is taken in again."""
        self.pages.kill()
        self.pages.start()
        self.wait()

    @contextmanager
    def replayed(self, lsn: int) -> Iterator[Path]:
        """The base as plain Postgres makes it at ``lsn``, stopped."""
        with replayed(self.base, self.wal, self.start, lsn) as data:
            yield data

    def compare(
        self, data: Path, lsn: int, *, branches: int = 0, server: PageProcess | None = None
    ) -> Compared:
        """Of the timeline at ``lsn`` with a directory, and of a branch, a branch of that, ...."""
        work = self._compare(data, lsn, (server or self.pages).address, branches)
        return Compared(self.stack.wait(work, WAIT_SECONDS))

    async def _compare(self, data: Path, lsn: int, address: str, branches: int) -> list[Comparison]:
        results = []
        async with AsyncPageClient(address) as pages:
            timeline = self.timeline
            results.append(await compare_cluster(pages, DEFAULT_TENANT, timeline, lsn, data))
            for _ in range(branches):
                parent, timeline = timeline, TimelineId.generate()
                await pages.create_timeline(DEFAULT_TENANT, timeline, parent, lsn)
                results.append(await compare_cluster(pages, DEFAULT_TENANT, timeline, lsn, data))
        return results


@dataclass
class Compared:
    """The timeline's comparison, its branch's, that one's branch's."""

    results: list[Comparison]

    @property
    def blocks(self) -> int:
        return sum(result.blocks for result in self.results)

    @property
    def differences(self) -> list[str]:
        assert all(result.blocks > 500 and result.files >= 10 for result in self.results)
        return [
            f"{'branch ' * depth}{difference}"
            for depth, result in enumerate(self.results)
            for difference in result.differences
        ]


def _wal_of(cluster: PlainPostgres, start: int, end: int) -> tuple[bytes, list[int], list[int]]:
    """Its bytes, where records begin, and which of them follow a record that opens a group."""
    for path in (cluster.data / "pg_wal").glob(24 * "[0-9A-F]"):
        # pg_waldump takes any file for the form of all, also one that was made beforehand.
        with path.open("rb") as file:
            if not any(file.read(PAGE_SIZE)):
                path.unlink()
    dump = waldump(cluster.data / "pg_wal", start, "-e", f"{end >> 32:X}/{end & 0xFFFFFFFF:X}")
    records, in_groups, opened = [], [], False
    for line in dump.splitlines():
        if (found := re.search(r"lsn: (\S+), prev", line)) is not None:
            records.append(parse_lsn(found[1]))
            if opened:
                in_groups.append(records[-1])
            opened = OPENS_GROUP.match(line) is not None
    return WalLog.of(cluster).slice(start, end), records, in_groups


async def append(stack: Stack, timeline: TimelineId, start: int, wal: bytes) -> None:
    """As a compute of the timeline, in pieces of whole records."""
    vote = await stack.wal.vote_next(DEFAULT_TENANT, timeline)
    at, limit, end, bytes_of = start, start, start + len(wal), memoryview(wal)
    while at < end:
        limit = min(limit + APPENDED, end)
        found = wal_align(bytes_of[at - start :], at, limit, at, 0)
        assert found is not None
        if found[0] == at:  # a segment switch ends where the segment does
            continue
        piece = bytes(bytes_of[at - start : found[0] - start])
        await stack.wal.append_wal(DEFAULT_TENANT, timeline, vote.term, at, piece)
        at = found[0]


def as_written(wal: bytes, start: int) -> bytes:
    """WAL of a history, as the cluster has it."""
    return wal


@contextmanager
def history(
    workload: Workload,
    *initdb_options: str,
    page_server: Mapping[str, object] | None = None,
    rewritten: Callable[[bytes, int], bytes] = as_written,
    **settings: object,
) -> Iterator[History]:
    """The workload on a plain cluster, whose WAL a page server follows.

    Args:
        rewritten: what becomes of the WAL, from its start LSN, before anybody sees it: records of
            the same lengths.
    """
    configured = {
        **WORKLOAD_SETTINGS,
        "max_prepared_transactions": 100,
        "shared_buffers": "16MB",
        **workload.settings,
        **settings,
    }
    root = reachable_dir("ps-truth-")
    try:
        with (
            running_stack(open_layer_bytes=4 << 20, **(page_server or {})) as stack,
            fresh_cluster(initdb_options, configured) as cluster,
        ):
            run_step(cluster, workload.setup)
            cluster.stop()
            timeline = stack.import_cluster(cluster.data)
            start = end_of_wal(cluster.data)
            shutil.copytree(cluster.data, root / "base")
            cluster.start()
            workload.run(cluster)
            cluster.stop()
            wal, *places = _wal_of(cluster, start, end_of_wal(cluster.data))
            wal = rewritten(wal, start)
            stack.wait(append(stack, timeline, start, wal), WAIT_SECONDS)
            made = History(stack, workload, root / "base", timeline, start, wal, *places)
            made.wait()
            yield made
    finally:
        shutil.rmtree(root)
