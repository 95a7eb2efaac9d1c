"""Who may connect, and to what: passwords and URLs.

Each database gets a random password at its creation, for the role ``postgres``. It lives in
the cluster like any other, so branches and restored states have it too; once it was reset, older
states have another one, and each start looks. The record has it sealed (operator_key.py), and only
an answer that must hold it, or a server that is told it by its agent, has it opened.
"""

from __future__ import annotations

import secrets
from urllib.parse import quote

from pagestore.client.names import qualified
from pagestore.control.compute import Place
from pagestore.control.operator_key import OperatorKey
from pagestore.control.records import DatabaseRecord
from pagestore.postgres.settings import SOCKET_PREFIX
from pagestore.postgres.template import OWNER_ROLE, SPARE_DATABASE

_TAKEN = frozenset({"postgres", "template0", "template1"})


def new_password() -> str:
    return secrets.token_urlsafe(18)


def password(key: OperatorKey, record: DatabaseRecord) -> str:
    """The owner's, in clear; empty where it is not known."""
    return key.open(record.tenant, record.sealed_password)


def wal_password(key: OperatorKey, record: DatabaseRecord) -> str:
    """By which safekeepers on other hosts log in: branches and restored states have the same. It
    is nowhere in the state, sealed or not."""
    return key.derived("safekeeper", record.sealed_password)


def inner_name(name: str) -> str:
    """The database inside Postgres for a new database `name`."""
    return SPARE_DATABASE if name in _TAKEN else name


def url(record: DatabaseRecord, tenant: str, address: str, secret: str = "") -> str:
    """With the owner's password, if there is one to tell.

    Args:
        tenant: its name.
        address: where clients connect: the proxy's, HOST:PORT.
    """
    return _url(address, qualified(tenant, record.name), secret)


def direct_url(record: DatabaseRecord, place: Place, secret: str = "") -> str:
    """Where there is no proxy: of the place where its compute runs; empty while none does."""
    if place.address:
        return _url(place.address, record.postgres_database, secret)
    if not place.socket:
        return ""
    directory, _, port = place.socket.rpartition(f"/{SOCKET_PREFIX}")
    url = _url("", record.postgres_database, secret)
    return f"{url}?host={quote(directory, safe='')}&port={port}"


def _url(address: str, database: str, secret: str) -> str:
    user = f"{OWNER_ROLE}:{quote(secret, safe='')}" if secret else OWNER_ROLE
    return f"postgresql://{user}@{address}/{quote(database, safe='')}"
