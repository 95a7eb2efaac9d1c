"""What a client shows to the services, and by what it knows them.

Services on other machines prove by a certificate who they are; by whose, the file
PAGESTORE_AUTHORITY says, or DATA/tls/authority.pem.

A call carries a token (docs/formats/token.md). Who names none has, in this order: PAGESTORE_TOKEN,
the file PAGESTORE_TOKEN_FILE, the operator's in the data directory of this machine, which its owner
alone can read. A program that is a part says once which is its own (:func:`use`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TOKEN_VARIABLE = "PAGESTORE_TOKEN"  # noqa: S105  (a name)
TOKEN_FILE_VARIABLE = "PAGESTORE_TOKEN_FILE"  # noqa: S105
AUTHORITY_VARIABLE = "PAGESTORE_AUTHORITY"
OPERATOR_TOKEN = Path("tokens/operator")
AUTHORITY = Path("tls/authority.pem")
"""Within a data directory."""


def default_data_dir() -> Path:
    configured = os.environ.get("PAGESTORE_DATA")
    return Path(configured) if configured else standard_data_dir()


def standard_data_dir() -> Path:
    """Where nobody has said anything."""
    if os.geteuid() == 0:
        return Path("/var/lib/pagestore")
    return Path.home() / ".local/share/pagestore"


def file_identity(path: Path) -> tuple[int, int, int]:
    """Another one as soon as the file has been replaced or written."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


class TokenFile:
    """The token in a file, read again when the file is another: it is renewed there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        """Empty where there is none that we may read."""
        try:
            seen = file_identity(self.path)
            if seen != self._seen:
                self._token = self.path.read_text(errors="replace").strip()
                self._seen = seen
        except OSError:
            self._token, self._seen = "", None
        return self._token


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    Args:
        token: what is shown at each call; empty for nothing.
        authority: whose certificates are believed of services on other machines, a file in PEM;
            None for this process's, or else those that the system believes.
    """

    token: Callable[[], str] = field(default=str, repr=False)
    authority: Path | None = None

    @classmethod
    def of_token(cls, token: str) -> Credentials:
        return cls(lambda: token)

    @classmethod
    def of_file(cls, path: Path, authority: Path | None = None) -> Credentials:
        return cls(TokenFile(path), authority)

    @classmethod
    def of_data_dir(cls, data: Path) -> Credentials:
        """The operator's, of that installation; what the environment names goes before it."""
        authority = data / AUTHORITY if (data / AUTHORITY).exists() else None
        if token := os.environ.get(TOKEN_VARIABLE):
            return cls(lambda: token, authority)
        named = os.environ.get(TOKEN_FILE_VARIABLE)
        return cls.of_file(Path(named) if named else data / OPERATOR_TOKEN, authority)

    @property
    def believed(self) -> Path | None:
        """The authority, whoever has named it."""
        named = os.environ.get(AUTHORITY_VARIABLE)
        return self.authority or (Path(named) if named else default().authority)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of one call."""
        token = self.token()
        # What cannot stand in a header is no token: the service says that there is none.
        shown = token.isascii() and token.isprintable() and token
        return (("authorization", f"Bearer {token}"),) if shown else ()


_ours: list[Credentials] = []
_home: list[Path] = []


def use(credentials: Credentials) -> None:
    """What this process shows wherever nothing else is said, from now on."""
    _ours[:] = [credentials]


def look_in(data: Path) -> None:
    """Which data directory has the operator's token, from now on."""
    _home[:] = [data]


def default() -> Credentials:
    home = _home[0] if _home else default_data_dir()
    return _ours[0] if _ours else Credentials.of_data_dir(home)
