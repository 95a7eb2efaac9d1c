"""Programs against a whole installation: databases as objects, branches that go by themselves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import pagestore
from pagestore.errors import NotFound, Unavailable
from pagestore.installation.layout import Installation
from pagestore.sdk import Client
from tests.integration.installation import Whole, whole_pagestore
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        yield running


@pytest.fixture(scope="module")
def client(whole: Whole) -> Iterator[Client]:
    with pagestore.connect(data=whole.data, start=False) as client:
        yield client


def rows(session: psycopg.Connection[tuple[int]]) -> list[int]:
    return [row[0] for row in session.execute("SELECT a FROM t ORDER BY a")]


def test_a_branch_an_attempt_and_an_undo(client: Client) -> None:
    app = client.create("app")
    with app.psycopg(autocommit=True) as session:
        session.execute("CREATE TABLE t AS SELECT 1 AS a")
        client.checkpoint("app", "before", git_commit="abc123")
        with client.branch("app", ttl="1h") as attempt:
            assert attempt.facts.expires_at is not None
            with attempt.psycopg(autocommit=True) as other:
                other.execute("INSERT INTO t VALUES (2)")
                assert rows(other) == [1, 2]
        assert rows(session) == [1]
        session.execute("DELETE FROM t")
        done = client.undo("app")
        assert done.changed
        assert rows(session) == [1], "the session has outlived the undo"
    assert [facts.name for facts in client.databases()] == ["app"]
    with pytest.raises(NotFound):
        client.database(attempt.name)
    names = [checkpoint.name for checkpoint in client.checkpoints("app")]
    assert done.kept is not None
    assert names == [done.kept.name, "before"]
    with client.branch("app", at=done.kept.name) as undone, undone.psycopg() as session:
        assert rows(session) == []


def test_an_event_loop_has_the_same(whole: Whole) -> None:
    async def story() -> list[str]:
        async with pagestore.aconnect(data=whole.data, start=False) as client:
            async with client.create("loop") as made, await made.psycopg() as session:
                await session.execute("SELECT 1")
            return [facts.name for facts in await client.databases()]

    assert "loop" not in asyncio.run(story())


def test_an_installation_that_does_not_run_is_said_or_started(whole: Whole) -> None:
    whole.down()
    with pytest.raises(Unavailable) as error:
        pagestore.connect(data=whole.data, start=False)
    assert error.value.reason == "NOT_RUNNING"
    with pagestore.connect(data=whole.data) as client:
        client.create("again", if_not_exists=True)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where computes of other users reach theirs."""
    with tempfile.TemporaryDirectory(prefix="ps-sdk-", dir="/tmp") as place:
        Path(place).chmod(0o711)
        yield Path(place)


def test_a_store_of_its_own_is_gone_afterwards(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pagestore.ephemeral() as client:
        with client.create("app").psycopg() as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
        [data] = place.iterdir()
        computes = Installation(data).compute_dir
        assert computes.exists()
    assert [*place.iterdir()] == []
    assert not computes.exists()


MADE = """
import pagestore
with pagestore.ephemeral() as client:
    client.create("app")
    print("made", flush=True)
    input()
"""


def test_it_is_gone_too_when_its_program_was_killed(place: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(place)}
    with subprocess.Popen(
        [sys.executable, "-c", MADE],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"made\n"
        [data] = place.iterdir()
        installation = Installation(data)
        pids = [part.pid for part in installation.parts().values()]
        computes = installation.running_computes()
        assert computes
        program.kill()
    wait_until(lambda: not data.exists(), seconds=60)
    assert not any(_runs(pid) for pid in (*pids, *(compute.pid for compute in computes)))


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
