"""One process that keeps the parts of an installation running.

It starts each part as a child of its own, starts it again when it dies (after a pause that
doubles while it keeps dying; a long one where the part has said that no start will help), and ends
them in order when asked to: first the proxy, and every compute, cleanly, while the other parts
still serve it; then the control plane, the computes' agent, the WAL service, the page server. At
SIGHUP it reads the installation's file again: safekeepers come
and go by it, and who has others to speak to then starts again. It decides nothing else and holds no
state but the lock and the list of its children.

Killed itself, it loses nothing: parts and computes go on, and the next supervisor *adopts* the
parts that it left (:mod:`pagestore.installation.parts`). One that serves, and is what would be
started now, is kept as it is; any other is ended and started anew.

What it writes (its log, ``parts.json``) is for others to read, so a disk that is full or has become
read-only keeps it from telling, never from keeping and ending its parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from pagestore import tasks
from pagestore.client.control import ControlClient
from pagestore.errors import DeadlineExceeded, PagestoreError
from pagestore.installation.commands import part_command, part_environment, recipe
from pagestore.installation.health import is_serving
from pagestore.installation.layout import ENDED_FOR_GOOD, Installation, PartProcess
from pagestore.installation.notify import notify
from pagestore.installation.parts import orphans
from pagestore.installation.ports import check_free
from pagestore.installation.restarts import Restarts
from pagestore.postgres.process import ServerProcess, start_ticks

if TYPE_CHECKING:
    from pagestore.compute.record import ComputeRecord

STOP_SECONDS = 30.0
LEAVE_SECONDS = 5.0
"""For a part that nobody needs any more, and that may be replaced because it is frozen."""
STOP_COMPUTES_SECONDS = 120.0
ADOPT_SECONDS = 5.0
"""Within which a part that was left must answer to be kept."""
CHANGING = ("compute", "control")
"""Parts that are told which safekeepers there are, in the order in which they start again."""
TELL_SECONDS = 1.0
"""How often what could not be written to ``parts.json`` is tried again."""


class Supervisor:
    """The caller holds the installation's lock."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._processes: dict[str, ServerProcess] = {}
        self._parts: dict[str, PartProcess] = {}
        self._told: dict[str, PartProcess] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._told_safekeepers: dict[str, list[str]] = {}
        """The commands of parts that are told where the safekeepers are."""
        self._reloading = asyncio.Lock()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; or SIGUSR1, at which the proxy goes on with its clients."""
        asked: asyncio.Queue[signal.Signals] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            loop.add_signal_handler(number, asked.put_nowait, number)
        again = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, again.set)
        await self._adopt()
        self._start_missing()
        background = [
            tasks.endless(self._reload_for_ever(again), "reload"),
            tasks.endless(self._tell_for_ever(), "tell"),
            tasks.errand(self._say_ready(), "ready"),
        ]
        keep_proxy = await asked.get() is signal.SIGUSR1
        notify("STOPPING=1")
        async with self._reloading:
            for task in background:
                task.cancel()
        await self.end(keep_proxy=keep_proxy)

    async def end_orphans(self) -> bool:
        """What `down` does where no supervisor runs; whether anything did."""
        await self._take_orphans()
        if not self._processes and not self._installation.running_computes():
            return False
        await self.end()
        return True

    async def end(self, *, keep_proxy: bool = False) -> None:
        """Every compute, and then every part, in order; whatever cannot be written meanwhile.

        Args:
            keep_proxy: it stays, unkept, for the next supervisor to adopt.
        """
        if not keep_proxy:
            # No session wakes again what is being stopped.
            await self._retire("proxy", LEAVE_SECONDS)
        await asyncio.to_thread(self._stop_computes, keep_proxy)
        names = [*self._installation.part_names, *self._processes]
        for part in reversed(list(dict.fromkeys(names))):
            if not (keep_proxy and part == "proxy"):
                await self._retire(part)
                self._parts.pop(part, None)
        with contextlib.suppress(OSError):
            if keep_proxy:
                self._installation.write_parts(self._parts)
            else:
                self._installation.parts_file.unlink(missing_ok=True)

    # What a killed supervisor left

    async def _adopt(self) -> None:
        """Keeps those that serve and are what would be started now; ends the others."""
        await self._take_orphans()
        fit = await asyncio.gather(*(self._is_fit(part) for part in self._processes))
        for part, good in zip([*self._processes], fit, strict=True):
            if good:
                _say(f"{part} (process {self._processes[part].pid}) runs on")
            else:
                _say(f"{part} (process {self._processes[part].pid}) was left, and is ended")
                await self._end(part)

    async def _take_orphans(self) -> None:
        for part, left in orphans(self._installation).items():
            for note in left:
                process = _watch(note)
                if process is None:
                    continue
                if part in self._processes:
                    # Only one of them can have the directory; it is told by nothing which.
                    await self._end(part)
                self._processes[part], self._parts[part] = process, note

    async def _is_fit(self, part: str) -> bool:
        if part not in self._installation.part_names:
            return False
        with contextlib.suppress(PagestoreError):
            return self._parts[part].recipe == recipe(self._installation, part) and (
                await asyncio.to_thread(is_serving, self._installation.address(part), ADOPT_SECONDS)
            )
        return False

    # Keeping

    def _start_missing(self) -> None:
        told = (part_command(self._installation, part) for part in CHANGING)
        self._told_safekeepers = dict(zip(CHANGING, told, strict=True))
        for part in self._installation.part_names:
            if part not in self._keepers:
                self._keepers[part] = tasks.endless(self._keep(part), part)

    async def _keep(self, part: str) -> None:
        restarts = Restarts(asyncio.get_running_loop().time)
        why = reason = ""
        while True:
            for_good = False
            try:
                process = await self._running(part)
            except (PagestoreError, OSError) as error:
                why = f"it cannot be started: {getattr(error, 'message', error)}"
                reason = error.reason if isinstance(error, PagestoreError) else "CANNOT_START"
                self._note(part, PartProcess(0, os.getpid()), restarts.in_a_row, why, reason)
            else:
                note = PartProcess(process.pid, os.getpid(), start_ticks(process.pid) or 0)
                self._note(part, note, restarts.in_a_row, why)
                restarts.began()
                code = await process.wait()
                why, for_good = _words(code), code == tasks.FINAL_STATUS
            pause = restarts.ended(for_good=for_good)
            if for_good:
                note = PartProcess(0, os.getpid())
                self._note(part, note, restarts.in_a_row, why, ENDED_FOR_GOOD)
            _say(f"{part}: {why}; starting it again in {pause:.1f} s")
            await asyncio.sleep(pause)

    async def _running(self, part: str) -> ServerProcess:
        """The one that was adopted, or else a new one.

        Raises:
            PagestoreError: ADDRESS_IN_USE, or what the command lacks.
            OSError: there is no process to be had.
        """
        there = self._processes.get(part)
        if there is not None and there.alive:
            return there
        with contextlib.suppress(OSError):
            self._installation.part_dir(part).mkdir(mode=0o700, exist_ok=True)
            self._installation.forget_address(part)
        await asyncio.to_thread(check_free, self._installation, part)
        with self._installation.open_log(part) as log:
            child = subprocess.Popen(
                part_command(self._installation, part),
                env=part_environment(self._installation, part),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the foreground reaches the supervisor alone, which ends them in order.
                process_group=0,
            )
        self._processes[part] = ServerProcess(child.pid, child)
        return self._processes[part]

    def _note(
        self, part: str, note: PartProcess, restarts: int, why: str, reason: str = ""
    ) -> None:
        made_by = recipe(self._installation, part) if note.pid else ""
        self._parts[part] = PartProcess(
            note.pid, note.supervisor, note.start_ticks, made_by, restarts, why, reason
        )
        self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(OSError):
            self._installation.write_parts(self._parts)
            self._told = dict(self._parts)

    async def _tell_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            if self._told != self._parts:
                self._tell()

    async def _say_ready(self) -> None:
        """To a service manager that waits for it."""
        waiting = set(self._installation.part_names)
        while waiting:
            await asyncio.sleep(0.2)
            for part in list(waiting):
                with contextlib.suppress(PagestoreError):
                    address = self._installation.address(part)
                    if await asyncio.to_thread(is_serving, address):
                        waiting.discard(part)
        notify("READY=1")

    # Changes

    async def _reload_for_ever(self, again: asyncio.Event) -> None:
        while True:
            await again.wait()
            again.clear()
            async with self._reloading:
                try:
                    await self._reload()
                except (PagestoreError, OSError) as error:
                    _say(f"goes on as before: {error}")

    async def _reload(self) -> None:
        fresh = Installation(self._installation.data)
        left = [part for part in self._installation.part_names if part not in fresh.part_names]
        before, self._installation = self._told_safekeepers, fresh
        self._start_missing()
        for part in left:
            # All of them before one is waited for: the file says no more how to start them.
            self._keepers[part].cancel()
        for part in left:
            await self._retire(part, LEAVE_SECONDS)
            self._parts.pop(part, None)
            self._tell()
        for part in CHANGING:
            if self._told_safekeepers[part] != before[part]:
                # Its keeper starts it again, with the new addresses.
                await self._end(part)

    # Ending

    async def _retire(self, part: str, seconds: float = STOP_SECONDS) -> None:
        keeper = self._keepers.pop(part, None)
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await self._end(part, seconds)
        with contextlib.suppress(OSError):
            self._installation.forget_address(part)

    async def _end(self, part: str, seconds: float = STOP_SECONDS) -> None:
        process = self._processes.get(part)
        if process is None or not process.alive:
            return
        process.send(signal.SIGTERM)
        # One that is frozen takes no signal until it goes on.
        process.send(signal.SIGCONT)
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            _say(f"{part} did not end in {seconds:.0f} s and is killed")
            process.send(signal.SIGKILL)
            await process.wait()

    def _stop_computes(self, carry_sessions: bool = False) -> None:
        try:
            address = self._installation.address("control")
            if not is_serving(address, ADOPT_SECONDS):
                raise DeadlineExceeded("NOT_SERVING", "It does not answer.")
            with ControlClient(
                address, timeout=STOP_COMPUTES_SECONDS, credentials=self._installation.credentials
            ) as control:
                control.stop_computes(carry_sessions=carry_sessions)
        except PagestoreError as error:
            _say(f"the control plane did not stop the computes: {error}")
        # Nor does it any whose agent is away.
        if left := self._installation.running_computes():
            self._stop_postmasters(left)

    def _stop_postmasters(self, left: list[ComputeRecord]) -> None:
        """Without the control plane: their WAL still goes to the safekeeper, which is up."""
        known = left
        for number in (signal.SIGINT, signal.SIGQUIT):
            for compute in left:
                compute.process.send(number)
            deadline = time.monotonic() + STOP_SECONDS
            while left and time.monotonic() < deadline:
                time.sleep(0.05)
                left = [compute for compute in left if compute.is_running]
        for compute in known:
            compute.end_sandbox()


def _watch(note: PartProcess) -> ServerProcess | None:
    """By a descriptor of the process, so that nobody else is meant; None, if it is gone."""
    try:
        process = ServerProcess(note.pid)
    except ProcessLookupError:
        return None
    if start_ticks(note.pid) != note.start_ticks:
        process.release()
        return None
    return process


def _words(code: int | None) -> str:
    if code is None:
        return "ended"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def _say(text: str) -> None:
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    # The log may be on the disk that is full.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{moment} supervisor: {text}\n")
        sys.stderr.flush()
