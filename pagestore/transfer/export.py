"""Export: a timeline at an LSN as an ordinary data directory for plain Postgres.

The directory comes from the same base backup as a compute's, but every block is fetched, and
nothing in it needs pagestore afterwards. The control file is written last, after everything
else is on disk: a directory without one does not start, so a broken export cannot be taken
for a whole one.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pagestore.client.page import AsyncPageClient, PageStream, Rel
from pagestore.errors import PagestoreError, Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import layout
from pagestore.postgres.checkpoint import (
    StartCheckpoint,
    start_of_checkpoint,
    synthesize,
    write_control_file,
    write_segments,
)
from pagestore.postgres.datadir import DataDirectory, Owner
from pagestore.postgres.remote_map import Fork
from pagestore.postgres.settings import AUTO_CONF, control_settings
from pagestore.postgres.user_settings import render

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total)."""

BLOCKS_PER_REQUEST = 128
REQUESTS_AHEAD = 8
_RETRY_SECONDS = 60.0
_LEASE_SECONDS = 24 * 3600
_WAIT_MS = 60_000
_SETTINGS = {
    "listen_addresses": "localhost",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "datestyle": "iso, mdy",
    "timezone": "Etc/UTC",
    "log_timezone": "Etc/UTC",
    "default_text_search_config": "pg_catalog.english",
}
_HBA = """\
# The Unix socket is open to the user that runs the server (unix_socket_permissions).
local  all          all                trust
local  replication  all                trust
host   all          all  127.0.0.1/32  scram-sha-256
host   all          all  ::1/128       scram-sha-256
"""


class Run(NamedTuple):
    """Consecutive blocks of one relation fork: what one request asks for."""

    fork: Fork
    first: int
    length: int

    @property
    def blocks(self) -> range:
        return range(self.first, self.first + self.length)


