"""What `pagestore diff` takes of a branch in which 1% of the blocks changed, beside reading all.

python -m bench.difference [MEGABYTES [ROUNDS]]: in turns, on a store of its own. What takes how
long is said as it goes: with a gigabyte most of it is to read all, five times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from pagestore.sdk.opening import connect, end_ephemeral, start_ephemeral

ROUNDS = 5
ROWS_A_MEGABYTE = 8800


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("megabytes", type=int, nargs="?", default=256)
    parser.add_argument("rounds", type=int, nargs="?", default=ROUNDS)
    given = parser.parse_args()
    megabytes = given.megabytes
    data = Path("/var/tmp") / f"pagestore-bench-diff-{os.getpid()}"
    start_ephemeral(data, os.getpid())
    try:
        with connect(data=data, start=False) as client:
            rows = megabytes * ROWS_A_MEGABYTE
            made = client.create("app", settings={"autovacuum": "off"})
            _sql(
                made.url,
                f"CREATE TABLE t AS SELECT n, md5(n::text) || md5(n::text) AS a "
                f"FROM generate_series(1, {rows}) n",
            )
            _sql(made.url, "ALTER TABLE t ADD PRIMARY KEY (n)", "VACUUM t", "CREATE TABLE last ()")
            branch = client.branch("app", "branch")
            _sql(
                branch.url,
                f"UPDATE t SET a = 'x' WHERE n BETWEEN {rows // 2} AND {rows // 2 + rows // 200}",
            )
            took: dict[str, list[float]] = {"changed": [], "whole": []}
            for _ in range(given.rounds):
                took["changed"].append(_diff(data))
                took["whole"].append(_diff(data, "--whole"))
                sys.stderr.write(f"changed, whole: {took['changed'][-1]}, {took['whole'][-1]} s\n")
        typical = {name: statistics.median(times) for name, times in took.items()}
        print(
            json.dumps(
                {"megabytes": megabytes, **typical, "ratio": typical["changed"] / typical["whole"]}
            )
        )
    finally:
        end_ephemeral(data)


def _sql(url: str, *statements: str) -> None:
    for statement in statements:
        began = time.perf_counter()
        subprocess.run(["psql", url, "-qXc", statement], check=True)
        sys.stderr.write(f"{time.perf_counter() - began:.1f} s: {statement[:60]}\n")


def _diff(data: Path, *options: str) -> float:
    began = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "pagestore.cli.main",
        "diff",
        "app",
        "branch",
        "--json",
        *options,
    ]
    done = subprocess.run(
        command, env={**os.environ, "PAGESTORE_DATA": str(data)}, check=True, capture_output=True
    )
    told = json.loads(done.stdout)
    assert told["tables"][0]["updated"] > 0, told
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
