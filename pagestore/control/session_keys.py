"""What seals the state of sessions that wait for another compute: a key for each database.

A session's state is shown by one compute of a database and taken up by another, also after a
restore; so the key is the database's, whatever timeline it stands on and whatever it is called.
All keys follow from one secret, a file of its own in the control plane's directory. Where that is
lost or damaged another one is made: sessions that sleep just then cannot be taken up again.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from pagestore.control.records import DatabaseRecord
from pagestore.secret_file import secret_of

FILE_NAME = "session-secret"


class SessionKeys:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def of_directory(cls, directory: Path) -> SessionKeys:
        """By the secret of this directory, made where there is none."""
        return cls(secret_of(directory / FILE_NAME))

    def key(self, record: DatabaseRecord) -> str:
        name = f"{record.tenant}/{record.created_micros}".encode()
        return hmac.digest(self._secret, name, "sha256").hex()
