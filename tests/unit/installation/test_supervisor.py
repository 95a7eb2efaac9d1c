"""What keeps the parts running: starting again, adopting, changing and ending them in order."""

from __future__ import annotations

import asyncio
import errno
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from pagestore import tasks
from pagestore.errors import FailedPrecondition
from pagestore.installation import safekeeper_sections
from pagestore.installation.config import SafekeeperConfig
from pagestore.installation.layout import ENDED_FOR_GOOD, Installation, PartProcess
from pagestore.installation.restarts import (
    FINAL_PAUSE,
    FIRST_PAUSE,
    LAST_PAUSE,
    STEADY_SECONDS,
)
from pagestore.installation.supervisor import LEAVE_SECONDS, STOP_SECONDS, TELL_SECONDS
from tests.unit.installation.fake_machine import AWAY, Machine, play
from tests.unit.virtual_time import now, settle, until

SAFEKEEPERS = ["safekeeper-1", "safekeeper-2", "safekeeper-3"]
PARTS = ["pageserver", *SAFEKEEPERS, "compute", "control", "proxy"]
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


async def up(machine: Machine) -> asyncio.Task[None]:
    supervising = machine.supervise()
    await until(lambda: bool(machine.happened("READY=1")))
    assert sorted(machine.runs()) == sorted(PARTS)
    return supervising


# Starting, and starting again


