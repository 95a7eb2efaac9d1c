"""What a login asks of whoever drives it.

A login is a generator: it yields one of these, is sent the answer, and returns its outcome. So it
is tested without a socket, and driven by the native relay without knowing of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pagestore.pgwire.scram import Verifier
from pagestore.proxy.target import Target


@dataclass(frozen=True, slots=True)
class Read:
    """Answered by bytes, at least one. A peer that ends instead ends the generator too."""


@dataclass(frozen=True, slots=True)
class Send:
    """Answered by None at once."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BeginTls:
    """Answered by None once the handshake is done."""

    early: bytes = b""
    """What was read of it already."""


@dataclass(frozen=True, slots=True)
class FindRole:
    """Answered by a :class:`Role`, whoever asks: see there."""

    target: Target
    user: str


@dataclass(frozen=True, slots=True)
class Role:
    """What a login is judged by.

    For a role, or a database, that there is not it has a verifier that nobody's password fits,
    and no refusal: a stranger learns nothing.
    """

    verifier: Verifier
    refusal: tuple[str, str] | None = None
    """SQLSTATE and message for somebody who has proved to be this role and may still not log in."""
    failure: tuple[str, str] | None = None
    """Likewise for whoever has not, where nobody can; None for what every stranger is told."""


Need = Read | Send | BeginTls | FindRole
