"""What all tools have at hand: the installation's client, and how the server was started."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from mcp.server.mcpserver.exceptions import ToolError

from pagestore.client.urls import without_password
from pagestore.errors import InvalidInput, PagestoreError, of_exception
from pagestore.installation.layout import Installation, not_running
from pagestore.sdk.client import AsyncClient, AsyncDatabase

_Asked = ParamSpec("_Asked")
_Told = TypeVar("_Told")


@dataclass
class Desk:
    """
    Args:
        tenant: whose databases.
        yes: nothing is asked for.
        with_urls: URLs have their passwords.
    """

    installation: Installation
    tenant: str
    yes: bool = False
    with_urls: bool = False
    _client: AsyncClient | None = field(default=None, init=False)
    _address: str = field(default="", init=False)

    async def client(self) -> AsyncClient:
        """
        Raises:
            Unavailable: NOT_RUNNING.
        """
        address = self.installation.address("control")
        if self.installation.running_supervisor() is None and not await self._is_ours(address):
            raise not_running(self.installation.data)
        if self._client is None or self._address != address:
            await self.close()
            self._address = address
            self._client = AsyncClient(
                address, tenant=self.tenant, credentials=self.installation.credentials
            )
        return self._client

    async def _is_ours(self, address: str) -> bool:
        """Whether a control plane that no supervisor keeps is that of this data directory."""
        shown = self.installation.credentials
        try:
            async with AsyncClient(address, timeout=0.0, credentials=shown) as client:
                directory = Path((await client.system_status()).data_dir)
            return directory.samefile(self.installation.part_dir("control"))
        except (PagestoreError, OSError):
            return False

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def url(self, database: AsyncDatabase) -> str:
        """As the model may see it."""
        return database.url if self.with_urls else without_password(database.url)[0]


def refusal(error: PagestoreError) -> ToolError:
    """What a client shows, and a model reads."""
    hint = f" Hint: {error.hint}" if error.hint else ""
    return ToolError(f"{error.reason}: {error.message}{hint}")


def told(tool: Callable[_Asked, Awaitable[_Told]]) -> Callable[_Asked, Awaitable[_Told]]:
    """A tool whose failures are answers."""

    @wraps(tool)
    async def telling(*arguments: _Asked.args, **options: _Asked.kwargs) -> _Told:
        try:
            return await tool(*arguments, **options)
        except ToolError:
            raise
        except Exception as error:
            raise refusal(of_exception(error)) from error

    return telling


class Place(NamedTuple):
    """A moment of a database.

    Args:
        point: words that lead there, as long as the database has that history; `lsn` is what is
            told of it.
        timeline: of that history, in hex.
    """

    lsn: str
    point: str
    timeline: str


NOWHERE = Place("", "", "")


@dataclass(frozen=True, slots=True)
class Continuation:
    """Where an answer goes on: at the same moment, behind what was told.

    Args:
        of: what was asked, so that it does not go on in another answer.
        skip: how much was told.
        place: of an answer that is read at a moment.
    """

    of: tuple[Any, ...]
    skip: int
    place: Place = NOWHERE

    def __str__(self) -> str:
        said = json.dumps([_digest(self.of), self.skip, *self.place]).encode()
        return base64.urlsafe_b64encode(said).decode()

    @classmethod
    def read(cls, text: str, of: tuple[Any, ...]) -> Continuation:
        """
        Raises:
            InvalidInput: INVALID_CONTINUATION.
        """
        try:
            digest, skip, lsn, point, timeline = json.loads(base64.urlsafe_b64decode(text))
        except (ValueError, TypeError, binascii.Error):
            digest, skip, lsn, point, timeline = "", -1, *NOWHERE
        if digest != _digest(of) or not _are_words(lsn, point, timeline) or not _is_count(skip):
            raise InvalidInput(
                "INVALID_CONTINUATION",
                "That continuation is of another call.",
                "Say it with the same arguments as the call that gave it.",
            )
        return cls(of, skip, Place(lsn, point, timeline))


def _are_words(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _digest(of: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
