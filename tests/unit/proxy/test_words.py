"""By which SQLSTATE a client is told why it is not let in."""

from __future__ import annotations

from pagestore.errors import FailedPrecondition, NotFound, Unavailable
from pagestore.proxy.front import _sqlstate


def test_who_comes_during_an_upgrade_is_told_to_come_again() -> None:
    under_way = FailedPrecondition("UPGRADE_UNDER_WAY", "'app' is being upgraded.")
    assert _sqlstate(under_way) == "57P03"  # cannot_connect_now
    assert _sqlstate(FailedPrecondition("POSTGRES_MISSING", "There is no Postgres 15.")) == "58000"
    assert _sqlstate(NotFound("DATABASE_NOT_FOUND", "There is none.")) == "3D000"
    assert _sqlstate(Unavailable("COMPUTE_FAILED", "It does not start.")) == "58000"
