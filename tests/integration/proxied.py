"""A proxy before one plain Postgres, which stands for a database that sleeps and wakes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from pagestore._native import TlsContext
from pagestore.errors import NotFound, Unavailable
from pagestore.pgwire.scram import Verifier
from pagestore.proxy.fleet import Limits, State
from pagestore.proxy.front import Front
from pagestore.proxy.needs import Role
from pagestore.proxy.places import Address, Destination, Place
from pagestore.proxy.target import Target
from tests.plain_postgres import PlainPostgres, free_port, module
from tests.waiting import until

_T = TypeVar("_T")
MODULE = module("session")
PLACE = Place("app")


class PlainPlaces:
    """One database, ``app``; whoever is in pg_authid may log in, asleep or awake."""

    def __init__(self, server: PlainPostgres, *, moves: bool = False) -> None:
        """`moves`: whoever wakes it finds it at another address than before."""
        self.server = server
        self.moves = moves
        self.starts = 0
        self.stops = 0
        self.fault = ""
        self.delay = 0.0
        self.counted: list[tuple[str, dict[str, int]]] = []
        self.held = False
        """A start goes no further while it is set."""
        self._roles: dict[str, str] = {}
        self.woken = False
        """Whether it runs since it was told to, not because a test began so."""

    def learn_roles(self) -> None:
        rows = self.server.sql("SELECT rolname, rolpassword FROM pg_authid")
        self._roles = {name: password for name, password in rows if password}

    async def role(self, target: Target, user: str) -> Role:
        verifier = Verifier.parse(self._roles.get(user, "")) if target.name == "app" else None
        return Role(verifier or Verifier.of_nobody(user, b"a secret of this proxy"))

    async def find(self, target: Target) -> Destination:
        if target.point:
            raise NotFound("CHECKPOINT_NOT_FOUND", f"'app' has no checkpoint {target.point!r}.")
        return Destination(PLACE, target.inner or "postgres")

    async def start(self, place: Place) -> Address:
        self.starts += 1
        await asyncio.sleep(self.delay)
        await until(lambda: not self.held)
        if self.fault:
            raise Unavailable("COMPUTE_FAILED", self.fault, "Look there.")
        if not self.server.alive():
            if self.moves:
                self.server.port = free_port()
            await asyncio.to_thread(self.server.start)
        self.woken = True
        return self._address()

    async def stop(self, place: Place) -> str:
        self.stops += 1
        self.woken = False
        await asyncio.to_thread(self.server.stop)
        return ""

    def forget(self, place: Place) -> None:
        pass

    async def count(self, life: str, queries: Mapping[str, int]) -> None:
        self.counted.append((life, dict(queries)))

    async def awake(self) -> list[tuple[Place, Address, float | None]]:
        return [(PLACE, self._address(), None)] if self.woken and self.server.alive() else []

    def _address(self) -> Address:
        return Address(socket=self.server.root / f".s.PGSQL.{self.server.port}")


class RunningProxy:
    """A proxy on a thread of its own, so that tests may block."""

    def __init__(self, places: PlainPlaces, limits: Limits, tls: TlsContext | None) -> None:
        self.places = places
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(listener.getsockname()[1])
        self.front = self.run(self._begin(limits, tls, listener))

    async def _begin(
        self, limits: Limits, tls: TlsContext | None, listener: socket.socket
    ) -> Front:
        front = Front(self.places, limits, tls=tls)
        front.links.listen(listener)
        return front

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        future: Future[_T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(60)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.run(self.front.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def state(self) -> State:
        async def ask() -> State:
            return self.front.state(PLACE)

        return self.run(ask())

    def is_seen_at_work(self) -> bool:
        """Whether the front knows that a session of the place is not idle."""

        async def ask() -> bool:
            return self.front._fleet.is_busy(PLACE)

        return self.run(ask())

    def every_state_is_kept(self) -> bool:
        """Whether every session has been written down since its client last spoke."""

        async def ask() -> bool:
            spoken = {item.client for item in self.front.links.activity() if item.spoken}
            sessions = self.front.sessions()
            settled = [item for item in sessions if item.state and not item.going_down]
            return len(settled) == len(sessions) and not spoken

        return self.run(ask())

    def wait_until_parted(self) -> None:
        sessions = self.front.sessions
        self.run(until(lambda: all(item.backend_link is None for item in sessions())))

    def wait_until_taken_up(self) -> None:
        """Nobody is on the way to a backend any more."""
        sessions = self.front.sessions
        self.run(until(lambda: all(item.coming is None for item in sessions())))

    def at(self, moment: Callable[[Front], bool], act: Callable[[], object]) -> None:
        """Acts as soon as `moment` holds, before the proxy itself does anything more."""

        async def watch() -> None:
            async with asyncio.timeout(30):
                while not moment(self.front):
                    await asyncio.sleep(0)
            act()

        self.run(watch())

    def url(
        self, user: str = "ann", password: str = "pass word", database: str = "app", **more: object
    ) -> str:
        facts = {"host": "127.0.0.1", "port": self.port, "user": user, "dbname": database, **more}
        words = [f"{name}='{value}'" for name, value in facts.items()]
        return " ".join([*words, f"password='{password}'"])


@contextmanager
def running_proxy(
    places: PlainPlaces, limits: Limits | None = None, tls: TlsContext | None = None
) -> Iterator[RunningProxy]:
    places.woken = False  # this proxy starts it anew, or finds that it runs
    proxy = RunningProxy(places, limits or Limits(), tls)
    try:
        yield proxy
    finally:
        proxy.close()
