"""Which names databases, checkpoints, tenants and roles may have.

A tenant's database is written ``/tenant/app`` where the tenant is not the default one: no
database's name has a slash, so no old name is ever taken for it. Of a new database's name `@` is
reserved: ``app@before-migration`` is its past (proxy/target.py)."""

from __future__ import annotations

import re
import unicodedata

from pagestore.client.points import reads_as_point
from pagestore.errors import InvalidInput
from pagestore.ids import DEFAULT_TENANT_NAME

MAX_NAME_BYTES = 63
"""As Postgres's own names: a database here has the same name inside Postgres."""

MAX_REQUEST_BYTES = 64

RULE = (
    "A name has 1 to 63 bytes of UTF-8; no slash, control or invisible characters; "
    "no space at either end; does not begin with a dash; and is not only dots."
)
TENANT_RULE = (
    "A tenant's name has 1 to 32 lower-case letters (a to z), digits and dashes, and begins and "
    "ends with a letter or a digit."
)
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def database_name(text: str) -> str:
    """The name in Unicode's composed form (NFC).

    Raises:
        InvalidInput: INVALID_NAME, with the rule as its hint.
    """
    return _checked(text, "database")


def new_database_name(text: str) -> str:
    """As :func:`database_name`, of a database that is to come; one with an `@` is refused too."""
    name = database_name(text)
    if "@" in name:
        raise InvalidInput(
            "INVALID_NAME",
            f"{name!r} cannot name a new database: what stands behind an @ is a point of the past.",
            RULE,
        )
    return name


def tenant_name(text: str) -> str:
    """
    Raises:
        InvalidInput: INVALID_NAME.
    """
    if not _TENANT.fullmatch(text):
        raise InvalidInput("INVALID_NAME", f"{text[:40]!r} cannot name a tenant.", TENANT_RULE)
    return text


def qualified(tenant: str, database: str) -> str:
    """A database as a connection string names it; what may stand behind the name comes after it.

    Args:
        tenant: its name; empty for the default one.
    """
    return f"/{tenant}/{database}" if tenant not in ("", DEFAULT_TENANT_NAME) else database


def split_tenant(text: str) -> tuple[str, str]:
    """The inverse: the tenant's name, or the default one's, and what follows it. Any text has
    both; whether there is such a tenant is asked elsewhere."""
    if not text.startswith("/"):
        return DEFAULT_TENANT_NAME, text
    tenant, _, rest = text[1:].partition("/")
    return tenant, rest


def checkpoint_name(text: str) -> str:
    """As :func:`database_name`; what reads as an LSN, a time or ``head`` is refused too."""
    name = _checked(text, "checkpoint")
    if reads_as_point(name):
        raise InvalidInput(
            "INVALID_NAME",
            f"{name!r} cannot name a checkpoint: it reads as an LSN, a time or the head.",
            "Choose another name.",
        )
    return name


def role_name(text: str) -> str:
    """As :func:`database_name`, of a role inside a database; Postgres has a say in it, too."""
    return _checked(text, "role")


def request_id(text: str) -> str:
    """An id by which the same request is known when it is sent again; empty for none.

    Raises:
        InvalidInput: INVALID_REQUEST_ID.
    """
    if len(text.encode()) > MAX_REQUEST_BYTES or not (text.isprintable() and text.isascii()):
        raise InvalidInput(
            "INVALID_REQUEST_ID",
            f"{text[:40]!r} cannot name a request.",
            f"A request id has at most {MAX_REQUEST_BYTES} printable ASCII characters.",
        )
    return text


def _checked(text: str, noun: str) -> str:
    name = unicodedata.normalize("NFC", text)
    fault = _fault(name)
    if fault:
        shown = repr(text if len(text) <= 40 else text[:40] + "…")
        raise InvalidInput("INVALID_NAME", f"{shown} cannot name a {noun}: {fault}.", RULE)
    return name


def _fault(name: str) -> str | None:
    if not name:
        return "it is empty"
    if any(unicodedata.category(character) in _INVISIBLE for character in name):
        return "it has a control or invisible character"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"it has {len(name.encode())} bytes, more than {MAX_NAME_BYTES}"
    if "/" in name:
        return "it has a slash"
    if name != name.strip() or re.search(r"\s", name[0] + name[-1]):
        return "it begins or ends with a space"
    if not name.strip("."):
        return "it is only dots"
    return "it begins with a dash" if name.startswith("-") else None
