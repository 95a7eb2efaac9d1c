"""Pages made from what ingest put equal those that Postgres itself wrote.

A plain cluster runs a workload over all access methods. The WAL since goes through
WalIngestor; each block is then made again by the redo pool from its newest chain, on top of
the file as it was before, and compared after masking. With wal_consistency_checking, pages on
their way are compared as well: each record then brings the page as it should come out.
"""

from __future__ import annotations

import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from pagestore import _native
from pagestore.ids import parse_lsn
from pagestore.keyspace import SETTINGS, WILL_INIT, Fork, Key, Kind, ValueKind
from pagestore.pgformat.bufmask import PageKind
from pagestore.reader.redo import LOG_HINTS, RedoHelpers
from tests.integration.ingest_workload import run_tables
from tests.integration.test_redo_truth import (
    PAGE,
    Relations,
    comparable,
    control_value,
    lsn_of,
    page_in,
    relation_kinds,
)
from tests.integration.test_redo_truth import SETTINGS as QUIET
from tests.plain_postgres import BINDIR, PlainPostgres, plain_postgres
from tests.wal_log import WalLog

Request = tuple[bytes, bytes | None, list[tuple[int, int, int, bytes]]]
GIST_BUILD_LSN = 1
FORKS = {"": Fork.MAIN, "fsm": Fork.FSM, "vm": Fork.VM, "init": Fork.INIT}
MANAGERS = {
    9: PageKind.HEAP,
    10: PageKind.HEAP,
    11: PageKind.BTREE,
    12: PageKind.HASH,
    13: PageKind.GIN,
    14: PageKind.GIST,
    15: PageKind.SEQUENCE,
    16: PageKind.SPGIST,
    17: PageKind.BRIN,
    20: PageKind.GENERIC,
}
"""By resource manager: how pages are masked that its records change."""
CASES = {
    "all compared": ((), {"wal_consistency_checking": "all", "wal_compression": "lz4"}),
    "checksums, pglz": (("-k",), {"full_page_writes": "on", "wal_compression": "pglz"}),
    "zstd": ((), {"full_page_writes": "on", "wal_compression": "zstd"}),
}


