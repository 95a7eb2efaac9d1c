"""Each test has a database of its own, and commits to it what it likes."""

import psycopg
import pytest


def money(session: psycopg.Connection) -> dict[str, int]:
    return dict(session.execute("SELECT name, money FROM accounts").fetchall())


def test_money_goes_from_one_to_the_other(pagestore_db) -> None:
    with pagestore_db.psycopg(autocommit=True) as session:
        session.execute("UPDATE accounts SET money = money - 4 WHERE name = 'ann'")
        session.execute("UPDATE accounts SET money = money + 4 WHERE name = 'bob'")
        assert money(session) == {"ann": 6, "bob": 4}


@pytest.mark.parametrize("name", ["ann", "bob"])
def test_an_account_is_closed(pagestore_db, name: str) -> None:
    with pagestore_db.psycopg(autocommit=True) as session:
        session.execute("DELETE FROM accounts WHERE name = %s", [name])
        assert name not in money(session)
        assert len(money(session)) == 1, "what other tests did is not here"
