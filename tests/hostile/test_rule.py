"""The rule of commits is written while a hostile superuser is at work in his directory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.hostile.tenant import Victims, victims
from tests.integration.stack import Compute, Stack, running_stack
from tests.plain_postgres import plain_postgres

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="walls between users need root")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as made:
        yield made


@pytest.fixture(scope="module")
def compute(stack: Stack) -> Compute:
    with plain_postgres() as cluster:
        cluster.stop()
        return stack.start(stack.import_cluster(cluster.data))


@pytest.fixture
def victim() -> Iterator[Victims]:
    with victims() as made:
        yield made
        made.check()


KINDS = ("ln -s {secret} {file}", "mkfifo {file}", "mkdir {file}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_is_written_where_its_server_cannot(
    stack: Stack, compute: Compute, victim: Victims, kind: str
) -> None:
    names = ("pagestore.synchronous.tmp", "pagestore.synchronous.conf.tmp")
    places = [f"{folder}{name}" for folder in ("", "../") for name in names]
    attempts = "; ".join(kind.format(secret=victim.secret, file=place) for place in places)
    compute.sql(f"COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; ({attempts}) 2>/dev/null || true'")
    rule = "ANY 1 (sk1, sk2)"
    stack.wait(compute.running.set_rule(rule), 60)
    victim.check()
    assert compute.sql("SHOW synchronous_standby_names") == [(rule,)]
    stack.wait(compute.running.set_rule("ANY 1 (sk1)"), 60)
    compute.sql("COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm -rf pagestore.synchronous*tmp'")
