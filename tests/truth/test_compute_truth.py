"""Page truth over the whole stack: a compute's own WAL, replayed by plain Postgres.

A plain cluster is imported; SQL of all kinds runs on its compute; plain Postgres replays the
original files and the WAL service's bytes, cold, to two LSNs; and every block that GetPages
gives at these LSNs equals the replayed files.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from pagestore.client import PageClient
from pagestore.client.wal import WalClient
from pagestore.ids import DEFAULT_TENANT, TimelineId, parse_lsn
from pagestore.pgformat.bufmask import PageKind
from tests.integration.features import FEATURES, run
from tests.integration.installation import Whole, whole_pagestore
from tests.plain_postgres import PlainPostgres, reachable_dir
from tests.truth.compare import compare, page_kinds
from tests.truth.replay import end_of_shutdown_checkpoint, replay

SETTINGS = {
    "shared_buffers": "16MB",
    "max_prepared_transactions": "20",
}


@dataclass
class Worked:
    whole: Whole
    base: Path
    base_end: int
    timeline: TimelineId
    lsns: dict[str, int]
    kinds: dict[tuple[int, int], PageKind]
    wal: list[tuple[int, bytes]]


async def _read_wal(address: str, timeline: TimelineId, start: int) -> list[tuple[int, bytes]]:
    async with WalClient(address) as client:
        return [
            (chunk.lsn, chunk.data)
            async for chunk in client.read_wal(DEFAULT_TENANT, timeline, start)
        ]


@pytest.fixture(scope="module", params=["plain", "checksums"])
def worked(request: pytest.FixtureRequest) -> Iterator[Worked]:
    cluster = PlainPostgres(reachable_dir())
    cluster.initdb(*(["--data-checksums"] if request.param == "checksums" else []))
    base_end = end_of_shutdown_checkpoint(cluster)
    try:
        with whole_pagestore(SETTINGS) as whole:
            made = whole.json("import", "truth", "--from-pgdata", str(cluster.data))
            timeline = TimelineId.parse(made["timeline_id"])
            lsns, kinds = _work(whole)
            address = whole.installation.address("safekeeper")
            wal = asyncio.run(_read_wal(address, timeline, base_end))
            yield Worked(whole, cluster.data, base_end, timeline, lsns, kinds, wal)
    finally:
        shutil.rmtree(cluster.root)


def _work(whole: Whole) -> tuple[dict[str, int], dict[tuple[int, int], PageKind]]:
    lsns, kinds = {}, {}
    url = whole.json("url", "truth")["url"]

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(url, autocommit=True)

    for half in ("before", "after"):
        for feature in FEATURES:
            run(getattr(feature, half), connect)
        lsns[half] = parse_lsn(whole.json("checkpoint", "truth", half)["lsn"])
        with connect() as connection:
            kinds |= page_kinds(connection)
    whole.json("stop", "truth")
    return lsns, kinds


@pytest.mark.parametrize("half", ["before", "after"])
def test_every_block_is_what_plain_postgres_makes_of_the_wal(worked: Worked, half: str) -> None:
    lsn = worked.lsns[half]
    replayed = replay(worked.base, worked.base_end, worked.wal, lsn)
    try:
        with PageClient(worked.whole.installation.address("pageserver")) as client:
            result = compare(client, worked.timeline, lsn, replayed.data, worked.kinds)
    finally:
        shutil.rmtree(replayed.root)
    assert not result.differences, "\n".join(result.differences[:40])
    assert result.blocks > 5000
