"""A base, the WAL of a workload, and a page server that has both; and the question of truth.

At LSNs drawn at random (each the end of some record, within whatever was going on) and at the
end, plain Postgres's cold replay is compared with the timeline, and with branches made there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pagestore._native import wal_align
from pagestore.client.page import AsyncPageClient
from pagestore.compute.comparison import Comparison, compare_cluster
from pagestore.compute.replay import replayed_cluster
from pagestore.errors import DeadlineExceeded
from pagestore.ids import DEFAULT_TENANT, TimelineId
from tests.integration.imported import Imported, imported
from tests.plain_postgres import reachable_dir
from tests.truth.workloads import Workload
from tests.wal_log import WalLog

PATIENCE = 30
"""Waits of the page server's default: images in every record are many bytes to compare."""


@dataclass
class History:
    """What happened to one database."""

    store: Imported
    base: Path
    wal: bytes
    timeline: TimelineId = field(init=False)
    start: int = field(init=False)

    def __post_init__(self) -> None:
        self.timeline = self.store.timeline
        self.start = self.store.import_lsn

    @property
    def end(self) -> int:
        return self.start + len(self.wal)

    def record_end(self, limit: int) -> int:
        """The end of the last record at or below ``limit``."""
        found = wal_align(self.wal, self.start, limit, self.start, 0)
        assert found is not None
        return found[0]

    def draw(self, count: int, seed: int) -> list[int]:
        """LSNs at random, and the end."""
        chooser = random.Random(seed)
        some = [self.record_end(chooser.randint(self.start, self.end)) for _ in range(count)]
        return [*sorted(set(some)), self.end]

    def wait(self) -> None:
        """Until the page server has taken in everything."""
        with self.store.pages.client() as client:
            for _ in range(PATIENCE):
                with contextlib.suppress(DeadlineExceeded):
                    self.store.wait(client, self.end)
                    return
            self.store.wait(client, self.end)

    def kill_page_server(self) -> None:
        """kill -9, and a start: what was not flushed is taken in again."""
        self.store.pages.kill()
        self.store.pages.start()
        self.wait()

    async def _pieces(self) -> AsyncIterator[tuple[int, bytes]]:
        yield self.start, self.wal

    async def compare(self, lsn: int, *, branches: int = 0) -> list[Comparison]:
        """Of the timeline at ``lsn``, and of a branch of it, a branch of that, ...."""
        results = []
        replayed = replayed_cluster(
            self.base, self._pieces(), lsn, run_as="postgres", scratch=Path("/tmp")
        )
        async with replayed as data, AsyncPageClient(self.store.pages.address) as pages:
            timeline = self.timeline
            results.append(await compare_cluster(pages, DEFAULT_TENANT, timeline, lsn, data))
            for _ in range(branches):
                parent, timeline = timeline, TimelineId.generate()
                await pages.create_timeline(DEFAULT_TENANT, timeline, parent, lsn)
                results.append(await compare_cluster(pages, DEFAULT_TENANT, timeline, lsn, data))
        return results


@contextmanager
def history(
    directory: Path,
    workload: Workload,
    *initdb_options: str,
    page_server: Mapping[str, object] | None = None,
    **settings: object,
) -> Iterator[History]:
    """The workload on a plain cluster, whose WAL a page server follows."""
    root = reachable_dir("ps-truth-")
    store = imported(
        directory,
        *initdb_options,
        setup=workload.setup,
        start=False,
        page_server={"open_layer_bytes": 4 << 20, **(page_server or {})},
        **{"max_prepared_transactions": 100, "shared_buffers": "16MB", **settings},
    )
    try:
        with store as made:
            shutil.copytree(made.cluster.data, root / "base")
            made.cluster.start()
            workload.run(made.cluster)
            end = made.stop_and_publish()
            result = History(
                made, root / "base", WalLog.of(made.cluster).slice(made.import_lsn, end)
            )
            result.wait()
            yield result
    finally:
        shutil.rmtree(root)


def differences(made: History, lsn: int, *, branches: int = 0) -> list[str]:
    """Each difference of each comparison at an LSN."""
    results = asyncio.run(made.compare(lsn, branches=branches))
    assert all(result.blocks > 500 and result.files >= 10 for result in results), results
    return [
        f"{'branch ' * depth}{difference}"
        for depth, result in enumerate(results)
        for difference in result.differences
    ]
