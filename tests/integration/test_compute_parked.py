"""A server that is executed before its directory is there, and waits for whoever lays it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pagestore.compute import execution
from pagestore.compute import start as compute_start
from pagestore.compute.hydrating import HydratingDirectory
from pagestore.compute.leftovers import clear
from pagestore.errors import Unavailable
from pagestore.postgres.checkpoint import StartCheckpoint, write_control_file
from pagestore.postgres.process import spawn, start_ticks
from tests.integration.launching import sql, starter_of, world
from tests.plain_postgres import PlainPostgres, plain_postgres
from tests.safekeeper_process import SafekeeperProcess
from tests.waiting import until, wait_until


@pytest.fixture(scope="module")
def source() -> Iterator[PlainPostgres]:
    with plain_postgres() as cluster:
        cluster.stop()
        yield cluster


def test_a_starter_that_dies_leaves_no_waiting_server(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            spec = w.spec
            starter = starter_of(
                spec,
                f"""
    async with AsyncPageClient("127.0.0.1:1") as pages, WalClient("{w.wal.address}") as wal:
        start = asyncio.create_task(start_compute(spec, pages, wal))
        pid_file, said = spec.directory / "data/postmaster.pid", ""
        while not (said := pid_file.read_text() if pid_file.exists() else ""):
            await asyncio.sleep(0.01)
        print(said.split()[0], flush=True)
        os.kill(os.getpid(), 9)
""",
            )
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", starter, stdout=asyncio.subprocess.PIPE
            )
            said, _ = await process.communicate()
            assert process.returncode == -signal.SIGKILL
            await until(lambda: start_ticks(int(said)) is None)
            assert "gave it up before its directory was finished" in spec.log_path.read_text()
            await clear(spec.directory)
            assert not spec.directory.exists()

    asyncio.run(main())


def test_a_server_that_is_slow_to_begin_finds_what_it_is_told(
    source: PlainPostgres,
    safekeeper: SafekeeperProcess,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def frozen_at_first(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        child = spawn(*args, **options)
        child.send_signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.5, child.send_signal, signal.SIGCONT)
        return child

    monkeypatch.setattr(execution, "spawn", frozen_at_first)

    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start(settings={"work_mem": "7MB"})
            assert sql(compute, "SHOW work_mem") == [("7MB",)]
            assert sql(compute, "SHOW synchronous_standby_names") == [("ANY 1 (sk1)",)]
            assert (await compute.stop(w.wal)).clean

    asyncio.run(main())


def test_a_server_that_is_fast_to_begin_refuses_what_others_do(
    source: PlainPostgres,
    safekeeper: SafekeeperProcess,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has looked at its configuration before that was there."""

    def after_first_look(directory: HydratingDirectory, checkpoint: StartCheckpoint) -> None:
        pid_file = root / "c1/data/postmaster.pid"
        wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
        write_control_file(directory, checkpoint)

    monkeypatch.setattr(compute_start, "write_control_file", after_first_look)

    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            with pytest.raises(Unavailable) as caught:
                await w.start(user_settings={"superuser_reserved_connections": "500"})
            assert "superuser_reserved_connections (500)" in caught.value.message

    asyncio.run(main())
