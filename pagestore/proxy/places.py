"""What the proxy asks of whoever knows databases: the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pagestore.proxy.needs import Role
from pagestore.proxy.target import Target


@dataclass(frozen=True, slots=True)
class Place:
    """Where sessions run: a database, now or at a moment of its past."""

    database: str
    """Its lasting id: a renamed database is the same place."""
    point: str = ""
    """Empty for now; else the LSN at which it stands still."""
    name: str = field(default="", compare=False)
    """The database's when it was found; it may have another one by now."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A place, and the database inside Postgres that a session is for."""

    place: Place
    inner: str
    idle: float | None = None
    """Seconds without activity until it sleeps; None for the usual, infinity for never."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running Postgres listens: a Unix socket, or a host with a port."""

    socket: Path | None = None
    host: str = ""
    port: int = 0


class Places(Protocol):
    async def role(self, target: Target, user: str) -> Role:
        """By what a login is judged; never raises for a database or role that there is not."""
        ...

    async def find(self, target: Target) -> Destination:
        """
        Raises:
            PagestoreError: there is no such database, or no such point of its past.
        """
        ...

    def forget(self, place: Place) -> None:
        """It was removed."""
        ...

    async def start(self, place: Place) -> Address:
        """Returns when the first query works.

        Raises:
            PagestoreError: why it cannot be started.
        """
        ...

    async def stop(self, place: Place) -> str:
        """A clean stop; returns when it is stopped, or was so already. Words for what hinders
        it."""
        ...

    async def count(self, life: str, queries: Mapping[str, int]) -> None:
        """So many queries were asked of databases, by their ids, in this life of the proxy.

        Raises:
            PagestoreError: tell it later.
        """
        ...

    async def awake(self) -> list[tuple[Place, Address, float | None]]:
        """Places that run, whoever started them, with how long each may idle."""
        ...
