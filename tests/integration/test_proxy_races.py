"""What happens to a database at the same time as something else: nobody who can be served is not.

The state machine is held to its rules under all orders by tests/unit/proxy/test_fleet.py, with
seeds and planted bugs. Here the moments that matter are held open, before a real Postgres.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from pagestore.pgwire.messages import error_response
from pagestore.proxy.fleet import State
from pagestore.proxy.front import ADOPT_SECONDS
from pagestore.proxy.places import Place
from tests.integration.proxied import MODULE, PLACE, PlainPlaces, RunningProxy, running_proxy
from tests.plain_postgres import plain_postgres
from tests.waiting import stays, until, wait_until

HBA = "local all postgres trust\nlocal all all scram-sha-256\n"
MOVED = error_response("57P01", "app was moved")
Session = psycopg.Connection[Any]


class HeldPlaces(PlainPlaces):
    """A stop goes no further while `stop_held` is set, before or after the server has ended."""

    stop_held = ""

    async def stop(self, place: Place) -> str:
        await until(lambda: self.stop_held != "before")
        said = await super().stop(place)
        await until(lambda: self.stop_held != "after")
        return said


@pytest.fixture(scope="module")
def places() -> Iterator[HeldPlaces]:
    with plain_postgres() as server:
        (server.data / "pg_hba.conf").write_text(HBA)
        shutil.copy(MODULE, server.root)
        server.configure(shared_preload_libraries=server.root / MODULE.name)
        server.configure(**{"pagestore_session.key": "a secret"})
        server.sql("CREATE ROLE ann LOGIN PASSWORD 'pass word'")
        server.stop()
        server.start()
        found = HeldPlaces(server, moves=True)
        found.learn_roles()
        yield found


@pytest.fixture
def proxy(places: HeldPlaces) -> Iterator[RunningProxy]:
    places.starts = places.stops = 0
    places.fault, places.delay, places.held, places.stop_held = "", 0.0, False, ""
    with running_proxy(places) as running:
        yield running
        places.held, places.stop_held = False, ""


def connect(proxy: RunningProxy) -> Session:
    return psycopg.connect(proxy.url(), autocommit=True)


def asked(session: Session) -> tuple[Any, ...] | None:
    return session.execute("SHOW work_mem").fetchone()


def put_to_sleep(proxy: RunningProxy) -> None:
    """As soon as its sessions have been at rest, whatever the limit is."""

    async def stop() -> None:
        front = proxy.front
        front._carry_out(front._fleet.tick(asyncio.get_running_loop().time() + 1e6))

    wait_until(proxy.every_state_is_kept)
    proxy.run(stop())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_who_comes_during_a_stop_wakes_it_again(
    proxy: RunningProxy, places: HeldPlaces, moment: str
) -> None:
    """New ones, and one who was there: he has been parted from his backend already."""
    with connect(proxy) as session, ThreadPoolExecutor(4) as pool, ExitStack() as stack:
        session.execute("SET work_mem = '7MB'")
        places.stop_held = moment
        put_to_sleep(proxy)
        wait_until(lambda: proxy.state() is State.STOPPING and places.stops == (moment == "after"))
        answer = pool.submit(asked, session)
        coming = [pool.submit(connect, proxy) for _ in range(3)]
        assert stays(lambda: not answer.done() and not any(c.done() for c in coming), 0.3)
        places.stop_held = ""
        assert answer.result(30) == ("7MB",)
        for other in coming:
            assert asked(stack.enter_context(other.result(30))) == ("4MB",)
        assert (places.starts, places.stops) == (2, 1)


def test_a_move_during_a_wake_has_those_who_wait_in_what_comes_of_it(
    proxy: RunningProxy, places: HeldPlaces
) -> None:
    """As a restore, a stop or a rename: the control plane tells of it, and then answers the start
    that has been asked for with the compute of afterwards."""
    with connect(proxy) as session, ThreadPoolExecutor(4) as pool:
        session.execute("SET work_mem = '7MB'")
        put_to_sleep(proxy)
        wait_until(lambda: proxy.state() is State.ASLEEP)
        places.held = True
        answer, coming = pool.submit(asked, session), pool.submit(connect, proxy)
        wait_until(lambda: proxy.state() is State.STARTING)
        for _ in range(2):
            assert proxy.run(proxy.front.carry_out(PLACE, MOVED, 0.1)) == (0, 0)
        assert not answer.done()
        assert not coming.done()
        places.held = False
        assert answer.result(30) == ("7MB",)
        with coming.result(30) as other:
            assert asked(other) == ("4MB",)
        assert places.starts == 2, "one start for both"


def test_a_move_under_those_who_are_in_takes_them_along_or_tells_them(
    proxy: RunningProxy, places: HeldPlaces
) -> None:
    with connect(proxy) as idle, connect(proxy) as busy, ThreadPoolExecutor(2) as pool:
        idle.execute("SET work_mem = '7MB'")
        busy.execute("BEGIN")
        moving = pool.submit(proxy.run, proxy.front.carry_out(PLACE, MOVED, 0.2))
        assert moving.result(30) == (1, 1)
        places.held = True
        proxy.run(places.stop(PLACE))
        answer = pool.submit(asked, idle)
        assert stays(lambda: not answer.done(), 0.2)
        places.held = False
        assert answer.result(30) == ("7MB",)
        with pytest.raises(psycopg.errors.AdminShutdown, match="app was moved"):
            busy.execute("COMMIT")


def test_nobody_is_let_in_where_a_server_is_about_to_end_though_it_is_still_listed(
    proxy: RunningProxy, places: HeldPlaces
) -> None:
    """Whoever ends it takes a while for that, and the control plane says of it that it is awake."""
    with connect(proxy) as idle, ThreadPoolExecutor(2) as pool:
        idle.execute("SET work_mem = '7MB'")
        places.held = True
        assert proxy.run(proxy.front.carry_out(PLACE, MOVED, 0.2)) == (1, 0)
        assert stays(lambda: proxy.state() is not State.AWAKE, 2 * ADOPT_SECONDS)
        answer, coming = pool.submit(asked, idle), pool.submit(connect, proxy)
        assert stays(lambda: not answer.done() and not coming.done(), ADOPT_SECONDS)
        proxy.run(places.stop(PLACE))
        places.held = False
        assert answer.result(30) == ("7MB",)
        with coming.result(30) as other:
            assert asked(other) == ("4MB",)


def test_a_start_that_fails_while_many_wait_is_told_to_all_and_nobody_else(
    proxy: RunningProxy, places: HeldPlaces
) -> None:
    proxy.run(places.stop(PLACE))
    places.held, places.fault = True, "no disk"
    with ThreadPoolExecutor(5) as pool:
        coming = [pool.submit(connect, proxy) for _ in range(5)]
        wait_until(lambda: proxy.state() is State.STARTING)
        places.held = False
        for refused in coming:
            with pytest.raises(psycopg.OperationalError, match="no disk"):
                refused.result(30)
        places.fault = ""
        with connect(proxy) as session:
            assert asked(session) == ("4MB",)
