"""The computes of databases: started, stopped and moved when somebody asks, and seen to end.

One slot a database name. Starting, stopping and moving to another timeline happen under the
slot's lock, one at a time; whoever asks for a compute that is being started waits for that
start. Nothing is started unasked: whose compute has died, or could not be brought to another
timeline, is asleep, and the next connection wakes it. Computes outlive the control plane, which
adopts them when it comes back.

How a compute is started stands behind :class:`Launcher`: a host's agent, which has the processes
and their directories. Nothing here opens a file or a socket of a compute. While an agent is away
its computes go on; what cannot be said to it is said by name, and done when it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import lmdb
import structlog

from pagestore import tasks
from pagestore.client.computes import AGENT_AWAY, agent_away
from pagestore.control.compute import NOWHERE, CarriedFiles, Compute, Launcher, Place
from pagestore.control.records import DatabaseRecord, UserSettings
from pagestore.control.setting_aside import after_start, attempts, is_worth_another, unproved
from pagestore.errors import PagestoreError, Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.postgres.server_log import ServerFailed

CONCURRENT_STARTS = 4
TAKE_UP_SECONDS = 10.0
"""For an agent to say what runs, before a control plane serves without it."""
AGAIN_SECONDS = 1.0

_log = structlog.get_logger(__name__)

Slotted = tuple[TenantId, str]


StartMoved = Callable[[DatabaseRecord], Awaitable[Compute]]


async def _nothing(timeline: TimelineId) -> None:
    pass


class Memory(Protocol):
    def as_set(self, record: DatabaseRecord) -> DatabaseRecord:
        """The record with the settings that its database has by now."""
        ...

    def load(self, timeline: TimelineId) -> Mapping[str, bytes]:
        """The files that a compute of this timeline left."""
        ...

    def save(self, name: Slotted, timeline: TimelineId, carried: CarriedFiles) -> None:
        """Keeps the settings for the database, and the files, if any, for the timeline."""
        ...

    def settled(self, record: DatabaseRecord, settings: UserSettings) -> None:
        """A start has proved settings to work, or not to."""
        ...


class Meter(Protocol):
    """Who keeps an account of what databases cost."""

    def note(self, costs: Sequence[tuple[Slotted, int, Compute]]) -> None:
        """Computes with their slots, and when the databases were created."""
        ...


class Admission(Protocol):
    """Whether a tenant may have one more awake."""

    async def admit_bytes(self, tenant: TenantId) -> None:
        """
        Raises:
            ResourceExhausted
        """
        ...

    def admit_awake(self, tenant: TenantId, awake: int) -> None:
        """
        Args:
            awake: computes of it that run already, or are about to.

        Raises:
            ResourceExhausted
        """
        ...


class ComputeState(enum.Enum):
    STOPPED = 1
    STARTING = 2
    RUNNING = 3
    STOPPING = 4
    FAILED = 5


_AWAKE = (ComputeState.STARTING, ComputeState.RUNNING, ComputeState.STOPPING)


@dataclass
class _Slot:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    state: ComputeState = ComputeState.STOPPED
    compute: Compute | None = None
    error: str = ""
    created: int = 0
    """When the database was, whose compute is there."""
    settings: UserSettings | None = None
    noted: tuple[Compute, Mapping[str, str]] | None = None
    """What ALTER SYSTEM had set when it was looked at last."""
    watcher: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class ComputeStatus:
    state: ComputeState
    error: str = ""
    place: Place = NOWHERE
    remarks: tuple[str, ...] = ()


class Computes:
    """
    Args:
        memory: what is known of databases, and kept between their computes.
    """

    def __init__(
        self,
        launcher: Launcher,
        memory: Memory,
        admission: Admission | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._launcher = launcher
        self._meter = meter
        self._admission = admission
        self._memory = memory
        self._slots: dict[Slotted, _Slot] = {}
        self._starts = asyncio.Semaphore(CONCURRENT_STARTS)
        self._closed = False
        self.prepare: Callable[[TimelineId], Awaitable[None]] = _nothing
        """What has to be done before anything is started on a timeline."""
        self._taking_up: asyncio.Task[None] | None = None

    def status(self, name: Slotted) -> ComputeStatus:
        slot = self._slots.get(name)
        if slot is None:
            return ComputeStatus(ComputeState.STOPPED)
        if slot.compute is None:
            return ComputeStatus(slot.state, slot.error)
        return ComputeStatus(
            slot.state,
            slot.error or slot.compute.complaint,
            slot.compute.place,
            slot.compute.remarks,
        )

    def complaints(self) -> list[str]:
        """What is amiss with running computes, each with its database's name."""
        running = ((name, slot.compute) for name, slot in self._slots.items() if slot.compute)
        return [f"{name[1]}: {item.complaint}" for name, item in running if item.complaint]

    def awake(self, tenant: TenantId) -> int:
        """Computes of a tenant that run, or are on their way."""
        return sum(name[0] == tenant and slot.state in _AWAKE for name, slot in self._slots.items())

    def running(self) -> int:
        return sum(slot.state is ComputeState.RUNNING for slot in self._slots.values())

    async def start(self, record: DatabaseRecord, *, strictly: bool = False) -> Compute:
        """The compute of `record`, started unless it runs.

        Args:
            strictly: with its settings or not at all; else see setting_aside.py.
        """
        await self._taken_up()
        name = (record.tenant, record.name)
        slot = self._slot(name)
        async with slot.lock:
            compute = slot.compute
            if compute is not None and not compute.alive:
                slot.compute = None
                await self._note_settings(name, compute)
                await self._discard(name, slot, compute)
            elif compute is not None and compute.timeline == record.timeline:
                return compute
            elif compute is not None:
                await self._stop(name, slot)
            await self._admit(slot, record)
            # While this one waited for the lock, a stop or an end may have noted what was set.
            return await self._start(slot, self._memory.as_set(record), strictly)

    async def stop(self, name: Slotted) -> None:
        """Stops the compute cleanly; it stays stopped until `start`."""
        await self._taken_up()
        slot = self._slots.get(name)
        if slot is None:
            return
        async with slot.lock:
            await self._stop(name, slot)

    async def forget(self, name: Slotted) -> None:
        """Kills the compute, whose timeline is going away, and forgets the slot."""
        slot = self._slots.get(name)
        if slot is None:
            return
        async with slot.lock:
            compute, slot.compute = slot.compute, None
            slot.state = ComputeState.STOPPED
            if compute is not None:
                await self._discard(name, slot, compute)
            self._slots.pop(name, None)

    @contextlib.asynccontextmanager
    async def moving(
        self, record: DatabaseRecord, *, to_another: bool = False
    ) -> AsyncIterator[StartMoved]:
        """For a move to another timeline: the compute is stopped, and the body starts the one of
        the other timeline, before the name is moved. If the body ends by an error, that one is
        gone again, and the database is asleep.

        Args:
            to_another: major of Postgres, with which no settings have worked yet.
        """

        async def start(moved: DatabaseRecord) -> Compute:
            moved = self._memory.as_set(moved)
            if to_another:
                moved = moved.model_copy(update={"settings": unproved(moved.settings)})
            return await self._start(slot, moved, False)

        await self._taken_up()
        name = (record.tenant, record.name)
        slot = self._slot(name)
        async with slot.lock:
            # Before anything ends: what runs and may not be started again goes on.
            await self._admit(slot, record)
            before = slot.compute
            try:
                await self._stop(name, slot)
                yield start
            except BaseException:
                if before is not None and slot.compute is before:
                    raise  # its agent is away: it could not be stopped, and goes on
                compute, slot.compute = slot.compute, None
                slot.state = ComputeState.STOPPED
                if compute is not None:
                    await self._discard(name, slot, compute)
                raise

    async def rename(self, old: Slotted, new: Slotted) -> None:
        """The slot of a name becomes that of another; its compute goes on."""
        slot = self._slots.get(old)
        if slot is None:
            return
        async with slot.lock:
            self._slots[new] = self._slots.pop(old)
            if slot.watcher is not None and slot.compute is not None:
                slot.watcher.cancel()
                slot.watcher = tasks.errand(self._watch(new, slot, slot.compute), f"watch {new[1]}")

    @contextlib.asynccontextmanager
    async def held(self, name: Slotted) -> AsyncIterator[Compute | None]:
        """Within, its compute is neither started nor stopped."""
        await self._taken_up()
        slot = self._slot(name)
        async with slot.lock:
            yield slot.compute

    async def take_up(self, databases: Callable[[], list[DatabaseRecord]]) -> None:
        """Takes over computes that still run, and ends those that nobody should have. Goes on in
        the background where an agent is away."""
        work = self._take_up(databases)
        self._taking_up = tasks.errand(work, "take up")
        await asyncio.wait([self._taking_up], timeout=TAKE_UP_SECONDS)

    async def _take_up(self, databases: Callable[[], list[DatabaseRecord]]) -> None:
        found: list[Compute] | None = None
        while found is None:
            try:
                found = await self._launcher.leftovers()
            except Unavailable as error:
                _log.warning("computes are not known yet", error=str(error))
                await asyncio.sleep(AGAIN_SECONDS)
        await self._adopt(found, databases())

    async def _adopt(self, found: list[Compute], databases: list[DatabaseRecord]) -> None:
        by_timeline = {record.timeline: record for record in databases}
        for compute in found:
            record = by_timeline.get(compute.timeline)
            slot = None if record is None else self._slot((record.tenant, record.name))
            if record is not None and slot is not None and slot.compute is None:
                if compute.alive:
                    self._running(slot, record, compute)
                    continue
                await self._note_settings((record.tenant, record.name), compute)
            if record is not None:
                self._account([((record.tenant, record.name), record.created_micros, compute)])
            _log.info("ending a left-over compute", pid=compute.place.pid)
            await compute.discard()

    async def _taken_up(self) -> None:
        """Until it is known what runs.

        Raises:
            Unavailable: COMPUTE_AGENT_AWAY.
        """
        if self._taking_up is not None and not self._taking_up.done():
            await asyncio.wait([self._taking_up], timeout=TAKE_UP_SECONDS)
            if not self._taking_up.done():
                raise agent_away(
                    "It is not known yet which computes run: the agent that has them has not "
                    "answered since the control plane was started."
                )

    def names(self) -> list[Slotted]:
        """Those that have, or had, a compute."""
        return list(self._slots)

    def runs(self, name: Slotted) -> bool:
        return self.status(name).state is ComputeState.RUNNING

    def running_compute(self, name: Slotted) -> Compute | None:
        """The compute, if it is alive."""
        slot = self._slots.get(name)
        alive = slot is not None and slot.compute is not None and slot.compute.alive
        return slot.compute if slot is not None and alive else None

    def started_with(self, record: DatabaseRecord) -> UserSettings:
        """What became of its settings at the start that has just ended."""
        slot = self._slots.get((record.tenant, record.name))
        return slot.settings if slot is not None and slot.settings is not None else record.settings

    async def note_settings(self, name: Slotted) -> None:
        """Keeps what ALTER SYSTEM has set by now in a compute that runs."""
        slot = self._slots.get(name)
        if slot is not None and slot.compute is not None:
            await self._note_settings(name, slot.compute)

    async def note_new_settings(self, name: Slotted) -> None:
        """The same, but only what it did not say the last time."""
        slot = self._slots.get(name)
        compute = slot.compute if slot is not None else None
        if slot is None or compute is None or not compute.alive:
            return
        settings = await compute.user_settings()
        is_new = settings is not None and slot.noted != (compute, settings)
        if settings is not None and is_new and slot.compute is compute:
            self._memory.save(name, compute.timeline, CarriedFiles(settings=settings))
            slot.noted = compute, settings

    async def tell(
        self, name: Slotted, compute: Compute, values: Mapping[str, str], reset: Iterable[str]
    ) -> tuple[str, ...]:
        """Sets and resets by ALTER SYSTEM, and keeps what is set then; the names of those that
        take effect only at the next start."""
        told = await compute.tell(values, reset)
        if told.settings is not None:
            self._memory.save(name, compute.timeline, CarriedFiles(settings=told.settings))
        return told.after_restart

    def note_costs(self) -> None:
        """What those that run have come to by now."""
        running = [(name, slot) for name, slot in self._slots.items() if slot.compute is not None]
        costs = [(name, slot.created, slot.compute) for name, slot in running if slot.compute]
        if costs:
            self._account(costs)

    def _account(self, costs: Sequence[tuple[Slotted, int, Compute]]) -> None:
        try:
            if self._meter is not None:
                self._meter.note(costs)
        except (PagestoreError, OSError, lmdb.Error) as error:
            _log.warning("what computes cost is not noted", error=str(error))

    async def _discard(self, name: Slotted, slot: _Slot, compute: Compute) -> None:
        self._account([(name, slot.created, compute)])
        await compute.discard()

    async def _note_settings(self, name: Slotted, compute: Compute) -> None:
        """As far as they can be had."""
        try:
            settings = await compute.user_settings()
            if settings is not None:
                self._memory.save(name, compute.timeline, CarriedFiles(settings=settings))
        except (PagestoreError, OSError) as error:
            _log.warning("settings are not kept", name=name[1], error=str(error))

    async def stop_all(self, before: Callable[[Slotted], Awaitable[None]] | None = None) -> int:
        """Stops all cleanly and starts none any more; how many were running.

        Args:
            before: what has to be done before each stop.
        """

        async def stop(name: Slotted) -> None:
            if before is not None:
                await before(name)
            await self.stop(name)

        self._closed = True
        names = [name for name, slot in self._slots.items() if slot.compute is not None]
        results = await asyncio.gather(*map(stop, names), return_exceptions=True)
        for name, result in zip(names, results, strict=True):
            if isinstance(result, BaseException):
                _log.warning("a compute did not stop cleanly", name=name[1], error=str(result))
        return len(names)

    async def close(self) -> None:
        """Lets go of the computes, which go on running."""
        self._closed = True
        running = [slot.watcher for slot in self._slots.values() if slot.watcher]
        running += [self._taking_up] if self._taking_up is not None else []
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _slot(self, name: Slotted) -> _Slot:
        return self._slots.setdefault(name, _Slot())

    async def _admit(self, slot: _Slot, record: DatabaseRecord) -> None:
        """
        Raises:
            ResourceExhausted
        """
        if self._admission is None:
            return
        await self._admission.admit_bytes(record.tenant)
        # A start counts itself before it waits for anything.
        others = self.awake(record.tenant) - (slot.state in _AWAKE)
        self._admission.admit_awake(record.tenant, others)

    async def _start(self, slot: _Slot, record: DatabaseRecord, strictly: bool) -> Compute:
        if self._closed:
            raise Unavailable("SHUTTING_DOWN", "The control plane is stopping.", "`pagestore up`")
        slot.state = ComputeState.STARTING
        try:
            async with self._starts:
                compute = await self._launch(slot, record, strictly)
        except BaseException as error:
            slot.state = ComputeState.FAILED
            slot.error = str(error) or "The start was broken off."
            raise
        self._running(slot, record, compute)
        return compute

    async def _launch(self, slot: _Slot, record: DatabaseRecord, strictly: bool) -> Compute:
        """A start with the record's settings, or what setting_aside.py says to try instead."""
        tries = attempts(record.settings)
        first: ServerFailed | None = None
        for used in tries[:1] if strictly else tries:
            try:
                compute = await self._launch_with(record, used)
            except ServerFailed as error:
                first = first or error
                _log.warning("a compute did not start", name=record.name, error=error.message)
                if not is_worth_another(error):
                    break
            else:
                complaint = first.complaint if first is not None else ""
                slot.settings = after_start(record.settings, used, complaint)
                if slot.settings != record.settings:
                    await self._settled(record, slot.settings, compute)
                return compute
        assert first is not None
        raise first

    async def _settled(
        self, record: DatabaseRecord, settings: UserSettings, compute: Compute
    ) -> None:
        """What cannot be written down has not started: nobody would know of it."""
        try:
            self._memory.settled(record, settings)
        except BaseException:
            await compute.discard()
            raise

    async def _launch_with(self, record: DatabaseRecord, settings: Mapping[str, str]) -> Compute:
        await self.prepare(record.timeline)
        carried = CarriedFiles(self._memory.load(record.timeline), settings)
        return await self._launcher.start(record, carried)

    def _running(self, slot: _Slot, record: DatabaseRecord, compute: Compute) -> None:
        slot.compute, slot.created = compute, record.created_micros
        slot.state = ComputeState.RUNNING
        slot.error = ""
        watch = self._watch((record.tenant, record.name), slot, compute)
        slot.watcher = tasks.errand(watch, f"watch {record.name}")

    async def _stop(self, name: Slotted, slot: _Slot) -> None:
        compute, slot.compute = slot.compute, None
        if compute is None:
            slot.state = ComputeState.STOPPED
            return
        slot.state = ComputeState.STOPPING
        try:
            self._memory.save(name, compute.timeline, await compute.stop())
        except PagestoreError as error:
            if error.reason == AGENT_AWAY:
                slot.compute = compute
                raise
            # What it had acknowledged is at the WAL service; its directory is of no more use.
            await self._note_settings(name, compute)
            await self._discard(name, slot, compute)
            raise
        except BaseException:
            slot.compute = compute  # its watcher sees how it ends
            raise
        else:
            await self._discard(name, slot, compute)
        finally:
            slot.state = ComputeState.STOPPED if slot.compute is None else ComputeState.RUNNING

    async def _watch(self, name: Slotted, slot: _Slot, compute: Compute) -> None:
        why = await compute.wait_exit()
        if slot.compute is not compute or self._closed:
            return
        async with slot.lock:
            if slot.compute is not compute:
                return
            slot.compute = None
            slot.state = ComputeState.FAILED
            slot.error = why
            _log.warning("a compute died", name=name[1], pid=compute.place.pid, why=why)
            await self._note_settings(name, compute)
            await self._discard(name, slot, compute)
