"""What the control plane knows of a compute, and asks of whoever has it.

Two things that it is not: a process, and a directory. Both are the agent's; see
:mod:`pagestore.control.launcher`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pagestore.control.records import DatabaseRecord
from pagestore.ids import TimelineId


@dataclass(frozen=True, slots=True)
class CarriedFiles:
    """What no WAL holds, handed from one compute of a database to its next."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    """By path; of use to the same timeline only."""
    settings: Mapping[str, str] | None = None
    """What ALTER SYSTEM set; None: unknown."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a compute runs. By `pid` and `directory`, for a human, nothing is decided."""

    pid: int = 0
    directory: str = ""
    socket: str = ""
    """The Unix socket on which it listens, on its own host."""
    address: str = ""
    """HOST:PORT, where other hosts reach it too; empty for its own host alone."""


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Told:
    """What a server has been told of its settings."""

    settings: Mapping[str, str] | None
    """What ALTER SYSTEM has set; None: unknown."""
    after_restart: tuple[str, ...] = ()
    """Names of settings that take effect only at the next start."""


@dataclass(frozen=True, slots=True)
class Entry:
    url_fault: str = ""
    """Why the database's URL does not work; empty where it does."""
    conninfo: str = ""
    """libpq keywords for a superuser, over the Unix socket of the compute's machine."""


class Owner(enum.Enum):
    """How the owner's role gets its password, and what if there is no such inner database."""

    OF_NEW = 1
    """The spare database gets the name."""
    OF_IMPORT = 2
    """It is refused; without a name the largest one is taken."""
    RENEWED = 3
    """The largest one is taken."""


@dataclass(frozen=True, slots=True)
class AppRole:
    name: str
    owns_schema: bool
    """One of its own name."""
    may_log_in: bool
    tables: int
    """In that schema."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a compute has come to; times in microseconds since 1970."""

    started: int = 0
    """When it was ready; 0 where an agent does not say what computes cost."""
    until: int = 0
    """Alive then, or its end."""
    cpu: int = 0
    """Microseconds, of all that ran within it."""


class Compute(Protocol):
    """A Postgres of one timeline that runs, or did."""

    @property
    def name(self) -> str:
        """Its own: no other has, or had, the same."""
        ...

    @property
    def cost(self) -> Cost:
        """As far as was told; all of it once it has ended, or was stopped."""
        ...

    @property
    def timeline(self) -> TimelineId: ...
    @property
    def alive(self) -> bool: ...
    @property
    def complaint(self) -> str:
        """What is amiss with its safekeepers; empty when nothing is, as far as is known."""
        ...

    @property
    def remarks(self) -> tuple[str, ...]:
        """What its start found to say to the user."""
        ...

    @property
    def fenced(self) -> bool:
        """Whether it was ended since somebody else has started its timeline."""
        ...

    @property
    def place(self) -> Place: ...

    async def strangers(self) -> int:
        """Sessions in there that did not come through the proxy; those that are about to end have
        a moment to do so."""
        ...

    async def wait_exit(self) -> str:
        """Waits until it is no more; says why it ended, as far as can be known."""
        ...

    async def user_settings(self) -> Mapping[str, str] | None:
        """What ALTER SYSTEM has set by now, dead or alive; None where that cannot be read."""
        ...

    async def tell(self, values: Mapping[str, str], reset: Iterable[str]) -> Told:
        """ALTER SYSTEM.

        Raises:
            InvalidInput: INVALID_SETTING; Postgres's own words.
        """
        ...

    async def set_owner(self, record: DatabaseRecord, secret: str, how: Owner) -> str:
        """Has this password for its owner; the inner database that its URL names.

        Raises:
            FailedPrecondition: NO_SUCH_POSTGRES_DATABASE.
        """
        ...

    async def entry(self, record: DatabaseRecord, secret: str) -> Entry:
        """
        Args:
            secret: the owner's password; empty if it is not known.
        """
        ...

    # Roles of apps; see app_roles.py.

    async def add_role(self, record: DatabaseRecord, role: str, secret: str) -> None: ...
    async def reset_role(self, record: DatabaseRecord, role: str, secret: str) -> None: ...
    async def roles(self, record: DatabaseRecord) -> list[AppRole]: ...
    async def remove_role(
        self, record: DatabaseRecord, role: str, *, with_data: bool, if_exists: bool
    ) -> bool: ...

    async def stop(self) -> CarriedFiles:
        """A clean stop: everything is durable at the WAL service. What it returns is there until
        `discard`."""
        ...

    async def discard(self) -> None:
        """Kills what is left and removes the directory; if its agent is away, when that is back."""
        ...


class Launcher(Protocol):
    async def start(self, record: DatabaseRecord, carried: CarriedFiles) -> Compute: ...
    async def leftovers(self) -> list[Compute]:
        """Computes from before this process began, also such as have ended since.

        Raises:
            Unavailable: COMPUTE_AGENT_AWAY.
        """
        ...
