"""The role by which safekeepers on other hosts log in to a compute's walsender.

On one machine they come over the Unix socket, as the superuser, and need none. Over the network
they need a role with a password. It lives in the cluster's own catalog, so branches have it, and a
user may have altered or dropped it: every start looks, and writes only where something is missing.
That commit waits for no safekeeper, since none can log in before it.

The password is not the database's own: who reads a safekeeper's files can read the WAL, but
cannot log in as a superuser.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from psycopg import sql

from pagestore.postgres.operator_session import operator_session

WAL_ROLE = "pagestore_safekeeper"
_SCRAM = "SCRAM-SHA-256"


async def ensure_wal_role(conninfo: str, password: str) -> None:
    """The role exists, may replicate and nothing else, and has this password."""
    async with await operator_session(conninfo) as session:
        query = (
            "SELECT rolreplication AND rolcanlogin AND coalesce(rolvaliduntil = 'infinity', true),"
            " rolpassword FROM pg_authid WHERE rolname = %s"
        )
        found = await (await session.execute(query, [WAL_ROLE])).fetchone()
        if found is not None and found[0] and is_secret_of(str(found[1]), password):
            return
        # Hashed here, so that the statement does not carry it in clear into any log.
        hashed = session.pgconn.encrypt_password(
            password.encode(), WAL_ROLE.encode(), _SCRAM.lower().encode()
        ).decode()
        verb = sql.SQL("CREATE" if found is None else "ALTER")
        await session.execute("SET synchronous_commit = local")
        await session.execute(
            sql.SQL("{} ROLE {} LOGIN REPLICATION VALID UNTIL 'infinity' PASSWORD {}").format(
                verb, sql.Identifier(WAL_ROLE), sql.Literal(hashed)
            )
        )


def is_secret_of(secret: str, password: str) -> bool:
    """Whether pg_authid.rolpassword is this password's SCRAM secret (RFC 5803).

    ``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>``; we compare the ServerKey.
    """
    try:
        mechanism, cost, keys = secret.split("$")
        iterations, salt = cost.split(":")
        server_key = base64.b64decode(keys.split(":")[1])
        raw_salt, rounds = base64.b64decode(salt), int(iterations)
    except (ValueError, IndexError):
        return False
    if mechanism != _SCRAM or rounds < 1:
        return False
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), raw_salt, rounds)
    return hmac.compare_digest(hmac.digest(salted, b"Server Key", "sha256"), server_key)
