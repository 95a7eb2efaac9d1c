"""Who may connect, and to what: passwords and URLs.

Each database gets a random password at its creation, for the role ``postgres``. It lives in
the cluster like any other, so branches and restored states have it too; once it was reset, older
states have another one, and each start looks. The record has it sealed (operator_key.py), and only
an answer that must hold it, or a server that is told it by its agent, has it opened.
"""

from __future__ import annotations

import secrets
from urllib.parse import quote

from pagestore.control.operator_key import OperatorKey
from pagestore.control.records import DatabaseRecord
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


def url(record: DatabaseRecord, host: str, secret: str = "") -> str:
    """With the password, if there is one to tell."""
    database = quote(record.postgres_database, safe="")
    user = f"{OWNER_ROLE}:{quote(secret, safe='')}" if secret else OWNER_ROLE
    place = f"[{host}]" if ":" in host else host
    return f"postgresql://{user}@{place}:{record.port}/{database}"
