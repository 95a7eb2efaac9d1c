from __future__ import annotations

from tests.plain_postgres import plain_postgres


def test_the_oracle_runs() -> None:
    with plain_postgres() as cluster:
        assert cluster.sql("SELECT 6 * 7") == [(42,)]
