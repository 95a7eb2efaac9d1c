"""The control plane's answers to the proxy: PlaceService."""

from __future__ import annotations

from typing import Any

from pagestore.control.metering import Metering
from pagestore.control.places import PlaceName, Places
from pagestore.errors import InvalidInput
from pagestore.v1 import proxy_pb2 as pb


class PlaceService:
    """The methods of PlaceService, for GrpcServer.add_service."""

    def __init__(self, places: Places, metering: Metering) -> None:
        self._places = places
        self._metering = metering

    async def look_up_role(self, request: pb.LookUpRoleRequest, _: Any) -> pb.LookUpRoleResponse:
        role = await self._places.role(request.target, request.user)
        if role is None:
            return pb.LookUpRoleResponse()
        return pb.LookUpRoleResponse(
            found=True,
            password=role.password or "",
            can_login=role.can_login,
            valid_until=role.valid_until,
        )

    async def find_place(self, request: pb.FindPlaceRequest, _: Any) -> pb.FoundPlace:
        found = await self._places.find(request.target)
        return pb.FoundPlace(place=_message(found.place), inner=found.inner, idle=found.idle)

    async def start_place(self, request: pb.StartPlaceRequest, _: Any) -> pb.PlaceAddress:
        compute = await self._places.start(_place(request.place))
        return pb.PlaceAddress(socket=compute.place.socket)

    async def stop_place(self, request: pb.StopPlaceRequest, _: Any) -> pb.StopPlaceResponse:
        return pb.StopPlaceResponse(hindrance=await self._places.stop(_place(request.place)))

    async def list_awake_places(
        self, request: pb.ListAwakePlacesRequest, _: Any
    ) -> pb.ListAwakePlacesResponse:
        answer = pb.ListAwakePlacesResponse()
        for item in self._places.awake():
            answer.places.add(
                place=_message(item.place),
                address=pb.PlaceAddress(socket=item.compute.place.socket),
                idle=item.idle,
            )
        return answer

    async def count_queries(
        self, request: pb.CountQueriesRequest, _: Any
    ) -> pb.CountQueriesResponse:
        self._metering.note_queries(request.life, request.queries)
        return pb.CountQueriesResponse()


def _place(message: pb.Place) -> PlaceName:
    if not message.id:
        raise InvalidInput("INVALID_PLACE", f"There is no place {message.id!r} {message.point!r}.")
    return PlaceName(message.id, message.name, message.point)


def _message(place: PlaceName) -> pb.Place:
    return pb.Place(id=place.id, name=place.name, point=place.point)
