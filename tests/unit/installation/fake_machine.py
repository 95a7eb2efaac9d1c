"""A machine of fake processes for a supervisor: they run, end when they are told to, or do not.

The data directory, its file and its notes are real. A part that was started writes its address and
serves, unless a test says otherwise; what was done to whom stands in `events`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pagestore import tasks
from pagestore.client.credentials import Credentials
from pagestore.errors import PagestoreError, Unavailable
from pagestore.installation import config, supervisor
from pagestore.installation.commands import recipe
from pagestore.installation.layout import Installation, PartProcess
from pagestore.installation.supervisor import Supervisor
from tests.unit import virtual_time


class Event(NamedTuple):
    at: float
    what: str
    part: str


class FakeProcess:
    """A part that runs; as Popen's child and as ServerProcess at once."""

    def __init__(self, machine: Machine, part: str, pid: int) -> None:
        self.machine, self.part, self.pid = machine, part, pid
        self.command: list[str] = []
        self.serves = True
        self.stubborn = False
        """Whether it ends by SIGKILL alone."""
        self.exit_code: int | None = None
        self._ended = asyncio.Event()

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    async def wait(self) -> int | None:
        await self._ended.wait()
        return self.exit_code

    def die(self, code: int = 1) -> None:
        if self.alive:
            self.exit_code = code
            self.machine.note("ended", self.part)
            self._ended.set()

    def send(self, number: signal.Signals) -> None:
        self.machine.note(number.name, self.part)
        if number == signal.SIGKILL or (number == signal.SIGTERM and not self.stubborn):
            self.die(-number)

    def release(self) -> None:
        self.machine.note("released", self.part)


class Machine:
    def __init__(self, directory: Path, safekeepers: int) -> None:
        config.write_first(directory / "pagestore.toml", safekeepers)
        (directory / "log").mkdir()
        self.installation = Installation(directory)
        self.processes: dict[int, FakeProcess] = {}
        self.events: list[Event] = []
        self.left: dict[str, list[PartProcess]] = {}
        """What a killed supervisor left."""
        self.refuse: dict[str, Exception] = {}
        """Which parts cannot be started, and why."""
        self.dies_after: dict[str, float] = {}
        """Seconds that a part runs each time it is started."""
        self.computes_stop: PagestoreError | None = None
        self.died: list[int] = []
        self._pids = itertools.count(50_000)
        self._running: asyncio.Task[None] | None = None

    # What a test does and sees

    def note(self, what: str, part: str) -> None:
        self.events.append(Event(virtual_time.now(), what, part))

    def happened(self, what: str, part: str | None = None) -> list[Event]:
        return [item for item in self.events if item.what == what and part in (None, item.part)]

    def started(self, part: str) -> list[float]:
        return [event.at for event in self.happened("started", part)]

    def process(self, part: str) -> FakeProcess:
        """The one that was started last."""
        return [item for item in self.processes.values() if item.part == part][-1]

    def runs(self) -> list[str]:
        return [item.part for item in self.processes.values() if item.alive]

    def orphan(self, part: str, *, made_by: str | None = None) -> FakeProcess:
        """A part that a killed supervisor has left."""
        process = self._begin(part)
        by = recipe(self.installation, part) if made_by is None else made_by
        note = PartProcess(process.pid, 1, process.pid, by)
        self.left.setdefault(part, []).append(note)
        self.events.clear()
        return process

    def supervise(self) -> asyncio.Task[None]:
        self._running = asyncio.create_task(Supervisor(self.installation).run())
        return self._running

    async def signal(self, number: signal.Signals) -> None:
        os.kill(os.getpid(), number)
        await virtual_time.settle()

    async def close(self) -> None:
        if self._running is not None and not self._running.done():
            for process in self.processes.values():
                process.stubborn = False
            self.refuse.clear()
            await self.signal(signal.SIGTERM)
            await self._running
        assert self.died == [], "a task ended unplanned"

    # What the supervisor does

    def _begin(self, part: str) -> FakeProcess:
        process = FakeProcess(self, part, next(self._pids))
        self.processes[process.pid] = process
        place = self.installation.part_dir(part)
        place.mkdir(exist_ok=True)
        (place / "address").write_text(f"{part}:1")
        self.note("started", part)
        return process

    def popen(self, command: list[str], **_: object) -> FakeProcess:
        part = Path(command[command.index("--data-dir") + 1]).name
        if isinstance(self.refuse.get(part), OSError):
            raise self.refuse[part]
        process = self._begin(part)
        process.command = command
        if part in self.dies_after:
            asyncio.get_running_loop().call_later(self.dies_after[part], process.die)
        return process

    def server_process(self, pid: int, child: object = None) -> FakeProcess:
        if pid not in self.processes or not self.processes[pid].alive:
            raise ProcessLookupError(pid)
        return self.processes[pid]

    def start_ticks(self, pid: int) -> int | None:
        """Each process's own number: none is ever used again."""
        return pid if pid in self.processes and self.processes[pid].alive else None

    def check_free(self, installation: Installation, part: str) -> None:
        if isinstance(self.refuse.get(part), PagestoreError):
            raise self.refuse[part]

    def is_serving(self, address: str, timeout: float = 2.0) -> bool:
        part = address.removesuffix(":1")
        those = [item for item in self.processes.values() if item.part == part]
        return any(item.alive and item.serves for item in those)

    def control(self, address: str, timeout: float, credentials: Credentials) -> Machine:
        return self

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stop_computes(self, *, carry_sessions: bool = False) -> None:
        if self.computes_stop is not None:
            raise self.computes_stop
        self.note("stopped", "computes")


Story = Callable[[Machine], Coroutine[Any, Any, None]]
AWAY = Unavailable("UNAVAILABLE", "It is away.")


def play(directory: Path, story: Story, safekeepers: int = 3) -> None:
    """A story of a supervisor of its own, in virtual time."""

    async def whole() -> None:
        machine = Machine(directory, safekeepers)
        with pytest.MonkeyPatch.context() as patch:
            stand_in(patch, machine, directory)
            try:
                await story(machine)
            finally:
                await machine.close()

    virtual_time.play(whole())


def stand_in(patch: pytest.MonkeyPatch, machine: Machine, directory: Path) -> None:
    (directory / "lib").mkdir()
    (directory / "lib/pagestore_shim-15.so").touch()
    patch.setenv("PAGESTORE_LIB_DIR", str(directory / "lib"))
    patch.setenv("PAGESTORE_COMPUTES__DIRECTORY", str(directory / "computes"))
    patch.setattr(supervisor.subprocess, "Popen", machine.popen)
    patch.setattr(supervisor, "ServerProcess", machine.server_process)
    patch.setattr(supervisor, "start_ticks", machine.start_ticks)
    patch.setattr(supervisor, "check_free", machine.check_free)
    patch.setattr(supervisor, "is_serving", machine.is_serving)
    patch.setattr(supervisor, "orphans", lambda installation: machine.left)
    patch.setattr(supervisor, "ControlClient", machine.control)
    patch.setattr(supervisor, "notify", lambda state: machine.note(state, "manager"))
    for kind in (tasks.endless, tasks.errand):
        patch.setitem(kind.__kwdefaults__, "end", machine.died.append)
