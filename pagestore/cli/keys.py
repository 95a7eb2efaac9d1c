"""``pagestore keys``: by what an installation knows who calls."""

from __future__ import annotations

from typing import Annotated

import typer

from pagestore.cli.session import Data, Json, session


def keys(
    change: Annotated[
        bool, typer.Option("--change", help="Sign with a new key from now on.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make the keys and tokens of an installation, as `up` does, or change them.

    Example: pagestore keys --change
    """
    with session(data, as_json) as run:
        from pagestore.installation import keys as made
        from pagestore.installation import ownership

        place = run.installation.data
        ownership.claim(place)
        made.settle(place)
        if change:
            made.change(place)
        fields = {
            "public_keys": str(place / made.PUBLIC_KEYS),
            "tokens": str(place / "tokens"),
            "changed": change,
        }
        remark = (
            "Changed: tokens of the key before hold until the next change."
            if change
            else "Each part on another host needs the public keys, and its token."
        )
        run.answer(fields, f"{fields['public_keys']}\n{fields['tokens']}", remark)
