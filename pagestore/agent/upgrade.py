"""A timeline through pg_upgrade: exported, upgraded, and back at the page server as a new root.

The work lies in a directory of its own among the computes', which goes with the upgrade, however
it ends; what a killed agent left of one, the next removes::

    DIR/upgrade-<random>/          ours; locked as long as somebody works there
    DIR/upgrade-<random>/passwd    how the programs find a name for their user
    DIR/upgrade-<random>/work/     theirs: old/, new/, tablespaces/

The programs are confined (confined.py). What they leave is a tenant's: it is looked through, when
nobody is left in there, before anything in it is opened by a path.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from pagestore.agent import pg_upgrade
from pagestore.agent.confined import Confined, Done
from pagestore.agent.pg_upgrade import NEW, OLD, Listening
from pagestore.agent.tablespaces import move_in, move_out
from pagestore.client.page import AsyncPageClient
from pagestore.compute.limits import Limits
from pagestore.compute.places import make_private
from pagestore.errors import DataLoss, FailedPrecondition, PagestoreError
from pagestore.ids import TenantId, TimelineId
from pagestore.oracle.scratch import scratch_directory
from pagestore.pgformat.pg_control import PgControl
from pagestore.pgformat.versions import Version
from pagestore.postgres.cluster import read_control
from pagestore.postgres.datadir import Owner
from pagestore.postgres.settings import control_settings
from pagestore.postgres.untrusted import open_root, read_regular
from pagestore.transfer.export import export_pgdata
from pagestore.transfer.pgdata import PGSTAT_FILE, Imported, import_header, read_pgdata

TABLESPACES = "tablespaces"
KIND = "upgrade"
"""How the directories' names begin."""
_LOGGED_CHARACTERS = 8_000
_log = structlog.get_logger(__name__)
Told = Callable[[str, int, int], None]
"""Called with what is being done, the bytes of it that are done, and all, 0 where not known."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Args:
        lsn: the end of a record; `prev_record_lsn`: where that began, if known.
        target: the root that is to be made; None to have pg_upgrade only check.
    """

    tenant: TenantId
    timeline: TimelineId
    lsn: int
    prev_record_lsn: int
    version: Version
    to: Version
    target: TimelineId | None


@dataclass(frozen=True, slots=True)
class Place:
    """
    Args:
        parent: of the work's directory.
        before: the programs of the old major; `programs`: of the new one.
        owner: whom they run as; None for our own user.
        nameless: whether that user has no name on this machine.
    """

    parent: Path
    before: Path
    programs: Path
    owner: Owner | None
    nameless: bool = False
    walls: bool = False
    limits: Limits | None = None

    def directory(self) -> AbstractAsyncContextManager[Path]:
        return scratch_directory(KIND, self.parent, None)


@dataclass(frozen=True, slots=True)
class Upgraded:
    imported: Imported
    remarks: tuple[str, ...]


async def upgrade_timeline(
    pages: AsyncPageClient, place: Place, wanted: Wanted, told: Told
) -> Upgraded:
    """
    Raises:
        FailedPrecondition: UPGRADE_REFUSED, with pg_upgrade's words; POSTGRES_MISSING.
        PagestoreError: UPGRADE_FAILED, likewise; what the page server answered.
    """
    async with place.directory() as scratch:
        work = scratch / "work"
        if place.owner is not None:
            scratch.chmod(0o711)
        make_private(work, place.owner)
        accounts = _accounts(scratch, place.owner) if place.nameless and place.owner else None
        confined = Confined(
            work, (place.before, place.programs), place.owner, place.walls, accounts, place.limits
        )
        run = _Run(pages, place, wanted, told, work, confined)
        try:
            return await run.whole()
        finally:
            await asyncio.shield(run.settle())


def _accounts(scratch: Path, owner: Owner) -> Path:
    """Postgres's programs want a name for their user, whichever."""
    path = scratch / "passwd"
    path.write_text(f"postgres:x:{owner.uid}:{owner.gid}::/:/bin/sh\n")
    path.chmod(0o644)
    return path


