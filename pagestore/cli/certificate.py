"""``pagestore certificate``: what parts show to other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pagestore.cli.session import Data, Json, session


def certificate(
    hosts: Annotated[
        list[str],
        typer.Argument(metavar="HOST...", help="Names and addresses, as other machines use them."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For another machine: where to write it.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a certificate for this machine, or another, signed by this installation's authority.

    Example: pagestore certificate db.example.org 10.0.0.5
    """
    with session(data, as_json) as run:
        from pagestore.installation import certificates, ownership

        ownership.claim(run.installation.data)
        place = certificates.make(run.installation.data, hosts, out)
        fields = {"certificate": str(place / "certificate.pem"), "key": str(place / "key.pem")}
        run.answer(fields, "\n".join(fields.values()), "Made; parts take it at the next `up`.")
