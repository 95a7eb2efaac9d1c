"""Verbs on the whole: up, down, status."""

from __future__ import annotations

import sys
import threading
from typing import Annotated, Any

import typer

from pagestore.cli.session import Data, Json, Session, human_bytes, session
from pagestore.errors import PagestoreError
from pagestore.installation import lifecycle, lost
from pagestore.installation.layout import Installation

NEXT = """What to do next:
  pagestore create app              make a database; prints its URL
  pagestore psql app                or any driver with that URL
  pagestore checkpoint app start    name this moment; `pagestore undo app` returns to it
  pagestore down                    stop everything"""


def up(
    data: Data = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay; stop everything on Ctrl-C.")
    ] = False,
    safekeepers: Annotated[
        int | None,
        typer.Option(min=1, max=7, help="How many copies of the WAL, at the first `up`."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start everything on this machine, and wait until it serves.

    With --safekeepers 3 a commit is on two of three before it returns, and any one may be lost.

    Example: pagestore up --data ~/databases
    """
    with session(data, as_json) as run:
        installation = run.installation
        pid = installation.running_supervisor()
        if pid is not None:
            lifecycle.check_count(installation, safekeepers)
            lifecycle.wait_until_serving(installation)
            _answer_up(run, already=True)
            return
        lifecycle.prepare(installation, safekeepers)
        if foreground:
            # The supervisor has this thread; what `up` would say comes from another.
            threading.Thread(target=_announce, args=(run,), daemon=True).start()
            lifecycle.supervise(installation)
            return
        lifecycle.wait_until_serving(installation, lifecycle.spawn_supervisor(installation))
        _answer_up(run, already=False)


def _announce(run: Session) -> None:
    try:
        lifecycle.wait_until_serving(run.installation)
        _answer_up(run, already=False)
    except PagestoreError as error:
        run.fail(error)


def _answer_up(run: Session, *, already: bool) -> None:
    installation = run.installation
    fields: dict[str, Any] = {
        "data": str(installation.data),
        "already_running": already,
        "pid": installation.running_supervisor(),
        "parts": {part: installation.address(part) for part in installation.part_names},
    }
    words = "pagestore runs already" if already else "pagestore is up"
    run.answer(fields, NEXT, f"{words} on {installation.data}")


def supervise() -> None:
    """Keep the parts of PAGESTORE_DATA running (what `up` starts)."""
    with session(None, False) as run:
        lifecycle.supervise(run.installation)


def down(data: Data = None, as_json: Json = False) -> None:
    """Stop every database cleanly, then everything else.

    Databases that ran start again with the next `up`.

    Example: pagestore down
    """
    with session(data, as_json) as run:
        was_running = lifecycle.stop(run.installation)
        said = "pagestore is down" if was_running else "pagestore was not running"
        run.answer({"was_running": was_running}, "", said)


def status(data: Data = None, as_json: Json = False) -> None:
    """Show what runs: parts, addresses, databases, bytes. Exit code 5 when not all serves.

    Example: pagestore status --json
    """
    with session(data, as_json) as run:
        installation = run.installation
        supervisor = installation.running_supervisor()
        parts = _part_rows(installation) if supervisor is not None else []
        system: dict[str, Any] = {}
        if supervisor is not None and all(row["serving"] for row in parts):
            found = run.control.system_status()
            system = {
                "databases": found.databases,
                "computes_running": found.computes_running,
                "store_bytes": found.store_bytes,
                "version": found.version,
            }
        fields = {
            "data": str(installation.data),
            "running": supervisor is not None,
            "supervisor_pid": supervisor,
            "parts": parts,
            "lost": _lost(installation),
            **system,
        }
        if as_json:
            run.answer(fields)
        else:
            _print_status(run, fields)
        if not system:
            raise typer.Exit(5)


def _lost(installation: Installation) -> dict[str, int]:
    items = lost.lost(installation)
    return {"count": len(items), "bytes": sum(item.size for item in items)}


def _part_rows(installation: Installation) -> list[dict[str, Any]]:
    rows = []
    for part in installation.part_names:
        process = lifecycle.running_part(installation, part)
        rows.append(
            {
                "part": part,
                "address": installation.config.listen(part),
                "serving": lifecycle.serves(installation, part),
                "pid": process.pid if process else None,
                "restarts": process.restarts if process else 0,
                "log": str(installation.log_file(part)),
            }
        )
    return rows


def _print_status(run: Session, fields: dict[str, Any]) -> None:
    if not fields["running"]:
        sys.stdout.write(f"not running\t{fields['data']}\n")
        return
    rows = [
        (
            str(row["part"]),
            "serving" if row["serving"] else "not serving",
            str(row["address"]),
            str(row["pid"] or "-"),
            str(row["log"]),
        )
        for row in fields["parts"]
    ]
    run.table(("part", "state", "address", "pid", "log"), rows)
    if "databases" in fields:
        sys.stdout.write(
            f"{fields['databases']} databases, {fields['computes_running']} running, "
            f"{human_bytes(fields['store_bytes'])} in {fields['data']}\n"
        )
    if fields["lost"]["count"]:
        sys.stdout.write(
            f"{fields['lost']['count']} files that no record names, "
            f"{human_bytes(fields['lost']['bytes'])}: see `pagestore lost`\n"
        )
