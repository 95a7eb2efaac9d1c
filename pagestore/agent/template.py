"""The empty cluster that every ``create`` branches: one initdb a major.

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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagestore.client.page import AsyncPageClient
from pagestore.compute import syscalls
from pagestore.compute.walls import Room, descriptors, installed_beside, walled
from pagestore.errors import FailedPrecondition, PagestoreError
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat.versions import Version
from pagestore.postgres.process import account
from pagestore.postgres.template import OWNER_ROLE, SPARE_DATABASE
from pagestore.transfer.pgdata import Imported, read_pgdata

Done = subprocess.CompletedProcess[bytes]
INITDB = ("-U", OWNER_ROLE, "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "--no-sync")


@dataclass(frozen=True, slots=True)
class Postgres:
    """Where one major's programs are, and as whom they run."""

    bindir: Path
    run_as: str | None
    scratch: Path
    """A directory that this user can reach."""
    walls: bool = False

    async def run(self, directory: Path, program: str, *args: str, stdin: str = "") -> None:
        """
        Args:
            directory: of this user, and what the program sees besides the system within walls.

        Raises:
            FailedPrecondition: POSTGRES_MISSING.
            PagestoreError: POSTGRES_FAILED, with the end of what the program said.
        """
        path = self.bindir / program
        if not path.exists():
            raise FailedPrecondition(
                "POSTGRES_MISSING",
                f"There is no {path}.",
                "Install Postgres's packages: apt-get install postgresql.",
            )
        run = self._run_walled if self.walls else self._run
        done = await asyncio.to_thread(run, directory, [str(path), *args], stdin)
        if done.returncode != 0:
            tail = done.stdout.decode(errors="replace").strip()[-600:]
            raise PagestoreError("POSTGRES_FAILED", f"{program} failed: {tail}")

    def _run(self, directory: Path, command: list[str], stdin: str) -> Done:
        return _run(command, stdin, cwd=directory, **self._user())

    def _run_walled(self, directory: Path, command: list[str], stdin: str) -> Done:
        room = Room((directory,), tuple(installed_beside(Path(command[0]))), network=False)
        with syscalls.opened(io_uring=False) as denying:
            inside = walled(command, room, account(self.run_as), denying=denying)
            return _run(inside, stdin, cwd=Path("/"), pass_fds=descriptors(denying))

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


def _run(command: list[str], stdin: str, **how: Any) -> Done:
    return subprocess.run(
        command,
        input=stdin.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        check=False,
        **how,
    )


def _initdb(version: Version) -> list[str]:
    """Without data checksums: with them each first hint on a page would be logged, and pages have
    checksums of their own in the store."""
    return [*INITDB, *(["--no-data-checksums"] if version.checksums_by_default else [])]


async def make_template(
    pages: AsyncPageClient,
    postgres: Postgres,
    tenant: TenantId,
    timeline: TimelineId,
    version: Version,
) -> Imported:
    """A new cluster, at the page server as a root timeline."""
    async with postgres.directory("template-") as directory:
        data = directory / "data"
        await postgres.run(directory, "initdb", "-D", str(data), *_initdb(version))
        await postgres.run(
            directory,
            "postgres",
            *("--single", "-D", str(data), "-F", "postgres"),
            stdin=f"CREATE DATABASE {SPARE_DATABASE};\n",
        )
        imported = Imported()
        await pages.import_timeline(imported.watch(read_pgdata(data, tenant, timeline)))
        return imported
