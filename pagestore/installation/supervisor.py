"""One process that keeps the parts of an installation running.

It starts each part as a child of its own, starts it again when it dies (after a pause that
doubles while it keeps dying), and ends them in order when asked to: first every compute,
cleanly, while all parts still serve it; then the control plane, the WAL service, the page
server. At SIGHUP it reads the installation's file again: safekeepers come and go by it, and the
control plane starts again when it has others to speak to. It decides nothing else and holds no
state but the lock and the list of its children; killed itself, it loses nothing, and the next
``up`` ends the parts that it left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pagestore.client.control import ControlClient
from pagestore.errors import PagestoreError
from pagestore.installation.config import SafekeeperConfig
from pagestore.installation.layout import Installation, PartProcess, lib_dir

FIRST_PAUSE = 0.1
LAST_PAUSE = 10.0
STEADY_SECONDS = 20.0
"""A part that ran this long has started well."""
STOP_SECONDS = 30.0
LEAVE_SECONDS = 5.0
"""For a part that nobody needs any more, and that may be replaced because it is frozen."""
STOP_COMPUTES_SECONDS = 120.0


def part_command(installation: Installation, part: str) -> list[str]:
    """The command line of a part, as anyone could type it."""
    config = installation.config
    command = [sys.executable, "-m", "pagestore.cli.main", _verb(part)]
    command += ["--data-dir", str(installation.part_dir(part)), "--listen", config.listen(part)]
    bindir = str(config.computes.postgres_bindir)
    run_as = ["--run-as", installation.run_as] if installation.run_as else []
    match _verb(part):
        case "pageserver":
            command += _wal_services(config.safekeeper_parts)
            command += ["--postgres-bindir", bindir, *run_as]
            command += ["--redo-library", str(lib_dir() / "pagestore_redo.so")]
            for name in ("memory_bytes", "open_layer_bytes", "redo_helpers"):
                value = getattr(config.pageserver, name)
                if value is not None:
                    command += [f"--{name.replace('_', '-')}", str(value)]
            if config.pageserver.check_wal_images:
                command += ["--check-wal-images"]
        case "safekeeper":
            parts = config.safekeeper_parts
            command += ["--id", str(parts[part].id)]
            peers = [f"{item.id}={item.listen}" for name, item in parts.items() if name != part]
            if peers:
                command += ["--peers", ",".join(peers)]
        case "control":
            command += ["--page-server", config.pageserver.listen]
            command += _wal_services(config.staying)
            command += ["--compute-dir", str(installation.compute_dir)]
            command += ["--postgres-bindir", bindir, *run_as]
            command += ["--shim-library", str(lib_dir() / "pagestore_shim.so")]
            for name, value in config.computes.settings.items():
                command += ["--set", f"{name}={value}"]
            if config.computes.host:
                command += ["--compute-host", config.computes.host]
    return command


def _verb(part: str) -> str:
    return "safekeeper" if part.startswith("safekeeper") else part


def _wal_services(parts: Mapping[str, SafekeeperConfig]) -> list[str]:
    return [
        word for item in parts.values() for word in ("--wal-service", f"{item.id}={item.listen}")
    ]


class Supervisor:
    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._parts: dict[str, PartProcess] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._control: list[str] = []
        self._reloading = asyncio.Lock()
        self._stopping = False

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        end_leftovers(self._installation)
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        again = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, again.set)
        self._start_missing()
        reloading = asyncio.create_task(self._reload_for_ever(again))
        await asked.wait()
        async with self._reloading:
            reloading.cancel()
        await asyncio.to_thread(self._stop_computes)
        self._stopping = True
        for part in reversed(self._installation.part_names):
            await self._retire(part)
        self._installation.parts_file.unlink(missing_ok=True)

    def _start_missing(self) -> None:
        self._control = part_command(self._installation, "control")
        for part in self._installation.part_names:
            if part not in self._keepers:
                self._installation.part_dir(part).mkdir(mode=0o700, exist_ok=True)
                self._keepers[part] = asyncio.create_task(self._keep(part))

    async def _reload_for_ever(self, again: asyncio.Event) -> None:
        while True:
            await again.wait()
            again.clear()
            async with self._reloading:
                try:
                    await self._reload()
                except PagestoreError as error:
                    _say(f"goes on as before: {error}")

    async def _reload(self) -> None:
        fresh = Installation(self._installation.data)
        left = [part for part in self._installation.part_names if part not in fresh.part_names]
        before, self._installation = self._control, fresh
        self._start_missing()
        for part in left:
            await self._retire(part, LEAVE_SECONDS)
            del self._parts[part]
            fresh.write_parts(self._parts)
        if self._control != before:
            # Its keeper starts it again, with the new addresses.
            await self._end("control")

    async def _retire(self, part: str, seconds: float = STOP_SECONDS) -> None:
        keeper = self._keepers.pop(part)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await self._end(part, seconds)
        self._installation.forget_address(part)

    async def _keep(self, part: str) -> None:
        restarts = 0
        why = ""
        while not self._stopping:
            began = time.monotonic()
            process = await self._spawn(part)
            self._note(part, PartProcess(process.pid, os.getpid(), restarts, why))
            why = _words(await process.wait())
            if self._stopping:
                return
            restarts = 1 if time.monotonic() - began > STEADY_SECONDS else restarts + 1
            _say(f"{part} ended: {why}; starting it again")
            await asyncio.sleep(min(FIRST_PAUSE * 2 ** (restarts - 1), LAST_PAUSE))

    async def _spawn(self, part: str) -> asyncio.subprocess.Process:
        self._installation.forget_address(part)
        path = self._installation.log_file(part)
        with path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *part_command(self._installation, part),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the foreground reaches the supervisor alone, which ends them in order.
                process_group=0,
            )
        self._processes[part] = process
        return process

    def _note(self, part: str, process: PartProcess) -> None:
        self._parts[part] = process
        self._installation.write_parts(self._parts)

    def _stop_computes(self) -> None:
        try:
            address = self._installation.address("control")
            with ControlClient(address, timeout=STOP_COMPUTES_SECONDS) as control:
                control.stop_computes()
        except PagestoreError as error:
            if left := self._installation.postmasters():
                _say(f"the control plane did not stop the computes: {error}")
                self._stop_postmasters(left)

    def _stop_postmasters(self, left: list[int]) -> None:
        """Without the control plane: their WAL still goes to the safekeeper, which is up."""
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + STOP_SECONDS
        while self._installation.postmasters() and time.monotonic() < deadline:
            time.sleep(0.05)

    async def _end(self, part: str, seconds: float = STOP_SECONDS) -> None:
        process = self._processes.get(part)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            _say(f"{part} did not end in {seconds:.0f} s and is killed")
            process.kill()
            await process.wait()


def end_leftovers(installation: Installation) -> None:
    """Ends the parts of a supervisor that was killed. The caller holds the lock."""
    left = {
        part: process.pid
        for part, process in installation.parts().items()
        if _is_part(process.pid, installation, part)
    }
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + 10
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = {p: pid for p, pid in left.items() if _is_part(pid, installation, p)}


def _is_part(pid: int, installation: Installation, part: str) -> bool:
    """Whether `pid` is this installation's part still, and not a stranger by now."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and part in words and str(installation.part_dir(part)) in words


def _words(returncode: int) -> str:
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


def _say(text: str) -> None:
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    sys.stderr.write(f"{moment} supervisor: {text}\n")
    sys.stderr.flush()
