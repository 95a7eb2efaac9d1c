"""pg_authid as it lies in a real cluster's files, held against what the server says of it."""

from __future__ import annotations

from pagestore.pgformat.layout import PAGE_SIZE
from pagestore.pgwire.scram import Verifier
from pagestore.postgres.roles import RoleEntry, find_roles
from tests.plain_postgres import PlainPostgres, plain_postgres

STATEMENTS = [
    "CREATE ROLE plain LOGIN PASSWORD 'one'",
    "CREATE ROLE nologin PASSWORD 'two' VALID UNTIL '2031-05-06 07:08:09+00'",
    "CREATE ROLE bare LOGIN CONNECTION LIMIT 3 VALID UNTIL 'infinity'",
    "CREATE ROLE ended LOGIN VALID UNTIL '-infinity'",
    "CREATE ROLE \"Größe ü\" SUPERUSER LOGIN PASSWORD 'three'",
    "SET password_encryption = md5; CREATE ROLE old LOGIN PASSWORD 'four'",
    "CREATE ROLE gone; DROP ROLE gone",
    "ALTER ROLE plain PASSWORD 'another'",
    "ALTER ROLE plain RENAME TO renamed",
    "BEGIN; CREATE ROLE undone; ROLLBACK",
]


def read(server: PlainPostgres) -> dict[str, RoleEntry]:
    path = server.sql("SELECT pg_relation_filepath('pg_authid')")[0][0]
    server.stop()
    data = (server.data / path).read_bytes()
    xact = (server.data / "pg_xact/0000").read_bytes()
    pages = [data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)]
    return find_roles(pages, lambda xid: xact[xid // 4] >> xid % 4 * 2 & 3 == 1)


def test_roles_read_from_pages_are_those_that_the_server_has() -> None:
    with plain_postgres() as server:
        for statement in STATEMENTS:
            server.sql(statement)
        question = (
            "SELECT oid, rolname, rolsuper, rolcanlogin, rolconnlimit, rolpassword,"
            " CASE WHEN isfinite(rolvaliduntil) THEN extract(epoch FROM rolvaliduntil)::float8"
            " WHEN rolvaliduntil = '-infinity' THEN '-infinity'::float8 END FROM pg_authid"
        )
        rows = {row[1]: RoleEntry(*row) for row in server.sql(question)}
        found = read(server)
    assert found == rows
    assert {"renamed", "Größe ü"} < found.keys()
    assert not {"gone", "undone", "plain"} & found.keys()
    assert Verifier.parse(found["renamed"].password or "") is not None
    assert Verifier.parse(found["old"].password or "") is None
    assert found["ended"].expired(0.0)
    assert not found["bare"].expired(1e12)
    assert found["nologin"].expired(1936000000.0)
