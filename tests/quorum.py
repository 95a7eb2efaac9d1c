"""Three safekeepers in processes of their own, to be killed, frozen and wiped by tests."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagestore.control.ports import Ports


class Safekeeper:
    """``pagestore safekeeper`` on `data_dir`; every start is on the same address."""

    def __init__(self, data_dir: Path, number: int, addresses: dict[int, str]) -> None:
        self.data_dir = data_dir
        self.number = number
        self.address = addresses[number]
        self.peers = ",".join(f"{n}={a}" for n, a in addresses.items() if n != number)
        self.log = data_dir.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        address = self.data_dir / "address"
        address.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pagestore.cli.main", "safekeeper"),
                    *("--id", str(self.number), "--peers", self.peers),
                    *("--data-dir", str(self.data_dir), "--listen", self.address),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while not address.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.01)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Loses its disk, and comes back."""
        self.kill()
        shutil.rmtree(self.data_dir)
        self.start()


class Trio:
    def __init__(self, directory: Path) -> None:
        ports = Ports([])
        self.addresses = {number: f"127.0.0.1:{ports.choose()}" for number in (1, 2, 3)}
        self.by_number = {
            number: Safekeeper(directory / f"sk{number}", number, self.addresses)
            for number in self.addresses
        }

    def __iter__(self) -> Iterator[Safekeeper]:
        return iter(self.by_number.values())

    def __getitem__(self, number: int) -> Safekeeper:
        return self.by_number[number]

    def logs(self) -> str:
        return "\n".join(f"sk{keeper.number}: {keeper.log.read_text()[-1500:]}" for keeper in self)


@contextmanager
def trio(directory: Path) -> Iterator[Trio]:
    made = Trio(directory)
    try:
        for keeper in made:
            keeper.start()
        yield made
    finally:
        for keeper in made:
            keeper.kill(signal.SIGTERM)
