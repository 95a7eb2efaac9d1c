"""Supervision of computes, with a launcher whose computes are `sleep` processes."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from pagestore.control import settings_watch
from pagestore.control.compute import CarriedFiles, Compute, Cost, Owner, Place, Told
from pagestore.control.computes import Computes, ComputeState, Slotted
from pagestore.control.records import DatabaseRecord, UserSettings
from pagestore.control.setting_aside import changed
from pagestore.errors import Unavailable
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.server_log import ServerFailed, ServerLog
from tests.unit.control.fakes import WithoutPostgres
from tests.waiting import stays_on_loop, until

KEY = (DEFAULT_TENANT, "app")


class Sleeper(WithoutPostgres):
    """A compute that is a real process, but no Postgres."""

    def __init__(self, record: DatabaseRecord, process: asyncio.subprocess.Process) -> None:
        self.timeline = record.timeline
        self.name = f"{record.name}-{process.pid}"
        self.cost = Cost(1_000, 2_000 + process.pid, 500)
        self.place = Place(process.pid, "/nowhere", "/nowhere/.s.PGSQL.5432")
        self.complaint = ""
        self.stopped = False
        self.fenced = False
        self.remarks: tuple[str, ...] = ()
        self.settings: Mapping[str, str] = {}
        self._process = process

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def wait_exit(self) -> str:
        return f"ended with {await self._process.wait()}"

    async def user_settings(self) -> Mapping[str, str]:
        return self.settings

    async def tell(self, values: Mapping[str, str], reset: Iterable[str]) -> Told:
        return Told(self.settings)

    async def set_owner(self, record: DatabaseRecord, secret: str, how: Owner) -> str:
        return record.postgres_database

    async def stop(self) -> CarriedFiles:
        self.stopped = True
        await self.discard()
        return CarriedFiles({"statistics": b"1"}, self.settings)

    async def discard(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Sleepers:
    """A launcher; the first `fail` starts are refused, and those with these settings always."""

    def __init__(self) -> None:
        self.started: list[Sleeper] = []
        self.kept: list[CarriedFiles] = []
        self.fail = 0
        self.refused: list[Mapping[str, str]] = []
        self.complaint = "no memory"
        self.log = Path("/nowhere")
        self.left: list[Compute] = []

    async def start(self, record: DatabaseRecord, kept: CarriedFiles) -> Compute:
        if self.fail > 0:
            self.fail -= 1
            raise Unavailable("COMPUTE_FAILED", "refused by the test")
        if kept.settings in self.refused:
            self.log.write_text(f"FATAL:  {self.complaint}\n")
            raise ServerFailed(ServerLog(self.log), 1)
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        self.started.append(Sleeper(record, process))
        self.started[-1].settings = kept.settings or {}
        self.kept.append(kept)
        return self.started[-1]

    async def leftovers(self) -> list[Compute]:
        return self.left


class Bench:
    def __init__(self) -> None:
        self.launcher = Sleepers()
        self.records: dict[Slotted, DatabaseRecord] = {}
        self.saved: dict[TimelineId, CarriedFiles] = {}
        self.noted: dict[str, tuple[Slotted, int, Cost]] = {}
        self.computes = Computes(self.launcher, self, meter=self)

    def note(self, costs: Sequence[tuple[Slotted, int, Compute]]) -> None:
        for name, created, compute in costs:
            self.noted[compute.name] = name, created, compute.cost

    def as_set(self, record: DatabaseRecord) -> DatabaseRecord:
        return self.records.get(KEY, record).keep_settings(record)

    def load(self, timeline: TimelineId) -> Mapping[str, bytes]:
        return self.saved.get(timeline, CarriedFiles()).files

    def save(self, name: Slotted, timeline: TimelineId, carried: CarriedFiles) -> None:
        self.saved[timeline] = carried
        if carried.settings is not None and name in self.records:
            record = self.records[name]
            self.settled(record, changed(record.settings, carried.settings))

    def settled(self, record: DatabaseRecord, settings: UserSettings) -> None:
        self.records[KEY] = record.model_copy(update={"settings": settings})

    def record(self, number: int = 1) -> DatabaseRecord:
        record = DatabaseRecord(
            tenant=DEFAULT_TENANT,
            name="app",
            timeline=TimelineId(bytes([number]) * 16),
            branch_lsn=1,
            created_micros=1,
            postgres_database="app",
        )
        self.records[KEY] = record
        return record

    async def kill(self) -> None:
        """The compute that was started last; until that is seen."""
        os.kill(self.launcher.started[-1].place.pid, signal.SIGKILL)
        await until(lambda: self.computes.status(KEY).state is ComputeState.FAILED)

    async def end(self) -> None:
        await self.computes.close()
        for sleeper in self.launcher.started:
            await sleeper.discard()


async def _many_asked_one_started() -> None:
    bench = Bench()
    record = bench.record()
    got = await asyncio.gather(*(bench.computes.start(record) for _ in range(20)))
    assert len(bench.launcher.started) == 1
    assert {compute.place.pid for compute in got} == {bench.launcher.started[0].place.pid}
    await bench.end()


def test_many_askers_start_one_compute() -> None:
    asyncio.run(_many_asked_one_started())


def test_what_is_amiss_with_a_running_compute_is_said() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.computes.start(bench.record())
        assert bench.computes.status(KEY).error == ""
        assert bench.computes.complaints() == []
        bench.launcher.started[0].complaint = "Commits wait."
        status = bench.computes.status(KEY)
        assert (status.state, status.error) == (ComputeState.RUNNING, "Commits wait.")
        assert bench.computes.complaints() == ["app: Commits wait."]
        await bench.end()

    asyncio.run(main())


def test_a_killed_compute_comes_back_with_the_next_start_and_not_by_itself() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.computes.start(bench.record())
        await bench.kill()
        assert await stays_on_loop(lambda: len(bench.launcher.started) == 1, 0.3)
        assert "ended with -9" in bench.computes.status(KEY).error
        await bench.computes.start(bench.records[KEY])
        assert bench.computes.running() == 1
        assert bench.computes.status(KEY).error == ""
        await bench.end()

    asyncio.run(main())


def test_what_a_compute_cost_is_noted_however_it_ends() -> None:
    async def main() -> None:
        bench = Bench()
        stops = bench.computes.stop, bench.computes.forget
        for end in (bench.kill, *(functools.partial(stop, KEY) for stop in stops)):
            compute = await bench.computes.start(bench.record())
            await end()
            await until(lambda: bench.noted)
            assert bench.noted.pop(compute.name) == (KEY, 1, compute.cost)
        compute = await bench.computes.start(bench.record())
        async with bench.computes.moving(bench.record()) as start:
            assert bench.noted.pop(compute.name) == (KEY, 1, compute.cost)
            moved = await start(bench.record(2))
        bench.computes.note_costs()
        assert list(bench.noted) == [moved.name]
        await bench.end()

    asyncio.run(main())


async def _stop_keeps_files() -> None:
    bench = Bench()
    record = bench.record()
    await bench.computes.start(record)
    await bench.computes.stop(KEY)
    assert bench.launcher.started[0].stopped
    assert bench.computes.status(KEY).state is ComputeState.STOPPED
    await bench.computes.start(record)
    statistics = CarriedFiles({"statistics": b"1"}, {})
    assert bench.launcher.kept == [CarriedFiles(settings={}), statistics]
    await bench.end()


async def _falls_back(tmp_path: Path) -> None:
    bench = Bench()
    bench.launcher.log = tmp_path / "log"
    bad, good = {"a": "1", "b": "9"}, {"a": "1"}
    bench.launcher.refused = [bad]
    bench.settled(bench.record(), UserSettings(wanted=bad, good=good))
    await bench.computes.start(bench.records[KEY])
    after = bench.records[KEY].settings
    assert after == UserSettings(
        wanted=good, good=good, set_aside={"b": "9"}, complaint="no memory"
    )
    bench.launcher.started[0].settings = bad
    await bench.computes.stop(KEY)
    assert bench.records[KEY].settings == UserSettings(wanted=bad, good=good)
    with pytest.raises(ServerFailed, match="no memory"):
        await bench.computes.start(bench.records[KEY], strictly=True)
    bench.launcher.complaint = "could not create any TCP/IP sockets"
    with pytest.raises(ServerFailed, match="sockets"):
        await bench.computes.start(bench.records[KEY])
    bench.launcher.refused = [bad, good, {}]
    bench.launcher.complaint = "broken"
    with pytest.raises(ServerFailed, match="broken"):
        await bench.computes.start(bench.records[KEY])
    assert bench.records[KEY].settings == UserSettings(wanted=bad, good=good)
    await bench.end()


def test_settings_that_do_not_start_give_way_to_those_that_did(tmp_path: Path) -> None:
    asyncio.run(_falls_back(tmp_path))


async def _dies_with_new_settings() -> None:
    bench = Bench()
    await bench.computes.start(bench.record())
    bench.launcher.started[0].settings = {"a": "2"}
    await bench.kill()
    await bench.computes.start(bench.records[KEY])
    assert bench.launcher.started[1].settings == {"a": "2"}
    await bench.end()


def test_what_a_killed_compute_was_set_to_is_kept() -> None:
    asyncio.run(_dies_with_new_settings())


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_start_that_waited_for_an_end_has_what_was_set_by_then(ending: str) -> None:
    """Whoever wakes a database read its record before the end of its compute was written down."""

    async def main() -> None:
        bench = Bench()
        before = bench.record()
        await bench.computes.start(before)
        (compute,) = bench.launcher.started
        compute.settings = {"work_mem": "8MB"}
        if ending == "stop":
            stop = asyncio.create_task(bench.computes.stop(KEY))
            await asyncio.sleep(0)
            await asyncio.gather(stop, bench.computes.start(before))
        else:
            async with bench.computes.held(KEY):
                os.kill(compute.place.pid, signal.SIGKILL)
                await compute.wait_exit()
                await asyncio.sleep(0)  # its watcher is the first in the queue
                start = asyncio.create_task(bench.computes.start(before))
                await asyncio.sleep(0)
            await start
        assert bench.launcher.started[1].settings == {"work_mem": "8MB"}
        await bench.end()

    asyncio.run(main())


def test_a_stop_keeps_files_for_the_next_start() -> None:
    asyncio.run(_stop_keeps_files())


async def _moves_to_another_timeline() -> None:
    bench = Bench()
    old = bench.record(1)
    await bench.computes.start(old)
    async with bench.computes.moving(old) as start:
        assert bench.launcher.started[0].stopped
        moved = await start(bench.record(2))
    assert await bench.computes.start(bench.record(2)) is moved
    assert [sleeper.timeline.raw[0] for sleeper in bench.launcher.started] == [1, 2]
    await bench.end()


def test_a_name_moves_to_another_timeline() -> None:
    asyncio.run(_moves_to_another_timeline())


async def _move_and_fail(bench: Bench, old: DatabaseRecord) -> None:
    async with bench.computes.moving(old) as start:
        await start(old.model_copy(update={"timeline": TimelineId(b"2" * 16)}))
        raise Unavailable("MOVE_FAILED", "after the start")


@pytest.mark.parametrize("started", [False, True])
def test_a_move_that_fails_leaves_it_asleep_and_the_next_start_is_where_it_was(
    started: bool,
) -> None:
    """`started`: whether the other timeline's compute had started when the move failed."""

    async def main() -> None:
        bench = Bench()
        old = bench.record(1)
        await bench.computes.start(old)
        bench.launcher.fail = 0 if started else 1
        with pytest.raises(Unavailable):
            await _move_and_fail(bench, old)
        assert bench.computes.running() == 0
        assert await stays_on_loop(lambda: len(bench.launcher.started) == 1 + started, 0.2)
        await bench.computes.start(old)
        assert [s.timeline.raw[0] for s in bench.launcher.started if s.alive] == [1]
        await bench.end()

    asyncio.run(main())


