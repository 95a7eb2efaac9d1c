"""The proxy in a process of its own before one plain cluster, so that it alone is measured.

``python -m pagestore.bench.lone_proxy`` with :class:`Settings` as JSON; it prints its port. What
the database is, and who may enter, is fixed; the cluster is started when somebody comes, and
stopped when nobody does, as a compute is.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uvloop

from pagestore._native import TlsContext
from pagestore.bench.plain import PlainCluster
from pagestore.errors import NotFound
from pagestore.pgwire.scram import Verifier
from pagestore.proxy.fleet import Limits
from pagestore.proxy.front import Front
from pagestore.proxy.needs import Role
from pagestore.proxy.places import Address, Destination, Place
from pagestore.proxy.target import Target


@dataclass(frozen=True)
class Settings:
    """
    Args:
        root: of the plain cluster.
        cluster_port: names the cluster's socket.
        verifier: of `user`, as in pg_authid.
        owns: whether the cluster is this process's to start and stop.
        idle: seconds until the cluster is stopped.
    """

    root: str
    cluster_port: int
    user: str
    verifier: str
    database: str
    certificate: str
    key: str
    threads: int = 1
    owns: bool = False
    idle: float = 1e9


class OneCluster:
    """:class:`pagestore.proxy.places.Places` of one database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cluster = PlainCluster(Path(settings.root))
        self._cluster.port = settings.cluster_port
        verifier = Verifier.parse(settings.verifier)
        assert verifier is not None, "the role has a SCRAM verifier"
        self._role = Role(verifier)
        self._nobody = Role(Verifier.of_nobody("", b"a secret of this proxy"))
        self._awake = not settings.owns

    async def role(self, target: Target, user: str) -> Role:
        known = (target.name, user) == (self._settings.database, self._settings.user)
        return self._role if known else self._nobody

    async def find(self, target: Target) -> Destination:
        if target.point:
            raise NotFound("CHECKPOINT_NOT_FOUND", "There is no past here.")
        return Destination(Place(target.name), target.inner or target.name)

    async def start(self, place: Place) -> Address:
        if not self._awake:
            await asyncio.to_thread(self._cluster.start)
            self._awake = True
        return self._address()

    async def stop(self, place: Place) -> str:
        if self._settings.owns:
            await asyncio.to_thread(self._cluster.stop)
            self._awake = False
        return ""

    def forget(self, place: Place) -> None:
        pass

    async def awake(self) -> list[tuple[Place, Address, float | None]]:
        place = Place(self._settings.database)
        return [(place, self._address(), None)] if self._awake else []

    async def count(self, life: str, queries: Mapping[str, int]) -> None:
        """Nobody pays here."""

    def _address(self) -> Address:
        return Address(socket=self._cluster.root / f".s.PGSQL.{self._cluster.port}")

    def close(self) -> None:
        if self._settings.owns:
            self._cluster.stop(signal.SIGQUIT)


async def serve(settings: Settings) -> None:
    """Until SIGTERM."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    places = OneCluster(settings)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    port = listener.getsockname()[1]
    front = Front(
        places,
        Limits(idle=settings.idle, parked=20_000),
        tls=TlsContext(settings.certificate, settings.key),
        threads=settings.threads,
    )
    front.links.listen(listener)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await ended.wait()
    await front.close()
    places.close()


if __name__ == "__main__":
    uvloop.run(serve(Settings(**json.loads(sys.argv[1]))))
