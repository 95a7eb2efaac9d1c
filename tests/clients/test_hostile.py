"""Clients and backends that mean no good, beside one that must not notice."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from pagestore.pgwire import messages
from pagestore.pgwire.startup import startup_packet
from pagestore.proxy import front
from pagestore.proxy.needs import Role
from pagestore.proxy.places import Address, Destination, Place
from pagestore.proxy.target import Target
from tests.clients.client import Door
from tests.clients.wire import TLS_REQUEST, wire
from tests.integration.proxied import PlainPlaces, RunningProxy, running_proxy
from tests.waiting import wait_until

SEED = 20261129
JUNK = "junk"


class WithJunk(PlainPlaces):
    """Its other database, ``junk``, has a backend that says what a test has it say."""

    def __init__(self, places: PlainPlaces) -> None:
        super().__init__(places.server)
        self._roles = places._roles
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.says: Callable[[socket.socket], None] = lambda backend: None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                backend, _ = self.listener.accept()
                threading.Thread(target=self._say, args=(backend,), daemon=True).start()

    def _say(self, backend: socket.socket) -> None:
        with backend, suppress(OSError):
            backend.recv(65536)
            self.says(backend)

    async def role(self, target: Target, user: str) -> Role:
        known = target if target.name != JUNK else Target("app")
        return await super().role(known, user)

    async def find(self, target: Target) -> Destination:
        if target.name == JUNK:
            return Destination(Place(JUNK), "postgres")
        return await super().find(target)

    async def start(self, place: Place) -> Address:
        if place.database == JUNK:
            return Address(host="127.0.0.1", port=self.listener.getsockname()[1])
        return await super().start(place)


@pytest.fixture(scope="module")
def proxy(places: PlainPlaces) -> Iterator[RunningProxy]:
    both = WithJunk(places)
    with running_proxy(both) as running:
        yield running
    both.listener.close()


@pytest.fixture
def door(proxy: RunningProxy) -> Door:
    return Door(proxy.port)


@contextmanager
def good_client(door: Door) -> Iterator[None]:
    """One that works all the while, in a session and by new ones, and sees nothing of it."""
    over, faults, done = threading.Event(), [], 0

    def work() -> None:
        nonlocal done
        try:
            with psycopg.connect(door.libpq(), autocommit=True) as session:
                while not over.wait(0.02):
                    assert session.execute("SELECT %s::int", (done,)).fetchone() == (done,)
                    done += 1
                    if done % 10 == 0:
                        psycopg.connect(door.libpq()).close()
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: done > 0 or faults)
    try:
        yield
        before = done
        wait_until(lambda: done > before + 1 or faults)
    finally:
        over.set()
        thread.join()
    assert not faults


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def mutated(rng: random.Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        what = rng.randrange(4)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[at : at + rng.randrange(1, 5)]
        elif what == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            data[at:at] = data[: rng.randrange(1, 40)]
        if not data:
            return b"\0"
    return bytes(data)


def test_logins_of_any_bytes_are_refused_and_nobody_else_notices(door: Door) -> None:
    rng = random.Random(SEED)
    startup = startup_packet({"user": "ann", "database": "app", "application_name": "x"})
    scram = messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc")
    final = messages.sasl_response(b"c=biws,r=abc,p=" + b"A" * 44)
    with good_client(door):
        for _ in range(150):
            whole = rng.choice([startup, startup + scram, startup + scram + final, TLS_REQUEST])
            with wire(door) as session:
                session.socket.settimeout(0.05)
                with suppress(OSError):
                    session.send(mutated(rng, whole))
                    while data := session.socket.recv(4096):
                        assert messages.authentication_ok() not in data


def test_who_logs_in_a_byte_at_a_time_or_never_is_closed_and_costs_little(
    proxy: RunningProxy, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "LOGIN_SECONDS", 1.5)
    packet = startup_packet({"user": "ann", "database": "app"})
    before = resident_bytes()
    with good_client(door), ExitStack() as stack:
        slow = [stack.enter_context(wire(door)) for _ in range(300)]
        began = time.monotonic()
        for at in range(10):
            for session in slow[::2]:
                session.send(packet[at : at + 1])
        for session in slow:
            assert session.error()["M"] == "the login took too long"
            with pytest.raises(EOFError):
                session.take()
        assert time.monotonic() - began >= 1.0
    assert resident_bytes() - before < 32 << 20
    # The loop's list of tasks is as long as it was: nobody waits for them any more.
    wait_until(lambda: len(proxy.front.links) < 10)


def test_who_never_reads_a_large_result_holds_no_more_than_a_buffer(
    proxy: RunningProxy, door: Door
) -> None:
    before = resident_bytes()
    with good_client(door), ExitStack() as stack:
        for _ in range(5):
            session = stack.enter_context(wire(door))
            assert session.log_in()[-1].kind == b"Z"
            session.say(b"Q", b"SELECT repeat('x', 1000000) FROM generate_series(1, 200)\0")
        time.sleep(1.0)
        assert resident_bytes() - before < 16 << 20
    wait_until(lambda: not proxy.front.sessions())


def test_a_backend_that_says_anything_harms_no_other_session(
    proxy: RunningProxy, door: Door
) -> None:
    rng = random.Random(SEED)
    places = proxy.places
    assert isinstance(places, WithJunk)
    welcome = messages.authentication_ok() + messages.backend_key(1, b"abcd")
    welcome += messages.ready_for_query()
    said = [
        lambda backend: backend.sendall(rng.randbytes(500)),
        lambda backend: backend.sendall(b"R\0\0\0\4"),
        lambda backend: backend.sendall(b"R\xff\xff\xff\xff"),
        lambda backend: backend.sendall(b"E\0\0\0\4" + b"Z\0\0\0\4"),
        lambda backend: backend.sendall(b"K\0\0\0\4" + messages.ready_for_query()),
        lambda backend: None,
        *[lambda backend: backend.sendall(mutated(rng, welcome)) for _ in range(30)],
    ]
    with good_client(door):
        for say in said:
            places.says = say
            with suppress(EOFError, TimeoutError, OSError), wire(door) as session:
                session.socket.settimeout(1.0)
                session.log_in(database=JUNK)


def test_a_backend_that_goes_mad_within_a_session_harms_no_other(
    proxy: RunningProxy, door: Door
) -> None:
    rng = random.Random(SEED)
    places = proxy.places
    assert isinstance(places, WithJunk)
    welcome = messages.authentication_ok() + messages.backend_key(1, b"abcd")
    welcome += messages.ready_for_query()

    def say(backend: socket.socket) -> None:
        backend.sendall(welcome)
        for _ in range(20):
            backend.sendall(rng.randbytes(rng.randrange(1, 2000)))
            time.sleep(0.01)

    places.says = say
    with good_client(door):
        for _ in range(10):
            with wire(door) as session, suppress(OSError, EOFError, messages.ProtocolViolation):
                session.socket.settimeout(2.0)
                session.log_in(database=JUNK)
                session.say(b"Q", b"SELECT 1\0")
                while session.socket.recv(65536):
                    pass


def test_a_flood_of_connections_is_served_or_refused_and_does_not_stay(
    proxy: RunningProxy, door: Door
) -> None:
    before = resident_bytes()
    with good_client(door):
        for _ in range(4000):
            socket.create_connection((door.host, door.port)).close()
    wait_until(lambda: len(proxy.front.links) < 10)
    assert resident_bytes() - before < 64 << 20
