"""Programs on a tenant's files, within real walls: heard, and ended with all that they started."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from pagestore.agent.confined import Confined, Done
from pagestore.compute import syscalls
from pagestore.compute.places import make_private
from pagestore.errors import FailedPrecondition
from pagestore.postgres.datadir import Owner
from tests.waiting import until

UID = 1_900_070_100
OWNER = Owner(UID, UID) if os.geteuid() == 0 else None
SHELL = Path("/bin/sh")

pytestmark = pytest.mark.walls


@pytest.fixture
def confined(tmp_path: Path) -> Confined:
    make_private(tmp_path / "work", OWNER)
    (tmp_path / "secret").write_text("secret")
    accounts = tmp_path / "passwd"
    accounts.write_text(f"postgres:x:{UID}:{UID}::/:/bin/sh\n")
    accounts.chmod(0o644)
    named = accounts if OWNER is not None else None
    return Confined(tmp_path / "work", (Path("/usr/bin"),), OWNER, True, named)


def ran(confined: Confined, script: str, said: bytes = b"") -> Done:
    return asyncio.run(confined.run([str(SHELL), "-c", script], said=said))


def test_it_sees_its_own_directory_and_has_a_name_there(confined: Confined) -> None:
    assert ran(confined, "pwd").output.strip() == str(confined.work)
    assert "secret" not in ran(confined, "ls ..; cat ../secret 2>/dev/null").output
    if OWNER is not None:
        assert ran(confined, "id -un").output == "postgres\n"
    assert ran(confined, "cat; exit 3", b"words") == Done(3, "words")
    assert ran(confined, "ls /sys/class/net | wc -l").output != "2\n"


def test_the_kernel_answers_it_less_than_others(confined: Confined) -> None:
    if not syscalls.is_known():
        pytest.skip("there is no filter for this machine")
    assert ran(confined, "grep Seccomp: /proc/self/status").output.split() == ["Seccomp:", "2"]
    assert "not permitted" in ran(confined, "unshare --user true").output


def test_it_is_heard_as_it_speaks(confined: Confined) -> None:
    async def story() -> None:
        heard: list[str] = []
        script = "printf 'one '; cat >/dev/null; sleep 1000"
        task = asyncio.create_task(confined.run([str(SHELL), "-c", script], heard=heard.append))
        async with asyncio.timeout(60):
            while not heard:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert heard == ["one "]

    asyncio.run(story())


@pytest.mark.parametrize("how", ["it ends", "it is broken off"])
def test_nobody_is_left_in_there_when_it_has_ended(confined: Confined, how: str) -> None:
    """Not even what has gone into the background, with a session of its own."""
    stray = confined.work / "stray"

    async def story() -> None:
        begun = f"until [ -e {stray} ]; do sleep 0.01; done"
        wait = "sleep 1000" if how == "it is broken off" else "true"
        script = f"setsid sh -c 'while :; do date >> {stray}; done' & {begun}; {wait}"
        task = asyncio.create_task(confined.run([str(SHELL), "-c", f"{script} > /dev/null 2>&1"]))
        if how == "it is broken off":
            await until(stray.exists)
            task.cancel()
        await asyncio.wait([task], timeout=60)
        assert task.done()
        size = stray.stat().st_size
        await asyncio.sleep(0.3)
        assert stray.stat().st_size == size

    asyncio.run(story())


def test_a_program_that_is_not_installed_is_said_by_name(confined: Confined) -> None:
    with pytest.raises(FailedPrecondition, match="/nowhere/pg_upgrade") as caught:
        asyncio.run(confined.run(["/nowhere/pg_upgrade"]))
    assert caught.value.reason == "POSTGRES_MISSING"
