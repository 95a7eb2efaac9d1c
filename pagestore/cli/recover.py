"""``pagestore recover``: everything, from an object store alone."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pagestore.cli.session import Data, Json, human_bytes, session


def recover(
    url: Annotated[
        str, typer.Option("--from", metavar="URL", help="What `up --objects` was given.")
    ],
    operator_key: Annotated[
        Path | None,
        typer.Option(
            "--operator-key",
            metavar="FILE",
            help="A copy of DATA/operator-key; without it passwords are not known.",
        ),
    ] = None,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Where WAL is damaged or missing, its database ends before it, for good.",
        ),
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make an empty data directory what an object store has; then `pagestore up`.

    Whatever still writes to that object store is replaced, and ends.

    Example: pagestore recover --from s3://bucket/databases --data /srv/pagestore
    """
    with session(data, as_json) as run:
        from pagestore.installation import recovering

        found = recovering.recover(
            run.installation, url, os.environ, operator_key, run.remark, accept_loss=accept_loss
        )
        for loss in found.lost:
            run.remark(f"amiss: {loss}")
        for name in found.missing:
            run.remark(f"amiss: {name}: its timeline was not in the object store yet")
        if found.strangers:
            run.remark(
                f"{found.strangers} timelines that no database names become `lost-...` databases"
            )
        if not found.has_key:
            run.remark(
                "passwords are sealed with a key that is not here: put it at "
                f"{run.installation.operator_key_file}, or `pagestore lost --accept operator-key`"
            )
        fields = {"data": str(run.installation.data), **asdict(found)}
        said = (
            f"{found.databases} databases, {human_bytes(found.layer_bytes)} of layers, "
            f"{human_bytes(found.wal_bytes)} of WAL are back; next: pagestore up"
        )
        run.answer(fields, "", said)
