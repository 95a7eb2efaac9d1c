"""A database's URL, and what becomes of it: for a program of Postgres's without its password,
which is not for a command line that every user of the machine can read (``ps``); for another role;
for the past."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit


def without_password(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its password, and the environment variables from which libpq has it: only
    the same user and root can read those.

    libpq keywords, which are no URL, stay as they are.
    """
    parts = urlsplit(url)
    user, _, place = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    if not parts.scheme.startswith("postgres") or not colon:
        return url, {}
    bare = urlunsplit(parts._replace(netloc=f"{name}@{place}"))
    return bare, {"PGPASSWORD": unquote(password)}


def with_login(url: str, role: str, password: str) -> str:
    """The URL for another role, with its password."""
    parts = urlsplit(url)
    _, _, place = parts.netloc.rpartition("@")
    login = f"{quote(role, safe='')}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{place}"))


def past_url(url: str, point: str) -> str:
    """Of the read-only server that stands at a point of a database's past.

    Args:
        url: the database's own.
        point: as ``--at`` takes it.
    """
    return f"{url}@{quote(point, safe='')}"
