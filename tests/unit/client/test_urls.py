from __future__ import annotations

import pytest

from pagestore.client.urls import with_login, without_password

PLAIN = "host='/run/x y' port='5433' user='postgres'"
CASES = {
    "postgresql://postgres:s%40e%2Fc@127.0.0.1:5433/app": (
        "postgresql://postgres@127.0.0.1:5433/app",
        "s@e/c",
    ),
    "postgresql://postgres:x@[::1]:5433/a%20b?sslmode=disable": (
        "postgresql://postgres@[::1]:5433/a%20b?sslmode=disable",
        "x",
    ),
    "postgresql://postgres@127.0.0.1:5433/app": ("postgresql://postgres@127.0.0.1:5433/app", None),
    PLAIN: (PLAIN, None),
}


@pytest.mark.parametrize("url", CASES)
def test_the_password_leaves_the_url(url: str) -> None:
    bare, password = CASES[url]
    assert without_password(url) == (bare, {"PGPASSWORD": password} if password else {})


def test_a_url_for_another_role() -> None:
    other = with_login("postgresql://postgres@[::1]:5432/a%2Fb", "w@b", "p/w")
    assert other == "postgresql://w%40b:p%2Fw@[::1]:5432/a%2Fb"
    assert without_password(other) == ("postgresql://w%40b@[::1]:5432/a%2Fb", {"PGPASSWORD": "p/w"})
