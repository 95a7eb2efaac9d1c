"""A page server in a process of its own, as `pagestore pageserver` runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from pagestore.client import PageClient
from tests import access
from tests.plain_postgres import RUN_AS

_MAIN = """
import json, sys
from pagestore.services.page import PageSettings, serve
from pagestore.services.server import run
run(serve(PageSettings.model_validate(json.loads(sys.argv[1]))))
"""


class PageProcess:
    """Starts with ``start``; ``kill`` is kill -9; the same data and port next time."""

    def __init__(self, data_dir: Path, wal_service: list[str] | None = None, **more: Any) -> None:
        self.settings: dict[str, Any] = {
            "data_dir": str(data_dir),
            "wal_service": wal_service or [],
            "run_as": RUN_AS,
            **more,
        }
        self.data_dir = data_dir
        self.program = ["-c", _MAIN]
        """For the interpreter; the settings follow as one argument."""
        self.environment: dict[str, str] = {}
        """Besides ours, of the next start."""
        self.address = ""
        self.log = data_dir.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        (self.data_dir / "address").unlink(missing_ok=True)
        if self.address:
            self.settings["listen"] = self.address
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, json.dumps(self.settings)],
                env=access.environment() | self.environment,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while not (self.data_dir / "address").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no page server: {self.log.read_text()[-4000:]}")
            time.sleep(0.01)
        self.address = (self.data_dir / "address").read_text().strip()

    def client(self, timeout: float = 30.0) -> PageClient:
        return PageClient(self.address, timeout=timeout)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(60)
