"""A client of one safekeeper, for the services that use it.

A call that finds the safekeeper away is repeated, with growing pauses, until `timeout`
seconds have passed: every call is idempotent. The streams are not repeated: whoever follows WAL
for ever knows better where to resume. With `silence` they end with UNAVAILABLE when nothing came
for so many seconds, as of a safekeeper that is frozen or cut off; `watch_commits` and
`watch_positions` say something every two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Any

import grpc

from pagestore.client.credentials import Credentials
from pagestore.client.errors import from_rpc_error
from pagestore.client.retrying import DEFAULT_TIMEOUT, RetryingClient
from pagestore.client.walservice import WalPiece, Won
from pagestore.errors import DataLoss, NotFound, Unavailable, stale_term
from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import wal_pb2 as pb
from pagestore.v1 import wal_pb2_grpc

TERMS = 10_000
"""Timelines of which the last term is remembered."""


class WalClient(RetryingClient):
    """Calls the safekeeper at `address` ("host:port"). Use it from one event loop.

    Every call raises the PagestoreError that the safekeeper answered with; see
    docs/formats/safekeeper.md for the reasons.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: Credentials | None = None,
        number: int = 1,
    ) -> None:
        super().__init__(address, timeout=timeout, credentials=credentials)
        self.numbers = (number,)
        stubs: Any = wal_pb2_grpc
        self._stub = stubs.WalServiceStub(self._channel)
        self._terms: dict[tuple[TenantId, TimelineId], int] = {}
        """The highest that was promised, as far as was heard: where the next vote begins."""

    async def create_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        start_lsn: int,
        *,
        prev_record_lsn: int = 0,
        system_id: int = 0,
        members: Sequence[int] | None = None,
        configuration: pb.Configuration | None = None,
    ) -> pb.WalTimelineStatus:
        """As of the WAL service.

        Args:
            configuration: all its safekeepers; None for this one alone.
        """
        if members is not None and len(members) > 1:
            # It was begun when there were several, and is theirs.
            known = [pb.Member(number=number, incarnation=1) for number in members]
            configuration = pb.Configuration(generation=1, members=known)
        request = pb.WalCreateTimelineRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            start_lsn=start_lsn,
            prev_record_lsn=prev_record_lsn,
            system_id=system_id,
            configuration=configuration,
        )
        return await self._call(self._stub.CreateTimeline, request, pb.WalTimelineStatus)

    async def delete_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        """Removes a log; one that is already gone is no error."""
        request = pb.WalDeleteTimelineRequest(tenant_id=tenant.raw, timeline_id=timeline.raw)
        await self._call(self._stub.DeleteTimeline, request, pb.WalDeleteTimelineResponse)

    async def remove_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        """Ends what is attached, and removes the log."""
        with contextlib.suppress(NotFound, DataLoss):
            # A new term detaches whatever compute was left attached when it was killed.
            await self.vote_next(tenant, timeline)
        await self.delete_timeline(tenant, timeline)

    async def get_status(self, tenant: TenantId, timeline: TimelineId) -> pb.WalTimelineStatus:
        request = pb.WalGetStatusRequest(tenant_id=tenant.raw, timeline_id=timeline.raw)
        return await self._call(self._stub.GetStatus, request, pb.WalTimelineStatus)

    async def is_committed(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> bool:
        return (await self.get_status(tenant, timeline)).commit_lsn >= lsn

    async def check_term(self, tenant: TenantId, timeline: TimelineId, term: int) -> None:
        promised = (await self.get_status(tenant, timeline)).term
        if promised > term:
            raise stale_term(term, promised)

    async def vote(self, tenant: TenantId, timeline: TimelineId, term: int) -> pb.VoteResponse:
        """Asks for the promise of `term`, which is granted if it is higher than all before."""
        request = pb.VoteRequest(tenant_id=tenant.raw, timeline_id=timeline.raw, term=term)
        return await self._call(self._stub.Vote, request, pb.VoteResponse)

    async def vote_next(self, tenant: TenantId, timeline: TimelineId) -> pb.VoteResponse:
        """The promise of the lowest term that nobody has, as far as the safekeeper remembers."""
        key = (tenant, timeline)
        promised = self._terms.get(key, 0)
        while not (answer := await self.vote(tenant, timeline, promised + 1)).granted:
            promised = answer.term
        if len(self._terms) >= TERMS:
            self._terms.clear()
        self._terms[key] = max(answer.term, self._terms.get(key, 0))
        return answer

    async def win_term(self, tenant: TenantId, timeline: TimelineId) -> Won:
        """One safekeeper is its own majority."""
        vote = await self.vote_next(tenant, timeline)
        name = f"sk{vote.member.number}"
        return Won(vote.term, vote.end_lsn, vote.prev_record_lsn, 1, (name,))

    async def append_wal(
        self, tenant: TenantId, timeline: TimelineId, term: int, lsn: int, data: bytes
    ) -> pb.AppendWalResponse:
        """Appends whole records at the flush LSN; durable when it returns."""
        request = pb.AppendWalRequest(
            tenant_id=tenant.raw, timeline_id=timeline.raw, term=term, lsn=lsn, data=data
        )
        return await self._call(self._stub.AppendWal, request, pb.AppendWalResponse)

    async def elect(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        history: Sequence[pb.TermSwitch],
        configuration: pb.Configuration,
    ) -> pb.ElectResponse:
        """Tells the log that the winner of `term` continues; the last of `history` is its own."""
        request = pb.ElectRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            term=term,
            term_history=history,
            configuration=configuration,
        )
        return await self._call(self._stub.Elect, request, pb.ElectResponse)

    async def admit(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        history: Sequence[pb.TermSwitch],
        configuration: pb.Configuration,
        *,
        start_lsn: int,
        prev_record_lsn: int,
        system_id: int,
    ) -> pb.ElectResponse:
        """As `elect`, for one that may know nothing of the timeline: then it makes it as a learner,
        with the start and the cluster that the timeline was created with."""
        request = pb.ElectRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            term=term,
            term_history=history,
            configuration=configuration,
            admit=True,
            start_lsn=start_lsn,
            prev_record_lsn=prev_record_lsn,
            system_id=system_id,
        )
        return await self._call(self._stub.Elect, request, pb.ElectResponse)

    async def fill(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        end_lsn: int,
        donors: Sequence[pb.Member],
        *,
        answer_timeout: float = 600.0,
    ) -> pb.FillResponse:
        """Has it append what these have, the best first, up to `end_lsn`. What came is kept when
        the call is given up."""
        request = pb.FillRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            term=term,
            end_lsn=end_lsn,
            donors=donors,
        )
        return await self._call(
            self._stub.Fill, request, pb.FillResponse, answer_timeout=answer_timeout
        )

    async def change_members(
        self, tenant: TenantId, timeline: TimelineId, term: int, configuration: pb.Configuration
    ) -> pb.ChangeMembersResponse:
        """Tells who decides from now on, under the promised term."""
        request = pb.ChangeMembersRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            term=term,
            configuration=configuration,
        )
        return await self._call(self._stub.ChangeMembers, request, pb.ChangeMembersResponse)

    async def release_wal(
        self, consumer: str, positions: Iterable[tuple[TenantId, TimelineId, int]]
    ) -> None:
        """Says that `consumer` will not ask for WAL below these LSNs again; 2^64 - 1 when it
        will not ask at all. Timelines that are not there are passed over."""
        request = pb.ReleaseWalRequest(
            consumer=consumer,
            positions=[
                pb.ReleasedWal(tenant_id=tenant.raw, timeline_id=timeline.raw, lsn=lsn)
                for tenant, timeline, lsn in positions
            ],
        )
        await self._call(self._stub.ReleaseWal, request, pb.ReleaseWalResponse)

    async def attach_compute(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        conninfo: str,
        start_lsn: int,
        *,
        hold: bool = False,
    ) -> None:
        """Makes the safekeeper pull from this compute, until detached or a higher term.

        Args:
            hold: it does not listen yet; attached again without this it does.
        """
        request = pb.AttachComputeRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            term=term,
            conninfo=conninfo,
            start_lsn=start_lsn,
            hold=hold,
        )
        await self._call(self._stub.AttachCompute, request, pb.AttachComputeResponse)

    async def detach_compute(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        *,
        wait_flush_lsn: int = 0,
        wait_ms: int = 0,
    ) -> int:
        """Ends the pulling, once `wait_flush_lsn` is durable; returns the flush LSN."""
        request = pb.DetachComputeRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            term=term,
            wait_flush_lsn=wait_flush_lsn,
            wait_ms=wait_ms,
        )
        answer = await self._call(
            self._stub.DetachCompute,
            request,
            pb.DetachComputeResponse,
            answer_timeout=self.answer_timeout + wait_ms / 1000,
        )
        return answer.flush_lsn

    async def align_lsn(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> tuple[int, int]:
        """The end of the last complete record at or below `lsn`, and that record's start."""
        request = pb.AlignLsnRequest(tenant_id=tenant.raw, timeline_id=timeline.raw, lsn=lsn)
        answer = await self._call(self._stub.AlignLsn, request, pb.AlignLsnResponse)
        return answer.lsn, answer.prev_record_lsn

    async def read_wal(
        self, tenant: TenantId, timeline: TimelineId, start_lsn: int, *, linger_ms: int = 0
    ) -> AsyncGenerator[WalPiece, None]:
        """Committed WAL from `start_lsn` on; ends when none came for `linger_ms`.

        With 0 it ends at what was committed when it began.
        """
        request = pb.ReadWalRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            start_lsn=start_lsn,
            linger_ms=linger_ms,
        )
        async for chunk in self._stream(self._stub.ReadWal(request)):
            yield WalPiece(chunk.lsn, chunk.data)

    async def read_back(
        self, tenant: TenantId, timeline: TimelineId, start_lsn: int, end_lsn: int
    ) -> AsyncGenerator[WalPiece, None]:
        """Committed WAL of [start_lsn, end_lsn), or what is left of it: it may begin later."""
        status = await self.get_status(tenant, timeline)
        start = max(start_lsn, status.start_lsn, status.oldest_lsn)
        if start >= end_lsn:
            return
        async with contextlib.aclosing(self.read_wal(tenant, timeline, start)) as pieces:
            async for lsn, data in pieces:
                yield WalPiece(lsn, data[: end_lsn - lsn])
                if lsn + len(data) >= end_lsn:
                    return

    async def read_log(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        start_lsn: int,
        end_lsn: int,
        *,
        silence: float | None = None,
    ) -> AsyncIterator[WalPiece]:
        """The log of `term` from `start_lsn` up to `end_lsn`, or as far as it goes, committed or
        not; with 0 from the first record that is kept, and then at least one chunk."""
        request = pb.ReadLogRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            term=term,
            start_lsn=start_lsn,
            end_lsn=end_lsn,
        )
        async for chunk in self._stream(self._stub.ReadLog(request), silence):
            yield WalPiece(chunk.lsn, chunk.data)

    async def watch_commits(
        self, consumer: str, *, silence: float | None = None
    ) -> AsyncIterator[pb.CommitUpdate]:
        """The commit LSN of every timeline, then every change, for ever."""
        request = pb.WatchCommitsRequest(consumer=consumer)
        async for update in self._stream(self._stub.WatchCommits(request), silence):
            yield update

    async def watch_positions(
        self, number: int, *, silence: float | None = None
    ) -> AsyncIterator[pb.PositionUpdate]:
        """How far the timelines are that it shares with safekeeper `number`, then every change."""
        request = pb.WatchPositionsRequest(number=number)
        async for update in self._stream(self._stub.WatchPositions(request), silence):
            yield update

    async def _stream(self, call: Any, silence: float | None = None) -> AsyncIterator[Any]:
        messages = aiter(call)
        try:
            while True:
                async with asyncio.timeout(silence):
                    message = await anext(messages)
                yield message
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Unavailable(
                "UNAVAILABLE", f"{self.address} said nothing for {silence:g} s."
            ) from error
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        finally:
            call.cancel()