class _Run:
    """One upgrade, in its directory."""

    def __init__(
        self,
        pages: AsyncPageClient,
        place: Place,
        wanted: Wanted,
        told: Told,
        work: Path,
        confined: Confined,
    ) -> None:
        self._pages, self._place, self._wanted = pages, place, wanted
        self._told = told
        self._work = work
        self._confined = confined
        self._remarks: list[str] = []

    async def whole(self) -> Upgraded:
        await self._export()
        move_out(self._work / OLD, self._work / TABLESPACES, self._place.owner)
        control = read_control(self._work / OLD)
        user, databases = await self._look()
        await self._initdb(user, control)
        await self._reconcile(databases)
        await self._upgrade(user)
        if self._wanted.target is None:
            return Upgraded(Imported(), tuple(self._remarks))
        await asyncio.to_thread(shutil.rmtree, self._work / OLD)
        return Upgraded(await self._import(self._wanted.target), tuple(self._remarks))

    async def settle(self) -> None:
        """Without walls nothing else ends a server whose starter was killed."""
        if self._place.walls:
            return
        for directory, programs in ((OLD, self._place.before), (NEW, self._place.programs)):
            if (self._work / directory / "postmaster.pid").exists():
                argv = [str(programs / "pg_ctl"), "-D", directory, "-m", "immediate", "stop"]
                await self._confined.run(argv)

    async def _export(self) -> None:
        wanted = self._wanted
        await export_pgdata(
            self._pages,
            wanted.tenant,
            wanted.timeline,
            wanted.lsn,
            self._work / OLD,
            partial(self._told, f"exporting Postgres {wanted.version.major}"),
            owner=self._place.owner,
            prev_record_lsn=wanted.prev_record_lsn,
        )

    async def _look(self) -> tuple[str, list[str]]:
        """The role that the cluster began with, by its name now, and its databases."""
        self._step("reading the old catalogs")
        done = await self._single(self._place.before, OLD, pg_upgrade.LOOK_INTO_OLD)
        users = pg_upgrade.facts(done.output, "user")
        if not users:
            raise FailedPrecondition(
                "UPGRADE_REFUSED",
                f"The database's own catalogs cannot be read by its server: {_end_of(done)}",
                "Does it start, and is there a database template1 in it?",
            )
        pg_upgrade.check_user(users[0])
        return users[0], pg_upgrade.facts(done.output, "database")

    async def _initdb(self, user: str, control: PgControl) -> None:
        wanted = self._wanted
        self._step(f"making a cluster of Postgres {wanted.to.major}")
        header = import_header(control, wanted.tenant, wanted.timeline)
        argv = pg_upgrade.initdb(
            self._place.programs,
            wanted.to,
            user,
            control_settings(header.settings),
            checksums=control.data_checksum_version != 0,
        )
        done = await self._confined.run(argv)
        if done.status != 0:
            raise PagestoreError("POSTGRES_FAILED", f"initdb failed: {_end_of(done)}")

    async def _reconcile(self, databases: list[str]) -> None:
        """What only the old server's minor release knows would be refused by the new one."""
        ask = pg_upgrade.LOOK_FOR_VERSIONS
        new = await self._single(self._place.programs, NEW, ask)
        if "1" in pg_upgrade.facts(new.output, "versions"):
            return
        left_out = False
        for database in databases:
            has = await self._single(self._place.before, OLD, ask, database)
            if "1" in pg_upgrade.facts(has.output, "versions"):
                left_out = True
                leave = pg_upgrade.LEAVE_VERSIONS_OUT
                await self._single(self._place.before, OLD, leave, database)
        if left_out:
            self._remarks.append(
                f"The minor release of Postgres {self._wanted.to.major} that is installed is "
                "older than the other major's, and knows no versions of columns: left out."
            )

    async def _upgrade(self, user: str) -> None:
        wanted, only_check = self._wanted, self._wanted.target is None
        sockets = Path("/tmp") if self._place.walls else self._work  # noqa: S108
        argv = pg_upgrade.upgrade(
            self._place.programs,
            self._place.before,
            user,
            sockets,
            os.cpu_count() or 1,
            only_check=only_check,
        )
        listening = Listening(lambda words: self._step(f"pg_upgrade: {words}"))
        done = await self._confined.run(argv, heard=listening.hear)
        if done.status != 0:
            said = done.output[-_LOGGED_CHARACTERS:]
            _log.warning("pg_upgrade ended", timeline=str(wanted.timeline), said=said)
            raise pg_upgrade.failure(done.output, self._read, wanted.to.major)
        if not wanted.to.upgrade_keeps_statistics:
            self._remarks.append(
                f"pg_upgrade to {wanted.to.major} leaves the planner's statistics behind: run "
                "`vacuumdb --analyze-in-stages -d URL`, for each inner database."
            )

    async def _import(self, target: TimelineId) -> Imported:
        new = self._work / NEW
        before = self._wanted.version
        await asyncio.to_thread(move_in, new, self._work / TABLESPACES, before)
        await asyncio.to_thread(check_tree, new, self._place.owner)
        if read_control(new).version != self._wanted.to:
            raise PagestoreError(
                "UPGRADE_FAILED", f"pg_upgrade made no cluster of {self._wanted.to.major}."
            )
        # What initdb and pg_upgrade did is no news for autovacuum.
        (new / PGSTAT_FILE).unlink(missing_ok=True)
        imported = Imported()
        told = partial(self._told, f"importing Postgres {self._wanted.to.major}")
        chunks = read_pgdata(new, self._wanted.tenant, target, told)
        await self._pages.import_timeline(imported.watch(chunks))
        return imported

    async def _single(
        self, programs: Path, directory: str, statements: tuple[str, ...], database: str = ""
    ) -> Done:
        argv = pg_upgrade.single_user(programs, directory, database or "template1")
        return await self._confined.run(argv, said=pg_upgrade.script(statements))

    def _step(self, words: str) -> None:
        self._told(words, 0, 0)

    def _read(self, path: str) -> bytes | None:
        """A file that pg_upgrade has written; a tenant's, like all that is below."""
        root = open_root(self._work)
        try:
            return read_regular(root, f"{NEW}/{path}", pg_upgrade.LONGEST_FILE)
        finally:
            os.close(root)


def check_tree(root: Path, owner: Owner | None) -> None:
    """That below a directory in which nobody is at work any more there are but directories, and
    files without another name, of its owner's.

    Raises:
        DataLoss: UPGRADE_TAMPERED.
    """
    uid = owner.uid if owner is not None else os.geteuid()
    device = root.lstat().st_dev
    if not stat.S_ISDIR(root.lstat().st_mode):
        raise _tampered(root)
    for folder, directories, files in os.walk(root, followlinks=False):
        for name in (*directories, *files):
            found = (Path(folder) / name).lstat()
            is_file = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
            right = is_file or stat.S_ISDIR(found.st_mode)
            if not right or (found.st_uid, found.st_dev) != (uid, device):
                raise _tampered(Path(folder) / name)


def _tampered(path: Path) -> DataLoss:
    return DataLoss(
        "UPGRADE_TAMPERED",
        f"{path} is nothing that pg_upgrade makes.",
        "Nothing of it was taken in. Look for what runs at a login in that database.",
    )


def _end_of(done: Done) -> str:
    return " ".join(done.output[-600:].split())
