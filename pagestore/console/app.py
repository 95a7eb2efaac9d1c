"""The console's pages and their headers, as one ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import webbrowser
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagestore import tasks
from pagestore.client.addresses import is_near
from pagestore.client.control import ControlClient
from pagestore.client.usage import UsageClient
from pagestore.console.census import Census, follow, follow_awake, follow_figures
from pagestore.console.interface import Interface, Usage, refusal, usage_of
from pagestore.console.login import COOKIE, HELD_SECONDS, Login, hosts_of
from pagestore.errors import FailedPrecondition, PagestoreError
from pagestore.installation.keys import PUBLIC_KEYS
from pagestore.installation.layout import Installation
from pagestore.sdk.client import AsyncClient
from pagestore.services.guard import Guard

STATIC = Path(__file__).with_name("static")
USAGE_SECONDS = 7 * 86_400.0
HEADERS = {
    # Nothing but what this server has itself; no scripts and styles within pages.
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def application(login: Login, census: Census, interface: Interface) -> Starlette:
    """Without those who follow what happens: see `serve`."""

    async def page(request: Request) -> Response:
        try:
            login.check_host(request)
            login.check(request)
        except PagestoreError as error:
            return (
                RedirectResponse("/login") if error.reason == "LOGIN_REQUIRED" else refusal(error)
            )
        return FileResponse(STATIC / "console.html")

    async def enter(request: Request) -> Response:
        """By the link that was printed, or the page that asks for a token."""
        try:
            login.check_host(request)
            word = request.query_params.get("link")
            if word:
                return _entered(login.by_link(word), RedirectResponse("/", 303))
        except PagestoreError as error:
            return refusal(error)
        return FileResponse(STATIC / "login.html")

    async def by_token(request: Request) -> Response:
        try:
            login.check_host(request)
            login.check_origin(request)
            given = json.loads(await request.body() or b"{}")
            token = given.get("token", "") if isinstance(given, dict) else ""
            return _entered(login.by_token(str(token)), JSONResponse({}))
        except ValueError:
            return JSONResponse({}, 400)
        except PagestoreError as error:
            return refusal(error)

    async def leave(request: Request) -> Response:
        with contextlib.suppress(PagestoreError):
            login.check(request)
            login.end(request)
        return JSONResponse({})

    routes = [
        Route("/", page),
        Route("/login", enter),
        Route("/login", by_token, methods=["POST"]),
        Route("/logout", leave, methods=["POST"]),
        *interface.routes(),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(GZipMiddleware), Middleware(_Headers)])


def _entered(session: str, response: Response) -> Response:
    response.set_cookie(
        COOKIE, session, max_age=int(HELD_SECONDS), httponly=True, samesite="strict"
    )
    return response


class _Headers:
    """Of every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self._app(scope, receive, sending)


def serve(installation: Installation, tenant: str, listen: str, *, show: bool) -> None:
    """Until it is interrupted.

    Args:
        listen: "host:port", of this machine.
        show: opens a browser there.

    Raises:
        FailedPrecondition: TLS_REQUIRED. InvalidInput: INVALID_ADDRESS.
    """
    if not is_near(listen):
        raise FailedPrecondition(
            "TLS_REQUIRED",
            f"The console would be shown tokens and data in clear at {listen}.",
            "Let it listen on 127.0.0.1, and come by `ssh -L`, or through a server with TLS.",
        )
    login = Login(Guard(installation.data / PUBLIC_KEYS), hosts_of(listen))
    host, _, port = listen.rpartition(":")
    asyncio.run(_serve(installation, tenant, login, host.strip("[]"), int(port), show))


async def _serve(
    installation: Installation, tenant: str, login: Login, host: str, port: int, show: bool
) -> None:
    census = Census()
    control = installation.address("control")
    client = AsyncClient(control, tenant=tenant, credentials=installation.credentials)
    blocking = ControlClient(control, credentials=installation.credentials)
    async with client, _following(census, client, installation):
        usage = await _usage(client, blocking)
        app = application(login, census, Interface(census, lambda: client, login, usage))
        config = uvicorn.Config(app, host=host, port=port, log_level="warning")
        link = f"http://{host}:{port}/login?link={login.new_link()}"
        sys.stderr.write(f"pagestore console: {link}\n")
        sys.stderr.flush()
        if show:
            webbrowser.open(link)
        await uvicorn.Server(config).serve()
    blocking.close()


async def _usage(client: AsyncClient, blocking: ControlClient) -> Usage:
    blocking.tenant = await client.tenant()
    return usage_of(UsageClient(blocking), lambda: time.time() - USAGE_SECONDS)


@contextlib.asynccontextmanager
async def _following(
    census: Census, client: AsyncClient, installation: Installation
) -> AsyncIterator[None]:
    following = [
        tasks.endless(follow(census, lambda: client), "follow databases"),
        tasks.endless(follow_awake(census, installation), "follow who is awake"),
        tasks.endless(follow_figures(census, lambda: client), "follow figures"),
    ]
    try:
        yield
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
