"""Pages rebuilt by the redo pool equal those that Postgres itself left in its files.

A plain cluster runs a workload over all access methods and stops cleanly. Every block of its
files is then made again from the copy taken before the workload and the WAL since, and
compared after masking what Postgres does not log.
"""

from __future__ import annotations

import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pagestore import keyspace
from pagestore.ids import parse_lsn
from pagestore.pgformat.bufmask import PageKind, mask_pages
from pagestore.reader.redo import LOG_HINTS, RedoHelpers
from tests.integration.wal_chains import MAIN, VM, Block, Chains, read_wal
from tests.plain_postgres import BINDIR, PlainPostgres, plain_postgres

PAGE = 8192
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


Relations = tuple[dict[tuple[int, int], PageKind], dict[tuple[int, int], str]]


@dataclass
class Replayed:
    """A stopped cluster, the chains that led to its files, and how its relations are read."""

    cluster: PlainPostgres
    before: Path
    chains: Chains
    kinds: dict[tuple[int, int], PageKind]
    names: dict[tuple[int, int], str]
    flags: int


def control_value(cluster: PlainPostgres, label: str) -> str:
    for line in cluster.tool("pg_controldata", cluster.data).stdout.splitlines():
        if line.startswith(label):
            return line.removeprefix(label).strip()
    raise KeyError(label)


def file_of(data: Path, block: Block) -> Path:
    _, db, rel, fork, _ = block
    folder = data / "base" / str(db) if db else data / "global"
    return folder / f"{rel}{('', '_fsm', '_vm', '_init')[fork]}"


def page_in(data: Path, block: Block) -> bytes | None:
    path = file_of(data, block)
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(block[4] * PAGE)
        page = file.read(PAGE)
    return page if len(page) == PAGE else None


def run_workload(cluster: PlainPostgres) -> None:
    cluster.tool(
        "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", cluster.root, "-p", cluster.port,
        "-U", "postgres", "-v", f"copy_file={cluster.root}/copy", "-f", "-",
        input=WORKLOAD.read_text(),
    )  # fmt: skip


def relation_kinds(
    cluster: PlainPostgres,
) -> Relations:
    kinds, names = {}, {}
    databases = cluster.sql("SELECT oid::bigint, datname FROM pg_database WHERE datallowconn")
    for oid, name in databases:
        rows = cluster.sql(
            "SELECT c.reltablespace::bigint, pg_relation_filenode(c.oid)::bigint, c.relkind,"
            " coalesce(a.amname, ''), c.relname"
            " FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam"
            " WHERE pg_relation_filenode(c.oid) IS NOT NULL AND c.relpersistence = 'p'",
            name,
        )
        for tablespace, node, relkind, am, relname in rows:
            where = (0 if tablespace == 1664 else oid, node)
            kind = "sequence" if relkind == "S" else {"bloom": "generic"}.get(am, am) or "heap"
            kinds[where] = PageKind(kind)
            names[where] = f"{name}.{relname}"
    return kinds, names


@pytest.fixture(scope="module", params=["plain", "checksums"])
def replayed(request: pytest.FixtureRequest) -> Iterator[Replayed]:
    options = ["-k"] if request.param == "checksums" else []
    with plain_postgres(*options, **SETTINGS) as cluster:
        cluster.sql("CHECKPOINT")
        cluster.stop()
        start = parse_lsn(control_value(cluster, "Latest checkpoint location:"))
        before = cluster.root / "before"
        for folder in ("base", "global"):
            shutil.copytree(cluster.data / folder, before / folder)
        cluster.start()
        run_workload(cluster)
        kinds, names = relation_kinds(cluster)
        cluster.stop()
        end = parse_lsn(control_value(cluster, "Latest checkpoint location:"))
        chains = Chains(lambda block: page_in(before, block))
        for record in read_wal(cluster.data / "pg_wal", start, end + 1):
            chains.feed(record)
        flags = LOG_HINTS if options else 0
        yield Replayed(cluster, before, chains, kinds, names, flags)


