"""Verbs that show what is going on now."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.session import Data, Json, Session, session
from pagestore.cli.watching import CLEAR

if TYPE_CHECKING:
    from pagestore.v1 import usage_pb2 as pb


def metrics(data: Data = None, as_json: Json = False) -> None:
    """Print what every part says of itself, as Prometheus reads it.

    Example: pagestore metrics > /var/lib/node_exporter/pagestore.prom
    """
    with session(data, as_json) as run:
        import asyncio

        from pagestore.installation.commands import parts_to_watch
        from pagestore.services.exporter import gather

        text = asyncio.run(gather(parts_to_watch(run.installation))).decode()
        if not as_json:
            sys.stdout.write(text)
            return
        from prometheus_client.parser import text_string_to_metric_families

        samples = [
            item for family in text_string_to_metric_families(text) for item in family.samples
        ]
        run.answer(
            {"metrics": [{"name": s.name, "labels": s.labels, "value": s.value} for s in samples]}
        )


def top(
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.2, help="Between two looks.")
    ] = 2.0,
    looks: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after so many; default: never.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show the databases that are at work: CPU, queries a second, sessions, why they are awake.

    Example: pagestore top --every 1
    """
    with session(data, as_json) as run:
        before = _look(run)
        number = 0
        while looks is None or number < looks:
            time.sleep(every)
            now = _look(run)
            _show(run, _rows(before, now), clear=looks is None)
            before, number = now, number + 1


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    used: Mapping[str, pb.DatabaseUsage]
    awake: Mapping[str, Mapping[str, Any]]
    """By names, as `pagestore status` has them."""


def _look(run: Session) -> _Look:
    from pagestore.client.usage import UsageClient
    from pagestore.installation.awake import awake

    # The hour before, too: at its end what is counted would else begin anew.
    found = UsageClient(run.control).usage(time.time() - 3600)
    used = {item.name: item for item in found.databases if not item.removed}
    return _Look(time.monotonic(), used, {row["name"]: row for row in awake(run.installation)})


def _queries(look: _Look, name: str) -> int:
    return int(look.awake[name]["queries"]) if name in look.awake else 0


def _rows(before: _Look, now: _Look) -> list[dict[str, Any]]:
    """The busiest first."""
    seconds, rows = now.at - before.at, []
    for name, item in now.used.items():
        was = before.used.get(name)
        cpu = item.cpu_micros - (was.cpu_micros if was else 0)
        state = now.awake.get(name)
        queries = _queries(now, name) - _queries(before, name)
        if state is None and cpu <= 0 and queries <= 0:
            continue
        rows.append(
            {
                "name": name,
                "state": state["state"] if state else "asleep",
                "cpu_percent": round(max(cpu, 0) / 1e4 / seconds, 1),
                "queries_per_second": round(max(queries, 0) / seconds, 1),
                "sessions": state["sessions"] if state else 0,
                "kept_awake_by": state["why"] if state else None,
            }
        )
    return sorted(rows, key=lambda row: (-row["cpu_percent"], row["name"]))


def _show(run: Session, rows: list[dict[str, Any]], *, clear: bool) -> None:
    if run.as_json:
        run.answer({"databases": rows})
        return
    if clear and sys.stdout.isatty():
        sys.stdout.write(CLEAR)
    run.table(
        ("name", "state", "CPU %", "queries/s", "sessions", "kept awake by"),
        [tuple("-" if value is None else str(value) for value in row.values()) for row in rows],
    )
    sys.stdout.flush()
