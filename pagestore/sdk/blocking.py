"""The same client for programs without an event loop: each method is the asynchronous one's, on a
loop in a thread that all of a process share (client/shared_loop.py)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from pagestore.client import shared_loop
from pagestore.client.closing import BlockingClosing
from pagestore.client.shared_loop import blocking
from pagestore.sdk import ahead
from pagestore.sdk.client import AsyncClient, AsyncDatabase, Coming
from pagestore.sdk.values import Facts, Retention, Settings, Ttl, sqlalchemy_url

_T = TypeVar("_T")


class Database(BlockingClosing):
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

    def retention(self, window: Ttl = None, *, wal_bytes: int | None = None) -> Retention:
        """As :meth:`AsyncClient.retention`."""
        return shared_loop.run(self._database.retention(window, wal_bytes=wal_bytes))

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

    def close(self) -> None:
        """The end of its context: it is removed, unless it is kept."""
        shared_loop.run(self._database.close())

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

    databases = blocking(AsyncClient.databases)
    start = blocking(AsyncClient.start)
    keep = blocking(AsyncClient.keep)
    retention = blocking(AsyncClient.retention)
    rename = blocking(AsyncClient.rename)
    remove = blocking(AsyncClient.remove)
    checkpoint = blocking(AsyncClient.checkpoint)
    remove_checkpoint = blocking(AsyncClient.remove_checkpoint)
    checkpoints = blocking(AsyncClient.checkpoints)
    log = blocking(AsyncClient.log)
    diff = blocking(AsyncClient.diff)
    restore = blocking(AsyncClient.restore)
    reset = blocking(AsyncClient.reset)
    promote = blocking(AsyncClient.promote)
    undo = blocking(AsyncClient.undo)
    redo = blocking(AsyncClient.redo)


class Ahead(BlockingClosing):
    """As :class:`pagestore.sdk.ahead.Ahead`."""

    def __init__(self, client: Client, source: str, at: str, ttl: Ttl) -> None:
        self._ahead = ahead.Ahead(client._client, source, at, ttl)

    def take(self, *, behind: int) -> Database:
        """As :meth:`pagestore.sdk.ahead.Ahead.take`."""
        return Database(shared_loop.run(self._ahead.take(behind=behind)))

    def let_go(self, database: Database) -> None:
        """As :meth:`pagestore.sdk.ahead.Ahead.let_go`."""

        async def let_go() -> None:
            self._ahead.let_go(database._database)

        shared_loop.run(let_go())

    def close(self) -> None:
        """As :meth:`pagestore.sdk.ahead.Ahead.close`."""
        shared_loop.run(self._ahead.close())


def _made(coming: Coming) -> Database:
    async def whole() -> AsyncDatabase:
        return await coming

    return Database(shared_loop.run(whole()))
