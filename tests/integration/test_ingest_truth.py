"""Pages made from what ingest put equal those that plain Postgres's own replay makes.

A plain cluster runs a workload over all access methods. The WAL since goes through
WalIngestor; each block is then made again by the redo pool from its newest chain, on top of
the file as it was before, and compared with what Postgres replays. With
wal_consistency_checking, pages on their way are compared as well: each record then brings the
page as it should come out.
"""

from __future__ import annotations

import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pagestore import _native
from pagestore.keyspace import PAGE_SIZE, SETTINGS, WILL_INIT, Fork, Key, Kind, ValueKind
from pagestore.oracle.replay import end_of_wal
from pagestore.pg_control_values import pack_settings
from pagestore.pgformat.bufmask import PageKind
from pagestore.pgformat.pagekind import differing_rows
from pagestore.reader.redo import LOG_HINTS, RedoHelpers
from pagestore.v1 import page_pb2 as pb
from tests.integration.ingest_workload import run_tables
from tests.integration.replayed import judge, page_in, replayed
from tests.integration.test_redo_truth import SETTINGS as QUIET
from tests.integration.wal_chains import Block
from tests.plain_postgres import BINDIR, VERSION, PlainPostgres, plain_postgres
from tests.wal_log import WalLog

Request = tuple[bytes, bytes | None, list[tuple[int, int, int, bytes]]]
FORKS = {"": Fork.MAIN, "fsm": Fork.FSM, "vm": Fork.VM, "init": Fork.INIT}
GENERIC = 20
MANAGERS = (9, 10, 11, 12, 13, 14, 15, 16, 17, GENERIC)
"""The resource managers whose records change pages."""
CASES = {
    "all compared": ((), {"wal_consistency_checking": "all", "wal_compression": "lz4"}),
    "checksums, pglz": (("-k",), {"full_page_writes": "on", "wal_compression": "pglz"}),
    "zstd": ((), {"full_page_writes": "on", "wal_compression": "zstd"}),
}


