"""Places as the control plane knows them."""

from __future__ import annotations

import time
from pathlib import Path

from pagestore.client.places import PlaceClient
from pagestore.pgwire.scram import Verifier
from pagestore.proxy.needs import Role
from pagestore.proxy.places import Address, Destination, Place
from pagestore.proxy.target import Target
from pagestore.v1 import proxy_pb2 as pb


class AskedPlaces:
    """
    Args:
        secret: from which strangers' salts follow, so that they are the same each time.
    """

    def __init__(self, control: PlaceClient, secret: bytes) -> None:
        self._control = control
        self._secret = secret

    async def role(self, target: Target, user: str) -> Role:
        found = await self._control.role(_readable(str(target)), _readable(user))
        return judged(found, user, Verifier.of_nobody(f"{target}\0{user}", self._secret))

    async def find(self, target: Target) -> Destination:
        found = await self._control.find(_readable(str(target)))
        idle = found.idle if found.HasField("idle") else None
        return Destination(place_of(found.place), found.inner, idle)

    async def start(self, place: Place) -> Address:
        return _address(await self._control.start(place_message(place)))

    async def stop(self, place: Place) -> str:
        return await self._control.stop(place_message(place))

    async def awake(self) -> list[tuple[Place, Address, float | None]]:
        return [
            (
                place_of(item.place),
                _address(item.address),
                item.idle if item.HasField("idle") else None,
            )
            for item in await self._control.awake()
        ]


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
