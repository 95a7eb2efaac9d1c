"""A laid data directory, against stock Postgres: it starts without recovery at any LSN."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.ids import format_lsn
from pagestore.pgformat.pg_control import DbState, PgControl
from pagestore.pgformat.wal import record_start
from pagestore.postgres import cluster as vanilla
from pagestore.postgres.checkpoint import synthesize, write_control_file, write_segments
from pagestore.postgres.datadir import DataDirectory, Owner
from pagestore.v1 import page_pb2 as pb
from tests.integration.local_backup import backup_chunks
from tests.plain_postgres import PlainPostgres, plain_postgres, reachable_dir

PAGE = 8192
SEGMENT = 16 << 20


@pytest.fixture(scope="module")
def source() -> Iterator[PlainPostgres]:
    with plain_postgres("--data-checksums", max_prepared_transactions=10) as cluster:
        cluster.sql(
            "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 20000) g"
        )
        cluster.sql("CREATE INDEX ON t (id)")
        cluster.sql("CREATE UNLOGGED TABLE u (id int PRIMARY KEY)")
        cluster.sql("INSERT INTO u SELECT generate_series(1, 1000)")
        cluster.sql("CREATE DATABASE other")
        with cluster.connect() as session:
            session.execute("BEGIN")
            session.execute("INSERT INTO t VALUES (-1, 'prepared')")
            session.execute("PREPARE TRANSACTION 'waiting'")
        cluster.stop()
        yield cluster


@functools.cache
def chunks_of(data: Path) -> list[pb.BaseBackupChunk]:
    return list(backup_chunks(data))


def server_owner() -> Owner | None:
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("postgres")
    return Owner(entry.pw_uid, entry.pw_gid)


def lay(source: PlainPostgres, start_lsn: int | None = None) -> tuple[PlainPostgres, int]:
    """A directory laid at `start_lsn` (the source's end, unless given), and the end of its
    checkpoint."""
    root = reachable_dir()
    laid = PlainPostgres(root)
    with DataDirectory(laid.data, server_owner()) as directory:
        for chunk in chunks_of(source.data):
            directory.feed(chunk)
        assert directory.complete
        directory.write_unlogged(
            {fork: _pages_of(source, fork) for fork in directory.unlogged_forks()}
        )
        directory.write_missing_slru_pages()
        header = directory.header
        assert header is not None
        checkpoint = synthesize(
            start_lsn or header.lsn,
            header.lsn - 120,
            header.counters,
            header.settings,
            full_page_writes=False,
        )
        write_segments(directory, checkpoint)
        write_control_file(directory, checkpoint)
        directory.write(
            "postgresql.conf",
            "full_page_writes = off\nmax_prepared_transactions = 10\nwal_keep_size = 100MB\n",
        )
        directory.write("pg_hba.conf", "local all all trust\nlocal replication all trust\n")
    return laid, checkpoint.end_lsn


def _pages_of(source: PlainPostgres, fork: tuple[int, int, int, int]) -> list[bytes]:
    data = b"".join(
        path.read_bytes() for path in vanilla.open_cluster(source.data).relations[fork].paths
    )
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


def source_end(source: PlainPostgres) -> int:
    return vanilla.read_control(source.data).checkpoint_lsn + 120


# Where the record begins, relative to the first segment boundary behind the source's end.
STARTS = {
    "at the source's end": None,
    "mid-page": 3 * PAGE + 1000,
    "page start": 5 * PAGE,
    "segment start": 0,
    "record crosses a page": 7 * PAGE - 64,
    "record header crosses a page": 7 * PAGE - 8,
    "record crosses a segment": SEGMENT - 64,
    "last page, last word": SEGMENT - 8,
    "first page of a segment": 4096,
    "behind the long header": 40 + 8,
}


@pytest.mark.parametrize("where", STARTS)
def test_starts_without_recovery(source: PlainPostgres, where: str) -> None:
    offset = STARTS[where]
    end = source_end(source)
    start = end if offset is None else -(-end // SEGMENT) * SEGMENT + offset
    laid, checkpoint_end = lay(source, start)
    try:
        laid.start()
        assert laid.sql("SELECT count(*), min(v) FROM t") == [
            (20000, "00003e3b9e5336685200ae85d21b4f5e")
        ]
        assert laid.sql("SELECT count(*) FROM u") == [(0,)]
        first_lsn = laid.sql("SELECT pg_current_wal_insert_lsn() - '0/0'")[0][0]
        assert first_lsn >= checkpoint_end
        laid.sql("COMMIT PREPARED 'waiting'")
        laid.sql("INSERT INTO t SELECT g, 'new' FROM generate_series(1, 5000) g")
        laid.sql("INSERT INTO u VALUES (1), (2)")
        laid.sql("CHECKPOINT")
        assert laid.sql("SELECT count(*) FROM t") == [(25001,)]
        laid.stop()
        log = (laid.root / "postgres.log").read_text()
        assert "redo starts" not in log
        assert "ERROR" not in log
        control = vanilla.read_control(laid.data)
        assert control.state == DbState.SHUTDOWNED
        # pg_waldump finds the record and everything that the server wrote behind it.
        dump = laid.tool(
            "pg_waldump",
            "-p",
            laid.data / "pg_wal",
            "-s",
            format_lsn(record_start(start)),
            "-e",
            format_lsn(control.checkpoint_lsn),
        ).stdout.splitlines()
        assert "CHECKPOINT_SHUTDOWN" in dump[0]
        assert len(dump) > 5000
    finally:
        laid.stop()
        shutil.rmtree(laid.root)


def test_pg_controldata_agrees(source: PlainPostgres) -> None:
    laid, _ = lay(source)
    try:

        def facts(cluster: PlainPostgres) -> dict[str, str]:
            lines = cluster.tool("pg_controldata", "-D", cluster.data).stdout.splitlines()
            return dict(line.split(":", 1) for line in lines)

        ours, theirs = facts(laid), facts(source)
        assert "WARNING" not in "".join(ours)
        different = {name for name in theirs if ours[name] != theirs[name]}
        assert different <= {
            "Latest checkpoint location",
            "Latest checkpoint's REDO location",
            "Latest checkpoint's REDO WAL file",
            "Latest checkpoint's full_page_writes",
            "pg_control last modified",
            "Time of latest checkpoint",
            "Fake LSN counter for unlogged rels",
        }
    finally:
        shutil.rmtree(laid.root)


def test_a_real_control_file_is_rebuilt_byte_for_byte(source: PlainPostgres) -> None:
    data = (source.data / "global/pg_control").read_bytes()
    assert PgControl.parse(data).pack() == data


def test_pages_keep_their_checksums(source: PlainPostgres) -> None:
    assert vanilla.read_control(source.data).data_checksum_version
    laid, _ = lay(source)
    try:
        laid.tool("pg_checksums", "--check", "-D", laid.data)
    finally:
        shutil.rmtree(laid.root)


def test_the_directory_has_what_initdb_makes(source: PlainPostgres) -> None:
    laid, _ = lay(source)

    def directories(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()}

    try:
        assert directories(laid.data) == directories(source.data)
    finally:
        shutil.rmtree(laid.root)
