"""Who calls: the token of a call, checked once for each call or stream.

A token that has been checked is remembered, so that the next call with it costs a look into a
dictionary. The file of public keys is read again when it is another one: keys change while parts
run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import structlog

from pagestore.client.credentials import file_identity
from pagestore.errors import DataLoss, FailedPrecondition, Unauthenticated
from pagestore.ids import TenantId, TimelineId
from pagestore.services import permissions
from pagestore.tokens import Claims, Signer, Verifier, parse_public_keys, parse_secret_key

KEYS_VARIABLE = "PAGESTORE_KEYS"
"""Names the file of public keys, where no option does."""
SIGNING_KEY_VARIABLE = "PAGESTORE_SIGNING_KEY"
"""Likewise, of the secret key."""
MAX_REMEMBERED = 4096
_BEARER = "Bearer "
_log = structlog.get_logger(__name__)

caller: ContextVar[Claims | None] = ContextVar("caller", default=None)
"""Whose call is being answered: for methods that see bytes, and so check the ids themselves."""


class Guard:
    """
    Args:
        keys: the file of public keys.
        clock: Unix seconds.

    Raises:
        FailedPrecondition: KEYS_MISSING. DataLoss: FILE_CORRUPT.
    """

    def __init__(self, keys: Path, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._remembered: dict[str, Claims] = {}
        try:
            self._seen = file_identity(keys)
            self._verifier = Verifier(parse_public_keys(keys.read_text(), str(keys)))
        except (OSError, UnicodeDecodeError) as error:
            raise keys_missing(f"{keys} cannot be read ({error})") from error

    @classmethod
    def of_setting(cls, keys: Path | None) -> Guard:
        """With the file that a part was told, or the one in the environment.

        Raises:
            FailedPrecondition: KEYS_MISSING. DataLoss: FILE_CORRUPT.
        """
        named = keys or os.environ.get(KEYS_VARIABLE)
        if not named:
            raise keys_missing("it was not told where they are")
        return cls(Path(named))

    def admit(self, method: str, metadata: Iterable[Any]) -> Claims | None:
        """Whose call it is; None for one where that is all the same.

        Raises:
            Unauthenticated: TOKEN_MISSING, and as :meth:`pagestore.tokens.Verifier.verify` does.
            PermissionDenied: as :func:`pagestore.services.permissions.check_method` does.
        """
        if method in permissions.OPEN:
            return None
        claims = self._claims(_token_in(metadata))
        permissions.check_method(method, claims)
        return None if method in permissions.DESCRIBING else claims

    def verifier(self) -> Verifier:
        """By the keys of now."""
        self._take_changed_keys()
        return self._verifier

    def _claims(self, token: str) -> Claims:
        self._take_changed_keys()
        now = self._clock()
        known = self._remembered.get(token)
        if known is not None and not known.has_expired(now):
            return known
        claims = self._verifier.verify(token, now)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[token] = claims
        return claims

    def _take_changed_keys(self) -> None:
        """Those that were there stay in force while the file cannot be read."""
        try:
            seen = file_identity(self._keys)
            if seen == self._seen:
                return
            verifier = Verifier(parse_public_keys(self._keys.read_text(), str(self._keys)))
        except (OSError, UnicodeDecodeError, DataLoss) as error:
            _log.warning("public keys cannot be read", path=str(self._keys), error=str(error))
            return
        self._seen, self._verifier = seen, verifier
        self._remembered.clear()


class SigningKey(Signer):
    """The secret key in a file, read again when the file is another one.

    Raises:
        FailedPrecondition: KEYS_MISSING. DataLoss: FILE_CORRUPT.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._seen = file_identity(path)
            super().__init__(parse_secret_key(path.read_text(), str(path)))
        except (OSError, UnicodeDecodeError) as error:
            raise keys_missing(f"{path} cannot be read ({error})") from error

    @classmethod
    def of_setting(cls, key: Path | None) -> SigningKey:
        """The one that a part was told of, or the one in the environment."""
        named = key or os.environ.get(SIGNING_KEY_VARIABLE)
        if not named:
            raise keys_missing("it makes tokens itself, and was not told where the secret key is")
        return cls(Path(named))

    def sign(self, claims: Claims) -> str:
        self.current()
        return super().sign(claims)

    def sign_address(self, tenant: TenantId, timeline: TimelineId, term: int, conninfo: str) -> str:
        self.current()
        return super().sign_address(tenant, timeline, term, conninfo)

    def current(self) -> bytes:
        """Its public half of now. The key that was there stays in force while the file cannot be
        read."""
        try:
            seen = file_identity(self._path)
            if seen != self._seen:
                super().__init__(parse_secret_key(self._path.read_text(), str(self._path)))
                self._seen = seen
        except (OSError, UnicodeDecodeError, DataLoss) as error:
            _log.warning("secret key cannot be read", path=str(self._path), error=str(error))
        return self.public_key


def keys_missing(why: str) -> FailedPrecondition:
    return FailedPrecondition(
        "KEYS_MISSING",
        f"This part does not know by which keys to tell who calls: {why}.",
        "`pagestore up` makes them in DATA/keys. On another host, copy public-keys and the part's "
        "token from there: --keys FILE, --token-file FILE (docs/security.md).",
    )


def _token_in(metadata: Iterable[Any]) -> str:
    shown = [value for key, value in metadata if key == "authorization"]
    if len(shown) != 1 or not str(shown[0]).startswith(_BEARER):
        raise Unauthenticated(
            "TOKEN_MISSING",
            "The call shows no token." if not shown else "The call does not show one token.",
            "The owner of the data directory needs none but DATA/tokens/operator, which is found "
            "there; others name theirs in PAGESTORE_TOKEN or PAGESTORE_TOKEN_FILE.",
        )
    return str(shown[0])[len(_BEARER) :]
