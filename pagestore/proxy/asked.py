"""Places as the control plane knows them; while it is away, as it knew them last (memory.py)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pagestore.client.places import PlaceClient
from pagestore.errors import NotFound, Unavailable
from pagestore.pgwire.scram import Verifier
from pagestore.proxy.memory import Memory
from pagestore.proxy.needs import Role
from pagestore.proxy.places import Address, Destination, Place
from pagestore.proxy.target import Target
from pagestore.v1 import proxy_pb2 as pb

AWAY_SECONDS = 1.0
"""For a control plane to be back, before what is remembered is used."""
_AWAY = (
    "57P03",
    "the password is not the one that this role had when it was last looked up, and the control "
    "plane, which would know of another, is away: try again in a moment",
)


class AskedPlaces:
    """
    Args:
        secret: from which strangers' salts follow, so that they are the same each time.
    """

    def __init__(self, control: PlaceClient, secret: bytes) -> None:
        self._control = control
        self._secret = secret
        self._memory = Memory()

    async def role(self, target: Target, user: str) -> Role:
        nobody = Verifier.of_nobody(f"{target}\0{user}", self._secret)
        asked = _readable(str(target)), _readable(user)
        try:
            found = await self._control.role(*asked, patience=AWAY_SECONDS)
        except Unavailable:
            known = self._memory.role(target, user)
            if known is not None:
                return replace(judged(known, user, nobody), failure=_AWAY)
            found = await self._control.role(*asked)
        self._memory.learn_role(target, user, found)
        return judged(found, user, nobody)

    async def find(self, target: Target) -> Destination:
        asked = _readable(str(target))
        try:
            try:
                found = await self._control.find(asked, patience=AWAY_SECONDS)
            except Unavailable:
                known = self._memory.destination(target)
                if known is not None:
                    return known
                found = await self._control.find(asked)
        except NotFound:
            self._memory.forget_destination(target)
            raise
        idle = found.idle if found.HasField("idle") else None
        destination = Destination(place_of(found.place), found.inner, idle)
        self._memory.learn_destination(target, destination)
        return destination

    def forget(self, place: Place) -> None:
        self._memory.forget(place)

    async def start(self, place: Place) -> Address:
        return _address(await self._control.start(place_message(place)))

    async def stop(self, place: Place) -> str:
        return await self._control.stop(place_message(place))

    async def count(self, life: str, queries: Mapping[str, int]) -> None:
        await self._control.count(life, queries)

    async def awake(self) -> list[tuple[Place, Address, float | None]]:
        found = [
            (
                place_of(item.place),
                _address(item.address),
                item.idle if item.HasField("idle") else None,
            )
            for item in await self._control.awake()
        ]
        self._memory.seen(place for place, _, _ in found)
        return found


def judged(found: pb.LookUpRoleResponse, user: str, nobody: Verifier) -> Role:
    """What pg_authid says, as Postgres would judge by it.

    Args:
        nobody: the verifier of whoever has none.
    """
    verifier = Verifier.parse(found.password)
    if verifier is None:
        has_md5 = found.password.startswith("md5")
        return Role(nobody, failure=_md5(user) if has_md5 else None)
    if not found.can_login:
        return Role(verifier, ("28000", f'role "{user}" is not permitted to log in'))
    if found.HasField("valid_until") and found.valid_until < time.time():
        return Role(verifier, ("28P01", f'the password of role "{user}" has expired'))
    return Role(verifier)


def _md5(user: str) -> tuple[str, str]:
    return (
        "28P01",
        f'the password of role "{user}" is kept as an md5 hash, by which nobody can log in here: '
        "set it anew with password_encryption = 'scram-sha-256'",
    )


def _readable(text: str) -> str:
    """Bytes that are no UTF-8 are no name of anything; they are asked for as if they were one."""
    return text.encode(errors="backslashreplace").decode()


def place_of(message: pb.Place) -> Place:
    return Place(message.id, message.point, message.name)


def place_message(place: Place) -> pb.Place:
    return pb.Place(id=place.database, name=place.name, point=place.point)


def _address(message: pb.PlaceAddress) -> Address:
    socket = Path(message.socket) if message.socket else None
    return Address(socket, message.host, message.port)
