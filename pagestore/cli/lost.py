"""What no record names: ``pagestore lost``."""

from __future__ import annotations

from typing import Annotated

import typer

from pagestore import lost_found
from pagestore.cli.session import Data, Json, human_bytes, session, short_time
from pagestore.errors import InvalidInput, NotFound
from pagestore.installation import lost as lost_files


def lost(
    free: Annotated[
        list[str] | None,
        typer.Option("--free", metavar="PATH", help="Delete this one for good; repeat for more."),
    ] = None,
    free_all: Annotated[
        bool, typer.Option("--free-all", help="Delete all of it for good.")
    ] = False,
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="Let a part start with an older copy of its store; operator-key: without it.",
        ),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List what was moved aside because no record names it; it stays for a week.

    Example: pagestore lost
    """
    with session(data, as_json) as run:
        if accept is not None:
            _only_one(free, free_all)
            said = lost_files.accept_older(run.installation, accept)
            fields = {"accepted": accept, "file": str(said)}
            run.answer(fields, "", f"the next start goes on without what {accept} had")
            return
        items = {
            lost_files.name_of(run.installation, i): i for i in lost_files.lost(run.installation)
        }
        chosen = list(items) if free_all else free or []
        if missing := [name for name in chosen if name not in items]:
            raise NotFound("NOTHING_LOST", f"Nothing was moved aside as {missing[0]!r}.")
        for name in chosen:
            lost_found.free(items[name])
        shown = {name: items[name] for name in (chosen or items)}
        rows = [
            {"path": name, "bytes": item.size, "since": short_time(int(item.since * 1e6))}
            for name, item in shown.items()
        ]
        total = sum(item.size for item in shown.values())
        run.answer({"freed" if chosen else "lost": rows, "bytes": total})
        if not as_json:
            columns = ("path", "bytes", "since")
            run.table(columns, [tuple(str(row[column]) for column in columns) for row in rows])
            words = "freed" if chosen else "moved aside"
            run.remark(f"{len(rows)} {words}, {human_bytes(total)}")


def _only_one(free: list[str] | None, free_all: bool) -> None:
    if free or free_all:
        raise InvalidInput("ONE_AT_A_TIME", "--accept stands alone.")
