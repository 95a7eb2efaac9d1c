"""The verb on what databases have cost: time awake, CPU, queries, wakes, bytes."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.session import Data, Json, Session, human_bytes, session, size_fields
from pagestore.cli.watching import watchable
from pagestore.client import durations
from pagestore.client.names import database_name
from pagestore.errors import InvalidInput

if TYPE_CHECKING:
    from pagestore.v1 import usage_pb2 as pb

DEFAULT_SINCE = "7d"
SIZED = 100
"""Databases of which shared bytes and history are reckoned, each by a question of its own."""
_SUMS = ("awake_seconds", "cpu_seconds", "queries", "wakes")
_SIZES = ("own_bytes", "shared_bytes", "history_bytes")


@watchable(lambda options: not options.get("as_csv"))
def usage(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One database.")] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From so long ago on: 24h, 7d.")
    ] = DEFAULT_SINCE,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Of each tenant together, for the operator.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Answer with CSV.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show what databases have cost: seconds awake, CPU, queries, wakes, bytes.

    Example: pagestore usage app --since 24h
    """
    with session(data, as_json) as run:
        if as_csv and as_json:
            raise InvalidInput("INVALID_ARGUMENT", "Either --csv or --json, not both.")
        from pagestore.client.usage import UsageClient

        client, begin = UsageClient(run.control), time.time() - _seconds(since)
        if all_tenants:
            found = client.usage_of_all(begin)
            rows = _by_tenant(found.databases)
        else:
            found = client.usage(begin, name="" if name is None else database_name(name))
            rows = _with_sizes(run, [_fields(item) for item in found.databases])
        rows.sort(key=lambda row: (-row["awake_seconds"], row.get("name") or row["tenant"]))
        if as_csv:
            _write_csv(rows, all_tenants=all_tenants)
            return
        if as_json:
            kind = "tenants" if all_tenants else "databases"
            run.answer({"since": _iso(found.since_unix_micros), kind: rows})
            return
        _show(run, rows, all_tenants=all_tenants)


def _seconds(since: str) -> float:
    found = durations.seconds(since)
    if found is None:
        raise InvalidInput("INVALID_TIME", f"{since!r} is no time as 30m, 24h or 7d.")
    return found


def _iso(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat()


def _fields(item: pb.DatabaseUsage) -> dict[str, Any]:
    return {
        "tenant": item.tenant,
        "name": item.name,
        "removed": item.removed,
        "awake_seconds": round(item.awake_micros / 1e6, 3),
        "cpu_seconds": round(item.cpu_micros / 1e6, 3),
        "queries": item.queries,
        "wakes": item.wakes,
    }


def _by_tenant(found: Iterable[pb.DatabaseUsage]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for item in found:
        fields = _fields(item)
        row = rows.setdefault(item.tenant, {"tenant": item.tenant} | dict.fromkeys(_SUMS, 0))
        for field in _SUMS:
            row[field] = round(row[field] + fields[field], 3)
    return [*rows.values()]


def _with_sizes(run: Session, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bytes are as of now; None of what is removed, or where they were not reckoned."""
    own = {item.name: item.physical_bytes for item in run.control.databases()}
    few = sum(not row["removed"] for row in rows) <= SIZED
    for row in rows:
        there = not row["removed"] and row["name"] in own
        sizes = dict.fromkeys(_SIZES)
        if there and few:
            fields = size_fields(run.control.get(row["name"]))
            sizes = {field: fields[field] for field in _SIZES}
        elif there:
            sizes["own_bytes"] = own[row["name"]]
        row |= sizes
    return rows


def _write_csv(rows: list[dict[str, Any]], *, all_tenants: bool) -> None:
    fields = ["tenant", *([] if all_tenants else ["name", "removed"]), *_SUMS]
    writer = csv.DictWriter(sys.stdout, fields + ([] if all_tenants else [*_SIZES]))
    writer.writeheader()
    writer.writerows(rows)


def _show(run: Session, rows: list[dict[str, Any]], *, all_tenants: bool) -> None:
    who = "tenant" if all_tenants else "name"
    shown = []
    for row in rows:
        cells = [row[who] + (" (removed)" if row.get("removed") else "")]
        cells += [f"{row['awake_seconds']:.0f} s", f"{row['cpu_seconds']:.2f} s"]
        cells += [str(row["queries"]), str(row["wakes"])]
        if not all_tenants:
            sizes = [row[field] for field in _SIZES]
            cells += ["-" if size is None else human_bytes(size) for size in sizes]
        shown.append(cells)
    columns = () if all_tenants else ("own", "shared", "history")
    run.table((who, "awake", "CPU", "queries", "wakes", *columns), shown)
