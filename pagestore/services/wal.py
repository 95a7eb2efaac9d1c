"""WalService: one safekeeper behind gRPC. Requests are checked here, once, and trusted inside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from pagestore import lost_found
from pagestore.client.addresses import is_anywhere, is_near
from pagestore.errors import NotFound
from pagestore.ids import MAX_LSN
from pagestore.services import allocator
from pagestore.services.part_metrics import of_safekeeper
from pagestore.services.secured import Secured
from pagestore.services.server import GrpcServer, configure_logging
from pagestore.tokens import split_address
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice import compute_address, messages
from pagestore.walservice.budget import KEEP_BYTES
from pagestore.walservice.filling import fill
from pagestore.walservice.messages import key_of
from pagestore.walservice.peers import HEARTBEAT_SECONDS
from pagestore.walservice.safekeeper import Safekeeper, Settings

CHUNK_BYTES = 1 << 20
MAX_LINGER_MS = 60_000
MAX_WAIT_MS = 600_000
POSITIONS_PER_UPDATE = 1000
COALESCE_SECONDS = 0.05
"""Who watches is told at once of what comes after a rest, and else this often."""
_log = structlog.get_logger(__name__)


class WalSettings(Secured, BaseSettings):
    """From arguments, else from PAGESTORE_WAL_* in the environment."""

    model_config = SettingsConfigDict(env_prefix="PAGESTORE_WAL_")

    listen: str = "127.0.0.1:0"
    data_dir: Path
    id: int = Field(1, ge=1)
    """Computes know this safekeeper as ``sk<id>``."""
    peers: str = ""
    """Where the other safekeepers are: ``2=host:port,3=host:port``."""
    keep_bytes: int = Field(KEEP_BYTES, ge=0)
    """WAL that stays although everybody has released it, of all timelines together."""
    listen_unix: Path | None = None
    """A Unix socket to serve on too."""


async def serve(settings: WalSettings) -> None:
    """Runs until SIGTERM or SIGINT.

    Raises:
        FailedPrecondition: DATA_DIR_IN_USE, ADDRESS_IN_USE.
        InvalidInput: INVALID_SETTING.
    """
    configure_logging()
    allocator.set_limits()
    guard, identity = settings.secure()
    compute_address.forget_environment()
    await asyncio.to_thread(_free_lost, settings.data_dir)
    peers = messages.parse_addresses(settings.peers)
    inner = Settings(settings.id, peers, settings.keep_bytes, guard.verifier)
    safekeeper = await Safekeeper.open(settings.data_dir, inner)
    try:
        server = GrpcServer(guard, identity)
        server.metrics.add(of_safekeeper(safekeeper))
        service = WalService(safekeeper, near=is_near(settings.listen))
        server.add_service(pb.DESCRIPTOR.services_by_name["WalService"], service)
        address = await server.start(settings.listen, settings.data_dir, settings.listen_unix)
        if not is_anywhere(address):
            await safekeeper.book.learn({settings.id: address})
        await server.run_until_signal()
    finally:
        await safekeeper.close()


def _free_lost(data_dir: Path) -> None:
    """Damaged segments that a scrub has moved aside, after a week."""
    try:
        for lost in lost_found.free_old(data_dir, time.time()):
            _log.warning("freed from lost+found", path=str(lost.path), bytes=lost.size)
    except OSError as error:
        _log.warning("lost+found cannot be freed", error=str(error))


class WalService:
    """The methods of WalService, in snake_case; see proto/pagestore/v1/wal.proto.

    Args:
        near: computes are on this machine.
    """

    def __init__(self, safekeeper: Safekeeper, *, near: bool = True) -> None:
        self._safekeeper = safekeeper
        self._near = near
        self._number = safekeeper.number
        self._book = safekeeper.book

    # Timelines

    async def create_timeline(
        self, request: pb.WalCreateTimelineRequest, context: Any
    ) -> pb.WalTimelineStatus:
        key = key_of(request)
        configuration = messages.configuration_of(request.configuration)
        own = messages.own_member(configuration, self._number)
        start, told = messages.start_of(request), messages.addresses_of(request.configuration)
        await self._safekeeper.create(key, start, request.system_id, own, configuration)
        await self._book.learn(told)
        async with self._safekeeper.use(key) as timeline:
            return messages.status(key, timeline, self._number, self._book.addresses)

    async def delete_timeline(
        self, request: pb.WalDeleteTimelineRequest, context: Any
    ) -> pb.WalDeleteTimelineResponse:
        await self._safekeeper.delete(key_of(request))
        return pb.WalDeleteTimelineResponse()

    async def get_status(
        self, request: pb.WalGetStatusRequest, context: Any
    ) -> pb.WalTimelineStatus:
        key = key_of(request)
        async with self._safekeeper.use(key) as timeline:
            await self._safekeeper.trials.end(key, timeline.state)
            timeline.refresh()
            return messages.status(key, timeline, self._number, self._book.addresses)

    # Terms

    async def vote(self, request: pb.VoteRequest, context: Any) -> pb.VoteResponse:
        term = messages.term_of(request)
        async with self._safekeeper.use(key_of(request)) as timeline:
            granted, state = await timeline.vote(term)
            return messages.ballot(granted, state, self._number, self._book.addresses)

    async def elect(self, request: pb.ElectRequest, context: Any) -> pb.ElectResponse:
        key, elect = key_of(request), messages.elect_of(request)
        told = messages.addresses_of(request.configuration)
        if request.admit:
            start = messages.start_of(request)
            state = await self._safekeeper.admit(key, elect, start, request.system_id)
        else:
            async with self._safekeeper.use(key) as timeline:
                state = await timeline.elect(elect)
        await self._book.learn(told)
        return messages.elect_response(state, self._number, self._book.addresses)

    async def fill(self, request: pb.FillRequest, context: Any) -> pb.FillResponse:
        key, term = key_of(request), messages.term_of(request)
        told = messages.addresses_in(request.donors)
        known = {**self._book.addresses, **told}
        donors = [known[item.number] for item in request.donors if item.number in known]
        async with self._safekeeper.use(key) as timeline:
            await fill(key, timeline, term, request.end_lsn, donors)
            await self._book.learn(told)
            return messages.fill_response(timeline.state, self._number, known)

    async def change_members(
        self, request: pb.ChangeMembersRequest, context: Any
    ) -> pb.ChangeMembersResponse:
        change = messages.change_of(request)
        told = messages.addresses_of(request.configuration)
        async with self._safekeeper.use(key_of(request)) as timeline:
            state = await timeline.change_members(change)
            await self._book.learn(told)
            return messages.change_response(state, self._number, self._book.addresses)

    # Writing

    async def append_wal(self, request: pb.AppendWalRequest, context: Any) -> pb.AppendWalResponse:
        term, lsn, data = messages.append_of(request)
        async with self._safekeeper.use(key_of(request)) as timeline:
            state = await timeline.append(term, lsn, data)
            return pb.AppendWalResponse(
                flush_lsn=state.position.flush_lsn, commit_lsn=state.commit_lsn
            )

    async def attach_compute(
        self, request: pb.AttachComputeRequest, context: Any
    ) -> pb.AttachComputeResponse:
        term = messages.term_of(request)
        address = compute_address.parse(split_address(request.conninfo)[0])
        if self._near:
            await asyncio.to_thread(compute_address.check_near, address)
        key = key_of(request)
        async with self._safekeeper.use(key) as timeline:
            self._safekeeper.believed(key, term, request.conninfo)
            await timeline.attach(term, request.conninfo, request.start_lsn, hold=request.hold)
        return pb.AttachComputeResponse()

    async def detach_compute(
        self, request: pb.DetachComputeRequest, context: Any
    ) -> pb.DetachComputeResponse:
        term, seconds = messages.term_of(request), min(request.wait_ms, MAX_WAIT_MS) / 1000
        async with self._safekeeper.use(key_of(request)) as timeline:
            state = await timeline.detach(term, request.wait_flush_lsn, seconds)
            return pb.DetachComputeResponse(flush_lsn=state.position.flush_lsn)

    # Reading

    async def read_wal(self, request: pb.ReadWalRequest, context: Any) -> AsyncIterator[Any]:
        linger = min(request.linger_ms, MAX_LINGER_MS) / 1000
        async with self._safekeeper.use(key_of(request)) as timeline:
            await timeline.check_readable(request.start_lsn, consumed=True)
            lsn = request.start_lsn
            # Without lingering, not what is committed meanwhile: that never ends.
            end = MAX_LSN if linger else timeline.state.commit_lsn
            while lsn < end and await timeline.wait_commit(lsn + 1, linger):
                data = await timeline.read(lsn, CHUNK_BYTES)
                yield pb.WalChunk(lsn=lsn, data=data, commit_lsn=timeline.state.commit_lsn)
                lsn += len(data)

    async def read_log(self, request: pb.ReadLogRequest, context: Any) -> AsyncIterator[Any]:
        term = messages.term_of(request)
        async with self._safekeeper.use(key_of(request)) as timeline:
            lsn = request.start_lsn or await timeline.first_kept(term)
            more = True
            while more:
                limit = max(min(CHUNK_BYTES, request.end_lsn - lsn), 0)
                data = await timeline.read_log(term, lsn, limit)
                yield pb.WalChunk(lsn=lsn, data=data, commit_lsn=timeline.state.commit_lsn)
                lsn += len(data)
                more = bool(data) and lsn < request.end_lsn

    async def align_lsn(self, request: pb.AlignLsnRequest, context: Any) -> pb.AlignLsnResponse:
        async with self._safekeeper.use(key_of(request)) as timeline:
            position = await timeline.align(request.lsn)
            return pb.AlignLsnResponse(
                lsn=position.flush_lsn, prev_record_lsn=position.prev_record_lsn
            )

    async def release_wal(
        self, request: pb.ReleaseWalRequest, context: Any
    ) -> pb.ReleaseWalResponse:
        consumer = messages.consumer_of(request)
        for item in request.positions:
            try:
                async with self._safekeeper.use(key_of(item)) as timeline:
                    await timeline.release(consumer, item.lsn)
            except NotFound:
                continue
        return pb.ReleaseWalResponse()

    # News

    async def watch_commits(
        self, request: pb.WatchCommitsRequest, context: Any
    ) -> AsyncIterator[Any]:
        watcher = self._safekeeper.commits.watch()
        told: dict[int, str] = {}
        try:
            while changes := watcher.take(POSITIONS_PER_UPDATE):
                yield messages.commit_update(changes)
            yield pb.CommitUpdate(snapshot_complete=True)
            while True:
                update = messages.commit_update(watcher.take(POSITIONS_PER_UPDATE))
                if told != self._book.addresses:
                    told = dict(self._book.addresses)
                    update.safekeepers.extend(messages.safekeepers(told))
                yield update
                await asyncio.sleep(COALESCE_SECONDS)
                await watcher.wait(HEARTBEAT_SECONDS)
        finally:
            watcher.close()

    async def watch_positions(
        self, request: pb.WatchPositionsRequest, context: Any
    ) -> AsyncIterator[Any]:
        number = request.number
        watcher = self._safekeeper.peer_statuses.watch(lambda status: number in status.peers)
        remembered = partial(self._safekeeper.peers.furthest, number)
        try:
            while changes := watcher.take(POSITIONS_PER_UPDATE):
                yield messages.position_update(changes, remembered)
            yield pb.PositionUpdate(snapshot_complete=True)
            while True:
                changes = watcher.take(POSITIONS_PER_UPDATE)
                yield messages.position_update(changes, remembered)
                await asyncio.sleep(COALESCE_SECONDS)
                await watcher.wait(HEARTBEAT_SECONDS)
        finally:
            watcher.close()
