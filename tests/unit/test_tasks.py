"""A background task that ends unplanned ends its process, with a line in the log."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pagestore import tasks
from pagestore.errors import FailedPrecondition


class Ends:
    """Stands for os._exit."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    def __call__(self, status: int) -> None:
        self.statuses.append(status)


async def _raise() -> None:
    raise ValueError("no disk thought of this")


async def _refused() -> None:
    raise FailedPrecondition("GENERATION_SUPERSEDED", "Another has taken over.", "Leave it.")


async def _return() -> None:
    return


async def _run(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    await asyncio.sleep(0)


@pytest.mark.parametrize("work", [_raise, _return])
def test_an_endless_task_that_ends_ends_the_process(work) -> None:
    ends = Ends()

    async def main() -> None:
        await _run(tasks.endless(work(), "loop", end=ends))

    asyncio.run(main())
    assert ends.statuses == [tasks.EXIT_STATUS]


def test_what_no_other_start_will_change_ends_it_with_another_status_and_in_words(capsys) -> None:
    ends = Ends()

    async def replaced() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_refused())

    async def main() -> None:
        await _run(tasks.endless(replaced(), "keep", end=ends))

    asyncio.run(main())
    assert ends.statuses == [tasks.FINAL_STATUS]
    assert "error: Another has taken over.\nhint: Leave it.\n" in capsys.readouterr().err


def test_an_errand_may_return_but_not_raise() -> None:
    ends = Ends()

    async def main() -> None:
        await _run(tasks.errand(_return(), "errand", end=ends))
        assert ends.statuses == []
        await _run(tasks.errand(_raise(), "errand", end=ends))

    asyncio.run(main())
    assert ends.statuses == [tasks.EXIT_STATUS]


def test_to_cancel_is_the_planned_end() -> None:
    ends = Ends()

    async def main() -> None:
        task = tasks.endless(asyncio.sleep(3600), "loop", end=ends)
        await asyncio.sleep(0)
        task.cancel()
        await _run(task)

    asyncio.run(main())
    assert ends.statuses == []


PROGRAM = """
import asyncio, gc
from pagestore import tasks
from pagestore.errors import FailedPrecondition

async def die():
    await asyncio.sleep(0.01)
    raise ValueError("the reason")

async def main():
    tasks.endless(die(), "the loop's name")
    gc.collect()
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("log", ["pipe", "/dev/full"])
def test_the_process_ends_with_a_line_in_its_log_even_if_that_is_full(log) -> None:
    command = [sys.executable, "-c", PROGRAM]
    if log == "pipe":
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        text = ended.stdout + ended.stderr
        assert "the loop's name" in text
        assert "the reason" in text
    else:
        with Path(log).open("w") as full:
            ended = subprocess.run(command, stdout=full, stderr=full, timeout=30)
    assert ended.returncode == tasks.EXIT_STATUS


WAITS_FOR_THEM = {
    "tasks.py",
    "compute/execution.py",
    "compute/running.py",
    "compute/start.py",
    "control/turns.py",
    "ingest/chunks.py",
    "ingest/follower.py",  # a group, whose own task is one of ours
    "ingest/sources.py",
    "maintenance/uploader.py",  # likewise
    "proxy/front.py",
    "quorum/changing.py",
    "quorum/client.py",
    "quorum/majority.py",
    "quorum/race.py",
    "sdk/ahead.py",
    "sdk/attempts.py",
    "services/progress.py",
    "walservice/finishing.py",
    "walservice/safekeeper.py",
}


def test_nobody_begins_a_task_whose_end_nobody_sees() -> None:
    """But those who wait for theirs themselves."""
    package = Path(tasks.__file__).parent
    begin = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\b(create_task|ensure_future)\(", path.read_text())
    }
    assert begin == WAITS_FOR_THEM
