"""``pagestore console``: the tree of databases in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from pagestore.cli import choosing
from pagestore.cli.session import Data, session

DEFAULT_LISTEN = "127.0.0.1:7474"


def console(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where, on this machine.")
    ] = DEFAULT_LISTEN,
    show: Annotated[bool, typer.Option("--open", help="Open a browser there.")] = False,
    data: Data = None,
) -> None:
    """Serve the console, a page that shows the tree of databases and works on it.

    Example: pagestore console --open
    """
    with session(data, as_json=False) as run:
        _ = run.control  # says so where nothing runs
        from pagestore.console.app import serve

        serve(run.installation, choosing.chosen(), listen, show=show)
