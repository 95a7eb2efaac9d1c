"""WalService: one safekeeper behind gRPC. Requests are checked here, once, and trusted inside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog
from pydantic_settings import BaseSettings, SettingsConfigDict

from pagestore._native import NativeError, check_conninfo
from pagestore.errors import InvalidInput
from pagestore.ids import TenantId, TimelineId
from pagestore.services.server import GrpcServer
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice.acceptor import Position, State
from pagestore.walservice.commits import TimelineKey
from pagestore.walservice.safekeeper import Safekeeper
from pagestore.walservice.timeline import WalTimeline

CHUNK_BYTES = 1 << 20
MAX_LINGER_MS = 60_000
MAX_WAIT_MS = 600_000
MAX_CONNINFO = 8192
POSITIONS_PER_UPDATE = 1000
_log = structlog.get_logger(__name__)


class WalSettings(BaseSettings):
    """From arguments, else from PAGESTORE_WAL_* in the environment."""

    model_config = SettingsConfigDict(env_prefix="PAGESTORE_WAL_")

    listen: str = "127.0.0.1:0"
    data_dir: Path
    id: int = 1
    """Computes know this safekeeper as ``sk<id>``."""


async def serve(settings: WalSettings) -> None:
    """Runs until SIGTERM or SIGINT.

    Raises:
        FailedPrecondition: DATA_DIR_IN_USE, ADDRESS_IN_USE.
    """
    safekeeper = await Safekeeper.open(settings.data_dir, settings.id)
    try:
        server = GrpcServer()
        server.add_service(pb.DESCRIPTOR.services_by_name["WalService"], WalService(safekeeper))
        await server.start(settings.listen, settings.data_dir)
        await server.run_until_signal()
    finally:
        await safekeeper.close()


class WalService:
    """The methods of WalService, in snake_case; see proto/pagestore/v1/wal.proto."""

    def __init__(self, safekeeper: Safekeeper) -> None:
        self._safekeeper = safekeeper

    async def create_timeline(
        self, request: pb.WalCreateTimelineRequest, context: Any
    ) -> pb.WalTimelineStatus:
        key = _key(request)
        start = Position(request.start_lsn, request.prev_record_lsn)
        await self._safekeeper.create(key, start, request.system_id)
        async with self._safekeeper.use(key) as timeline:
            return _status(key, timeline)

    async def delete_timeline(
        self, request: pb.WalDeleteTimelineRequest, context: Any
    ) -> pb.WalDeleteTimelineResponse:
        await self._safekeeper.delete(_key(request))
        return pb.WalDeleteTimelineResponse()

    async def get_status(
        self, request: pb.WalGetStatusRequest, context: Any
    ) -> pb.WalTimelineStatus:
        key = _key(request)
        async with self._safekeeper.use(key) as timeline:
            return _status(key, timeline)

    async def vote(self, request: pb.VoteRequest, context: Any) -> pb.VoteResponse:
        async with self._safekeeper.use(_key(request)) as timeline:
            granted, state = await timeline.vote(request.term)
            return pb.VoteResponse(
                granted=granted,
                term=state.term,
                end_lsn=state.position.flush_lsn,
                prev_record_lsn=state.position.prev_record_lsn,
                last_log_term=state.last_log_term,
            )

    async def append_wal(self, request: pb.AppendWalRequest, context: Any) -> pb.AppendWalResponse:
        if not request.data:
            raise InvalidInput("NOT_WAL", "There is nothing to append.")
        async with self._safekeeper.use(_key(request)) as timeline:
            state = await timeline.append(request.term, request.lsn, request.data)
            return pb.AppendWalResponse(
                flush_lsn=state.position.flush_lsn, commit_lsn=state.commit_lsn
            )

    async def attach_compute(
        self, request: pb.AttachComputeRequest, context: Any
    ) -> pb.AttachComputeResponse:
        _check_conninfo(request.conninfo)
        async with self._safekeeper.use(_key(request)) as timeline:
            await timeline.attach(request.term, request.conninfo, request.start_lsn)
        return pb.AttachComputeResponse()

    async def detach_compute(
        self, request: pb.DetachComputeRequest, context: Any
    ) -> pb.DetachComputeResponse:
        seconds = min(request.wait_ms, MAX_WAIT_MS) / 1000
        async with self._safekeeper.use(_key(request)) as timeline:
            state = await timeline.detach(request.term, request.wait_flush_lsn, seconds)
            return pb.DetachComputeResponse(flush_lsn=state.position.flush_lsn)

    async def read_wal(self, request: pb.ReadWalRequest, context: Any) -> AsyncIterator[Any]:
        linger = min(request.linger_ms, MAX_LINGER_MS) / 1000
        async with self._safekeeper.use(_key(request)) as timeline:
            timeline.check_readable(request.start_lsn)
            lsn = request.start_lsn
            while await timeline.wait_commit(lsn + 1, linger):
                data = await timeline.read(lsn, CHUNK_BYTES)
                yield pb.WalChunk(lsn=lsn, data=data, commit_lsn=timeline.state.commit_lsn)
                lsn += len(data)

    async def watch_commits(
        self, request: pb.WatchCommitsRequest, context: Any
    ) -> AsyncIterator[Any]:
        watcher = self._safekeeper.commits.watch()
        try:
            while news := watcher.take(POSITIONS_PER_UPDATE):
                yield _commit_update(news)
            yield pb.CommitUpdate(snapshot_complete=True)
            while True:
                await watcher.wait()
                news = watcher.take(POSITIONS_PER_UPDATE)
                if news:
                    yield _commit_update(news)
        finally:
            watcher.close()

    async def align_lsn(self, request: pb.AlignLsnRequest, context: Any) -> pb.AlignLsnResponse:
        async with self._safekeeper.use(_key(request)) as timeline:
            position = await timeline.align(request.lsn)
            return pb.AlignLsnResponse(
                lsn=position.flush_lsn, prev_record_lsn=position.prev_record_lsn
            )


def _key(request: Any) -> TimelineKey:
    return TimelineKey(TenantId(request.tenant_id), TimelineId(request.timeline_id))


def _status(key: TimelineKey, timeline: WalTimeline) -> pb.WalTimelineStatus:
    state: State = timeline.state
    return pb.WalTimelineStatus(
        tenant_id=key.tenant.raw,
        timeline_id=key.timeline.raw,
        start_lsn=state.start.flush_lsn,
        term=state.term,
        flush_lsn=state.position.flush_lsn,
        commit_lsn=state.commit_lsn,
        term_history=[
            pb.TermSwitch(term=switch.term, start_lsn=switch.start_lsn) for switch in state.history
        ],
        receiving=timeline.receiving,
        last_error=timeline.last_error,
        wal_bytes=state.position.flush_lsn - state.start.flush_lsn,
        system_id=state.system_id,
    )


def _commit_update(news: list[tuple[TimelineKey, int]]) -> pb.CommitUpdate:
    return pb.CommitUpdate(
        positions=[
            pb.CommitPosition(
                tenant_id=key.tenant.raw, timeline_id=key.timeline.raw, commit_lsn=commit_lsn
            )
            for key, commit_lsn in news
        ]
    )


def _check_conninfo(conninfo: str) -> None:
    if not conninfo or len(conninfo) > MAX_CONNINFO or "\0" in conninfo:
        raise InvalidInput(
            "INVALID_CONNINFO", f"A conninfo has 1 to {MAX_CONNINFO} characters and no NUL."
        )
    try:
        check_conninfo(conninfo)
    except NativeError as error:
        raise InvalidInput(
            "INVALID_CONNINFO", f"libpq cannot parse the conninfo: {error.args[1].strip()}."
        ) from error
