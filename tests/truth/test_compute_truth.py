"""Page truth over the whole stack: a compute's own WAL, replayed by plain Postgres.

A plain cluster is imported; SQL of all kinds runs on its compute, and other SQL on a branch of
it that was taken mid-way; plain Postgres replays the original files and the WAL service's bytes,
cold; and everything that the page server says at these LSNs equals the replayed files.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.ids import DEFAULT_TENANT, TimelineId, parse_lsn
from pagestore.oracle.comparison import Comparison, compare_cluster
from pagestore.oracle.replay import end_of_wal, replayed_cluster
from pagestore.oracle.verify import service_wal
from tests.integration.features import FEATURES, run
from tests.integration.installation import Whole, whole_pagestore
from tests.plain_postgres import RUN_AS, PlainPostgres, reachable_dir

SETTINGS = {
    "shared_buffers": "16MB",
    "max_prepared_transactions": "20",
}
ON_BRANCH = [
    "UPDATE ix_btree SET n = n + 1 WHERE id % 3 = 0",
    "VACUUM ix_btree",
    "TRUNCATE copied",
    "CREATE TABLE only_here AS SELECT generate_series(1, 3000) n",
]
AMCHECK = """
    SELECT count(bt_index_check(c.oid, true))
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am a ON a.oid = c.relam
    WHERE a.amname = 'btree' AND c.relpersistence = 'p' AND i.indisready AND i.indisvalid
"""
ALL_WAL = {"PAGESTORE_WAL_KEEP_BYTES": str(1 << 40)}
"""Plain Postgres replays it from the import on."""
PLACES = {"before": "truth", "after": "truth", "branched": "other"}
"""Checkpoint to database."""


@dataclass
class Worked:
    whole: Whole
    base: Path
    timelines: dict[str, TimelineId] = field(default_factory=dict)
    lsns: dict[str, int] = field(default_factory=dict)

    async def compare(self, point: str) -> Comparison:
        lsn, timeline = self.lsns[point], self.timelines[PLACES[point]]
        address = self.whole.installation.address("pageserver")
        safekeeper = self.whole.installation.address("safekeeper")
        async with AsyncPageClient(address) as pages, WalClient(safekeeper) as service:
            start = end_of_wal(self.base)
            wal = service_wal(pages, service, DEFAULT_TENANT, timeline, start, lsn)
            replayed = replayed_cluster(self.base, wal, lsn, run_as=RUN_AS, scratch=Path("/tmp"))
            async with replayed as data:
                return await compare_cluster(pages, DEFAULT_TENANT, timeline, lsn, data)

    def work(self) -> None:
        whole = self.whole
        url = whole.json("url", "truth")["url"]

        def connect() -> psycopg.Connection[tuple[object, ...]]:
            return psycopg.connect(url, autocommit=True)

        for half in ("before", "after"):
            for feature in FEATURES:
                run(getattr(feature, half), connect)
            self.lsns[half] = parse_lsn(whole.json("checkpoint", "truth", half)["lsn"])
        check_indexes(url)
        made = whole.json("branch", "truth", "other", "--at", "before")
        self.timelines["other"] = TimelineId.parse(made["timeline_id"])
        with psycopg.connect(made["url"], autocommit=True) as connection:
            for statement in ON_BRANCH:
                connection.execute(statement)
        check_indexes(made["url"])
        self.lsns["branched"] = parse_lsn(whole.json("checkpoint", "other", "branched")["lsn"])
        whole.json("stop", "truth")
        whole.json("stop", "other")


def check_indexes(url: str) -> None:
    """Each B-tree has an entry for every row of its table, in order."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        row = connection.execute(AMCHECK).fetchone()
        assert row is not None
        assert row[0] > 100


@pytest.fixture(scope="module", params=[pytest.param("plain", marks=pytest.mark.slow), "checksums"])
def worked(request: pytest.FixtureRequest) -> Iterator[Worked]:
    cluster = PlainPostgres(reachable_dir())
    cluster.initdb(*(["--data-checksums"] if request.param == "checksums" else []))
    try:
        with whole_pagestore(SETTINGS, environment=ALL_WAL) as whole:
            made = whole.json("import", "truth", "--from-pgdata", str(cluster.data))
            result = Worked(whole, cluster.data)
            result.timelines["truth"] = TimelineId.parse(made["timeline_id"])
            result.work()
            yield result
    finally:
        shutil.rmtree(cluster.root)


@pytest.mark.parametrize("point", PLACES)
def test_every_block_is_what_plain_postgres_makes_of_the_wal(worked: Worked, point: str) -> None:
    result = asyncio.run(worked.compare(point))
    assert not result.differences, "\n".join(result.differences[:40])
    assert result.blocks > 5000
