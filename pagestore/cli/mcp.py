"""``pagestore mcp``: databases as tools of a model."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from pagestore.cli import choosing
from pagestore.cli.session import Data, session
from pagestore.errors import FailedPrecondition, InvalidInput

TOKEN = "PAGESTORE_MCP_TOKEN"  # noqa: S105


def mcp(
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Serve by HTTP there, not by stdio."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"What clients show. Default: {TOKEN}, or DATA/tokens/mcp.",
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="FILE", help="For other machines.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="Of that certificate.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nobody before something is written or lost.")
    ] = False,
    with_urls: Annotated[
        bool, typer.Option("--with-urls", help="Tell the model URLs with their passwords.")
    ] = False,
    data: Data = None,
) -> None:
    """Serve databases to a model, as tools of the Model Context Protocol.

    Ten of them: list, create_branch, delete_branch, run_sql, describe_schema, diff, checkpoint,
    undo, try, explain. Needs the extra `mcp`: pip install 'pagestore[mcp]'.

    Example: claude mcp add pagestore -- pagestore mcp
    """
    with session(data, as_json=False) as run:
        if importlib.util.find_spec("mcp") is None:
            raise FailedPrecondition(
                "MCP_NOT_INSTALLED",
                "The Model Context Protocol's package is not installed.",
                "pip install 'pagestore[mcp]'",
            )
        from pagestore.mcp import serving
        from pagestore.mcp.desk import Desk

        desk = Desk(run.installation, choosing.chosen(), yes=yes, with_urls=with_urls)
        if http is None:
            serving.serve_stdio(desk)
            return
        if not http.rpartition(":")[2].isdigit():
            raise InvalidInput("INVALID_ADDRESS", f"{http!r} is no HOST:PORT.", "127.0.0.1:7450")
        token = _token(run.installation.data, token_file)
        serving.serve_http(desk, http, token, tls_certificate, tls_key)


def _token(data: Path, named: Path | None) -> str:
    if named is not None:
        return named.read_text().strip()
    told = os.environ.get(TOKEN)
    if told:
        return told
    from pagestore.secret_file import secret_of

    return secret_of(data / "tokens" / "mcp").hex()
