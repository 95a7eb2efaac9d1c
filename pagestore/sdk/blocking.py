"""The same client for programs without an event loop: each method is the asynchronous one's, on a
loop in a thread that all of a process share (client/shared_loop.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from datetime import datetime
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from pagestore.client import shared_loop
from pagestore.client.closing import BlockingClosing
from pagestore.sdk.client import AsyncClient, AsyncDatabase, Coming
from pagestore.sdk.values import Facts, Settings, Ttl, sqlalchemy_url

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _blocking(
    method: Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[Client, _P], _T]:
    """The same method, which returns when it has its answer."""

    @functools.wraps(method)
    def call(client: Client, /, *args: _P.args, **options: _P.kwargs) -> _T:
        return shared_loop.run(method(client._client, *args, **options))

    return call


class Database:
    """A database at a client's hand. As a context manager it is removed at the end, unless it is
    kept: so it is made for branches that nobody needs afterwards."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database

    @property
    def facts(self) -> Facts:
        return self._database.facts

    @property
    def name(self) -> str:
        return self._database.name

    @property
    def url(self) -> str:
        """Where programs connect, with the password."""
        return self._database.url

    def keep(self, ttl: Ttl = None) -> None:
        """It stays when the context ends: for good, or for so long from now."""
        shared_loop.run(self._database.keep(ttl))

    def remove(self) -> None:
        """Repeatable."""
        shared_loop.run(self._database.remove())

    def psycopg(self, **options: Any) -> Any:
        """A ``psycopg.Connection``; `options` go to its `connect`."""
        import psycopg

        return psycopg.connect(self.url, **options)

    def sqlalchemy(self, driver: str = "psycopg", **options: Any) -> Any:
        """An ``Engine``; `options` go to `create_engine`."""
        from sqlalchemy import create_engine

        return create_engine(sqlalchemy_url(self.url, driver), **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shared_loop.run(self._database.__aexit__(kind, error, trace))

    def __repr__(self) -> str:
        return repr(self._database)


class Client(BlockingClosing):
    """Of one control plane. Threads may share it.

    Args:
        make: makes the asynchronous client, on its loop.
    """

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        async def made() -> AsyncClient:
            return make()

        self._client = shared_loop.run(made())
        self._closed = False

    def close(self) -> None:
        """Databases stay. Repeatable."""
        if not self._closed:
            self._closed = True
            shared_loop.run(self._client.close())

    def database(self, name: str) -> Database:
        """
        Raises:
            NotFound: DATABASE_NOT_FOUND.
        """
        return Database(shared_loop.run(self._client.database(name)))

    def create(
        self,
        name: str,
        *,
        ttl: Ttl = None,
        if_not_exists: bool = False,
        settings: Settings | None = None,
        postgres: int = 0,
    ) -> Database:
        """As :meth:`AsyncClient.create`."""
        return _made(
            self._client.create(
                name,
                ttl=ttl,
                if_not_exists=if_not_exists,
                settings=settings,
                postgres=postgres,
            )
        )

    def branch(
        self,
        source: str,
        name: str | None = None,
        *,
        at: str | datetime | None = None,
        ttl: Ttl = None,
        if_not_exists: bool = False,
    ) -> Database:
        """As :meth:`AsyncClient.branch`."""
        return _made(self._client.branch(source, name, at=at, ttl=ttl, if_not_exists=if_not_exists))

    databases = _blocking(AsyncClient.databases)
    keep = _blocking(AsyncClient.keep)
    rename = _blocking(AsyncClient.rename)
    remove = _blocking(AsyncClient.remove)
    checkpoint = _blocking(AsyncClient.checkpoint)
    remove_checkpoint = _blocking(AsyncClient.remove_checkpoint)
    checkpoints = _blocking(AsyncClient.checkpoints)
    log = _blocking(AsyncClient.log)
    restore = _blocking(AsyncClient.restore)
    reset = _blocking(AsyncClient.reset)
    undo = _blocking(AsyncClient.undo)
    redo = _blocking(AsyncClient.redo)


def _made(coming: Coming) -> Database:
    async def whole() -> AsyncDatabase:
        return await coming

    return Database(shared_loop.run(whole()))
