"""GetBaseBackup, whole, for a small and a large database; beside pg_basebackup of the latter."""

from __future__ import annotations

import shutil
from pathlib import Path

from pagestore.bench.harness import OURS, PLAIN, Bench
from pagestore.bench.plain import PlainCluster, give, run_tool, seconds_of
from pagestore.ids import DEFAULT_TENANT, TimelineId


def run(bench: Bench) -> None:
    control = bench.stack.control
    with bench.loaded(bench.settings.scale) as cluster:
        [[size]] = cluster.sql("SELECT pg_database_size('postgres')")
        cluster.stop()
        bench.stack.command("import", "backup-large", "--from-pgdata", str(cluster.data))
        cluster.start()
        control.create("backup-small")
        large = f"{int(size) / 1e6:.0f} MB"
        taken = bench.take_turns(
            {
                f"{OURS}, empty": lambda: _ours(bench, "backup-small"),
                OURS: lambda: _ours(bench, "backup-large"),
                PLAIN: lambda: _pg_basebackup(bench, cluster),
            }
        )
        bench.row("basebackup", "empty database", OURS, "ms", taken[f"{OURS}, empty"])
        bench.row("basebackup", f"{large} database", OURS, "ms", taken[OURS])
        bench.row("basebackup", f"{large} database", "pg_basebackup", "ms", taken[PLAIN])
        for name in ("backup-small", "backup-large"):
            bench.row("basebackup", f"size, {name}", OURS, "kB", [_bytes(bench, name) / 1e3])
            control.delete(name)


def _ours(bench: Bench, name: str) -> float:
    return seconds_of(lambda: _bytes(bench, name)) * 1e3


def _bytes(bench: Bench, name: str) -> int:
    """Of the whole answer, with hot pages, as a start asks for it."""
    database = bench.stack.control.get(name)
    timeline = TimelineId(database.timeline_id)
    chunks = bench.stack.pages.base_backup(DEFAULT_TENANT, timeline, database.lsn, wait_ms=30_000)
    return sum(chunk.ByteSize() for chunk in chunks)


def _pg_basebackup(bench: Bench, cluster: PlainCluster) -> float:
    target: Path = bench.place("backup")
    target.mkdir()
    give(target)
    options = ("-c", "fast", "-X", "none", "-N", "-D", target, "-d", cluster.conninfo)
    took = seconds_of(lambda: run_tool("pg_basebackup", *options)) * 1e3
    shutil.rmtree(target)
    return took
