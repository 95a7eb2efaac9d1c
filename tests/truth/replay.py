"""The oracle: plain Postgres replays a base and its WAL, cold, up to an LSN.

The WAL is laid out as an archive that ends exactly at the LSN, so that recovery ends there by
itself. Nobody ever connects to the recovered cluster: even a read may prune a page. It is
stopped cleanly as soon as its control file says that recovery is over.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from tests.plain_postgres import PlainPostgres, reachable_dir

SEGMENT = 16 * 1024 * 1024


def segment_name(lsn: int) -> str:
    number = lsn // SEGMENT
    return f"{1:08X}{number >> 8:08X}{number & 0xFF:08X}"


class Archive:
    """WAL segments as files, written by position."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def adopt(self, pg_wal: Path, end: int) -> None:
        """Takes what a stopped cluster has in its own segment, up to ``end``."""
        source = pg_wal / segment_name(end - 1)
        inside = (end - 1) % SEGMENT + 1
        self.write(end - inside, source.read_bytes()[:inside])

    def write(self, lsn: int, data: bytes) -> None:
        while data:
            path = self.directory / segment_name(lsn)
            if not path.exists():
                path.touch()
                os.truncate(path, SEGMENT)
            part = data[: SEGMENT - lsn % SEGMENT]
            with path.open("r+b") as file:
                file.seek(lsn % SEGMENT)
                file.write(part)
            lsn += len(part)
            data = data[len(part) :]


def give_away(tree: Path) -> None:
    """Makes the unprivileged user the owner of a tree."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        for path in [tree, *tree.rglob("*")]:
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _control(cluster: PlainPostgres) -> dict[str, str]:
    lines = cluster.tool("pg_controldata", "-D", cluster.data).stdout.splitlines()
    return {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}


def end_of_shutdown_checkpoint(cluster: PlainPostgres) -> int:
    """The LSN behind the record that ended a cleanly stopped cluster's WAL."""
    high, low = _control(cluster)["Latest checkpoint location"].split("/")
    start = int(high, 16) << 32 | int(low, 16)
    listing = cluster.tool(
        "pg_waldump", "-p", cluster.data / "pg_wal", "-s", f"{high}/{low}", "-n", "1"
    ).stdout
    total = re.search(r"len \(rec/tot\):\s*\d+/\s*(\d+)", listing)
    assert total is not None, listing
    length = (int(total[1]) + 7) & ~7
    page_left = 8192 - start % 8192
    crossings = 0 if length <= page_left else 1
    return start + length + crossings * (40 if (start + page_left) % SEGMENT == 0 else 24)


def replay(base: Path, base_end: int, wal: Iterable[tuple[int, bytes]], lsn: int) -> PlainPostgres:
    """A stopped plain cluster that has replayed exactly the records that end at or below ``lsn``.

    ``base`` is a cleanly stopped data directory whose WAL ends at ``base_end``; ``wal`` gives
    the bytes from there on.
    """
    cluster = PlainPostgres(reachable_dir("ps-replay-"))
    shutil.copytree(base, cluster.data, symlinks=True)
    archive = Archive(cluster.root / "archive")
    archive.adopt(base / "pg_wal", base_end)
    for start, data in wal:
        archive.write(start, data[: max(0, lsn - start)])
    for segment in (cluster.data / "pg_wal").glob("0*"):
        segment.unlink()
    (cluster.data / "recovery.signal").touch()
    cluster.configure(
        restore_command=f"cp {archive.directory}/%f %p",
        hot_standby="off",
        autovacuum="off",
        max_prepared_transactions=200,
        max_worker_processes=64,
        max_connections=300,
        logging_collector="off",
    )
    give_away(cluster.root)
    cluster.launch()
    deadline = time.monotonic() + 240
    while _control(cluster)["Database cluster state"] != "in production":
        assert cluster.alive(), cluster.log_text()
        assert time.monotonic() < deadline, cluster.log_text()
        time.sleep(0.05)
    cluster.stop()
    return cluster
