"""Verbs on the whole: up, down, status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Annotated, Any

import typer

from pagestore.cli.session import Data, Json, Session, human_bytes, session
from pagestore.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    PagestoreError,
    Unavailable,
)
from pagestore.installation.layout import Installation, PartProcess, lib_dir

START_SECONDS = 180.0
STOP_SECONDS = 240.0
MAX_RESTARTS = 4
"""A part that dies this often in a row will not come up by itself."""

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
            _check_count(installation, safekeepers)
            wait_until_serving(installation)
            _answer_up(run, already=True)
            return
        prepare(installation, safekeepers)
        if foreground:
            # The supervisor has this thread; what `up` would say comes from another.
            threading.Thread(target=_announce, args=(run,), daemon=True).start()
            _supervise(installation)
            return
        wait_until_serving(installation, spawn_supervisor(installation))
        _answer_up(run, already=False)


def _announce(run: Session) -> None:
    try:
        wait_until_serving(run.installation)
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


def prepare(installation: Installation, safekeepers: int | None = None) -> None:
    """Makes the data directory and checks what `up` needs.

    Args:
        safekeepers: how many a new installation shall have; one that exists must have as many.

    Raises:
        FailedPrecondition: what is missing, and how to get it.
    """
    from pagestore.installation import config

    lib_dir()
    try:
        if not installation.data.exists():
            installation.data.mkdir(parents=True)
            # Computes' directories lie below: Postgres's user must be able to pass through.
            installation.data.chmod(0o711)
        (installation.data / "log").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise FailedPrecondition(
            "DATA_DIR_UNUSABLE",
            f"Cannot use {installation.data}: {error.strerror}.",
            "Name another data directory: --data DIR or PAGESTORE_DATA.",
        ) from error
    config.write_first(installation.config_file, safekeepers or 1)
    _check_count(installation, safekeepers)
    for part in installation.part_names:
        installation.part_dir(part).mkdir(mode=0o700, exist_ok=True)
    postgres = installation.config.computes.postgres_bindir / "postgres"
    if not postgres.exists():
        raise FailedPrecondition(
            "POSTGRES_MISSING", f"There is no {postgres}.", "apt-get install postgresql-15"
        )


def _check_count(installation: Installation, wanted: int | None) -> None:
    there = len(installation.config.staying)
    if wanted is not None and wanted != there:
        raise FailedPrecondition(
            "OTHER_SAFEKEEPERS",
            f"{installation.data} has {there} safekeeper{'s' if there > 1 else ''}, not {wanted}.",
            "`pagestore up`, and then `pagestore safekeepers --grow N` for more.",
        )


def spawn_supervisor(installation: Installation) -> subprocess.Popen[bytes]:
    """Starts the supervisor in a session of its own, so that it outlives the terminal."""
    with installation.log_file("supervisor").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pagestore.cli.main", "supervise"],
            env={**os.environ, "PAGESTORE_DATA": str(installation.data)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )


def supervise() -> None:
    """Keep the parts of PAGESTORE_DATA running (what `up` starts)."""
    with session(None, False) as run:
        _supervise(run.installation)


def _supervise(installation: Installation) -> None:
    import asyncio

    from pagestore.installation.supervisor import Supervisor

    lock = installation.take_lock()
    if lock is None:
        raise FailedPrecondition(
            "ALREADY_RUNNING",
            f"pagestore runs already on {installation.data}.",
            "`pagestore status` shows it; `pagestore down` stops it.",
        )
    with lock:
        asyncio.run(Supervisor(installation).run())


def wait_until_serving(
    installation: Installation,
    supervisor: subprocess.Popen[bytes] | None = None,
    seconds: float = START_SECONDS,
) -> None:
    """
    Args:
        supervisor: the one just started, so that its death is noticed.

    Raises:
        PagestoreError: PART_FAILED, with the end of its log.
        DeadlineExceeded: NOT_SERVING.
    """
    deadline = time.monotonic() + seconds
    missing = list(installation.part_names)
    while missing:
        died = supervisor is not None and supervisor.poll() is not None
        if died and installation.running_supervisor() is None:
            assert supervisor is not None
            raise _part_failed(installation, "supervisor", f"exit status {supervisor.returncode}")
        missing = [part for part in missing if not _serves(installation, part)]
        for part in missing:
            process = _process(installation, part)
            if process is not None and process.restarts >= MAX_RESTARTS:
                raise _part_failed(installation, part, process.last_exit)
        if missing and time.monotonic() > deadline:
            raise DeadlineExceeded(
                "NOT_SERVING",
                f"Not serving after {seconds:.0f} s: {', '.join(missing)}.",
                f"See the logs in {installation.data / 'log'}.",
            )
        if missing:
            time.sleep(0.1)


def _part_failed(installation: Installation, part: str, why: str) -> PagestoreError:
    return PagestoreError(
        "PART_FAILED",
        f"The {part} does not start ({why}). Its log ends:\n{installation.log_tail(part)}",
        f"See {installation.log_file(part)}; addresses are set in {installation.config_file}. "
        "Then `pagestore down`, and `up` again.",
    )


def _process(installation: Installation, part: str) -> PartProcess | None:
    """A part of the supervisor that runs now; None where it, or the part, is not started."""
    process = installation.parts().get(part)
    ours = process is not None and process.supervisor == installation.running_supervisor()
    return process if ours else None


def _serves(installation: Installation, part: str) -> bool:
    """Whether our own part answers, not another's at an address that ours could not get."""
    from pagestore.installation.health import is_serving

    if _process(installation, part) is None:
        return False
    try:
        return is_serving(installation.address(part))
    except Unavailable:
        return False


def down(data: Data = None, as_json: Json = False) -> None:
    """Stop every database cleanly, then everything else.

    Databases that ran start again with the next `up`.

    Example: pagestore down
    """
    with session(data, as_json) as run:
        pid = run.installation.running_supervisor()
        if pid is None:
            run.answer({"was_running": False}, "", "pagestore was not running")
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while run.installation.running_supervisor() is not None:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    "STILL_RUNNING",
                    f"The supervisor (process {pid}) has not ended in {STOP_SECONDS:.0f} s.",
                    f"See {run.installation.log_file('supervisor')}.",
                )
            time.sleep(0.02)
        left = run.installation.postmasters()
        if left:
            raise PagestoreError(
                "COMPUTES_LEFT",
                f"Postgres processes still run: {', '.join(map(str, left))}.",
                "`pagestore up` takes them over; or end them with kill -INT.",
            )
        run.answer({"was_running": True}, "", "pagestore is down")


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
            **system,
        }
        if as_json:
            run.answer(fields)
        else:
            _print_status(run, fields)
        if not system:
            raise typer.Exit(5)


def _part_rows(installation: Installation) -> list[dict[str, Any]]:
    rows = []
    for part in installation.part_names:
        process = _process(installation, part)
        rows.append(
            {
                "part": part,
                "address": installation.config.listen(part),
                "serving": _serves(installation, part),
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
