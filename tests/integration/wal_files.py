"""A WAL service that serves the segments of a plain cluster's pg_wal, over real gRPC.

It lets tests choose what a safekeeper never would: where WAL ends, which byte is wrong, when a
stream breaks. Only WatchCommits and ReadWal are there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pagestore.errors import NotFound
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat.wal import segment_name
from pagestore.services.server import GrpcServer
from pagestore.v1 import wal_pb2 as pb
from tests import access

SEGMENT = 16 << 20
CHUNK = 1 << 20


class _Timeline:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.commit_lsn = 0
        self.flipped: set[int] = set()


class FileWalService:
    """Serves on a thread of its own: ``with FileWalService() as wal: wal.address``."""

    def __init__(self, listen: str = "127.0.0.1:0") -> None:
        self._listen = listen
        self._timelines: dict[tuple[bytes, bytes], _Timeline] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self.address = ""
        self.reads = 0
        self.frozen = False
        """Whether it keeps its connections, and says nothing any more."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def publish(
        self, tenant: TenantId, timeline: TimelineId, directory: Path, commit_lsn: int
    ) -> None:
        """Announces WAL of `directory` up to `commit_lsn`."""
        entry = self._timelines.setdefault((tenant.raw, timeline.raw), _Timeline(directory))
        entry.commit_lsn = commit_lsn
        self._loop.call_soon_threadsafe(self._change.set)

    def forget(self, tenant: TenantId, timeline: TimelineId) -> None:
        """As if its disk had been lost; what it has told stays told."""
        self._timelines.pop((tenant.raw, timeline.raw), None)

    def flip(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> None:
        """The byte at `lsn` will read wrong."""
        self._timelines[tenant.raw, timeline.raw].flipped.add(lsn)

    def break_streams(self) -> None:
        """Every stream that runs ends with an error."""
        self._loop.call_soon_threadsafe(lambda: self._broken.set())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._change, self._broken = asyncio.Event(), asyncio.Event(), asyncio.Event()
        server = GrpcServer(access.guard())
        names = ("WatchCommits", "ReadWal")
        handlers = _Handlers(self)
        service = pb.DESCRIPTOR.services_by_name["WalService"]
        for method in service.methods:
            if method.name not in names:
                setattr(handlers, _snake(method.name), handlers.missing)
        server.add_service(service, handlers)
        self.address = await server.start(self._listen)
        self._ready.set()
        await self._stop.wait()
        await server.stop(0)


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class _Handlers:
    def __init__(self, service: FileWalService) -> None:
        self._service = service

    async def missing(self, request: Any, context: Any) -> Any:
        raise NotFound("NOT_HERE", "These are only files.")

    async def watch_commits(self, request: Any, context: Any) -> AsyncIterator[pb.CommitUpdate]:
        service = self._service
        told: dict[tuple[bytes, bytes], int] = {}
        complete = False
        while True:
            service._change.clear()
            changes = {
                key: entry.commit_lsn
                for key, entry in service._timelines.items()
                if told.get(key) != entry.commit_lsn and not service.frozen
            }
            told.update(changes)
            if changes or not complete:
                complete = True
                yield pb.CommitUpdate(
                    positions=[
                        pb.CommitPosition(tenant_id=k[0], timeline_id=k[1], commit_lsn=lsn)
                        for k, lsn in changes.items()
                    ],
                    snapshot_complete=True,
                )
            await _first(service._change, service._broken)
            if service._broken.is_set():
                asyncio.get_running_loop().call_later(0.05, service._broken.clear)
                raise ConnectionError("broken on purpose")

    async def read_wal(
        self, request: pb.ReadWalRequest, context: Any
    ) -> AsyncIterator[pb.WalChunk]:
        service = self._service
        service.reads += 1
        entry = service._timelines.get((request.tenant_id, request.timeline_id))
        if entry is None:
            raise NotFound("TIMELINE_NOT_FOUND", "There are no files of it.")
        lsn = request.start_lsn
        idle = 0.0
        while idle <= request.linger_ms / 1000:
            if service._broken.is_set():
                raise ConnectionError("broken on purpose")
            if service.frozen:
                await asyncio.sleep(0.01)
                continue
            end = min(entry.commit_lsn, lsn + CHUNK, (lsn // SEGMENT + 1) * SEGMENT)
            if end <= lsn:
                await asyncio.sleep(0.01)
                idle += 0.01
                continue
            idle = 0.0
            yield pb.WalChunk(lsn=lsn, data=_read(entry, lsn, end), commit_lsn=entry.commit_lsn)
            lsn = end


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _read(entry: _Timeline, lsn: int, end: int) -> bytes:
    with (entry.directory / segment_name(1, lsn)).open("rb") as file:
        file.seek(lsn % SEGMENT)
        data = bytearray(file.read(end - lsn))
    for position in entry.flipped:
        if lsn <= position < end:
            data[position - lsn] ^= 0x55
    return bytes(data)
