"""Vanilla clusters in, vanilla clusters out."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.oracle.recovery import stopped_cluster
from pagestore.postgres.cluster import open_cluster, read_control
from pagestore.postgres.process import account
from pagestore.transfer.export import export_pgdata
from pagestore.transfer.pgdata import read_pgdata
from tests.integration.file_pages import file_pages
from tests.plain_postgres import RUN_AS, PlainPostgres, plain_postgres, reachable_dir


@pytest.fixture(scope="module")
def original() -> Iterator[PlainPostgres]:
    """A stopped cluster with checksums and a little of everything."""
    with plain_postgres("--data-checksums", max_prepared_transactions=10) as cluster:
        cluster.sql(
            "CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 20) AS v "
            "FROM generate_series(1, 3000) g"
        )
        cluster.sql("CREATE INDEX ON t USING gin (to_tsvector('simple', v))")
        cluster.sql("CREATE UNLOGGED TABLE u (id int PRIMARY KEY)")
        cluster.sql("INSERT INTO u VALUES (1)")
        cluster.sql("CREATE DATABASE other")
        cluster.sql("CREATE TABLE far AS SELECT 1 AS x", dbname="other")
        cluster.sql("SELECT lo_create(4711)")
        with cluster.connect() as session:
            session.execute(
                "BEGIN; INSERT INTO t VALUES (-1, 'prepared'); PREPARE TRANSACTION 'waiting'"
            )
        cluster.stop()
        yield cluster


@pytest.fixture
def copy(original: PlainPostgres) -> Iterator[PlainPostgres]:
    """A copy that a test may damage."""
    root = reachable_dir()
    shutil.rmtree(root)
    original_root = original.root
    shutil.copytree(original_root, root, symlinks=True)
    cluster = PlainPostgres(root)
    if RUN_AS is not None:
        for folder, _, names in os.walk(root):
            shutil.chown(folder, RUN_AS, RUN_AS)
            for name in names:
                shutil.chown(Path(folder) / name, RUN_AS, RUN_AS)
    yield cluster
    cluster.stop(signal.SIGQUIT)
    shutil.rmtree(root)


@pytest.fixture
def linked(original: PlainPostgres) -> Iterator[PlainPostgres]:
    """Hard links to the original's files: a test may replace them, but not write to them."""
    root = reachable_dir()
    cluster = PlainPostgres(root)
    shutil.copytree(original.data, cluster.data, copy_function=os.link)
    yield cluster
    shutil.rmtree(root)


def read_all(directory: Path) -> int:
    done = 0

    def progress(now: int, total: int) -> None:
        nonlocal done
        assert done <= now <= total
        done = now

    for _ in read_pgdata(directory, DEFAULT_TENANT, TimelineId.generate(), progress):
        pass
    return done


def heap_of(cluster: PlainPostgres, nth: int = 0) -> Path:
    """The nth largest relation file of a database."""
    files = sorted((cluster.data / "base/5").glob("[0-9]*"), key=lambda path: -path.stat().st_size)
    return files[nth]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x20
    replace(path, data)


def remove_tail(path: Path) -> None:
    replace(path, path.read_bytes()[:-100])


def replace(path: Path, data: bytes | str) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def add_segment(cluster: PlainPostgres) -> None:
    heap = heap_of(cluster)
    shutil.copy(heap, heap.with_name(heap.name + ".1"))


