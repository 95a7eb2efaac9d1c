"""The empty cluster that every ``create`` of a tenant branches: one initdb a tenant, ever.

Its locale is C.UTF-8, its superuser ``postgres``, and it has one spare database, which a
create renames. It is made in single-user mode, imported as a root timeline, and its directory
thrown away.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagestore.client.page import AsyncPageClient
from pagestore.client.walservice import WalService
from pagestore.control.credentials import ROLE, TEMPLATE_DATABASE
from pagestore.control.records import TemplateRecord
from pagestore.control.state import ControlState
from pagestore.control.timelines import Timelines, planned
from pagestore.errors import FailedPrecondition, PagestoreError
from pagestore.ids import TenantId
from pagestore.transfer.pgdata import read_pgdata
from pagestore.v1 import page_pb2 as pb

INITDB = ("-U", ROLE, "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "--no-sync")


@dataclass(frozen=True, slots=True)
class Postgres:
    """Where Postgres's programs are, and as whom they run."""

    bindir: Path
    run_as: str | None
    scratch: Path
    """A directory that this user can reach."""

    async def run(self, program: str, *args: str, stdin: str = "") -> None:
        """
        Raises:
            FailedPrecondition: POSTGRES_MISSING.
            PagestoreError: POSTGRES_FAILED, with the end of what the program said.
        """
        done = await asyncio.to_thread(self._run, [str(self.bindir / program), *args], stdin)
        if done.returncode != 0:
            tail = done.stdout.decode(errors="replace").strip()[-600:]
            raise PagestoreError("POSTGRES_FAILED", f"{program} failed: {tail}")

    def _run(self, command: list[str], stdin: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                command,
                input=stdin.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.scratch,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                check=False,
                **self._user(),
            )
        except FileNotFoundError as error:
            raise FailedPrecondition(
                "POSTGRES_MISSING",
                f"There is no {command[0]}.",
                "Install Postgres 15: apt-get install postgresql-15.",
            ) from error

    @asynccontextmanager
    async def directory(self, prefix: str) -> AsyncIterator[Path]:
        """A new directory of that user, removed at the end."""
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=self.scratch))
        if self.run_as is not None:
            shutil.chown(path, self.run_as)
        try:
            yield path
        finally:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    def _user(self) -> dict[str, Any]:
        if self.run_as is None:
            return {}
        entry = pwd.getpwnam(self.run_as)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@dataclass
class Imported:
    """What the WAL service must know of an imported cluster."""

    lsn: int = 0
    prev_record_lsn: int = 0
    system_id: int = 0

    def watch(self, chunks: Iterable[pb.ImportChunk]) -> Iterator[pb.ImportChunk]:
        """Passes the chunks on, noting the header's facts."""
        for chunk in chunks:
            if chunk.HasField("header"):
                self.lsn = chunk.header.lsn
                self.prev_record_lsn = chunk.header.checkpoint_lsn
                self.system_id = chunk.header.settings.system_id
            yield chunk


async def ensure_template(
    state: ControlState,
    timelines: Timelines,
    pages: AsyncPageClient,
    wal: WalService,
    postgres: Postgres,
    tenant: TenantId,
) -> TemplateRecord:
    """The template, made now if there is none."""
    existing = state.view().template(tenant)
    if existing is not None:
        return existing
    async with timelines.making(planned(tenant, "")) as making:
        imported = Imported()
        async with _empty_cluster(postgres) as data:
            chunks = read_pgdata(data, tenant, making.timeline)
            await pages.import_timeline(imported.watch(chunks))
        await wal.create_timeline(
            tenant,
            making.timeline,
            imported.lsn,
            prev_record_lsn=imported.prev_record_lsn,
            system_id=imported.system_id,
        )
        template = TemplateRecord(
            timeline=making.timeline, lsn=imported.lsn, prev_record_lsn=imported.prev_record_lsn
        )
        with state.change() as change:
            making.root(imported.lsn, imported.system_id).live(change)
            change.put_template(template, tenant)
    return template


@asynccontextmanager
async def _empty_cluster(postgres: Postgres) -> AsyncIterator[Path]:
    async with postgres.directory("template-") as directory:
        data = directory / "data"
        await postgres.run("initdb", "-D", str(data), *INITDB)
        await postgres.run(
            "postgres",
            *("--single", "-D", str(data), "-F", "postgres"),
            stdin=f"CREATE DATABASE {TEMPLATE_DATABASE};\n",
        )
        yield data
