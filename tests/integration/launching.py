"""Timelines ready to be started by the launcher, in this process or in one of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from pagestore.client.credentials import OPERATOR_TOKEN
from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.compute.running import RunningCompute
from pagestore.compute.start import ComputeSpec, start_compute
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.installation import keys
from pagestore.postgres import cluster as vanilla
from tests import access
from tests.integration.file_pages import file_pages
from tests.plain_postgres import MAJOR, RUN_AS, PlainPostgres, module
from tests.safekeeper_process import SafekeeperProcess

SHIM = module("shim")


@dataclass
class World:
    spec: ComputeSpec
    pages: AsyncPageClient
    wal: WalClient

    async def start(self, **changes: Any) -> RunningCompute:
        return await start_compute(replace(self.spec, **changes), self.pages, self.wal)


@asynccontextmanager
async def world(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path, *, hot: bool = True
) -> AsyncIterator[World]:
    """A new timeline at the end of the source cluster, ready to be started."""
    control = vanilla.read_control(source.data)
    library = root / SHIM.name
    shutil.copy(SHIM, library)
    spec = ComputeSpec(
        signer=access.signer(),
        tenant=DEFAULT_TENANT,
        timeline=TimelineId.generate(),
        directory=root / "c1",
        page_server="127.0.0.1:1",
        major=MAJOR,
        shim_library=library,
        run_as=RUN_AS,
    )
    async with (
        file_pages(source.data, root, hot=hot) as pages,
        WalClient(safekeeper.listen, timeout=20) as wal,
    ):
        await wal.create_timeline(
            spec.tenant,
            spec.timeline,
            control.checkpoint_lsn + 120,
            prev_record_lsn=control.checkpoint_lsn,
            system_id=control.system_id,
        )
        yield World(spec, pages, wal)


def sql(compute: RunningCompute, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(compute.conninfo(), autocommit=True) as session:
        cursor = session.execute(text)
        return cursor.fetchall() if cursor.description else []


def starter_of(spec: ComputeSpec, body: str) -> str:
    """A program that has `spec`, and runs `body` in an event loop."""
    return f"""
import asyncio, os
from pathlib import Path
from pagestore.client import credentials
from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.compute.start import ComputeSpec, start_compute
from pagestore.ids import TenantId, TimelineId
from pagestore.tokens import Signer
async def main():
    credentials.use(credentials.Credentials.of_file(Path("{access.data() / OPERATOR_TOKEN}")))
    signer = Signer.parse(Path("{access.data() / keys.SIGNING_KEY}").read_text())
    spec = ComputeSpec(TenantId.parse("{spec.tenant}"), TimelineId.parse("{spec.timeline}"),
                       Path("{spec.directory}"), "{spec.page_server}",
                       Path("{spec.shim_library}"), run_as={spec.run_as!r}, signer=signer,
                       major={spec.major})
{body}
asyncio.run(main())
"""
