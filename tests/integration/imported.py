"""A plain cluster whose history a page server also has: imported, then followed by its WAL.

The cluster's own data files, after a clean stop, are what every block must equal.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pagestore.client import PageClient, Rel
from pagestore.errors import DeadlineExceeded
from pagestore.ids import DEFAULT_TENANT, TimelineId, format_lsn
from pagestore.keyspace import PAGE_SIZE
from pagestore.postgres.checkpoint import end_of_checkpoint
from pagestore.postgres.cluster import open_cluster, read_control
from pagestore.transfer.pgdata import read_pgdata
from pagestore.v1 import page_pb2 as pb
from tests.integration.page_process import PageProcess
from tests.integration.wal_files import FileWalService
from tests.plain_postgres import PlainPostgres, reachable_dir

BLOCKS_PER_REQUEST = 256
WORKLOAD_SETTINGS: dict[str, object] = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_keep_size": "4GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "max_prepared_transactions": 10,
}


@dataclass
class Imported:
    """One cluster on a page server."""

    cluster: PlainPostgres
    pages: PageProcess
    wal: FileWalService
    timeline: TimelineId
    import_lsn: int

    def stop_and_publish(self) -> int:
        """Stops the cluster cleanly; the end of its WAL, which the WAL service now has."""
        self.cluster.stop()
        end = end_of_wal(self.cluster.data)
        self.wal.publish(DEFAULT_TENANT, self.timeline, self.cluster.data / "pg_wal", end)
        return end

    def wait(self, client: PageClient, lsn: int) -> None:
        """Returns once the page server has ingested `lsn`."""
        wait_ingested(client, self.timeline, lsn)


def wait_ingested(client: PageClient, timeline: TimelineId, lsn: int) -> None:
    """Returns once the page server has ingested `lsn`.

    It may take long, on a busy machine and where each record brings an image of its page; but a
    question that ends without anything having been ingested since the last is not asked again.

    Raises:
        DeadlineExceeded: nothing moves any more.
    """
    reached = -1
    while True:
        try:
            client.get_rel_size(DEFAULT_TENANT, timeline, lsn, Rel(1664, 0, 1262))
            return
        except DeadlineExceeded:
            now = client.get_timeline(DEFAULT_TENANT, timeline).last_record_lsn
            if now <= reached:
                raise
            reached = now


def end_of_wal(data: Path) -> int:
    """Of a cleanly stopped cluster: the end of its shutdown checkpoint."""
    return end_of_checkpoint(read_control(data).checkpoint_lsn)


def import_cluster(client: PageClient, data: Path) -> tuple[TimelineId, pb.TimelineInfo]:
    timeline = TimelineId.generate()
    info = client.import_timeline(read_pgdata(data, DEFAULT_TENANT, timeline))
    return timeline, info


@functools.cache
def _pristine(options: tuple[str, ...]) -> Path:
    """A data directory fresh from initdb, made once; removed when the tests end."""
    cluster = PlainPostgres(reachable_dir("ps-initdb-"))
    atexit.register(shutil.rmtree, cluster.root, ignore_errors=True)
    cluster.initdb(*options)
    return cluster.data


@contextmanager
def fresh_cluster(
    options: tuple[str, ...], settings: Mapping[str, object]
) -> Iterator[PlainPostgres]:
    """As plain_postgres, but on a copy of a directory that was made before."""
    cluster = PlainPostgres(reachable_dir())
    try:
        subprocess.run(["cp", "-a", str(_pristine(options)), str(cluster.data)], check=True)
        cluster.configure(**settings)
        cluster.start()
        yield cluster
    finally:
        cluster.stop(signal.SIGQUIT)
        shutil.rmtree(cluster.root, ignore_errors=True)


@contextmanager
def imported(
    directory: Path,
    *initdb_options: str,
    setup: str = "",
    start: bool = True,
    page_server: Mapping[str, object] | None = None,
    more_wal: Sequence[str] = (),
    **settings: object,
) -> Iterator[Imported]:
    """A cluster that was imported after `setup`, running unless `start` is false; its WAL is
    not yet published.

    Args:
        page_server: PageSettings that are not the default.
        more_wal: addresses of other WAL services that the page server watches.
    """
    with (
        fresh_cluster(initdb_options, {**WORKLOAD_SETTINGS, **settings}) as cluster,
        FileWalService() as wal,
        PageProcess(directory / "pages", [wal.address, *more_wal], **(page_server or {})) as pages,
    ):
        if setup:
            cluster.sql(setup)
        cluster.stop()
        with pages.client() as client:
            timeline, info = import_cluster(client, cluster.data)
        if start:
            cluster.start()
        yield Imported(cluster, pages, wal, timeline, info.last_record_lsn)


def listed(
    client: PageClient, timeline: TimelineId, lsn: int
) -> tuple[dict[Rel, int], dict[str, bytes], dict[tuple[Rel, int], bytes]]:
    """A base backup's relations with lengths, files, and hot pages."""
    relations: dict[Rel, int] = {}
    files: dict[str, bytes] = {}
    hot: dict[tuple[Rel, int], bytes] = {}
    for chunk in client.base_backup(DEFAULT_TENANT, timeline, lsn):
        for row in struct.iter_unpack("<5I", chunk.relations.packed):
            relations[row[:4]] = row[4]
        if chunk.HasField("file"):
            files[chunk.file.path] = chunk.file.data
        for block, page in zip(chunk.pages.blocks, chunk.pages.pages, strict=True):
            hot[_rel(chunk.pages.rel), block] = page
    return relations, files, hot


def _rel(tag: pb.RelTag) -> Rel:
    return Rel(tag.spc_oid, tag.db_oid, tag.rel_number, tag.fork)


def local_blocks(data: Path) -> Iterator[tuple[Rel, list[bytes]]]:
    """Every relation fork of a stopped cluster, unlogged ones left out as an import does."""
    for fork, files in open_cluster(data).relations.items():
        raw = b"".join(path.read_bytes() for path in files.paths)
        yield Rel(*fork), [raw[i : i + PAGE_SIZE] for i in range(0, len(raw), PAGE_SIZE)]


def remote_blocks(
    client: PageClient, timeline: TimelineId, lsn: int, rel: Rel, count: int
) -> Iterator[bytes]:
    """The blocks of a relation through GetPages."""
    blocks = iter(range(count))
    while some := list(itertools.islice(blocks, BLOCKS_PER_REQUEST)):
        yield from client.get_pages(DEFAULT_TENANT, timeline, lsn, rel, some)


def place(rel: Rel, block: int, lsn: int) -> str:
    name = f"{rel.spc_oid}/{rel.db_oid}/{rel.rel_number} fork {rel.fork}"
    return f"{name} block {block} at {format_lsn(lsn)}"
