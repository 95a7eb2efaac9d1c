"""What the page asks for: JSON in, JSON out, thin over the SDK.

A failure is ``{"error": {"reason", "message", "hint"}}`` with HTTP's status for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pagestore.client import usage
from pagestore.client.points import lasting
from pagestore.client.urls import past_url
from pagestore.console.census import Census
from pagestore.console.login import Login, status_of
from pagestore.errors import InvalidInput, PagestoreError, of_exception
from pagestore.ids import format_lsn, parse_lsn
from pagestore.sdk import sql
from pagestore.sdk.client import AsyncClient
from pagestore.sdk.difference import fields_of
from pagestore.sdk.values import Checkpoint, Move, moment_fields

MOST_ROWS = 500
NEWS_SECONDS = 20.0
"""That a request for news waits for some."""
SQL_SECONDS = 30.0
SQL_ROWS = 200
MOST_BODY = 1 << 20
MOST_NAMES = 100

Client = Callable[[], AsyncClient]
_Answer = Callable[[Request], Awaitable[dict[str, Any]]]


class Interface:
    def __init__(self, census: Census, client: Client, login: Login, usage: Usage) -> None:
        self._census, self._client, self._login, self._usage = census, client, login, usage

    def routes(self) -> list[Route]:
        base = "/api/databases/{name}"
        asked: dict[str, _Answer] = {
            "/api/databases": self.databases,
            "/api/news": self.news,
            "/api/checkpoints": self.checkpoints,
            base: self.database,
            f"{base}/diff/{{other}}": self.diff,
        }
        done: dict[str, _Answer] = {
            f"{base}/branch": self.branch,
            f"{base}/checkpoint": self.checkpoint,
            f"{base}/restore": self.restore,
            f"{base}/undo": self.undo,
            f"{base}/redo": self.redo,
            f"{base}/remove": self.remove,
            f"{base}/sql": self.sql,
        }
        routes = [Route(path, self._route(answer)) for path, answer in asked.items()]
        return routes + [Route(p, self._route(a), methods=["POST"]) for p, a in done.items()]

    def _route(self, answer: _Answer) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                self._login.check_host(request)
                self._login.check(request)
                return JSONResponse(await answer(request))
            except Exception as error:
                return refusal(of_exception(error))

        return respond

    # What is there

    async def databases(self, request: Request) -> dict[str, Any]:
        offset = _number(request, "offset", 0)
        return self._census.page(offset, min(_number(request, "limit", MOST_ROWS), MOST_ROWS))

    async def news(self, request: Request) -> dict[str, Any]:
        """What came since; waits a while for something to come."""
        since = _number(request, "since", 0)
        await self._census.news(since, NEWS_SECONDS)
        return self._census.since(since)

    async def checkpoints(self, request: Request) -> dict[str, Any]:
        """Of the databases that are in sight."""
        names = request.query_params.getlist("name")[:MOST_NAMES]
        found = await asyncio.gather(
            *map(self._client().checkpoints, names), return_exceptions=True
        )
        return {
            name: [_checkpoint(each) for each in of]
            for name, of in zip(names, found, strict=True)
            if not isinstance(of, BaseException)
        }

    async def database(self, request: Request) -> dict[str, Any]:
        name, client = _name(request), self._client()
        told = await client.facts(name)
        log = await client.log(name)
        sizes, kept = told.sizes, told.retention
        return {
            "name": told.name,
            "parent": told.parent or None,
            "lsn": format_lsn(told.lsn),
            "branch_lsn": format_lsn(told.branch_lsn) if told.parent else None,
            "postgres": told.postgres_major,
            "error": told.compute_error or None,
            "logical_bytes": sizes.logical_bytes,
            "own_bytes": told.physical_bytes,
            "shared_bytes": sizes.shared_bytes,
            "history_bytes": sizes.history_bytes,
            "kept_from": format_lsn(kept.kept_from_lsn),
            "log": [moment_fields(entry) for entry in log],
            "usage": await self._usage(name),
        }

    async def diff(self, request: Request) -> dict[str, Any]:
        other = request.path_params["other"]
        return fields_of(await self._client().diff(_name(request), other))

    # What is done

    async def branch(self, request: Request) -> dict[str, Any]:
        given = await _body(request)
        made = await self._client().branch(
            _name(request),
            given.get("name") or None,
            at=given.get("at") or None,
            ttl=given.get("ttl") or None,
        )
        return {"name": made.name}

    async def checkpoint(self, request: Request) -> dict[str, Any]:
        given = await _body(request)
        wanted = str(given.get("name") or "")
        return _checkpoint(await self._client().checkpoint(_name(request), wanted))

    async def restore(self, request: Request) -> dict[str, Any]:
        given = await _body(request)
        return _moved(await self._client().restore(_name(request), str(given.get("at") or "")))

    async def undo(self, request: Request) -> dict[str, Any]:
        await _body(request)
        return _moved(await self._client().undo(_name(request)))

    async def redo(self, request: Request) -> dict[str, Any]:
        await _body(request)
        return _moved(await self._client().redo(_name(request)))

    async def remove(self, request: Request) -> dict[str, Any]:
        await _body(request)
        return {"removed": await self._client().remove(_name(request))}

    async def sql(self, request: Request) -> dict[str, Any]:
        """On the database itself, or, where it only reads, where it stood when it was asked."""
        given, client, name = await _body(request), self._client(), _name(request)
        url, read_only = (await client.database(name)).url, bool(given.get("read_only", True))
        lsn = None
        if read_only:
            at = given.get("at") or None
            found = (await client.resolve(name, at)).lsn
            url, lsn = past_url(url, lasting(at, found)), format_lsn(found)
        ran = await sql.run(
            url,
            str(given.get("text") or ""),
            seconds=SQL_SECONDS,
            bounds=sql.Bounds(rows=SQL_ROWS),
            read_only=read_only,
            application="pagestore console",
        )
        return {**asdict(ran), "at_lsn": lsn}


Usage = Callable[[str], Awaitable[dict[str, Any] | None]]


def usage_of(client: usage.UsageClient, since: Callable[[], float]) -> Usage:
    """What a database has cost since then; None where it has cost nothing."""

    def ask(name: str) -> dict[str, Any] | None:
        found = client.usage(since(), name=name).databases
        item = next((item for item in found if not item.removed), None)
        if item is None:
            return None
        return {
            "awake_seconds": round(item.awake_micros / 1e6, 1),
            "cpu_seconds": round(item.cpu_micros / 1e6, 2),
            "queries": item.queries,
            "wakes": item.wakes,
        }

    async def aside(name: str) -> dict[str, Any] | None:
        try:
            return await asyncio.to_thread(ask, name)
        except PagestoreError:
            return None

    return aside


def refusal(error: PagestoreError) -> JSONResponse:
    told = {"reason": error.reason, "message": error.message, "hint": error.hint}
    return JSONResponse({"error": told}, status_of(error))


def _name(request: Request) -> str:
    return str(request.path_params["name"])


def _number(request: Request, name: str, otherwise: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return otherwise
    if not text.isdigit():
        raise InvalidInput("INVALID_NUMBER", f"{name} is {text[:40]!r}, which is no number.")
    return int(text)


async def _body(request: Request) -> dict[str, Any]:
    """
    Raises:
        InvalidInput: INVALID_BODY.
    """
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MOST_BODY:
            raise InvalidInput("INVALID_BODY", f"A request has at most {MOST_BODY} bytes.")
    try:
        found = json.loads(raw or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput("INVALID_BODY", "The request is no JSON object.")
    return found


def _checkpoint(found: Checkpoint) -> dict[str, Any]:
    return {**moment_fields(found), "position": parse_lsn(found.lsn)}


def _moved(done: Move) -> dict[str, Any]:
    return {
        "changed": done.changed,
        "summary": done.summary,
        "kept": done.kept.name if done.kept else None,
        "went_to": _checkpoint(done.went_to) if done.went_to else None,
    }