@dataclass(repr=False)
class Ingested:
    """Chains since the copy in ``base``, by key; and pages met on the way."""

    cluster: PlainPostgres
    base: Path
    start: int
    end: int
    flags: int
    meta: _native.MetaTable = field(default_factory=_native.MetaTable)
    chains: dict[bytes, Request] = field(default_factory=dict)
    checks: list[tuple[Request, bytes]] = field(default_factory=list)
    kinds: Counter[ValueKind] = field(default_factory=Counter)
    met: Counter[int] = field(default_factory=Counter)

    def load_sizes(self) -> None:
        for path in [*self.base.glob("base/*/*"), *self.base.glob("global/*")]:
            number, _, fork = path.name.partition("_")
            if number.isdigit():
                db = int(path.parent.name) if path.parent.name.isdigit() else 0
                key = Key(Kind.REL_SIZE, 1663 if db else 1664, db, int(number), FORKS[fork])
                self.meta.put(key.pack(), struct.pack("<I", path.stat().st_size // PAGE_SIZE))
        settings = pb.ControlSettings(
            system_id=1, wal_level=1, catalog_version=VERSION.catalog_version
        )
        self.meta.put(SETTINGS.pack(), pack_settings(settings))

    def put(self, raw: bytes, lsn: int, kind: int, flags: int, payload: bytes) -> None:
        self.kinds[ValueKind(kind)] += 1
        if raw[0] != Kind.REL_BLOCK:
            return
        if kind == ValueKind.IMAGE:
            self.chains[raw] = (raw, payload, [])
        elif kind == ValueKind.ZERO or flags & WILL_INIT:
            self.chains[raw] = (raw, None, [])
        elif raw not in self.chains:
            base = page_in(self.base, block_of(raw))
            assert base is not None, Key.unpack(raw)
            self.chains[raw] = (raw, base, [])
        if kind in (ValueKind.RECORD, ValueKind.PATCH):
            self.chains[raw][2].append((lsn, kind, flags, payload))

    def ingest(self) -> None:
        log = WalLog.of(self.cluster)
        ingestor = _native.WalIngestor(self.start, 0, consistency=True)
        while ingestor.next_lsn < self.end:
            batch, checks = _native.Batch(), _native.Batch()
            at = ingestor.next_lsn
            piece = log.slice(at, min(at + (1 << 20), self.end))
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


def block_of(raw: bytes) -> Block:
    key = Key.unpack(raw)
    return key.spc, key.db, key.rel, key.fork, key.block


@pytest.fixture(scope="module", params=CASES)
def ingested(request: pytest.FixtureRequest) -> Iterator[Ingested]:
    options, settings = CASES[request.param]
    with plain_postgres(*options, **{**QUIET, **settings}) as cluster:
        cluster.stop()
        base = cluster.root / "base"
        shutil.copytree(cluster.data, base)
        cluster.start()
        run_tables(cluster)
        cluster.stop()
        ends = end_of_wal(base), end_of_wal(cluster.data)
        made = Ingested(cluster, base, *ends, LOG_HINTS if options else 0)
        made.load_sizes()
        made.ingest()
        yield made


@pytest.fixture(scope="module")
def helpers() -> Iterator[RedoHelpers]:
    with RedoHelpers(BINDIR) as made:
        yield made


def redone(helpers: RedoHelpers, requests: list[Request], flags: int) -> list[bytes]:
    pages, fault = helpers.pool.apply_many(requests, flags)
    assert fault is None, fault
    return [page for page in pages if page is not None]


def test_every_block_is_what_postgres_replayed(ingested: Ingested, helpers: RedoHelpers) -> None:
    requests = [ingested.chains[raw] for raw in sorted(ingested.chains)]
    blocks = [block_of(raw) for raw, _, _ in requests]
    pages = dict(zip(blocks, redone(helpers, requests, ingested.flags), strict=True))
    wal = WalLog.of(ingested.cluster).slice(ingested.start, ingested.end)
    with replayed(ingested.base, wal, ingested.start, ingested.end) as data:
        wrong, compared = judge(data, pages)
    assert not wrong, wrong[:20]
    assert compared[PageKind.MAP] > 0
    assert sum(compared.values()) > 500
    assert ingested.kinds[ValueKind.PATCH] > 0


def test_every_block_below_its_size_has_a_value(ingested: Ingested) -> None:
    for raw, value in ingested.meta.items(*_sizes()):
        key = Key.unpack(raw)
        for block in range(struct.unpack("<I", value)[0]):
            page = key._replace(kind=Kind.REL_BLOCK, block=block)
            known = page.pack() in ingested.chains
            assert known or page_in(ingested.base, block_of(page.pack()))


def _sizes() -> tuple[bytes, bytes]:
    return Key(Kind.REL_SIZE).pack(), Key(Kind.REL_SIZE + 1).pack()


def test_pages_on_the_way_are_as_their_records_say(
    ingested: Ingested, helpers: RedoHelpers
) -> None:
    if not ingested.checks:
        assert ingested.kinds[ValueKind.IMAGE] > 500  # this case is about applied images
        return
    pages = redone(helpers, [request for request, _ in ingested.checks], ingested.flags)
    keys = [Key.unpack(raw) for (raw, _, _), _ in ingested.checks]
    images = b"".join(image for _, image in ingested.checks)
    forks, blocks = [key.fork for key in keys], np.array([key.block for key in keys])
    # Postgres takes an image before it gives the page its LSN.
    wrong = differing_rows(b"".join(pages), images, forks, blocks, lsns=False)
    assert not wrong, (len(wrong), [(keys[row], what) for row, what in wrong[:10]])
    seen = Counter(items[-1][3][17] for (_, _, items), _ in ingested.checks)
    assert set(MANAGERS) <= {GENERIC, *seen}
    assert sum(seen.values()) > 3000
