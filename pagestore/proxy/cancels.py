"""Cancel keys: what a client cancels by, whichever backend serves it at the time.

A key is ours and stays for the life of a session; the backend's own changes with each backend.
Keys are compared in constant time. A number alone tells nothing: a wrong key does what an unknown
number does, nothing, as Postgres itself has it.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_T = TypeVar("_T")
SHORT_KEY_BYTES = 4
"""Of protocol versions before 3.2, which have room for no more."""
LONG_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class CancelKey:
    process: int
    key: bytes = field(repr=False)


class CancelKeys(Generic[_T]):
    """Who is cancelled by which key."""

    def __init__(self) -> None:
        self._keys: dict[int, bytes] = {}
        self._sessions: dict[int, _T] = {}

    def issue(self, version: tuple[int, int]) -> CancelKey:
        """A key that is nobody's yet, as long as the protocol's version allows."""
        process = secrets.randbits(31) or 1
        while process in self._keys:
            process = secrets.randbits(31) or 1
        key = secrets.token_bytes(LONG_KEY_BYTES if version >= (3, 2) else SHORT_KEY_BYTES)
        self._keys[process] = key
        return CancelKey(process, key)

    def assign(self, key: CancelKey, session: _T) -> None:
        self._sessions[key.process] = session

    def find(self, process: int, key: bytes) -> _T | None:
        known = self._keys.get(process)
        if known is None or not hmac.compare_digest(known, key):
            return None
        return self._sessions.get(process)

    def revoke(self, key: CancelKey) -> None:
        self._keys.pop(key.process, None)
        self._sessions.pop(key.process, None)
