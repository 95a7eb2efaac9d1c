"""How long the control plane's verbs take: `.venv/bin/python bench/verbs.py [rounds]`.

Medians in milliseconds, on an installation of its own, over gRPC without the command line's
own start. "start" is included where a verb waits until its database takes connections.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pagestore.v1 import control_pb2 as pb
from tests.integration.installation import sql, whole_pagestore

_T = TypeVar("_T")


def main(rounds: int) -> None:
    taken: defaultdict[str, list[float]] = defaultdict(list)

    def timed(what: str, action: Callable[[], _T]) -> _T:
        began = time.perf_counter()
        result = action()
        taken[what].append((time.perf_counter() - began) * 1000)
        return result

    with whole_pagestore() as whole, whole.control() as control:
        for number in range(rounds):
            name, copy, idle = f"a{number}", f"b{number}", f"c{number}"
            url = timed("create, with start", lambda name=name: control.create(name)).url
            timed("first connection and row", lambda url=url: sql(url, "SELECT 1"))
            sql(url, "CREATE TABLE t AS SELECT g FROM generate_series(1, 10000) g")
            timed("checkpoint", lambda name=name: control.checkpoint(name, "good"))
            point = pb.Point(checkpoint="good")
            timed("branch, with start", lambda n=name, c=copy, p=point: control.branch(n, c, p))
            timed(
                "branch alone",
                lambda n=name, c=idle, p=point: control.branch(n, c, p, leave_stopped=True),
            )
            sql(url, "DROP TABLE t")
            timed("undo, with stop and start", lambda name=name: control.undo(name))
            timed("stop", lambda copy=copy: control.stop(copy))
            timed("start", lambda copy=copy: control.wake(copy))
            for each in (copy, idle, name):
                timed("rm", lambda each=each: control.delete(each))
    for what, times in taken.items():
        sys.stdout.write(f"{what:28} {statistics.median(times):8.1f} ms\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
