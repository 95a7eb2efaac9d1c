"""Pages rebuilt by the redo pool equal those that plain Postgres's own replay makes.

A plain cluster runs a workload over all access methods. Every block is then made again from the
copy taken before the workload and the WAL since, by way of a decoder of the tests' own, and
compared with the same copy and WAL as Postgres replayed them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore.oracle.replay import end_of_wal
from pagestore.pgformat.bufmask import PageKind
from pagestore.pgformat.page import as_pages, page_lsns
from pagestore.pgformat.pagekind import kind_of
from pagestore.reader.redo import LOG_HINTS, RedoHelpers
from tests.integration.replayed import judge, page_in, replayed
from tests.integration.wal_chains import MAIN, Block, Chains, read_wal
from tests.plain_postgres import BINDIR, PlainPostgres, plain_postgres
from tests.wal_log import WalLog

SETTINGS = {
    "full_page_writes": "off",
    "fsync": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_wal_size": "4GB",
    "wal_keep_size": "4GB",
    "max_prepared_transactions": "10",
    "wal_level": "replica",
    "checkpoint_timeout": "1h",
}
WORKLOAD = Path(__file__).with_name("redo_workload.sql")


@dataclass
class Redone:
    """The chains that led to a stopped cluster's files, and the files as Postgres replayed them."""

    chains: Chains
    data: Path
    flags: int


def run_workload(cluster: PlainPostgres) -> None:
    cluster.tool(
        "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", cluster.root, "-p", cluster.port,
        "-U", "postgres", "-v", f"copy_file={cluster.root}/copy", "-f", "-",
        input=WORKLOAD.read_text(),
    )  # fmt: skip


@pytest.fixture(scope="module", params=["plain", "checksums"])
def redone(request: pytest.FixtureRequest) -> Iterator[Redone]:
    options = ["-k"] if request.param == "checksums" else []
    with plain_postgres(*options, **SETTINGS) as cluster:
        cluster.stop()
        base = cluster.root / "base"
        shutil.copytree(cluster.data, base)
        cluster.start()
        run_workload(cluster)
        cluster.stop()
        start, end = end_of_wal(base), end_of_wal(cluster.data)
        chains = Chains(lambda block: page_in(base, block))
        for record in read_wal(cluster.data / "pg_wal", start, end):
            chains.feed(record)
        wal = WalLog.of(cluster).slice(start, end)
        with replayed(base, wal, start, end) as data:
            yield Redone(chains, data, LOG_HINTS if options else 0)


@pytest.fixture(scope="module")
def helpers() -> Iterator[RedoHelpers]:
    with RedoHelpers(BINDIR) as made:
        yield made


def rebuild(helpers: RedoHelpers, redone: Redone, blocks: list[Block]) -> list[bytes]:
    requests = []
    for block in blocks:
        chain = redone.chains.chains[block]
        requests.append((keyspace.rel_block(*block).pack(), chain.base, chain.items))
    pages, fault = helpers.pool.apply_many(requests, redone.flags)
    assert fault is None, fault
    return [page for page in pages if page is not None]


def test_every_block_is_what_postgres_replayed(redone: Redone, helpers: RedoHelpers) -> None:
    blocks = sorted(redone.chains.chains)
    pages = dict(zip(blocks, rebuild(helpers, redone, blocks), strict=True))
    wrong, compared = judge(redone.data, pages)
    assert not wrong, wrong[:20]
    assert set(PageKind) <= set(compared)
    assert helpers.pool.stats()["deaths"] == 0


def test_hints_flag_decides_whether_visible_moves_the_heap_page(
    redone: Redone, helpers: RedoHelpers
) -> None:
    blocks = [
        block
        for block in sorted(redone.chains.chains)
        if block[3] == MAIN
        and (page := page_in(redone.data, block)) is not None
        and kind_of(page, MAIN, block[4]) == PageKind.HEAP
    ]
    lsns = []
    for flip in (0, LOG_HINTS):
        redone.flags ^= flip
        pages = rebuild(helpers, redone, blocks)
        redone.flags ^= flip
        lsns.append(page_lsns(as_pages(b"".join(pages))).tolist())
    assert lsns[0] != lsns[1]
