"""What each test's database begins with: made once a run."""

import psycopg
import pytest


@pytest.fixture(scope="session")
def pagestore_prepare():
    def migrate(url: str) -> None:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute("CREATE TABLE accounts (name text PRIMARY KEY, money int)")
            session.execute("INSERT INTO accounts VALUES ('ann', 10), ('bob', 0)")

    return migrate