async def _stays_under_another_name() -> None:
    bench = Bench()
    compute = await bench.computes.start(bench.record(1))
    new = (DEFAULT_TENANT, "new")
    bench.records[new] = bench.records.pop(KEY).model_copy(update={"name": "new"})
    await bench.computes.rename(KEY, new)
    assert bench.computes.status(new).place.pid == compute.place.pid
    assert bench.computes.status(KEY).state is ComputeState.STOPPED
    os.kill(compute.place.pid, signal.SIGKILL)
    await until(lambda: bench.computes.status(new).state is ComputeState.FAILED)
    await bench.end()


def test_a_compute_goes_on_under_another_name_and_is_watched() -> None:
    asyncio.run(_stays_under_another_name())


async def _adopts_and_ends_strangers() -> None:
    earlier = Bench()
    ours = await earlier.computes.start(earlier.record(1))
    bench = Bench()
    process = await asyncio.create_subprocess_exec("sleep", "1000")
    stranger = Sleeper(bench.record(9), process)
    bench.launcher.left = [ours, stranger]
    await bench.computes.take_up(lambda: [bench.record(1)])
    assert process.returncode is not None
    assert bench.computes.status(KEY).place.pid == ours.place.pid
    assert await bench.computes.start(bench.record(1)) is ours
    await bench.end()
    await earlier.end()


