"""Verbs on the whole: up, down, status."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer

from pagestore.cli.session import Data, Json, Session, human_bytes, session
from pagestore.errors import PagestoreError
from pagestore.installation import lifecycle
from pagestore.installation.health import is_serving
from pagestore.installation.layout import Installation, PartProcess
from pagestore.installation.parts import orphans, running_part

STATUS_SECONDS = 3.0
"""Within which a part answers, or is said not to serve."""

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
        lifecycle.check_addresses(installation)
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
        fields = _described(run)
        if as_json:
            run.answer(fields)
        else:
            _print_status(run, fields)
        if not fields["serving"]:
            raise typer.Exit(5)


def _described(run: Session) -> dict[str, Any]:
    installation = run.installation
    supervisor = installation.running_supervisor()
    fields: dict[str, Any] = {
        "data": str(installation.data),
        "running": supervisor is not None,
        "serving": False,
        "supervisor_pid": supervisor,
        "parts": [],
    }
    if not installation.config_file.exists():
        return fields
    left = {} if supervisor else orphans(installation)
    if supervisor or left:
        fields["parts"] = _part_rows(installation, left)
    if supervisor and all(row["serving"] for row in fields["parts"]):
        fields |= _system(run)
    return fields


def _system(run: Session) -> dict[str, Any]:
    run.control.timeout = STATUS_SECONDS
    try:
        found = run.control.system_status()
    except PagestoreError as error:
        return {"error": error.message}
    return {
        "serving": True,
        "databases": found.databases,
        "computes_running": found.computes_running,
        "store_bytes": found.store_bytes,
        "version": found.version,
    }


def _part_rows(
    installation: Installation, left: dict[str, list[PartProcess]]
) -> list[dict[str, Any]]:
    """All parts are asked at once, so that several that are frozen cost no more than one."""
    names = installation.part_names
    with ThreadPoolExecutor(len(names)) as pool:
        serving = list(pool.map(lambda part: _answers(installation, part), names))
    return [
        _part_row(installation, part, answers, left.get(part, []))
        for part, answers in zip(names, serving, strict=True)
    ]


def _answers(installation: Installation, part: str) -> bool:
    try:
        return is_serving(installation.address(part), STATUS_SECONDS)
    except PagestoreError:
        return False


def _part_row(
    installation: Installation, part: str, answers: bool, left: list[PartProcess]
) -> dict[str, Any]:
    process = left[0] if left else running_part(installation, part)
    kept = process is not None and process.pid > 0 and not left
    return {
        "part": part,
        "address": installation.config.listen(part),
        "serving": answers and process is not None,
        "kept": kept,
        "pid": (process.pid or None) if process else None,
        "restarts": process.restarts if process else 0,
        "reason": (process.reason or None) if process else None,
        "log": str(installation.log_file(part)),
    }


def _print_status(run: Session, fields: dict[str, Any]) -> None:
    if not fields["running"] and not fields["parts"]:
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
    if "error" in fields:
        run.remark(f"the control plane does not answer: {fields['error']}")
    if not fields["running"]:
        run.remark("no supervisor keeps these: `pagestore up` takes them over, `down` ends them")
    if "databases" in fields:
        sys.stdout.write(
            f"{fields['databases']} databases, {fields['computes_running']} running, "
            f"{human_bytes(fields['store_bytes'])} in {fields['data']}\n"
        )
