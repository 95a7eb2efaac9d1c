"""What Postgres runs on besides computes is somebody's, too: it does so within the same walls."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.agent.template import Postgres
from pagestore.errors import FailedPrecondition, PagestoreError
from pagestore.oracle.recovery import Runner, Walls, copy_cluster, recover
from pagestore.oracle.scratch import scratch_directory
from pagestore.postgres import majors
from pagestore.postgres.cluster import read_control
from tests.plain_postgres import MAJOR, RUN_AS, PlainPostgres, reachable_dir

pytestmark = pytest.mark.walls

UID = 1_900_060_000 if os.geteuid() == 0 else None
USER = os.geteuid() if UID is None else UID
FACTS = (
    "id -u; grep -c NoNewPrivs:.1 /proc/self/status; grep -c CapBnd:.0000000000000000"
    " /proc/self/status; grep -c Seccomp:.2 /proc/self/status; ls {secret} 2>&1 | grep -c such;"
    " tail -n +3 /proc/net/dev | grep -vc lo:; ls -d /proc/[0-9]* | wc -l"
)
"""Of whoever runs it: its user, whether it has no rank, what of a file and a network it sees, and
how many processes."""


@pytest.fixture
def place() -> Iterator[Path]:
    made = reachable_dir()
    (made / "secret").write_text("another's")
    yield made
    shutil.rmtree(made)


def check(facts: list[str], user: int) -> None:
    assert facts[:6] == [str(user), "1", "1", "1", "1", "0"]
    assert int(facts[6]) < 15


def test_a_copy_is_recovered_within_walls_as_a_user_of_its_own(place: Path) -> None:
    """A superuser's WAL is replayed by `verify --replay` and `import`."""
    cluster = PlainPostgres(place)
    cluster.initdb()
    control = read_control(cluster.data)
    runner = Runner.of(majors.BINDIR, RUN_AS, Walls(UID))

    async def recovered() -> str:
        async with scratch_directory("pagestore-test", place, runner.owner) as root:
            copy = root / "data"
            await copy_cluster(cluster.data, copy, runner.owner)
            (copy / "recovery.signal").touch()
            facts = FACTS.format(secret=place / "secret")
            settings = {
                "restore_command": "false",
                "recovery_end_command": f"( {facts} ) > facts",
            }
            await recover(copy, control, runner, settings)
            return (copy / "facts").read_text()

    check(asyncio.run(recovered()).split(), USER)


def test_a_server_that_does_not_start_there_is_told_with_its_words(place: Path) -> None:
    cluster = PlainPostgres(place)
    cluster.initdb()
    runner = Runner.of(majors.BINDIR, RUN_AS, Walls(UID))

    async def refused() -> None:
        async with scratch_directory("pagestore-test", place, runner.owner) as root:
            copy = root / "data"
            await copy_cluster(cluster.data, copy, runner.owner)
            await recover(copy, read_control(cluster.data), runner, {"shared_buffers": "none"})

    with pytest.raises(PagestoreError, match="shared_buffers"):
        asyncio.run(refused())


def test_the_template_is_made_within_walls(place: Path) -> None:
    """By whatever `initdb` is there: this one says what it sees."""
    programs = place / "programs/bin"
    programs.mkdir(parents=True)
    (programs / "initdb").write_text(
        f"#!/bin/sh\n{FACTS.format(secret=place / 'secret')}\nexit 1\n"
    )
    (programs / "initdb").chmod(0o755)
    postgres = Postgres(programs, RUN_AS, place, walls=True)

    async def told() -> str:
        async with postgres.directory("template-") as directory:
            with pytest.raises(PagestoreError) as caught:
                await postgres.run(directory, "initdb")
            assert caught.value.reason == "POSTGRES_FAILED"
            with pytest.raises(FailedPrecondition) as missing:
                await postgres.run(directory, "postgres")
            assert missing.value.reason == "POSTGRES_MISSING"
        return caught.value.message.partition("failed: ")[2]

    user = os.geteuid() if RUN_AS is None else pwd.getpwnam(RUN_AS).pw_uid
    check(asyncio.run(told()).split(), user)


def test_initdb_itself_works_there(place: Path) -> None:
    bindir = majors.programs(majors.BINDIR, MAJOR)
    postgres = Postgres(bindir, RUN_AS, place, walls=True)

    async def made() -> int:
        async with postgres.directory("template-") as directory:
            data = directory / "data"
            await postgres.run(directory, "initdb", "-D", str(data), "-U", "postgres", "--no-sync")
            single = ("--single", "-D", str(data), "-F", "postgres")
            await postgres.run(directory, "postgres", *single, stdin="CREATE DATABASE spare;\n")
            return read_control(data).version.major

    assert asyncio.run(made()) == MAJOR
