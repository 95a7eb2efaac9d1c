"""The page server: one process that takes in WAL and answers for every page at every LSN.

This module only puts its parts together and takes them apart again in the right order:
repository (timelines and layers), redo pool, follower (ingest), flusher, compactor, collector, and
the two gRPC services over them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import Field

from pagestore import lost_found, tasks
from pagestore.client.wal import WalClient
from pagestore.ingest.follower import LINGER_MS, SLOT_WAL_BYTES, Follower
from pagestore.ingest.releases import consumer_of
from pagestore.ingest.waiters import LsnWaiters, TimelineKey
from pagestore.maintenance.collector import Collector
from pagestore.maintenance.compactor import Compactor
from pagestore.maintenance.flusher import IDLE_SECONDS, Flusher
from pagestore.postgres import majors
from pagestore.reader.redo import RedoPools
from pagestore.reader.threads import DISK_THREADS, REMOTE_THREADS, ReadThreads
from pagestore.services.connections import end_connection
from pagestore.services.page_access import PageAccess
from pagestore.services.page_faults import tell_faults
from pagestore.services.page_memory import (
    DEFAULT_BYTES,
    LEAST_BYTES,
    Shares,
    keep_within,
    trim_at_rest,
)
from pagestore.services.page_reads import PageReads
from pagestore.services.page_responses import Responses
from pagestore.services.page_timelines import PageTimelines
from pagestore.services.part_metrics import of_objects, of_pageserver
from pagestore.services.secured import Secured
from pagestore.services.server import GrpcServer, configure_logging
from pagestore.timeline import Repository
from pagestore.timeline.elsewhere import UNBOUNDED
from pagestore.timeline.horizons import LEAST_SECONDS
from pagestore.v1 import page_pb2 as pb

if TYPE_CHECKING:
    from pagestore.objects.store import ObjectStore
    from pagestore.services.page_objects import PageObjects

HELPER_IDLE_SECONDS = 60.0
COMPACTION_HELPERS = 1
FREE_SECONDS = 3600.0
"""How often it is looked for what has lain in lost+found long enough."""
_log = structlog.get_logger(__name__)


class PageSettings(Secured):
    """What a page server is told."""

    listen: str = "127.0.0.1:0"
    data_dir: Path
    listen_unix: Path | None = None
    """A Unix socket to serve on too: for computes without a network."""
    wal_service: list[str] = Field(default_factory=list)
    """Addresses of safekeepers; without any, nothing is taken in."""
    memory_bytes: int = Field(default=DEFAULT_BYTES, ge=LEAST_BYTES)
    """Bound of the whole process."""
    open_layer_bytes: int | None = Field(default=None, ge=1 << 20)
    """Of that, what is in memory and not yet in files, over all timelines; see page_memory."""
    idle_flush_seconds: float = Field(default=IDLE_SECONDS, gt=0)
    least_history_seconds: int = Field(default=LEAST_SECONDS, ge=0)
    """Of history that stays whatever is asked for."""
    objects: str | None = None
    """URL of the object store; None without one."""
    wal_age_seconds: float = Field(default=5.0, gt=0)
    """Within which committed WAL is in the object store."""
    cache_bytes: int | None = Field(default=None, ge=64 << 20)
    """Of layers that stay on this disk, once they are in the object store; None: all."""
    linger_ms: int = Field(default=LINGER_MS, ge=1)
    slot_wal_bytes: int = Field(default=SLOT_WAL_BYTES, ge=0)
    """WAL of each timeline that replication slots hold back at the safekeepers."""
    check_wal_images: bool = False
    """Whether ingest compares its pages with the images of wal_consistency_checking."""
    run_as: str | None = None
    """The user that redo helpers run as when this process is root."""
    postgres_bindir: Path = majors.BINDIR
    redo_helpers: int = Field(default=2, ge=1, le=64)
    redo_library: Path | None = None


@contextlib.asynccontextmanager
async def page_server(settings: PageSettings) -> AsyncIterator[tuple[GrpcServer, PageAccess]]:
    """A running page server, stopped and flushed at the end."""
    guard, identity = settings.secure()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        shares = Shares.of(settings.memory_bytes, settings.open_layer_bytes)
        keep_within(shares)
        store = _object_store(settings)
        repository = Repository.open(
            settings.data_dir / "store",
            open_layer_bytes=shares.open_layers,
            objects=store,
            cached_bytes=settings.cache_bytes or UNBOUNDED,
        )
        stack.callback(repository.close)
        objects = _objects(settings, repository, store)
        if objects is not None:
            stack.push_async_callback(objects.close)
        helpers = RedoPools(
            settings.postgres_bindir,
            library=settings.redo_library,
            size=settings.redo_helpers,
            run_as=settings.run_as,
        )
        stack.callback(helpers.close)

        waiters = LsnWaiters()
        flusher = Flusher(repository, shares.open_layers, idle_seconds=settings.idle_flush_seconds)
        stack.push_async_callback(flusher.close)

        def connect(address: str) -> WalClient:
            client = WalClient(address)
            stack.push_async_callback(client.close)
            return client

        follower = Follower(
            repository,
            [connect(address) for address in settings.wal_service],
            waiters,
            flusher,
            helpers.of,
            consumer=consumer_of(settings.data_dir),
            linger_ms=settings.linger_ms,
            slot_wal_bytes=settings.slot_wal_bytes,
            check_images=settings.check_wal_images,
            connect=connect,
        )
        stack.push_async_callback(follower.close)
        if objects is not None:
            objects.follow(follower)
        compactor, own_helpers = _compactor(settings, repository, flusher, stack)
        collector = Collector(repository, least_seconds=settings.least_history_seconds)
        _on_flushed(flusher, collector.note)
        threads = ReadThreads(helpers.most, DISK_THREADS if store is None else REMOTE_THREADS)
        stack.callback(threads.close)
        clock = asyncio.get_running_loop().time
        responses = Responses(shares.responses, end_connection, clock)
        access = PageAccess(
            repository,
            waiters,
            flusher,
            follower,
            helpers.of,
            threads,
            responses,
            collector,
            compactor,
            objects,
        )
        server = GrpcServer(guard, identity)
        services = pb.DESCRIPTOR.services_by_name
        reads = PageReads(access)
        server.metrics.add(of_pageserver(access, reads, helpers))
        server.metrics.add(of_objects(lambda: objects.status() if objects is not None else None))
        server.add_service(services["PageService"], reads, raw={"GetPages"})
        timelines = PageTimelines(access)
        stack.push_async_callback(timelines.detaching.close)
        server.add_service(services["TimelineService"], timelines)
        await server.start(settings.listen, settings.data_dir, settings.listen_unix)
        if objects is not None:
            objects.begin()
        background = [
            tasks.endless(follower.run(), "follow the WAL service"),
            tasks.endless(flusher.run(), "flush"),
            tasks.endless(_stop_idle_helpers(helpers, own_helpers), "stop idle redo helpers"),
            tasks.endless(trim_at_rest(), "give memory back"),
            tasks.endless(tell_faults(), "tell of disk faults"),
            tasks.endless(responses.run(), "end slow readers"),
            tasks.endless(collector.run(), "collect"),
            tasks.endless(compactor.run(), "compact"),
            tasks.endless(_free_lost(repository, settings.data_dir / "store"), "lost+found"),
            tasks.errand(asyncio.to_thread(_load_the_rest), "load the rest"),
        ]
        try:
            yield server, access
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)


def _object_store(settings: PageSettings) -> ObjectStore | None:
    """What speaks to one takes memory, of which page servers without one have no use.

    Raises:
        InvalidInput: OBJECT_STORE_URL
    """
    if settings.objects is None:
        return None
    from pagestore.services.page_objects import object_store

    return object_store(settings.objects)


def _objects(
    settings: PageSettings, repository: Repository, store: ObjectStore | None
) -> PageObjects | None:
    if store is None:
        return None
    from pagestore.services.page_objects import page_objects

    return page_objects(
        repository, settings.data_dir, store, settings.cache_bytes, settings.wal_age_seconds
    )


def _compactor(
    settings: PageSettings,
    repository: Repository,
    flusher: Flusher,
    stack: contextlib.AsyncExitStack,
) -> tuple[Compactor, RedoPools]:
    """With redo helpers of its own, so that no read waits for one that compacts."""
    helpers = RedoPools(
        settings.postgres_bindir,
        library=settings.redo_library,
        size=COMPACTION_HELPERS,
        run_as=settings.run_as,
    )
    stack.callback(helpers.close)
    compactor = Compactor(
        repository, lambda timeline: helpers.of(timeline.major), busy=lambda: flusher.is_busy
    )
    stack.push_async_callback(compactor.close)
    return compactor, helpers


def _on_flushed(flusher: Flusher, told: Callable[[TimelineKey], None]) -> None:
    """Besides whoever is told already."""
    before = flusher.on_flushed

    def both(key: TimelineKey) -> None:
        before(key)
        told(key)

    flusher.on_flushed = both


async def _stop_idle_helpers(*pools: RedoPools) -> None:
    while True:
        await asyncio.sleep(HELPER_IDLE_SECONDS / 4)
        for helpers in pools:
            # Beside the event loop: a process that was killed is waited for.
            await asyncio.to_thread(helpers.stop_idle, HELPER_IDLE_SECONDS)


def _load_the_rest() -> None:
    """What only base backups need, a tenth of a start, once others are answered."""
    importlib.import_module("pagestore.reader.hotpages")


async def _free_lost(repository: Repository, store: Path) -> None:
    await asyncio.to_thread(repository.sweep)
    while True:
        try:
            for lost in await asyncio.to_thread(lost_found.free_old, store, time.time()):
                _log.warning("freed from lost+found", path=str(lost.path), bytes=lost.size)
        except OSError as error:
            _log.warning("lost+found cannot be freed", error=str(error))
        await asyncio.sleep(FREE_SECONDS)


async def serve(settings: PageSettings) -> None:
    """Runs until SIGTERM or SIGINT."""
    configure_logging()
    async with page_server(settings) as (server, _):
        await server.run_until_signal()
