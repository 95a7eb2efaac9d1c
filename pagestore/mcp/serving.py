"""The server: its tools, by stdio or by HTTP."""

from __future__ import annotations

import hmac
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations

from pagestore.client.addresses import is_near, tls_required
from pagestore.mcp import tools
from pagestore.mcp.desk import Desk

PATH = "/mcp"
INSTRUCTIONS = """\
pagestore has Postgres databases that branch in milliseconds and can be undone. Work on a branch
(create_branch), look at what you did (diff), checkpoint what is good, undo what is not. run_sql
only reads unless read_only=false. What writes to, undoes or deletes a database that has no ttl asks
a person.
"""
_READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_ADDS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
_LOSES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
)
_LOSES_ONCE = _LOSES.model_copy(update={"idempotent_hint": True})
TOOLS: dict[str, tuple[Callable[..., Awaitable[Any]], ToolAnnotations]] = {
    "list": (tools.list_databases, _READS),
    "create_branch": (tools.create_branch, _ADDS),
    "delete_branch": (tools.delete_branch, _LOSES_ONCE),
    "run_sql": (tools.run_sql, _LOSES),
    "describe_schema": (tools.describe_schema, _READS),
    "diff": (tools.diff, _READS),
    "checkpoint": (tools.checkpoint, _ADDS),
    "undo": (tools.undo, _LOSES_ONCE),
    "try": (tools.attempt, _ADDS),
    "explain": (tools.explain, _READS),
}

_Scope = dict[str, Any]
_App = Callable[[_Scope, Any, Any], Awaitable[None]]


def server(desk: Desk) -> MCPServer[Desk]:
    @asynccontextmanager
    async def life(_: MCPServer[Desk]) -> AsyncIterator[Desk]:
        yield desk

    made = MCPServer[Desk](
        "pagestore",
        title="pagestore",
        instructions=INSTRUCTIONS,
        version=version("pagestore"),
        lifespan=life,
        log_level="WARNING",
    )
    for name, (tool, hints) in TOOLS.items():
        made.add_tool(tool, name=name, annotations=hints)
    return made


def serve_stdio(desk: Desk) -> None:
    server(desk).run("stdio")


def serve_http(
    desk: Desk, listen: str, token: str, certificate: Path | None, key: Path | None
) -> None:
    """
    Args:
        listen: "host:port".
        certificate: for TLS, in PEM; with `key`.

    Raises:
        FailedPrecondition: TLS_REQUIRED.
    """
    import uvicorn

    if not is_near(listen) and (certificate is None or key is None):
        raise tls_required(listen)
    host, _, port = listen.rpartition(":")
    app = server(desk).streamable_http_app(
        streamable_http_path=PATH,
        host=host.strip("[]"),
        # A browser's page elsewhere has no token; names that lead here from outside are the user's.
        transport_security=None
        if is_near(listen)
        else TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    config = uvicorn.Config(
        with_token(app, token),
        host=host.strip("[]"),
        port=int(port),
        log_level="warning",
        ssl_certfile=str(certificate) if certificate else None,
        ssl_keyfile=str(key) if key else None,
    )
    scheme = "https" if certificate else "http"
    sys.stderr.write(f"pagestore mcp: {scheme}://{listen}{PATH}\n")
    sys.stderr.flush()
    uvicorn.Server(config).run()


def with_token(app: _App, token: str) -> _App:
    """The same for who shows the token, and 401 for all others."""
    wanted = f"Bearer {token}".encode()

    async def guarded(scope: _Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        shown = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(shown, wanted):
            await app(scope, receive, send)
            return
        headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        body = b'{"error": {"reason": "TOKEN_REQUIRED", "message": "No token, or another one."}}'
        await send({"type": "http.response.body", "body": body})

    return guarded