@pytest.fixture(scope="module")
def helpers() -> Iterator[RedoHelpers]:
    with RedoHelpers(BINDIR) as made:
        yield made


def rebuild(helpers: RedoHelpers, replayed: Replayed, blocks: list[Block]) -> list[bytes]:
    requests = []
    for block in blocks:
        chain = replayed.chains.chains[block]
        requests.append((keyspace.rel_block(*block).pack(), chain.base, chain.items))
    pages, fault = helpers.pool.apply_many(requests, replayed.flags)
    assert fault is None, fault
    return [page for page in pages if page is not None]


def comparable(pages: list[bytes], kind: PageKind, fork: int, numbers: list[int]) -> np.ndarray:
    array = np.frombuffer(b"".join(pages), np.uint8).reshape(-1, PAGE)
    masked = mask_pages(array, PageKind.MAP if fork == VM else kind, np.array(numbers))
    if kind is PageKind.SEQUENCE:
        masked[:, 8100:] = 0  # values are handed out 32 for each record
    if kind is PageKind.SPGIST and numbers[0] == 0:
        masked[0] = 0  # the metapage caches places that are not logged
    return masked


def lsn_of(page: bytes) -> int:
    high, low = struct.unpack_from("<II", page)
    return high << 32 | low


def test_every_block_is_what_postgres_wrote(replayed: Replayed, helpers: RedoHelpers) -> None:
    by_fork: dict[tuple[int, ...], list[Block]] = {}
    for block in sorted(replayed.chains.chains):
        if block[3] in (MAIN, VM) and (block[1], block[2]) in replayed.kinds:
            by_fork.setdefault(block[:4], []).append(block)
    compared: Counter[str] = Counter()
    wrong = []
    for (_, db, rel, fork), blocks in by_fork.items():
        kind = replayed.kinds[db, rel]
        final = [page_in(replayed.cluster.data, block) for block in blocks]
        kept = [i for i, page in enumerate(final) if page is not None]
        blocks = [blocks[i] for i in kept]
        if not blocks:
            continue
        there = [final[i] or b"" for i in kept]
        ours = rebuild(helpers, replayed, blocks)
        numbers = [block[4] for block in blocks]
        mine = comparable(ours, kind, fork, numbers)
        theirs = comparable(there, kind, fork, numbers)
        if fork == VM and replayed.names[db, rel].startswith("other."):
            # CREATE DATABASE logs map pages as if their content were a page's hole, so that
            # WAL has blank maps. That is safe, as long as no bit is set which should not be.
            theirs &= mine
        differs = mine != theirs
        for i in np.flatnonzero(differs.any(axis=1)):
            where = np.flatnonzero(differs[i])
            wrong.append((replayed.names[db, rel], kind, blocks[i], where[:8].tolist()))
        compared[f"{kind} fork {fork}"] += len(blocks)
        lsns = [lsn_of(page) for page in ours]
        wrong += [
            (replayed.names[db, rel], kind, block, f"LSN {lsn:#x}, not {lsn_of(page):#x}")
            for block, lsn, page in zip(blocks, lsns, there, strict=True)
            if lsn != lsn_of(page)
        ]
    assert not wrong, wrong[:20]
    assert {f"{kind} fork 0" for kind in PageKind if kind != PageKind.MAP} <= set(compared)
    assert compared["heap fork 2"] > 0
    assert helpers.pool.stats()["deaths"] == 0


def test_hints_flag_decides_whether_visible_moves_the_heap_page(
    replayed: Replayed, helpers: RedoHelpers
) -> None:
    blocks = [
        block
        for block in sorted(replayed.chains.chains)
        if block[3] == MAIN
        and replayed.kinds.get((block[1], block[2])) is PageKind.HEAP
        and page_in(replayed.cluster.data, block) is not None
    ]
    right = [lsn_of(page) for page in rebuild(helpers, replayed, blocks)]
    replayed.flags ^= LOG_HINTS
    try:
        other = [lsn_of(page) for page in rebuild(helpers, replayed, blocks)]
    finally:
        replayed.flags ^= LOG_HINTS
    assert right != other