def test_all_parts_start_at_once_and_the_manager_hears_when_all_serve(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        machine.supervise()
        await settle()
        assert [machine.started(part) for part in PARTS] == [[0.0]] * len(PARTS)
        machine.process("control").serves = False
        await asyncio.sleep(60)
        assert not machine.happened("READY=1")
        machine.process("control").serves = True
        await until(lambda: bool(machine.happened("READY=1")))

    play(tmp_path, story)


def test_a_part_that_keeps_dying_is_started_with_pauses_that_double(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        machine.dies_after["safekeeper-2"] = 0.0
        machine.supervise()
        await until(lambda: len(machine.started("safekeeper-2")) == 12, 100)
        found = [after - before for before, after in pairwise(machine.started("safekeeper-2"))]
        expected = [min(FIRST_PAUSE * 2**number, LAST_PAUSE) for number in range(11)]
        assert found == pytest.approx(expected, abs=0.01)
        assert machine.installation.parts()["safekeeper-2"].restarts == 11
        assert machine.installation.parts()["safekeeper-2"].last_exit == "exit status 1"
        assert [len(machine.started(part)) for part in PARTS] == [1, 1, 12, 1, 1, 1, 1]

    play(tmp_path, story)


def test_after_a_steady_run_it_is_started_at_once_again(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        machine.dies_after["control"] = 0.0
        machine.supervise()
        await until(lambda: len(machine.started("control")) == 6)
        machine.dies_after["control"] = STEADY_SECONDS + 1
        await until(lambda: len(machine.started("control")) == 8, 100)
        before, after = machine.started("control")[-2:]
        assert after - before == pytest.approx(STEADY_SECONDS + 1 + FIRST_PAUSE, abs=0.01)
        assert machine.installation.parts()["control"].restarts == 1

    play(tmp_path, story)


def test_one_that_says_that_no_start_will_help_has_none_for_a_long_while(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        await up(machine)
        machine.process("pageserver").die(tasks.FINAL_STATUS)
        await settle()
        note = machine.installation.parts()["pageserver"]
        assert (note.pid, note.reason) == (0, ENDED_FOR_GOOD)
        assert note.last_exit == f"exit status {tasks.FINAL_STATUS}"
        await asyncio.sleep(FINAL_PAUSE - 1)
        assert len(machine.started("pageserver")) == 1
        await until(lambda: len(machine.started("pageserver")) == 2)
        await settle()
        assert machine.installation.parts()["pageserver"].reason == ""

    play(tmp_path, story)


def test_one_that_was_killed_is_said_to_be(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        await up(machine)
        machine.process("pageserver").send(signal.SIGKILL)
        await until(lambda: len(machine.started("pageserver")) == 2)
        await settle()
        note = machine.installation.parts()["pageserver"]
        assert note.pid == machine.process("pageserver").pid
        assert note.last_exit == "killed by SIGKILL"

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FailedPrecondition("ADDRESS_IN_USE", "Somebody listens."), "ADDRESS_IN_USE"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "CANNOT_START"),
    ],
)
def test_a_part_that_cannot_be_started_is_tried_again_and_says_why(
    tmp_path: Path, error: Exception, reason: str
) -> None:
    async def story(machine: Machine) -> None:
        machine.refuse["control"] = error
        machine.supervise()
        await asyncio.sleep(100)
        note = machine.installation.parts()["control"]
        assert (note.pid, note.reason) == (0, reason)
        assert "cannot be started" in note.last_exit
        assert note.restarts >= 10
        assert sorted(machine.runs()) == sorted(set(PARTS) - {"control"})
        machine.refuse.clear()
        await until(lambda: bool(machine.started("control")), LAST_PAUSE + 1)
        await settle()
        assert machine.installation.parts()["control"].reason == ""

    play(tmp_path, story)


def test_a_full_disk_keeps_it_from_telling_and_from_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(machine: Machine) -> None:
        await up(machine)

        def full(installation: Installation, parts: dict[str, PartProcess]) -> None:
            raise NO_SPACE

        with monkeypatch.context() as patch:
            patch.setattr(Installation, "write_parts", full)
            machine.process("control").die()
            await until(lambda: len(machine.started("control")) == 2)
            await asyncio.sleep(10 * TELL_SECONDS)
            pid = machine.process("control").pid
            assert machine.installation.parts()["control"].pid != pid
        await until(lambda: machine.installation.parts()["control"].pid == pid, 2 * TELL_SECONDS)

    play(tmp_path, story)


# What a killed supervisor left


def test_orphans_that_serve_and_are_what_would_be_started_are_kept(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        left = [machine.orphan(part) for part in PARTS]
        machine.supervise()
        await until(lambda: bool(machine.happened("READY=1")))
        assert not machine.happened("started")
        assert {part: note.pid for part, note in machine.installation.parts().items()} == {
            process.part: process.pid for process in left
        }
        # From now on they are kept as any other.
        left[0].die()
        await until(lambda: bool(machine.started("pageserver")), 2 * FIRST_PAUSE)

    play(tmp_path, story)


def test_orphans_of_another_make_or_that_do_not_serve_are_started_anew(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        other, silent = machine.orphan("pageserver", made_by="older"), machine.orphan("control")
        good = machine.orphan("safekeeper-1")
        silent.serves = False
        silent.stubborn = True
        machine.supervise()
        await until(lambda: bool(machine.happened("READY=1")), STOP_SECONDS + 10)
        assert (other.alive, silent.alive, good.alive) == (False, False, True)
        assert machine.happened("SIGTERM", "control")
        assert machine.happened("SIGKILL", "control")[0].at == pytest.approx(STOP_SECONDS, abs=1)
        started = [event.part for event in machine.happened("started")]
        assert sorted(started) == [
            *("compute", "control", "pageserver", "proxy", "safekeeper-2", "safekeeper-3")
        ]

    play(tmp_path, story)


def test_an_orphan_that_is_no_part_any_more_is_ended(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        gone = machine.orphan("safekeeper-7", made_by="")
        machine.supervise()
        await until(lambda: bool(machine.happened("READY=1")))
        assert not gone.alive
        assert not machine.started("safekeeper-7")

    play(tmp_path, story)


def test_of_two_orphans_of_one_part_at_most_one_stays(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        first, second = machine.orphan("control"), machine.orphan("control")
        machine.supervise()
        await until(lambda: bool(machine.happened("READY=1")))
        assert (first.alive, second.alive) == (False, True)
        assert not machine.started("control")

    play(tmp_path, story)


def test_a_stranger_that_got_the_process_id_is_let_be(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        stranger = machine.orphan("control")
        machine.left = {"control": [PartProcess(stranger.pid, 1, stranger.pid - 1)]}
        machine.supervise()
        await until(lambda: len(machine.started("control")) == 1)
        await asyncio.sleep(60)
        assert stranger.alive
        assert machine.process("control") is not stranger

    play(tmp_path, story)


# SIGHUP


def test_a_safekeeper_that_the_file_adds_is_started_and_who_speaks_to_it_anew(
    tmp_path: Path,
) -> None:
    async def story(machine: Machine) -> None:
        await up(machine)
        new = SafekeeperConfig(id=4, listen="127.0.0.1:4")
        safekeeper_sections.change(machine.installation.config_file, add=[new], leave=3)
        await machine.signal(signal.SIGHUP)
        await until(lambda: len(machine.started("control")) == 2, 2)
        assert len(machine.started("safekeeper-4")) == 1
        # One that leaves runs on until nothing needs it; nobody else was disturbed.
        assert sorted(machine.runs()) == sorted([*PARTS, "safekeeper-4"])
        assert [len(machine.started(part)) for part in PARTS] == [1, 1, 1, 1, 2, 2, 1]
        command = machine.process("control").command
        told = [command[at + 1] for at, word in enumerate(command) if word == "--wal-service"]
        assert [item.partition("=")[0] for item in told] == ["1", "2", "4"]
        # And it is kept like the others.
        machine.process("safekeeper-4").die()
        await until(lambda: len(machine.started("safekeeper-4")) == 2, 2)

    play(tmp_path, story)


def test_a_safekeeper_that_the_file_has_no_more_is_ended_soon_and_for_good(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        await up(machine)
        frozen = machine.process("safekeeper-3")
        frozen.stubborn = True
        safekeeper_sections.change(machine.installation.config_file, remove=3)
        began = now()
        await machine.signal(signal.SIGHUP)
        await until(lambda: not frozen.alive, LEAVE_SECONDS + 1)
        assert now() - began == pytest.approx(LEAVE_SECONDS, abs=0.2)
        assert machine.happened("SIGCONT", "safekeeper-3")
        await until(lambda: "safekeeper-3" not in machine.installation.parts())
        await asyncio.sleep(60)
        assert len(machine.started("safekeeper-3")) == 1

    play(tmp_path, story)


def test_several_go_at_once_and_one_that_keeps_dying_is_not_started_again(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        machine.dies_after["safekeeper-3"] = 0.0
        machine.supervise()
        await until(lambda: len(machine.started("safekeeper-3")) == 3)
        machine.process("safekeeper-2").stubborn = True
        for number in (2, 3):
            safekeeper_sections.change(machine.installation.config_file, remove=number)
        await machine.signal(signal.SIGHUP)
        count = len(machine.started("safekeeper-3"))
        await until(lambda: set(machine.installation.parts()) == {*PARTS} - {*SAFEKEEPERS[1:]})
        assert len(machine.started("safekeeper-3")) == count
        await until(
            lambda: (
                sorted(machine.runs())
                == ["compute", "control", "pageserver", "proxy", "safekeeper-1"]
            )
        )

    play(tmp_path, story)


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        await up(machine)
        good = machine.installation.config_file.read_text()
        for text in ("nonsense", ""):
            machine.installation.config_file.write_text(text)
            await machine.signal(signal.SIGHUP)
            await asyncio.sleep(60)
            assert [len(machine.started(part)) for part in PARTS] == [1] * len(PARTS)
            machine.process("safekeeper-1").serves = True
        # Later ones are taken.
        machine.installation.config_file.write_text(good)
        safekeeper_sections.change(machine.installation.config_file, remove=3)
        await machine.signal(signal.SIGHUP)
        await until(lambda: "safekeeper-3" not in machine.runs())

    play(tmp_path, story)


def test_the_same_file_again_disturbs_nobody(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        await up(machine)
        await machine.signal(signal.SIGHUP)
        await asyncio.sleep(60)
        assert [len(machine.started(part)) for part in PARTS] == [1] * len(PARTS)

    play(tmp_path, story)


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_proxy_ends_and_the_computes_and_then_the_parts_one_after_another(
    tmp_path: Path, number: signal.Signals
) -> None:
    async def story(machine: Machine) -> None:
        supervising = await up(machine)
        for part in PARTS:
            process = machine.process(part)
            process.stubborn = True
        await machine.signal(number)

        async def each_takes_a_second() -> None:
            for part in reversed(PARTS):
                await until(lambda part=part: bool(machine.happened("SIGTERM", part)))
                await asyncio.sleep(1)
                machine.process(part).die(0)

        await asyncio.gather(each_takes_a_second(), supervising)
        done = [item for item in machine.events if item.what in ("stopped", "SIGTERM", "ended")]
        expected = [("SIGTERM", "proxy"), ("ended", "proxy"), ("stopped", "computes")]
        for part in reversed(PARTS[:-1]):
            expected += [("SIGTERM", part), ("ended", part)]
        assert [(item.what, item.part) for item in done] == expected
        assert machine.runs() == []
        assert [len(machine.started(part)) for part in PARTS] == [1] * len(PARTS)
        assert not machine.installation.parts_file.exists()
        assert [item.what for item in machine.events if item.part == "manager"] == [
            "READY=1",
            "STOPPING=1",
        ]

    play(tmp_path, story)


def test_a_part_that_is_frozen_is_woken_and_killed_at_last(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        supervising = await up(machine)
        machine.process("safekeeper-2").stubborn = True
        began = now()
        await machine.signal(signal.SIGTERM)
        await supervising
        assert now() - began == pytest.approx(STOP_SECONDS, abs=1)
        assert machine.happened("SIGCONT", "safekeeper-2")
        assert machine.happened("SIGKILL") == machine.happened("SIGKILL", "safekeeper-2")
        assert machine.runs() == []

    play(tmp_path, story)


def test_parts_end_also_where_the_control_plane_does_not_stop_the_computes(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        supervising = await up(machine)
        machine.computes_stop = AWAY
        await machine.signal(signal.SIGTERM)
        await supervising
        assert machine.runs() == []

    play(tmp_path, story)


def test_a_part_that_waits_for_its_next_start_is_not_started_at_the_end(tmp_path: Path) -> None:
    async def story(machine: Machine) -> None:
        machine.dies_after["safekeeper-1"] = 0.0
        supervising = machine.supervise()
        await until(lambda: len(machine.started("safekeeper-1")) == 6)
        await settle()
        await machine.signal(signal.SIGTERM)
        await supervising
        count = len(machine.started("safekeeper-1"))
        await asyncio.sleep(10 * LAST_PAUSE)
        assert len(machine.started("safekeeper-1")) == count
        assert machine.runs() == []

    play(tmp_path, story)
