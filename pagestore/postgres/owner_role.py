"""Whether the owner of a database can log in by the password that its URL has."""

from __future__ import annotations

from pagestore.postgres.template import OWNER_ROLE
from pagestore.postgres.wal_role import is_secret_of


def owner_fault(can_login: bool | None, *, valid: bool, verifier: str, secret: str) -> str:
    """Why not, in a sentence; empty where it can.

    Args:
        can_login: None where there is no such role.
        valid: whether its password has not expired.
        verifier: ``rolpassword``.
        secret: the password; empty where it is not known.
    """
    if can_login is None:
        return f"There is no role {OWNER_ROLE} in it (any more)."
    if not can_login:
        return f"The role {OWNER_ROLE} may not log in (NOLOGIN)."
    if not valid:
        return f"The password of the role {OWNER_ROLE} has expired (VALID UNTIL)."
    if not secret:
        return (
            f"The password of the role {OWNER_ROLE} is not known: the key that sealed it is lost."
        )
    if not is_secret_of(verifier, secret):
        return f"The role {OWNER_ROLE} has another password by now, which is not known here."
    return ""
