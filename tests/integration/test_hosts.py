"""Parts that were started one by one, each on a host of its own, are a working installation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.installation import patiently, sql
from tests.integration.spread import Spread, spread_pagestore


@pytest.fixture(scope="module", params=[1, 3])
def spread(request: pytest.FixtureRequest) -> Iterator[Spread]:
    with spread_pagestore(request.param) as hosts:
        hosts.start()
        hosts.run("create", "app")
        yield hosts


def ask(spread: Spread, name: str, statement: str) -> list[tuple[Any, ...]]:
    """Over the URL, from the clients' host."""
    url = spread.run("url", name)["url"]
    return spread.client.run(lambda: patiently(lambda: sql(url, statement)))


def test_the_verbs_work(spread: Spread) -> None:
    assert f"@{spread.control.host.address}:" in spread.run("url", "app")["url"]
    ask(spread, "app", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    spread.run("checkpoint", "app", "full")
    ask(spread, "app", "DELETE FROM t WHERE id > 10")
    spread.run("branch", "app", "try")
    ask(spread, "try", "INSERT INTO t VALUES (0)")
    assert ask(spread, "try", "SELECT count(*) FROM t") == [(11,)]
    spread.run("restore", "app", "full")
    assert ask(spread, "app", "SELECT count(*) FROM t") == [(1000,)]
    spread.run("undo", "app")
    assert ask(spread, "app", "SELECT count(*) FROM t") == [(10,)]
    spread.run("stop", "app")
    spread.run("start", "app")
    assert ask(spread, "app", "SELECT count(*) FROM t") == [(10,)]
