"""A client of a host's agent, for the control plane. Messages are those of compute.proto.

An agent that is away is waited for a moment, and then said by name. All calls may be repeated but
a start: whoever is not told how one ended finds the compute among those that are watched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc

from pagestore.client.credentials import Credentials
from pagestore.client.errors import from_rpc_error
from pagestore.client.retrying import RetryingClient
from pagestore.errors import PagestoreError, Unavailable
from pagestore.v1 import compute_pb2 as pb
from pagestore.v1 import compute_pb2_grpc

AWAY_SECONDS = 10.0
"""For an agent that starts again."""
START_SECONDS = 300.0
AGENT_AWAY = "COMPUTE_AGENT_AWAY"

_T = TypeVar("_T")


class ComputeClient(RetryingClient):
    """Use it from one event loop.

    Every call raises Unavailable (COMPUTE_AGENT_AWAY) when nobody answers, and else the
    PagestoreError that the agent answered with.
    """

    answer_timeout = 120.0

    def __init__(
        self,
        address: str,
        *,
        timeout: float = AWAY_SECONDS,
        credentials: Credentials | None = None,
    ) -> None:
        super().__init__(address, timeout=timeout, credentials=credentials)
        stubs: Any = compute_pb2_grpc
        self._stub = stubs.ComputeServiceStub(self._channel)

    async def start(self, request: pb.StartComputeRequest) -> pb.StartComputeResponse:
        """Not repeated."""
        try:
            response = await self._stub.StartCompute(request, timeout=START_SECONDS)
        except grpc.RpcError as error:
            raise self._named(from_rpc_error(error, self.address)) from error
        assert isinstance(response, pb.StartComputeResponse)
        return response

    async def stop(self, name: str) -> pb.StopComputeResponse:
        """May be repeated until the compute is discarded.

        Raises:
            NotFound: COMPUTE_NOT_FOUND.
        """
        request = pb.StopComputeRequest(name=name)
        return await self._ask(self._stub.StopCompute, request, pb.StopComputeResponse)

    async def discard(self, name: str) -> None:
        request = pb.DiscardComputeRequest(name=name)
        await self._ask(self._stub.DiscardCompute, request, pb.DiscardComputeResponse)

    async def watch(self) -> AsyncIterator[pb.ComputesUpdate]:
        """All at first, then changes, until the agent goes away."""
        call = self._stub.WatchComputes(pb.WatchComputesRequest())
        try:
            async for update in call:
                yield update
        except grpc.RpcError as error:
            raise self._named(from_rpc_error(error, self.address)) from error
        finally:
            call.cancel()

    async def measure(self) -> pb.ComputesUpdate:
        request = pb.MeasureComputesRequest()
        return await self._ask(self._stub.MeasureComputes, request, pb.ComputesUpdate)

    async def settings(self, name: str) -> pb.ComputeSettings:
        request = pb.GetComputeSettingsRequest(name=name)
        return await self._ask(self._stub.GetComputeSettings, request, pb.ComputeSettings)

    async def change_settings(self, request: pb.ChangeComputeSettingsRequest) -> pb.ComputeSettings:
        return await self._ask(self._stub.ChangeComputeSettings, request, pb.ComputeSettings)

    async def set_owner(self, request: pb.SetOwnerRequest) -> str:
        """The inner database that the URL names from now on."""
        return (await self._ask(self._stub.SetOwner, request, pb.SetOwnerResponse)).database

    async def entry(self, request: pb.GetEntryRequest) -> pb.Entry:
        return await self._ask(self._stub.GetEntry, request, pb.Entry)

    async def count_strangers(self, name: str) -> int:
        """Sessions that did not come through the proxy."""
        request = pb.CountStrangersRequest(name=name)
        return (
            await self._ask(self._stub.CountStrangers, request, pb.CountStrangersResponse)
        ).sessions

    async def app_roles(self, verb: str, request: pb.AppRoleRequest) -> pb.AppRolesResponse:
        """
        Args:
            verb: AddAppRole, ResetAppRole, ListAppRoles or RemoveAppRole.
        """
        return await self._ask(getattr(self._stub, verb), request, pb.AppRolesResponse)

    async def make_template(self, request: pb.MakeTemplateRequest) -> pb.MakeTemplateResponse:
        return await self._ask(self._stub.MakeTemplate, request, pb.MakeTemplateResponse)

    async def upgrade(
        self, request: pb.UpgradeTimelineRequest, told: Callable[[str, int, int], None]
    ) -> pb.UpgradedTimeline:
        """Not repeated, and without a deadline: it takes as long as there are bytes.

        Args:
            told: of each step; the bytes of it that are done, and all.
        """
        call = self._stub.UpgradeTimeline(request)
        try:
            async for update in call:
                if update.HasField("upgraded"):
                    assert isinstance(update, pb.UpgradeTimelineUpdate)
                    return update.upgraded
                told(update.step, update.done, update.total)
        except grpc.RpcError as error:
            raise self._named(from_rpc_error(error, self.address)) from error
        finally:
            call.cancel()
        raise Unavailable("STREAM_ENDED", f"{self.address} ended the upgrade without an answer.")

    async def forget_timeline(self, timeline: bytes) -> None:
        request = pb.ForgetTimelineRequest(timeline_id=timeline)
        await self._ask(self._stub.ForgetTimeline, request, pb.ForgetTimelineResponse)

    async def grant_generations(self, first: int, count: int) -> None:
        request = pb.GrantGenerationsRequest(first=first, count=count)
        await self._ask(self._stub.GrantGenerations, request, pb.GrantGenerationsResponse)

    async def _ask(self, method: Any, request: Any, answer: type[_T]) -> _T:
        try:
            return await self._call(method, request, answer)
        except Unavailable as error:
            raise self._named(error) from error

    def _may_pass(self, error: Unavailable) -> bool:
        """While the agent is away, and not when it says that something else is."""
        return error.reason == "UNAVAILABLE"

    def _named(self, error: PagestoreError) -> PagestoreError:
        if error.reason != "UNAVAILABLE":
            return error
        return no_answer(self.address)


def no_answer(address: str) -> Unavailable:
    """Of an agent."""
    return agent_away(
        f"The agent that runs computes does not answer at {address}. Databases that run go on."
    )


def agent_away(what: str) -> Unavailable:
    """
    Args:
        what: a sentence on what does not answer, or is not known.
    """
    return Unavailable(
        AGENT_AWAY,
        what,
        "`pagestore status` shows the part `compute`; it comes back by itself.",
    )
