"""A page server, a safekeeper and computes of their timelines, without a control plane.

Services run in processes of their own; computes are started by the launcher on an event
loop in a thread, so that tests read as plain code.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.compute.running import RunningCompute, StopResult
from pagestore.compute.start import ComputeSpec, start_compute
from pagestore.errors import OutOfRange
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.pgformat.wal import position_below
from pagestore.transfer.pgdata import read_pgdata
from tests import access
from tests.integration.page_process import PageProcess
from tests.plain_postgres import MAJOR, RUN_AS, free_port, module, reachable_dir
from tests.safekeeper_process import SafekeeperProcess

SHIM = module("shim")

_T = TypeVar("_T")


@dataclass
class Compute:
    """A running compute and its SQL."""

    stack: Stack
    timeline: TimelineId
    running: RunningCompute

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[Any]:
        record = self.running.record
        return psycopg.connect(
            host=record.socket_directory,
            port=record.port,
            user=record.superuser,
            dbname=dbname,
            autocommit=True,
        )

    def sql(self, text: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        with self.connect(dbname) as session:
            cursor = session.execute(text.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def lsn(self) -> int:
        """The end of everything that is committed now."""
        self.sql("CREATE TABLE IF NOT EXISTS marker (x int); DROP TABLE marker")
        return int(self.sql("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")[0][0])

    def stop(self) -> StopResult:
        return self.stack.wait(self.running.stop(self.stack.wal))

    def kill(self) -> None:
        self.stack.wait(self.running.kill())
        self.running.remove()


@dataclass
class Stack:
    """`page_socket` is another way to the page server."""

    root: Path
    safekeeper: SafekeeperProcess
    page_server: PageProcess
    loop: asyncio.AbstractEventLoop
    pages: AsyncPageClient
    wal: WalClient
    shim: Path
    starts: int = 0
    page_socket: str = ""
    computes: list[Compute] = field(default_factory=list)

    def wait(self, work: Coroutine[Any, Any, _T], seconds: float = 120) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def import_cluster(self, pgdata: Path) -> TimelineId:
        timeline = TimelineId.generate()
        return self.wait(self._import(pgdata, timeline))

    async def _import(self, pgdata: Path, timeline: TimelineId) -> TimelineId:
        chunks = read_pgdata(pgdata, DEFAULT_TENANT, timeline)
        header = next(chunks)

        def whole() -> Iterator[Any]:
            yield header
            yield from chunks

        info = await self.pages.import_timeline(whole())
        await self.wal.create_timeline(
            DEFAULT_TENANT,
            timeline,
            info.last_record_lsn,
            prev_record_lsn=header.header.checkpoint_lsn,
            system_id=header.header.settings.system_id,
        )
        return timeline

    def branch(self, parent: TimelineId, lsn: int) -> TimelineId:
        return self.wait(self._branch(parent, lsn))

    def branch_of_beginning(self, parent: TimelineId) -> TimelineId:
        """As the cluster was that was imported as `parent`."""
        return self.branch(parent, self.wait(self._beginning(parent)))

    async def _beginning(self, timeline: TimelineId) -> int:
        return (await self.pages.get_timeline(DEFAULT_TENANT, timeline)).branch_lsn

    async def _branch(self, parent: TimelineId, lsn: int) -> TimelineId:
        child = TimelineId.generate()
        try:
            at, previous = await self.wal.align_lsn(DEFAULT_TENANT, parent, lsn)
        except OutOfRange:  # dropped by now: as the control plane does where nobody keeps it
            at, previous = position_below(lsn), 0
        status = await self.wal.get_status(DEFAULT_TENANT, parent)
        await self.pages.create_timeline(DEFAULT_TENANT, child, parent, at, wait_ms=20_000)
        await self.wal.create_timeline(
            DEFAULT_TENANT, child, at, prev_record_lsn=previous, system_id=status.system_id
        )
        return child

    def start(self, timeline: TimelineId, **changes: Any) -> Compute:
        self.starts += 1
        if "host" in changes:
            changes.setdefault("port", free_port())
        page_server = changes.pop("page_server", self.page_server.address)
        spec = ComputeSpec(
            signer=access.signer(),
            tenant=DEFAULT_TENANT,
            timeline=timeline,
            directory=self.root / f"c{self.starts}",
            page_server=page_server,
            run_as=RUN_AS,
            major=MAJOR,
            shim_library=self.shim,
            **changes,
        )
        compute = Compute(self, timeline, self.wait(start_compute(spec, self.pages, self.wal)))
        self.computes.append(compute)
        return compute

    def close(self) -> None:
        for compute in self.computes:
            if compute.running.alive:
                compute.kill()
        self.wait(self.pages.close())
        self.wait(self.wal.close())


@contextmanager
def running_stack(**settings: Any) -> Iterator[Stack]:
    """Everything up but computes. `settings`: of the page server."""
    root = reachable_dir()
    shim = root / SHIM.name
    shutil.copy(SHIM, shim)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    services = root / "services"
    services.mkdir()
    safekeeper = SafekeeperProcess(services / "sk")
    settings = {"run_as": RUN_AS, "listen_unix": str(root / "run/page.sock"), **settings}
    page_server: PageProcess | None = None
    stack: Stack | None = None

    async def clients(pages: str, wal: str) -> tuple[AsyncPageClient, WalClient]:
        return AsyncPageClient(pages), WalClient(wal)

    try:
        safekeeper.start()
        page_server = PageProcess(services / "pages", [safekeeper.listen], **settings)
        page_server.start()
        making = clients(page_server.address, safekeeper.listen)
        pages, wal = asyncio.run_coroutine_threadsafe(making, loop).result()
        stack = Stack(root, safekeeper, page_server, loop, pages, wal, shim)
        stack.page_socket = f"unix:{settings['listen_unix']}"
        yield stack
    finally:
        if stack is not None:
            stack.close()
        if page_server is not None:
            page_server.kill()
        safekeeper.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        shutil.rmtree(root, ignore_errors=True)
