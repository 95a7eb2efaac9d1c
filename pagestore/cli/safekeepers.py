"""The verb on the safekeepers of a running installation."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.session import Data, Json, Session, session
from pagestore.cli.watching import watchable
from pagestore.errors import (
    DeadlineExceeded,
    InvalidInput,
    PagestoreError,
)
from pagestore.installation.layout import Installation, not_running

if TYPE_CHECKING:
    from pagestore.v1 import control_pb2 as pb

POLL_SECONDS = 0.2
PART_SECONDS = 60.0


@watchable(lambda options: options.get("replace") is None and options.get("grow") is None)
def safekeepers(
    data: Data = None,
    replace: Annotated[
        int | None, typer.Option(min=1, metavar="ID", help="Bring another in its place.")
    ] = None,
    with_: Annotated[
        str | None,
        typer.Option("--with", metavar="ID=HOST:PORT", help="This one, which runs elsewhere."),
    ] = None,
    grow: Annotated[
        int | None, typer.Option(min=3, max=7, metavar="N", help="Have N instead of fewer.")
    ] = None,
    wait_seconds: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for the change.")
    ] = 3600.0,
    as_json: Json = False,
) -> None:
    """Show the safekeepers, or change who they are while clients write.

    Every database goes over to the new ones, and only then the old one stops. What was broken
    off goes on with the same command, or by itself.

    Example: pagestore safekeepers --replace 2
    """
    with session(data, as_json) as run:
        from pagestore.installation import changing

        installation = run.installation
        if installation.running_supervisor() is None:
            raise not_running(installation.data)
        if replace is not None and grow is not None:
            raise InvalidInput("ONE_CHANGE", "--replace and --grow are two changes.")
        if replace is not None:
            changing.begin_replacement(installation, replace, with_)
        elif grow is not None:
            changing.begin_growth(installation, grow)
        fields = _finish(run, wait_seconds) if replace or grow else _described(run)
        if as_json:
            run.answer(fields)
        else:
            _print(run, fields)


def _finish(run: Session, seconds: float) -> dict[str, Any]:
    """Whatever the file says is under way, to its end."""
    from pagestore.installation import changing, safekeeper_sections

    deadline = time.monotonic() + seconds
    installation = changing.reload(run.installation)
    wanted = sorted(item.id for item in installation.config.staying.values())
    said = ""

    def settled() -> bool:
        nonlocal said
        try:
            status = run.control.members_status()
        except PagestoreError:
            return False
        words = _progress(status)
        if words != said:
            run.remark(words)
            said = words
        return sorted(status.safekeepers) == wanted and status.settled

    _wait(settled, deadline, "Not every database has come to the new safekeepers: " + said)
    for part, item in installation.config.safekeeper_parts.items():
        if item.leaving:
            safekeeper_sections.change(installation.config_file, remove=item.id)
            _remove_part(changing.reload(installation), part)
    return _described(run)


def _remove_part(installation: Installation, part: str) -> None:
    deadline = time.monotonic() + PART_SECONDS
    _wait(lambda: part not in installation.parts(), deadline, f"{part} does not end.")
    shutil.rmtree(installation.part_dir(part), ignore_errors=True)


def _progress(status: pb.MembersStatus) -> str:
    if status.settled:
        return f"all databases are on safekeepers {_listed(status.safekeepers)}"
    text = f"{status.timelines_left} databases and branches to go"
    return f"{text}; {status.error}" if status.error else text


def _listed(numbers: Any) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _wait(done: Callable[[], bool], deadline: float, what: str) -> None:
    while not done():
        if time.monotonic() > deadline:
            raise DeadlineExceeded("CHANGE_WAITS", what, "It goes on; ask again to wait for it.")
        time.sleep(POLL_SECONDS)


def _described(run: Session) -> dict[str, Any]:
    config = Installation(run.installation.data).config
    status = run.control.members_status()
    rows = [
        {
            "id": item.id,
            "part": part,
            "address": item.listen,
            "state": "leaving" if item.leaving else "elsewhere" if item.elsewhere else "here",
        }
        for part, item in config.safekeeper_parts.items()
    ]
    return {
        "safekeepers": rows,
        "settled": status.settled,
        "timelines_left": status.timelines_left,
        "error": status.error,
    }


def _print(run: Session, fields: dict[str, Any]) -> None:
    rows = [
        (str(row["id"]), row["part"], row["address"], row["state"]) for row in fields["safekeepers"]
    ]
    run.table(("id", "part", "address", "state"), rows)
    if not fields["settled"]:
        sys.stdout.write(f"{fields['timelines_left']} databases and branches to go\n")
