"""Who may use the console, and from where.

Three checks, for three ways in:

- *Whoever is on this machine*: a cookie, which only who knew the operator's token, or had the link
  that was printed, has got. It is random, `HttpOnly` and `SameSite=Strict`.
- *Another page in the same browser*: what changes something has to come from this page, by its
  `Origin`, and as JSON, which a form of another page cannot send unasked.
- *A name that somebody made lead here* (DNS rebinding): the request's `Host` is one of ours.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request

from pagestore.errors import InvalidInput, PagestoreError, PermissionDenied, Unauthenticated
from pagestore.services.guard import Guard

COOKIE = "pagestore_console"
HELD_SECONDS = 12 * 3600.0
LINK_SECONDS = 300.0
"""For the link that is printed to be used, once."""
MOST_SESSIONS = 100
METHOD = "/pagestore.v1.ControlService/GetSystemStatus"
"""Which the operator's token alone opens."""


@dataclass
class Login:
    """
    Args:
        guard: by the installation's keys.
        hosts: names under which the console is asked for, each with its port.
        clock: seconds.
    """

    guard: Guard
    hosts: frozenset[str]
    clock: Callable[[], float] = time.monotonic
    _sessions: dict[str, float] = field(default_factory=dict)
    """With when they end."""
    _link: tuple[str, float] | None = None

    def new_link(self) -> str:
        """A word by which one is let in, once."""
        word = secrets.token_urlsafe(24)
        self._link = word, self.clock() + LINK_SECONDS
        return word

    def by_link(self, word: str) -> str:
        """A session.

        Raises:
            Unauthenticated: LINK_USED.
        """
        link, self._link = self._link, None
        if link is None or link[1] < self.clock() or not hmac.compare_digest(link[0], word):
            raise Unauthenticated(
                "LINK_USED",
                "That link has been used, or is too old.",
                "Log in by the operator's token, in DATA/tokens/operator.",
            )
        return self._session()

    def by_token(self, token: str) -> str:
        """A session.

        Raises:
            Unauthenticated, PermissionDenied: it is not the operator's.
        """
        self.guard.admit(METHOD, [("authorization", f"Bearer {token.strip()}")])
        return self._session()

    def end(self, request: Request) -> None:
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)

    def check_host(self, request: Request) -> None:
        """
        Raises:
            PermissionDenied: OTHER_HOST.
        """
        if request.headers.get("host", "") not in self.hosts:
            raise PermissionDenied(
                "OTHER_HOST",
                "The console is not asked for by this name.",
                f"Open http://{min(self.hosts)}/.",
            )

    def check(self, request: Request) -> None:
        """
        Raises:
            Unauthenticated: LOGIN_REQUIRED. PermissionDenied: OTHER_ORIGIN.
        """
        now = self.clock()
        ends = self._sessions.get(request.cookies.get(COOKIE, ""), 0.0)
        if ends <= now:
            raise Unauthenticated("LOGIN_REQUIRED", "Nobody is logged in.", "Open /login.")
        if request.method != "GET":
            self.check_origin(request)

    def check_origin(self, request: Request) -> None:
        """
        Raises:
            PermissionDenied: OTHER_ORIGIN.
        """
        scheme, _, host = request.headers.get("origin", "").partition("://")
        is_json = request.headers.get("content-type", "").startswith("application/json")
        if scheme not in ("http", "https") or host not in self.hosts or not is_json:
            raise PermissionDenied("OTHER_ORIGIN", "That request does not come from the console.")

    def _session(self) -> str:
        now = self.clock()
        self._sessions = {name: ends for name, ends in self._sessions.items() if ends > now}
        while len(self._sessions) >= MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        name = secrets.token_urlsafe(32)
        self._sessions[name] = now + HELD_SECONDS
        return name


def hosts_of(listen: str) -> frozenset[str]:
    """Under which names a console that listens there is asked for.

    Raises:
        InvalidInput: INVALID_ADDRESS.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInput("INVALID_ADDRESS", f"{listen!r} is no HOST:PORT.", "127.0.0.1:7474")
    return frozenset({listen, f"localhost:{port}", f"127.0.0.1:{port}"})


STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "OUT_OF_RANGE": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def status_of(error: PagestoreError) -> int:
    """Of HTTP."""
    return STATUS.get(error.code, 500)
