"""A branch at the API, from a small and a large parent, beside copies that one makes today.

Ours is ``BranchDatabase`` over gRPC without a start (a branch costs no process until somebody
connects), and then with one, to its first row. Beside it, on a plain cluster of the same large
data: ``CREATE DATABASE … TEMPLATE`` by both strategies, and a copy of the stopped data directory
(``cp --reflink=auto``: shared blocks where the file system can, else bytes).

Last, the other verbs of a database's life over the same API: how long one waits for each.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial

from pagestore.bench.harness import OURS, PLAIN, Bench
from pagestore.bench.plain import PlainCluster, seconds_of, sql
from pagestore.bench.report import Target

SMALL = "parent of 10 MB"
SMALL_ROWS = 80_000
"""Of 64 bytes and a header each, beside the 7 MB of an empty database."""
P99 = 0.99


def run(bench: Bench) -> None:
    control = bench.stack.control
    with bench.loaded(bench.settings.parent_scale) as cluster:
        [[size]] = cluster.sql("SELECT pg_database_size('postgres')")
        cluster.stop()
        bench.stack.command("import", "branch-large", "--from-pgdata", str(cluster.data))
        _make_small(bench, "branch-small")
        parents = {"branch-large": f"parent of {size_words(int(size))}", "branch-small": SMALL}
        _api(bench, parents)
        _starts(bench, parents)
        _verbs(bench)
        for parent in parents:
            control.delete(parent)
        _alternatives(bench, cluster, parents["branch-large"])


def size_words(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _make_small(bench: Bench, name: str) -> None:
    url = bench.stack.control.create(name).url
    sql(url, f"CREATE TABLE t AS SELECT md5(i::text) FROM generate_series(1, {SMALL_ROWS}) i")
    bench.stack.control.stop(name)


def _api(bench: Bench, parents: dict[str, str]) -> None:
    """In turns, so that what disturbs one parent's branches disturbs the other's."""
    control = bench.stack.control
    count = bench.settings.in_a_row
    times: dict[str, list[float]] = {parent: [] for parent in parents}
    for number in range(count):
        for parent in parents:
            began = time.perf_counter()
            control.branch(parent, f"{parent}-{number}")
            times[parent].append((time.perf_counter() - began) * 1e3)
    for parent, words in parents.items():
        _api_rows(bench, f"at the API, {words}", times[parent])
        sample = range(0, count, max(1, count // 20))
        sizes = [float(control.get(f"{parent}-{item}").physical_bytes) for item in sample]
        bench.row(
            *("branch", f"at the API, {words}: size", OURS, "bytes", sizes), target=Target(1024)
        )
    for parent in parents:
        for number in range(count):
            control.delete(f"{parent}-{number}")


def _api_rows(bench: Bench, case: str, times: list[float]) -> None:
    count = len(times)
    tenth = max(1, count // 10)
    worst = sorted(times)[min(count - 1, int(P99 * count))]
    row = bench.row
    row("branch", f"{case}, p50", OURS, "ms", [statistics.median(times)], target=Target(10))
    row("branch", f"{case}, p99", OURS, "ms", [worst], target=Target(50))
    row("branch", f"{case}: the first {tenth}", OURS, "ms", times[:tenth])
    row("branch", f"{case}: the last {tenth} of {count:,}", OURS, "ms", times[-tenth:])


def _starts(bench: Bench, parents: dict[str, str]) -> None:
    taken = bench.take_turns({parent: partial(_to_first_row, bench, parent) for parent in parents})
    for parent, words in parents.items():
        bench.row("branch", f"to the first row, {words}", OURS, "ms", taken[parent])


def _verbs(bench: Bench) -> None:
    """One life of a small database a round; "start" is included where a verb waits for it."""
    control = bench.stack.control
    taken: dict[str, list[float]] = {}
    for number in range(bench.settings.warmup + bench.settings.rounds):
        name = f"verbs-{number}"
        steps: tuple[tuple[str, Callable[[], object]], ...] = (
            ("create, with start", partial(control.create, name)),
            ("checkpoint", partial(control.checkpoint, name, "good")),
            ("undo, with stop and start", partial(control.undo, name)),
            ("stop", partial(control.stop, name)),
            ("start", partial(control.wake, name)),
            ("rm", partial(control.delete, name)),
        )
        for verb, action in steps:
            if verb.startswith("undo"):
                sql(control.get(name, reveal=True).url, "CREATE TABLE lost AS SELECT 1")
            taken.setdefault(verb, []).append(seconds_of(action) * 1e3)
    for verb, values in taken.items():
        bench.row("branch", f"verb {verb}", OURS, "ms", values[bench.settings.warmup :])


def _to_first_row(bench: Bench, parent: str) -> float:
    control = bench.stack.control
    began = time.perf_counter()
    url = control.branch(parent, f"{parent}-started").url
    sql(url, "SELECT count(*) FROM pg_class")
    took = (time.perf_counter() - began) * 1e3
    control.delete(f"{parent}-started")
    return took


def _alternatives(bench: Bench, cluster: PlainCluster, words: str) -> None:
    case = f"to the first row, {words}"
    copies = bench.take_turns({PLAIN: lambda: _file_copy(bench, cluster)})
    bench.row("branch", case, "cp --reflink=auto, and start", "ms", copies[PLAIN])
    cluster.start()
    systems: dict[str, Callable[[], float]] = {
        f"CREATE DATABASE, {strategy}": partial(_template, cluster, strategy)
        for strategy in ("wal_log", "file_copy")
    }
    for system, values in bench.take_turns(systems).items():
        bench.row("branch", case, system, "ms", values)


def _template(cluster: PlainCluster, strategy: str) -> float:
    def copy() -> None:
        place = f"{cluster.conninfo} dbname=template1"
        sql(place, f"CREATE DATABASE copy TEMPLATE postgres STRATEGY {strategy}")
        cluster.sql("SELECT count(*) FROM pg_class", "copy")

    took = seconds_of(copy) * 1e3
    sql(f"{cluster.conninfo} dbname=template1", "DROP DATABASE copy")
    return took


def _file_copy(bench: Bench, cluster: PlainCluster) -> float:
    other = PlainCluster(bench.place("copy"))
    other.root.mkdir()
    shutil.chown(other.root, *_owner(cluster))

    def copy() -> None:
        command = ["cp", "-a", "--reflink=auto", str(cluster.data), str(other.data)]
        subprocess.run(command, check=True)
        other.start()
        other.sql("SELECT count(*) FROM pg_class")

    took = seconds_of(copy) * 1e3
    other.stop()
    shutil.rmtree(other.root)
    return took


def _owner(cluster: PlainCluster) -> tuple[int, int]:
    status = cluster.root.stat()
    return status.st_uid, status.st_gid
