"""Verbs on the whole: up, down, status."""

from __future__ import annotations

import sys
import threading
from typing import Annotated, Any

import typer

from pagestore.cli.session import Data, Json, Session, human_bytes, session
from pagestore.cli.watching import watchable
from pagestore.errors import PagestoreError

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
    objects: Annotated[
        str | None,
        typer.Option(
            "--objects",
            metavar="URL",
            help="An object store that outlives this machine; kept in the installation's file.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start everything on this machine, and wait until it serves.

    With --safekeepers 3 a commit is on two of three before it returns, and any one may be lost.
    With --objects file:///DIR, s3://BUCKET/PREFIX, gs:// or az:// all of it is kept there too, and
    `pagestore recover --from URL` brings it back; credentials come from the environment.

    Example: pagestore up --data ~/databases
    """
    with session(data, as_json) as run:
        from pagestore.installation import lifecycle
        from pagestore.installation.objects import check_url

        installation = run.installation
        pid = installation.running_supervisor()
        if pid is not None:
            lifecycle.check_count(installation, safekeepers)
            check_url(installation, objects)
            lifecycle.wait_until_serving(installation)
            _answer_up(run, already=True)
            return
        lifecycle.prepare(installation, safekeepers, objects)
        lifecycle.check_addresses(installation)
        if foreground:
            # The supervisor has this thread; what `up` would say comes from another.
            threading.Thread(target=_announce, args=(run,), daemon=True).start()
            lifecycle.supervise(installation)
            return
        lifecycle.wait_until_serving(installation, lifecycle.spawn_supervisor(installation))
        _answer_up(run, already=False)


def _announce(run: Session) -> None:
    from pagestore.installation import lifecycle

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
        "address": installation.config.listens("proxy")[0],
        "parts": {part: installation.address(part) for part in installation.part_names},
    }
    words = "pagestore runs already" if already else "pagestore is up"
    where = f"{words} on {installation.data}; databases are at {fields['address']}"
    run.answer(fields, NEXT, where)


def supervise(
    owner: Annotated[
        int | None,
        typer.Option("--while", metavar="PID", help="Until this process has ended."),
    ] = None,
) -> None:
    """Keep the parts of PAGESTORE_DATA running (what `up` starts)."""
    with session(None, False) as run:
        from pagestore.installation import lifecycle

        lifecycle.supervise(run.installation, owner)


def down(
    keep_sessions: Annotated[
        bool,
        typer.Option("--keep-sessions", help="Leave the proxy, for idle clients to outlive it."),
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Stop every database cleanly, then everything else.

    With --keep-sessions clients stay connected to the proxy, and those that are idle go on after
    the next `up` as if nothing had been.

    Example: pagestore down
    """
    with session(data, as_json) as run:
        from pagestore.installation import lifecycle

        was_running = lifecycle.stop(run.installation, keep_proxy=keep_sessions)
        said = "pagestore is down" if was_running else "pagestore was not running"
        run.answer({"was_running": was_running}, "", said)


@watchable()
def status(data: Data = None, as_json: Json = False) -> None:
    """Show what runs: parts, addresses, databases, bytes. Exit code 5 when not all serves.

    Example: pagestore status --json
    """
    with session(data, as_json) as run:
        from pagestore.installation.status import described

        fields = described(run.installation)
        if as_json:
            run.answer(fields)
        else:
            _print_status(run, fields)
        if not fields["serving"]:
            raise typer.Exit(5)


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
    for row in fields["parts"]:
        if row["why"]:
            run.remark(f"amiss: {row['part']}: {row['why']}")
    if "error" in fields:
        run.remark(f"the control plane does not answer: {fields['error']}")
    if not fields["running"]:
        run.remark("no supervisor keeps these: `pagestore up` takes them over, `down` ends them")
    if "databases" in fields:
        sys.stdout.write(
            f"{fields['databases']} databases, {fields['computes_running']} running, "
            f"{human_bytes(fields['store_bytes'])} in {fields['data']}\n"
        )
        sys.stdout.write(_upkeep(fields["upkeep"]))
        if fields["upkeep"].get("read_faults"):
            times, last = (fields["upkeep"][name] for name in ("read_faults", "last_read_fault"))
            run.remark(f"amiss: pageserver: its disk failed {times} reads since it began: {last}")
        _print_objects(run, fields["objects"])
    sys.stdout.writelines(
        f"Postgres {major}: {exact}\n" for major, exact in fields.get("postgres", {}).items()
    )
    _print_databases(run, fields)
    for trouble in fields.get("troubles", []):
        run.remark(f"amiss: {trouble}")
    if fields["lost"]["count"]:
        sys.stdout.write(
            f"{fields['lost']['count']} files that no record names, "
            f"{human_bytes(fields['lost']['bytes'])}: see `pagestore lost`\n"
        )


def _upkeep(figures: dict[str, Any]) -> str:
    """Nothing before anything was written."""
    return _amplification(figures) + _levels(figures)


def _amplification(figures: dict[str, Any]) -> str:
    if not figures["wal_bytes"]:
        return ""
    written = sum(figures[name] for name in ("flushed_bytes", "merged_bytes", "imaged_bytes"))
    return (
        f"{written / figures['wal_bytes']:.1f} bytes written to files for each of WAL, "
        f"{figures['deepest_records']} records applied by a read at most\n"
    )


def _levels(figures: dict[str, Any]) -> str:
    """Of databases in use: what was flushed, what was merged and how often, images."""
    flushed, *merged = figures["level_bytes"] or [0]
    kinds = [("flushed", flushed)]
    kinds += [(f"merged {times} ×", size) for times, size in enumerate(merged, 1)]
    kinds.append(("images", figures["image_bytes"]))
    shown = [f"{human_bytes(size)} {kind}" for kind, size in kinds if size]
    total = sum(size for _, size in kinds)
    if not total:
        return ""
    read = max(1, total - figures["dead_bytes"])
    return f"layers in use: {', '.join(shown)}; {total / read:.2f} × of what is read\n"


def _print_objects(run: Session, parts: dict[str, dict[str, Any]]) -> None:
    for part, figures in parts.items():
        behind = f"{human_bytes(figures['behind_bytes'])} behind"
        if figures["behind_seconds"]:
            behind += f" for {figures['behind_seconds']:.0f} s"
        if figures["wal_seconds"]:
            behind += f", WAL for {figures['wal_seconds']:.0f} s"
        sys.stdout.write(f"objects of {part}: {figures['url']}, {behind}\n")
        if figures["last_error"]:
            run.remark(f"amiss: objects of {part}: {figures['last_error']}")


def _print_databases(run: Session, fields: dict[str, Any]) -> None:
    """What stands around them, and who is awake."""
    walls = fields.get("walls")
    names = ", ".join(walls or ["none: a superuser is whoever Postgres runs as"])
    if walls is None:
        names = "not known: `pagestore compute` has not said"
    sys.stdout.write(f"walls around each database: {names}\n")
    if fields.get("awake"):
        run.table(
            ("database", "state", "sessions", "waiting", "idle", "sleeps after", "kept awake by"),
            [
                (
                    row["name"],
                    row["state"],
                    str(row["sessions"]),
                    str(row["waiting"]),
                    f"{row['idle_seconds']:.0f} s" if row["state"] == "awake" else "-",
                    _seconds(row["sleeps_after"]),
                    row["why"] or "-",
                )
                for row in fields["awake"]
            ],
        )


def _seconds(count: float | str) -> str:
    return count if isinstance(count, str) else f"{count:g} s"