async def export_pgdata(
    pages: AsyncPageClient,
    tenant: TenantId,
    timeline: TimelineId,
    lsn: int,
    directory: Path,
    progress: Progress | None = None,
    *,
    owner: Owner | None = None,
    prev_record_lsn: int = 0,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Writes the directory, and returns when it is on disk.

    Args:
        lsn: the end of a record; see WalService.AlignLsn.
        directory: must not exist, or be empty. After a failure it is as before.
        owner: who shall own the files; None for the caller.
        prev_record_lsn: the start of the record that ends at `lsn`, if known.
        settings: for postgresql.auto.conf.

    Raises:
        FailedPrecondition: DIRECTORY_NOT_EMPTY.
        PagestoreError: what the page server answered.
    """

    def behind(laid: DataDirectory) -> StartCheckpoint:
        return synthesize(lsn, prev_record_lsn, laid.counters, laid.settings, full_page_writes=True)

    auto_conf = render(settings or {})
    await _export(pages, tenant, timeline, lsn, directory, behind, progress, owner, auto_conf)


async def export_imported(
    pages: AsyncPageClient,
    tenant: TenantId,
    timeline: TimelineId,
    import_lsn: int,
    directory: Path,
    progress: Progress | None = None,
    *,
    owner: Owner | None = None,
) -> None:
    """Writes the cluster that a root timeline was imported from: stopped by the checkpoint record
    that ends at `import_lsn`, so that the WAL from there on can be replayed on it.

    Args and errors as of :func:`export_pgdata`.
    """

    def original(laid: DataDirectory) -> StartCheckpoint:
        start = start_of_checkpoint(import_lsn)
        return synthesize(start, 0, laid.counters, laid.settings, full_page_writes=True)

    await _export(pages, tenant, timeline, import_lsn, directory, original, progress, owner)


async def _export(
    pages: AsyncPageClient,
    tenant: TenantId,
    timeline: TimelineId,
    lsn: int,
    directory: Path,
    checkpoint_of: Callable[[DataDirectory], StartCheckpoint],
    progress: Progress | None,
    owner: Owner | None,
    auto_conf: str = "",
) -> None:
    existed = directory.exists()
    laid = DataDirectory(directory, owner)
    try:
        await pages.lease(tenant, timeline, lsn, _LEASE_SECONDS, wait_ms=_WAIT_MS)
        chunks = pages.base_backup(tenant, timeline, lsn, hot_pages=False, wait_ms=_WAIT_MS)
        async for chunk in chunks:
            laid.feed(chunk)
        fetch = _Fetch(pages, tenant, timeline, lsn, laid, progress or (lambda done, total: None))
        await fetch.run()
        await asyncio.to_thread(_finish, laid, checkpoint_of(laid), auto_conf)
    except BaseException:
        await asyncio.to_thread(_remove, directory, existed)
        raise
    finally:
        laid.close()


def _finish(laid: DataDirectory, checkpoint: StartCheckpoint, auto_conf: str) -> None:
    laid.write_missing_slru_pages()
    write_segments(laid, checkpoint)
    settings = control_settings(laid.settings) | _SETTINGS
    if laid.has_tablespaces:  # or its crash recovery would refuse their directories
        settings["allow_in_place_tablespaces"] = "on"
    laid.write("postgresql.conf", render(settings))
    laid.write(AUTO_CONF, auto_conf)
    laid.write("pg_hba.conf", _HBA)
    laid.write("pg_ident.conf", b"")
    laid.sync()
    write_control_file(laid, checkpoint)
    laid.sync()


def _remove(directory: Path, existed: bool) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    if existed:
        directory.mkdir(exist_ok=True)


class _Fetch:
    """Every block of every relation, over one stream with some requests ahead."""

    def __init__(
        self,
        pages: AsyncPageClient,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int,
        laid: DataDirectory,
        progress: Progress,
    ) -> None:
        self._pages = pages
        self._tenant = tenant
        self._timeline = timeline
        self._lsn = lsn
        self._laid = laid
        self._progress = progress
        self._init_pages: dict[Fork, list[bytes]] = {}

    async def run(self) -> None:
        total = sum(self._laid.lengths.values()) * layout.PAGE_SIZE
        done = 0
        self._progress(done, total)
        waiting: deque[Run] = deque()
        runs = runs_of(self._laid.lengths)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _RETRY_SECONDS
        while True:
            stream = self._pages.open_stream()
            try:
                for run in waiting:
                    await self._send(stream, run)
                while True:
                    while len(waiting) < REQUESTS_AHEAD and (following := next(runs, None)):
                        waiting.append(following)
                        await self._send(stream, following)
                    if not waiting:
                        break
                    self._store(waiting[0], await stream.receive())
                    done += waiting.popleft().length * layout.PAGE_SIZE
                    self._progress(done, total)
                    give_up = loop.time() + _RETRY_SECONDS
                break
            except Unavailable:
                if loop.time() > give_up:
                    raise
            finally:
                stream.cancel()
            await asyncio.sleep(random.uniform(0.2, 0.5))  # noqa: S311
        self._laid.write_unlogged(self._init_pages)

    async def _send(self, stream: PageStream, run: Run) -> None:
        rel = Rel(*run.fork)
        await stream.send(
            self._pages.pages_request(self._tenant, self._timeline, self._lsn, rel, run.blocks)
        )

    def _store(self, run: Run, images: list[bytes]) -> None:
        try:
            self._laid.store_pages(run.fork, run.blocks, images)
        except OSError as error:
            raise _write_failed(self._laid.root, error) from error
        if run.fork[3] == _INIT_FORK:
            self._init_pages.setdefault(run.fork, []).extend(images)


_INIT_FORK = 3


def runs_of(lengths: dict[Fork, int]) -> Iterator[Run]:
    for fork in sorted(lengths):
        for first in range(0, lengths[fork], BLOCKS_PER_REQUEST):
            yield Run(fork, first, min(BLOCKS_PER_REQUEST, lengths[fork] - first))


def _write_failed(root: Path, error: OSError) -> PagestoreError:
    return PagestoreError(
        "EXPORT_WRITE_FAILED",
        f"Writing to {root} failed: {error.strerror}.",
        "Free some space there, or name another directory.",
    )
