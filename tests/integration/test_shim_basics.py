"""A hydrating copy answers as the plain cluster does, with few requests for many pages."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pagestore._native import crc32c
from tests.integration.page_source import (
    SHIM,
    HydratingPostgres,
    PageSource,
    fork_of,
    hydrating,
    relation_files,
    serving,
)
from tests.plain_postgres import BINDIR, MAJOR, PlainPostgres, plain_postgres

TABLE = """
CREATE TABLE t AS
    SELECT g AS id, md5(g::text) AS v, repeat('x', 300) AS pad FROM generate_series(1, 40000) g;
CREATE INDEX t_id ON t (id);
CREATE TABLE small AS SELECT generate_series(1, 10) AS id;
"""
DIGEST = "SELECT count(*), sum(id), md5(string_agg(v, '' ORDER BY id)) FROM t"
SERIAL = {"max_parallel_workers_per_gather": 0}


@pytest.fixture(scope="module")
def source() -> Iterator[PlainPostgres]:
    with plain_postgres("--wal-segsize=1", autovacuum="off") as cluster:
        cluster.sql(TABLE)
        cluster.sql("VACUUM ANALYZE")
        cluster.stop()
        yield cluster


@pytest.fixture
def compute(source: PlainPostgres, pages: PageSource) -> Iterator[HydratingPostgres]:
    with hydrating(source, pages, **SERIAL) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def laid(source: PlainPostgres) -> Iterator[HydratingPostgres]:
    """A laid copy for servers that refuse to start, so that it stays as it was."""
    with serving(source) as pages:
        cluster = HydratingPostgres(source, pages)
        yield cluster
        cluster.stop(signal.SIGQUIT)
        shutil.rmtree(cluster.root)


def refuses(cluster: HydratingPostgres, fault: str) -> bool:
    """Whether the server refuses to start with a message that matches."""
    with pytest.raises(RuntimeError, match=fault):
        cluster.start()
    return True


def asked(pages: PageSource, cluster: PlainPostgres, relation: str) -> list[list[int]]:
    """The blocks of each request for a relation, with the list of requests cleared."""
    fork = fork_of(cluster, relation)
    found = [blocks for rel, blocks in pages.requests if rel == fork]
    pages.requests.clear()
    return found


def test_answers_equal_those_of_the_source(source: PlainPostgres, pages: PageSource) -> None:
    source.start()
    expected = source.sql(DIGEST)
    source.stop()
    with hydrating(source, pages) as compute:
        before = compute.remote_blocks()
        assert compute.sql(DIGEST) == expected
        assert compute.remote_blocks() < before
        pages.requests.clear()
        assert compute.sql(DIGEST) == expected
        assert pages.requests == []


def test_a_sequential_scan_asks_for_many_blocks_at_once(
    compute: HydratingPostgres, pages: PageSource
) -> None:
    [(nblocks,)] = compute.sql("SELECT pg_relation_size('t') / 8192")
    compute.sql("SELECT count(*) FROM t WHERE pad = ''")
    requests = asked(pages, compute, "t")
    assert sorted(block for blocks in requests for block in blocks) == list(range(nblocks))
    assert len(requests) < nblocks / 32


def test_reading_ahead_can_be_turned_off(compute: HydratingPostgres, pages: PageSource) -> None:
    compute.sql("SET pagestore.readahead = 0; SELECT count(*) FROM t WHERE pad = ''")
    most = 1 if MAJOR < 17 else 16  # that Postgres itself reads at a time
    assert all(len(blocks) <= most for blocks in asked(pages, compute, "t"))


def test_a_bitmap_scan_asks_for_its_blocks_together(
    compute: HydratingPostgres, pages: PageSource
) -> None:
    compute.sql(
        "SET enable_seqscan = off; SET enable_indexscan = off;"
        "SELECT count(pad) FROM t WHERE id = ANY (ARRAY(SELECT generate_series(1, 40000, 97)))"
    )
    requests = asked(pages, compute, "t")
    assert sum(map(len, requests)) / len(requests) > 8


def test_prefetching_is_widened_unless_configured(compute: HydratingPostgres) -> None:
    query = "SELECT name, setting FROM pg_settings WHERE name LIKE '%_io_concurrency' ORDER BY 1"
    widened = [("effective_io_concurrency", "64"), ("maintenance_io_concurrency", "64")]
    assert compute.sql(query) == widened
    compute.stop()
    compute.configure(effective_io_concurrency=7)
    compute.start()
    assert compute.sql(query) == [("effective_io_concurrency", "7"), widened[1]]


def test_a_small_table_comes_whole(compute: HydratingPostgres, pages: PageSource) -> None:
    assert compute.sql("SELECT sum(id) FROM small") == [(55,)]
    assert asked(pages, compute, "small") == [[0]]


def test_the_shim_must_be_preloaded(source: PlainPostgres) -> None:
    shim = source.root / SHIM.name
    shutil.copy(SHIM, shim)
    source.start()
    try:
        with pytest.raises(psycopg.OperationalError, match="shared_preload_libraries"):
            source.sql(f"LOAD '{shim}'")
    finally:
        source.stop()


@pytest.mark.parametrize(
    ("setting", "value", "fault"),
    [
        ("page_server", "", "pagestore.page_server is"),
        ("page_server", "nowhere", "host:port"),
        ("tenant_id", "abc", "32 hexadecimal digits"),
        ("timeline_id", "g" * 32, "32 hexadecimal digits"),
        ("lsn", "0/0", "an LSN above 0/0"),
        ("remote_map", "missing.map", 'could not open the remote map "missing.map"'),
    ],
)
def test_wrong_settings_are_named(
    laid: HydratingPostgres, setting: str, value: str, fault: str
) -> None:
    conf: Path = laid.data / "postgresql.conf"
    good = conf.read_text()
    laid.configure(**{f"pagestore.{setting}": value})
    try:
        assert refuses(laid, fault)
    finally:
        conf.write_text(good)


def patched(content: bytes, offset: int, new: bytes) -> bytes:
    return content[:offset] + new + content[offset + len(new) :]


def resealed(content: bytes) -> bytes:
    """With the checksum of what it now holds."""
    [nrels] = struct.unpack_from("<I", content, 12)
    [nhot] = struct.unpack_from("<I", content, 44)
    head = patched(content, 40, bytes(4))[: 64 + 32 * nrels + 8 * nhot]
    return patched(content, 40, struct.pack("<I", crc32c(head)))


MAP_FAULTS = {
    "not begin with": lambda content: patched(content, 0, b"PSMAP001"),
    "another version": lambda content: patched(content, 8, b"\1"),
    "checksum": lambda content: patched(content, 70, b"\x77"),
    "shorter than its header": lambda content: content[:60],
    "length": lambda content: content[:-1],
    "not fit": lambda content: resealed(patched(content, 24, struct.pack("<Q", 1 << 40))),
    "not in order": lambda content: resealed(
        content[:64] + content[96:128] + content[64:96] + content[128:]
    ),
    "overlap": lambda content: resealed(patched(content, 64 + 32 + 24, bytes(8))),
    "malformed": lambda content: resealed(patched(content, 64 + 12, b"\7")),
    "init fork": lambda content: resealed(patched(content, 64 + 12, b"\3")),
}


@pytest.mark.parametrize("fault", MAP_FAULTS)
def test_a_damaged_map_is_refused(laid: HydratingPostgres, fault: str) -> None:
    remote_map: Path = laid.data / "pagestore.map"
    good = remote_map.read_bytes()
    remote_map.write_bytes(MAP_FAULTS[fault](good))
    try:
        assert refuses(laid, rf"not usable: .*{fault}")
    finally:
        remote_map.write_bytes(good)


def test_tablespaces_elsewhere_are_refused(compute: HydratingPostgres) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="CREATE TABLESPACE"):
        compute.sql("CREATE TABLESPACE elsewhere LOCATION '/tmp'")
    with pytest.raises(psycopg.errors.UndefinedFile, match="does not exist"):
        compute.sql("CREATE TABLESPACE elsewhere LOCATION '/no/such/place'")


@pytest.mark.parametrize("strategy", ["file_copy", "wal_log"])
def test_a_database_can_be_copied(compute: HydratingPostgres, strategy: str) -> None:
    compute.sql(f"CREATE DATABASE copy TEMPLATE postgres STRATEGY {strategy}", "template1")
    assert compute.sql(DIGEST, "copy") == compute.sql(DIGEST)
    compute.sql("DROP DATABASE copy")


def test_a_base_backup_is_refused(compute: HydratingPostgres) -> None:
    done = subprocess.run(
        [
            *(str(BINDIR / "pg_basebackup"), "-D", compute.root / "backup"),
            *("-h", compute.root, "-p", str(compute.port), "-U", "postgres", "-X", "none"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "no-base-backup-of-a-compute--use-pagestore-export" in done.stderr


def test_checksums_hold_in_the_hydrated_files() -> None:
    with plain_postgres("--data-checksums", autovacuum="off") as source:
        source.sql(TABLE)
        source.stop()
        for file in relation_files(source.data):  # as the page server has them: not computed
            content = bytearray(file.path.read_bytes())
            for page in range(0, len(content), 8192):
                content[page + 8 : page + 10] = bytes(2)
            file.path.write_bytes(content)
        with serving(source) as pages, hydrating(source, pages) as compute:
            assert compute.sql("SELECT count(*) FROM t") == [(40000,)]
            compute.sql("CREATE EXTENSION amcheck; SELECT bt_index_check('t_id', true)")
            compute.stop()
            compute.tool("pg_checksums", "--check", compute.data)