DAMAGE: dict[str, tuple[Callable[[PlainPostgres], object], str, str]] = {
    "not a cluster": (
        lambda c: (c.data / "PG_VERSION").unlink(),
        "NOT_A_CLUSTER",
        "PG_VERSION is missing",
    ),
    "another version": (
        lambda c: replace(c.data / "PG_VERSION", "14\n"),
        "WRONG_POSTGRES_VERSION",
        "is of Postgres 14. pagestore knows",
    ),
    "a flipped bit in pg_control": (
        lambda c: flip(c.data / "global/pg_control", 100),
        "CONTROL_FILE_CORRUPT",
        "pg_control",
    ),
    "a tablespace": (
        lambda c: (c.data / "pg_tblspc/16999").symlink_to("/tmp"),
        "TABLESPACE_UNSUPPORTED",
        "16999",
    ),
    "a backup label": (
        lambda c: (c.data / "backup_label").touch(),
        "CLUSTER_NOT_STOPPED",
        "not cleanly stopped",
    ),
    "a live postmaster": (
        lambda c: replace(c.data / "postmaster.pid", f"{os.getpid()}\n"),
        "CLUSTER_RUNNING",
        str(os.getpid()),
    ),
    "a torn file": (lambda c: remove_tail(heap_of(c)), "TORN_FILE", "base/5/"),
    "a segment too many": (add_segment, "TORN_FILE", ".1 continues"),
    "a flipped bit in a page": (
        lambda c: flip(heap_of(c), 8192 * 3 + 5000),
        "BAD_PAGE_CHECKSUM",
        "block 3 of",
    ),
    "a page beyond the first chunk": (
        lambda c: flip(heap_of(c), 8192 * 200 + 9),
        "BAD_PAGE_CHECKSUM",
        "block 200 of",
    ),
    "a damaged relation map": (
        lambda c: flip(c.data / "base/5/pg_filenode.map", 20),
        "RELMAP_CORRUPT",
        "base/5",
    ),
    "a missing relation map": (
        lambda c: (c.data / "base/5/pg_filenode.map").unlink(),
        "READ_FAILED",
        "base/5/pg_filenode.map",
    ),
    "a damaged prepared transaction": (
        lambda c: flip(next((c.data / "pg_twophase").iterdir()), 40),
        "TWO_PHASE_CORRUPT",
        "pg_twophase",
    ),
    "a torn transaction log": (
        lambda c: remove_tail(c.data / "pg_xact/0000"),
        "TORN_FILE",
        "pg_xact/0000",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_cannot_be_imported_is_named(case: str, linked: PlainPostgres) -> None:
    damage, reason, words = DAMAGE[case]
    damage(linked)
    with pytest.raises(PagestoreError) as caught:
        read_all(linked.data)
    assert (caught.value.reason, words in caught.value.message) == (reason, True), caught.value


def test_reading_covers_every_page(original: PlainPostgres) -> None:
    cluster = open_cluster(original.data)
    assert read_all(original.data) == cluster.total_blocks * 8192
    # Neither the unlogged table's own pages nor temporary files are part of it.
    forks = set(cluster.relations)
    unlogged = [fork for fork in forks if fork[3] == 3]
    assert unlogged
    assert not any((*fork[:3], 0) in forks for fork in unlogged)


async def recovered(directory: Path, look: Callable[[Path], object]) -> None:
    async with stopped_cluster(directory, run_as=RUN_AS, scratch=Path("/tmp")) as stopped:
        assert stopped != directory
        look(stopped)
    assert not stopped.exists()


def test_a_clean_cluster_is_taken_as_it_lies(original: PlainPostgres) -> None:
    async def main() -> None:
        async with stopped_cluster(original.data, run_as=RUN_AS) as stopped:
            assert stopped == original.data

    asyncio.run(main())


def test_a_crashed_cluster_is_recovered_on_a_copy(copy: PlainPostgres) -> None:
    copy.start()
    copy.sql("INSERT INTO t VALUES (-7, 'committed just before')")
    copy.stop(signal.SIGQUIT)
    before = (copy.data / "global/pg_control").read_bytes()

    def look(stopped: Path) -> None:
        read_all(stopped)
        assert sql_on(stopped, "SELECT count(*) FROM t WHERE id = -7") == [(1,)]

    asyncio.run(recovered(copy.data, look))
    assert (copy.data / "global/pg_control").read_bytes() == before


def sql_on(data: Path, text: str) -> list[tuple[object, ...]]:
    """The answer of a plain server started on a directory for this question."""
    if RUN_AS is not None:
        shutil.chown(data.parent, RUN_AS)  # for its socket
    cluster = PlainPostgres(data.parent)
    cluster.configure(max_prepared_transactions=10)
    (data / "pg_hba.conf").write_text("local all all trust\n")
    try:
        cluster.start()
        return cluster.sql(text)
    finally:
        cluster.stop()


def test_a_base_backup_is_recovered_on_a_copy(copy: PlainPostgres) -> None:
    copy.start()
    backup = copy.root / "backup"
    copy.tool(
        "pg_basebackup",
        "-h",
        copy.root,
        "-p",
        copy.port,
        "-U",
        "postgres",
        "-D",
        backup,
        "-X",
        "stream",
        "-c",
        "fast",
        "-R",
    )
    assert (backup / "standby.signal").exists()

    def look(stopped: Path) -> None:
        read_all(stopped)
        assert sql_on(stopped, "SELECT count(*) FROM t") == [(3000,)]

    asyncio.run(recovered(backup, look))


def test_a_backup_without_its_wal_says_so(copy: PlainPostgres) -> None:
    copy.start()
    backup = copy.root / "backup"
    copy.tool(
        "pg_basebackup",
        "-h",
        copy.root,
        "-p",
        copy.port,
        "-U",
        "postgres",
        "-D",
        backup,
        "-X",
        "none",
        "-c",
        "fast",
    )
    with pytest.raises(PagestoreError) as caught:
        asyncio.run(recovered(backup, lambda stopped: None))
    assert caught.value.reason == "RECOVERY_FAILED"
    assert "checkpoint record" in caught.value.message
    assert "-X stream" in str(caught.value.hint)


def export(source: Path, target: Path) -> list[tuple[int, int]]:
    """Exports what a page service makes of a stopped cluster."""
    seen: list[tuple[int, int]] = []

    async def main() -> None:
        control = read_control(source)
        async with file_pages(source, target.parent) as pages:
            await export_pgdata(
                pages,
                DEFAULT_TENANT,
                TimelineId.generate(),
                control.checkpoint_lsn + 120,
                target,
                lambda done, total: seen.append((done, total)),
                owner=account(RUN_AS),
            )

    asyncio.run(main())
    return seen


def dump(cluster: PlainPostgres) -> list[str]:
    lines = cluster.tool(
        *("pg_dumpall", "-h", cluster.root, "-p", cluster.port, "-U", "postgres"),
        "--no-unlogged-table-data",
    ).stdout.splitlines()
    # \\restrict and \\unrestrict carry a random token.
    return [line for line in lines if not line.startswith("\\")]


def test_an_export_starts_on_plain_postgres_and_equals_the_original(copy: PlainPostgres) -> None:
    root = reachable_dir()
    exported = PlainPostgres(root)
    try:
        seen = export(copy.data, exported.data)
        assert seen[0][0] == 0
        assert seen[-1][0] == seen[-1][1] > 0
        exported.tool("pg_checksums", "--check", "-D", exported.data)
        for cluster in (copy, exported):
            cluster.start()
        dumps = [dump(cluster) for cluster in (copy, exported)]
        assert dumps[0] == dumps[1]
        assert exported.sql("SELECT gid FROM pg_prepared_xacts") == [("waiting",)]
        assert exported.sql("SELECT count(*) FROM u") == [(0,)]
        assert exported.sql("SHOW shared_preload_libraries") == [("",)]
        exported.sql("COMMIT PREPARED 'waiting'")
        exported.sql("INSERT INTO u VALUES (1)")
        exported.tool(
            "pg_amcheck",
            "-h",
            root,
            "-p",
            exported.port,
            "-U",
            "postgres",
            "-a",
            "--install-missing",
            "--heapallindexed",
        )
    finally:
        exported.stop()
        shutil.rmtree(root)


def test_an_export_never_overwrites(original: PlainPostgres, tmp_path: Path) -> None:
    target = tmp_path / "used"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(PagestoreError) as caught:
        export(original.data, target)
    assert caught.value.reason == "DIRECTORY_NOT_EMPTY"
    assert [path.name for path in target.iterdir()] == ["mine"]