@dataclass(repr=False)
class Ingested:
    """Chains since the copy in ``root/before``, by key; and pages met on the way."""

    cluster: PlainPostgres
    relations: Relations
    flags: int
    meta: _native.MetaTable = field(default_factory=_native.MetaTable)
    chains: dict[bytes, Request] = field(default_factory=dict)
    checks: list[tuple[Request, bytes]] = field(default_factory=list)
    kinds: Counter[ValueKind] = field(default_factory=Counter)
    met: Counter[int] = field(default_factory=Counter)

    def load_sizes(self) -> None:
        for path in (self.cluster.root / "before").glob("*/**/*"):
            number, _, fork = path.name.partition("_")
            if path.is_file() and number.isdigit():
                db = int(path.parent.name) if path.parent.name.isdigit() else 0
                key = Key(Kind.REL_SIZE, 1663 if db else 1664, db, int(number), FORKS[fork])
                self.meta.put(key.pack(), struct.pack("<I", path.stat().st_size // PAGE))
        self.meta.put(SETTINGS.pack(), struct.pack("<QI", 1, 1) + bytes(76))

    def put(self, raw: bytes, lsn: int, kind: int, flags: int, payload: bytes) -> None:
        self.kinds[ValueKind(kind)] += 1
        if raw[0] != Kind.REL_BLOCK:
            return
        if kind == ValueKind.IMAGE:
            self.chains[raw] = (raw, payload, [])
        elif kind == ValueKind.ZERO or flags & WILL_INIT:
            self.chains[raw] = (raw, None, [])
        elif raw not in self.chains:
            base = page_in(self.cluster.root / "before", block_of(raw))
            assert base is not None, Key.unpack(raw)
            self.chains[raw] = (raw, base, [])
        if kind in (ValueKind.RECORD, ValueKind.PATCH):
            self.chains[raw][2].append((lsn, kind, flags, payload))

    def ingest(self, start: int, end: int) -> None:
        log = WalLog.of(self.cluster)
        ingestor = _native.WalIngestor(start, 0, consistency=True)
        while ingestor.next_lsn < end:
            batch, checks = _native.Batch(), _native.Batch()
            at = ingestor.next_lsn
            piece = log.slice(at, min(at + (1 << 20), end))
            assert ingestor.feed(piece, self.meta, batch, checks).barrier is None
            self.meta.apply(batch)
            self._follow(batch, checks)

    def _follow(self, batch: _native.Batch, checks: _native.Batch) -> None:
        expected = iter([checks[i] for i in range(len(checks))])
        check = next(expected, None)
        for i in range(len(batch) + 1):
            entry = batch[i] if i < len(batch) else None
            while check is not None and (entry is None or entry[1] > check[1]):
                raw, base, items = self.chains[check[0]]
                manager = items[-1][3][17]
                self.met[manager] += 1
                if self.met[manager] % 7 == 1 and (len(items) < 12 or len(items) % 40 == 0):
                    self.checks.append(((raw, base, items[:]), check[4]))
                check = next(expected, None)
            if entry is not None:
                self.put(*entry)


def block_of(raw: bytes) -> tuple[int, int, int, int, int]:
    key = Key.unpack(raw)
    return key.spc, key.db, key.rel, key.fork, key.block


@pytest.fixture(scope="module", params=CASES)
def ingested(request: pytest.FixtureRequest) -> Iterator[Ingested]:
    options, settings = CASES[request.param]
    with plain_postgres(*options, **{**QUIET, **settings}) as cluster:
        cluster.sql("CHECKPOINT")
        cluster.stop()
        start = parse_lsn(control_value(cluster, "Latest checkpoint location:"))
        for folder in ("base", "global"):
            shutil.copytree(cluster.data / folder, cluster.root / "before" / folder)
        cluster.start()
        run_tables(cluster)
        relations = relation_kinds(cluster)
        cluster.stop()
        made = Ingested(cluster, relations, LOG_HINTS if options else 0)
        made.load_sizes()
        made.ingest(start, parse_lsn(control_value(cluster, "Latest checkpoint location:")) + 120)
        yield made


@pytest.fixture(scope="module")
def helpers() -> Iterator[RedoHelpers]:
    with RedoHelpers(BINDIR) as made:
        yield made


def redone(helpers: RedoHelpers, requests: list[Request], flags: int) -> list[bytes]:
    pages, fault = helpers.pool.apply_many(requests, flags)
    assert fault is None, fault
    return [page for page in pages if page is not None]


def test_every_block_is_what_postgres_wrote(ingested: Ingested, helpers: RedoHelpers) -> None:
    kinds, names = ingested.relations
    by_fork: dict[bytes, list[Request]] = {}
    for raw, request in sorted(ingested.chains.items()):
        key = Key.unpack(raw)
        if key.fork in (Fork.MAIN, Fork.VM) and (key.db, key.rel) in kinds:
            by_fork.setdefault(raw[:14], []).append(request)
    compared: Counter[str] = Counter()
    wrong = []
    for requests in by_fork.values():
        blocks = [block_of(request[0]) for request in requests]
        there = [page_in(ingested.cluster.data, block) for block in blocks]
        some = [i for i, page in enumerate(there) if page is not None]
        if not some:
            continue
        _, db, rel, fork, _ = blocks[0]
        ours = redone(helpers, [requests[i] for i in some], ingested.flags)
        theirs = [there[i] or b"" for i in some]
        numbers = [blocks[i][4] for i in some]
        a, b = (comparable(p, kinds[db, rel], fork, numbers) for p in (ours, theirs))
        compared[f"{kinds[db, rel]} fork {fork}"] += len(some)
        wrong += [
            (names[db, rel], fork, numbers[i], np.flatnonzero(a[i] != b[i])[:8].tolist())
            for i in np.flatnonzero((a != b).any(axis=1))
        ]
        wrong += [
            (names[db, rel], fork, number, hex(lsn_of(p)), hex(lsn_of(q)))
            for p, q, number in zip(ours, theirs, numbers, strict=True)
            if lsn_of(q) not in (lsn_of(p), GIST_BUILD_LSN)
        ]
    assert not wrong, wrong[:20]
    assert compared["heap fork 2"] > 0
    assert sum(compared.values()) > 500
    assert ingested.kinds[ValueKind.PATCH] > 0


def test_every_block_below_its_size_has_a_value(ingested: Ingested) -> None:
    for raw, value in ingested.meta.items(*_sizes()):
        key = Key.unpack(raw)
        for block in range(struct.unpack("<I", value)[0]):
            page = key._replace(kind=Kind.REL_BLOCK, block=block)
            known = page.pack() in ingested.chains
            assert known or page_in(ingested.cluster.root / "before", block_of(page.pack()))


def _sizes() -> tuple[bytes, bytes]:
    return Key(Kind.REL_SIZE).pack(), Key(Kind.REL_SIZE + 1).pack()


def test_pages_on_the_way_are_as_their_records_say(
    ingested: Ingested, helpers: RedoHelpers
) -> None:
    if not ingested.checks:
        assert ingested.kinds[ValueKind.IMAGE] > 500  # this case is about applied images
        return
    wrong, seen = [], Counter[str]()
    pages = redone(helpers, [request for request, _ in ingested.checks], ingested.flags)
    for ((raw, _, items), image), page in zip(ingested.checks, pages, strict=True):
        kind = MANAGERS[items[-1][3][17]]
        seen[kind] += 1
        key = Key.unpack(raw)
        a, b = (comparable([p], kind, key.fork, [key.block]) for p in (page, image))
        if (a != b).any():
            wrong.append((key, kind, len(items), np.flatnonzero(a != b)[:8].tolist()))
    assert not wrong, (len(wrong), wrong[:10])
    assert set(MANAGERS.values()) <= {PageKind.GENERIC, *seen}
    assert sum(seen.values()) > 3000
