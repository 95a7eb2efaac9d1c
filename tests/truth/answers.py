"""What SQL says of a history: dumps that must be equal, and amcheck of every index and heap.

A compute runs on the timeline or on a branch of it, a plain server on an exported directory and
on what plain Postgres replayed. amcheck of 15 knows heaps and B-trees; of the other methods'
indexes every page is compared, and the features of tests/integration ask them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from pagestore._native import wal_align
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.process import account
from pagestore.transfer.export import export_pgdata
from tests.integration.stack import Compute
from tests.plain_postgres import BINDIR, RUN_AS, PlainPostgres, reachable_dir
from tests.truth.history import WAIT_SECONDS, History

INDEXES = """
    SELECT c.oid::regclass::text, bt_index_parent_check(c.oid, true, true)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE a.amname = 'btree' AND c.relpersistence <> 't' AND i.indisready AND i.indisvalid
        AND c.relkind = 'i'
"""
HEAPS = """
    SELECT c.oid::regclass::text, v.*
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam,
        LATERAL verify_heapam(c.oid, check_toast => true) v
    WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't' AND a.amname = 'heap'
"""
LEAST_INDEXES = 100
"""The system catalogs alone have more."""


@dataclass(frozen=True)
class Server:
    """Where one listens."""

    host: str
    port: int
    user: str

    @classmethod
    def of_compute(cls, compute: Compute) -> Server:
        record = compute.running.record
        return cls(record.socket_directory, record.port, record.superuser)

    @classmethod
    def of_plain(cls, cluster: PlainPostgres) -> Server:
        return cls(str(cluster.root), cluster.port, "postgres")

    def connect(self, dbname: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=self.host, port=self.port, user=self.user, dbname=dbname, autocommit=True
        )

    def databases(self) -> list[str]:
        with self.connect("template1") as connection:
            rows = connection.execute("SELECT datname FROM pg_database WHERE datallowconn")
            return [row[0] for row in rows]

    def dump(self) -> list[str]:
        """All of it as SQL: roles, schemas, rows in the order in which they lie."""
        done = subprocess.run(
            [
                *(BINDIR / "pg_dumpall", "-h", self.host, "-p", str(self.port)),
                *("-U", self.user, "-l", "template1"),
            ],
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert done.returncode == 0, done.stderr
        # \restrict and \unrestrict carry a random token.
        lines = done.stdout.splitlines()
        return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]

    def check(self) -> int:
        """amcheck: each row has its entry in each B-tree, in order, and no heap is corrupt.
        Prepared transactions are committed first, since they hold locks. How many indexes."""
        indexes = 0
        for name in self.databases():
            with self.connect(name) as connection:
                connection.execute("SET lock_timeout = '60s'")
                for (gid,) in connection.execute(
                    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
                ).fetchall():
                    connection.execute(f"COMMIT PREPARED '{gid}'")
                connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
                indexes += len(connection.execute(INDEXES).fetchall())
                corrupt = connection.execute(HEAPS).fetchall()
                assert not corrupt, corrupt[:20]
        assert indexes > LEAST_INDEXES
        return indexes


@contextmanager
def computing(made: History, timeline: TimelineId) -> Iterator[Server]:
    """A compute of a timeline at its head."""
    compute = made.stack.start(timeline)
    try:
        yield Server.of_compute(compute)
    finally:
        compute.kill()


@contextmanager
def serving(data: Path) -> Iterator[Server]:
    """A plain server on a directory, with trust for whoever reaches its socket."""
    (data / "pg_hba.conf").write_text("local all all trust\n")
    if RUN_AS is not None:
        shutil.chown(data.parent, RUN_AS)  # for its socket
    cluster = PlainPostgres(data.parent)
    cluster.configure(max_prepared_transactions=100, autovacuum="off", fsync="off")
    cluster.start()
    try:
        yield Server.of_plain(cluster)
    finally:
        cluster.stop()


@contextmanager
def exported(made: History, lsn: int) -> Iterator[Server]:
    """A plain server on what was exported of the timeline."""
    root = reachable_dir("ps-export-")
    found = wal_align(made.wal, made.start, lsn, made.start, 0)
    assert found is not None
    try:
        export = export_pgdata(
            made.stack.pages,
            DEFAULT_TENANT,
            made.timeline,
            lsn,
            root / "data",
            owner=account(RUN_AS),
            prev_record_lsn=found[1],
        )
        made.stack.wait(export, WAIT_SECONDS)
        with serving(root / "data") as server:
            yield server
    finally:
        shutil.rmtree(root)


def check_answers(made: History, lsn: int, replayed: Path) -> int:
    """Dumps of an exported directory, of a branch's compute and, at the end, of the timeline's own
    equal the one of what plain Postgres replayed, which this may start. Both computes are asked
    by amcheck. How many indexes it looked at."""
    with serving(replayed) as server:
        expected = server.dump()
    assert any(line.startswith("CREATE ROLE") for line in expected)
    with exported(made, lsn) as server:
        _same(server.dump(), expected, "the exported directory")
    timelines = {"a branch": made.stack.branch(made.timeline, lsn)}
    if lsn == made.end:
        timelines["the timeline"] = made.timeline
    indexes = 0
    for name, timeline in timelines.items():
        with computing(made, timeline) as server:
            _same(server.dump(), expected, f"a compute of {name}")
            indexes += server.check()
    return indexes


def _same(dump: list[str], expected: list[str], what: str) -> None:
    if dump != expected:
        pairs = zip(dump, expected, strict=False)
        differing = [f"{a[:200]} FOR {b[:200]}" for a, b in pairs if a != b][:10]
        raise AssertionError(
            f"{what}: {len(dump)} lines for {len(expected)}\n" + "\n".join(differing)
        )