def test_running_computes_are_adopted_and_strangers_ended() -> None:
    asyncio.run(_adopts_and_ends_strangers())


async def _none_starts_after_stop_all() -> None:
    bench = Bench()
    record = bench.record()
    await bench.computes.start(record)
    assert await bench.computes.stop_all() == 1
    with pytest.raises(Unavailable):
        await bench.computes.start(record)
    await bench.end()


def test_after_stop_all_none_is_started() -> None:
    asyncio.run(_none_starts_after_stop_all())


def test_what_is_set_while_it_runs_is_kept_soon_and_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings_watch, "NOTED_WITHIN_SECONDS", 0.02)

    async def main() -> None:
        bench = Bench()
        record = bench.record()
        await bench.computes.start(record)
        watching = asyncio.create_task(settings_watch.note_settings(bench.computes))
        (compute,) = bench.launcher.started
        compute.settings = {"work_mem": "8MB"}
        kept = CarriedFiles(settings={"work_mem": "8MB"})
        await until(lambda: bench.saved.get(record.timeline) == kept)
        del bench.saved[record.timeline]
        assert await stays_on_loop(lambda: record.timeline not in bench.saved, 0.1)
        compute.settings = {}
        await until(lambda: bench.saved.get(record.timeline) == CarriedFiles(settings={}))
        watching.cancel()
        await bench.end()

    asyncio.run(main())
