"""The proxy before a real Postgres: real clients, awake and asleep."""

from __future__ import annotations

import io
import math
import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pagestore.pgwire.startup import cancel_packet, startup_packet
from pagestore.proxy.fleet import Limits, State
from pagestore.proxy.front import Front
from pagestore.proxy.status import PlaceStatus
from tests.integration.proxied import MODULE, PLACE, PlainPlaces, RunningProxy, running_proxy
from tests.plain_postgres import plain_postgres
from tests.unit.relay.driver import make_certificate, tls_server
from tests.waiting import wait_until

HBA = "local all postgres trust\nlocal all all scram-sha-256\n"


@pytest.fixture(scope="module")
def places() -> Iterator[PlainPlaces]:
    with plain_postgres(max_connections=300) as server:
        (server.data / "pg_hba.conf").write_text(HBA)
        shutil.copy(MODULE, server.root)
        server.configure(shared_preload_libraries=server.root / MODULE.name)
        server.configure(**{"pagestore_session.key": "a secret"})
        server.sql("CREATE ROLE ann LOGIN REPLICATION PASSWORD 'pass word'")
        server.sql("CREATE DATABASE other")
        server.sql("SELECT pg_reload_conf()")
        server.stop()
        server.start()
        found = PlainPlaces(server)
        found.learn_roles()
        yield found


@pytest.fixture
def proxy(places: PlainPlaces) -> Iterator[RunningProxy]:
    places.starts = places.stops = 0
    places.fault, places.delay = "", 0.0
    with running_proxy(places) as running:
        yield running


def test_a_session_is_what_it_is_without_a_proxy(proxy: RunningProxy) -> None:
    with psycopg.connect(proxy.url(), autocommit=True) as session:
        assert session.execute("SELECT current_user, current_database()").fetchone() == (
            "ann",
            "postgres",
        )
        assert session.info.parameter_status("server_version") is not None
        with session.pipeline():
            cursors = [session.execute("SELECT %s::int", (number,)) for number in range(100)]
        assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(100)]
        session.execute("CREATE TEMP TABLE t (a int, b text)")
        with session.cursor().copy("COPY t FROM STDIN") as copy:
            for number in range(10_000):
                copy.write_row((number, "x" * 50))
        out = io.BytesIO()
        with session.cursor().copy("COPY t TO STDOUT") as copy:
            for data in copy:
                out.write(data)
        assert out.getvalue().count(b"\n") == 10_000
        assert session.execute("SELECT repeat('y', 30000000)").fetchone() == ("y" * 30_000_000,)
        with pytest.raises(psycopg.errors.UndefinedTable):
            session.execute("SELECT * FROM nothing")
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_another_inner_database_and_its_error_if_there_is_none(proxy: RunningProxy) -> None:
    with psycopg.connect(proxy.url(database="app/other")) as session:
        assert session.execute("SELECT current_database()").fetchone() == ("other",)
    with pytest.raises(psycopg.OperationalError, match='database "nothing" does not exist'):
        psycopg.connect(proxy.url(database="app/nothing"))


def test_strangers_hear_the_same_and_wake_nobody(proxy: RunningProxy) -> None:
    proxy.places.server.stop()
    attempts = [
        proxy.url(password="wrong"),
        proxy.url(user="nobody"),
        proxy.url(database="nothing"),
    ]
    for url in attempts:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url)
    assert proxy.places.starts == 0
    assert proxy.state() is State.ASLEEP


def test_one_start_for_all_who_come_at_once(proxy: RunningProxy) -> None:
    proxy.places.server.stop()
    proxy.places.delay = 0.5

    def connect(number: int) -> int:
        with psycopg.connect(proxy.url(), autocommit=True) as session:
            row = session.execute("SELECT %s::int", (number,)).fetchone()
            assert row is not None
            return int(row[0])

    with ThreadPoolExecutor(40) as pool:
        assert sorted(pool.map(connect, range(40))) == list(range(40))
    assert proxy.places.starts == 1


def test_a_failed_start_is_told_with_its_reason_and_the_next_works(proxy: RunningProxy) -> None:
    proxy.places.server.stop()
    proxy.places.fault = "no disk"
    with pytest.raises(psycopg.OperationalError, match="no disk") as caught:
        psycopg.connect(proxy.url())
    assert "Look there." in str(caught.value)
    proxy.places.fault = ""
    with psycopg.connect(proxy.url()) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_moment_that_there_is_not_is_told_after_the_login(proxy: RunningProxy) -> None:
    with pytest.raises(psycopg.OperationalError, match="no checkpoint 'then'"):
        psycopg.connect(proxy.url(database="app@then"))


def test_an_idle_database_sleeps_and_wakes(places: PlainPlaces) -> None:
    places.fault, places.delay, places.starts, places.stops = "", 0.0, 0, 0
    with running_proxy(places, Limits(idle=0.5)) as proxy:
        with psycopg.connect(proxy.url()) as session:
            session.execute("SELECT 1")
        wait_until(lambda: proxy.state() is State.ASLEEP)
        assert not places.server.alive()
        with psycopg.connect(proxy.url()) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
    assert (places.starts, places.stops) == (2, 1)


def test_a_server_that_was_killed_comes_back_with_the_next_connection(proxy: RunningProxy) -> None:
    with psycopg.connect(proxy.url()) as session:
        session.execute("SELECT 1")
    proxy.places.server.stop(signal.SIGQUIT)
    with psycopg.connect(proxy.url()) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert proxy.places.starts == 2


def test_cancel_reaches_the_query_and_a_wrong_key_nothing(proxy: RunningProxy) -> None:
    with psycopg.connect(proxy.url(), autocommit=True) as session:
        process = session.info.backend_pid
        with socket.create_connection(("127.0.0.1", proxy.port)) as stranger:
            stranger.sendall(cancel_packet(process, b"nope"))
            assert stranger.recv(1) == b""
        assert session.execute("SELECT 1").fetchone() == (1,)
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

        def cancel() -> None:
            wait_until(lambda: proxy.places.server.sql(asleep))
            session.cancel_safe()

        with ThreadPoolExecutor(1) as threads:
            cancelled = threads.submit(cancel)
            with pytest.raises(psycopg.errors.QueryCanceled):
                session.execute("SELECT pg_sleep(300)")
            cancelled.result()
        assert session.execute("SELECT 2").fetchone() == (2,)


def test_who_leaves_while_it_is_parked_is_forgotten(proxy: RunningProxy) -> None:
    proxy.places.server.stop()
    proxy.places.held = True
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(proxy.url(), connect_timeout=2)
    proxy.places.held = False
    with psycopg.connect(proxy.url()) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert proxy.places.starts == 1


def test_tls_with_channel_binding_and_full_verification(
    places: PlainPlaces, tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path)
    with running_proxy(places, tls=tls_server(certificate, key)) as proxy:
        facts = {"sslmode": "verify-full", "sslrootcert": certificate, "channel_binding": "require"}
        url = proxy.url(**facts).replace(
            "host='127.0.0.1'", "host='localhost' hostaddr='127.0.0.1'"
        )
        with psycopg.connect(url) as session:
            assert session.pgconn.ssl_in_use
            assert session.execute("SELECT repeat('z', 5000000)").fetchone() == ("z" * 5_000_000,)
        with psycopg.connect(proxy.url(sslmode="disable")) as session:
            assert not session.pgconn.ssl_in_use


def test_junk_beside_good_clients_is_not_noticed(proxy: RunningProxy) -> None:
    with psycopg.connect(proxy.url(), autocommit=True) as good:
        for seed in range(200):
            with socket.create_connection(("127.0.0.1", proxy.port)) as junk:
                junk.sendall(os.urandom(seed + 1))
        with socket.create_connection(("127.0.0.1", proxy.port)) as half:
            half.sendall(startup_packet({"user": "ann"})[:7])
            assert good.execute("SELECT 1").fetchone() == (1,)
    with psycopg.connect(proxy.url()) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture
def sleepy(places: PlainPlaces) -> Iterator[RunningProxy]:
    """A proxy whose database sleeps soon."""
    places.starts = places.stops = 0
    places.fault, places.delay = "", 0.0
    with running_proxy(places, Limits(idle=1.5)) as running:
        yield running


def test_idle_sessions_do_not_keep_a_database_awake_and_are_whole_afterwards(
    sleepy: RunningProxy,
) -> None:
    sessions = [
        psycopg.connect(sleepy.url(), autocommit=True, prepare_threshold=0) for _ in range(5)
    ]
    for number, session in enumerate(sessions):
        session.execute(f"SET work_mem = '{number + 5}MB'")
        session.execute("SELECT %s::int + 1", (number,))
        session.execute(f"LISTEN channel_{number}")
    wait_until(lambda: sleepy.state() is State.ASLEEP)
    assert not sleepy.places.server.alive()
    for number, session in enumerate(sessions):
        assert session.execute("SHOW work_mem").fetchone() == (f"{number + 5}MB",)
        assert session.execute("SELECT %s::int + 1", (number,)).fetchone() == (number + 1,)
        found = session.execute("SELECT pg_listening_channels()").fetchall()
        assert found == [(f"channel_{number}",)]
        session.close()
    assert (sleepy.places.starts, sleepy.places.stops) == (2, 1)


def test_a_database_whose_last_session_left_within_a_query_sleeps(sleepy: RunningProxy) -> None:
    session = psycopg.connect(sleepy.url(), autocommit=True)
    # As without a proxy, the query goes on to its end.
    session.pgconn.send_query(b"SELECT pg_sleep(3)")
    wait_until(sleepy.is_seen_at_work)
    session.close()
    wait_until(lambda: sleepy.state() is State.ASLEEP)


def test_a_database_does_not_go_to_sleep_under_who_is_coming_in(places: PlainPlaces) -> None:
    places.fault, places.delay, places.starts, places.stops = "", 0.0, 0, 0
    if not places.server.alive():
        places.server.start()
    places.server.sql("ALTER SYSTEM SET post_auth_delay = 2")  # seconds of every login
    places.server.sql("SELECT pg_reload_conf()")
    try:
        with (
            running_proxy(places, Limits(idle=0.2)) as proxy,
            psycopg.connect(proxy.url(), autocommit=True) as session,
        ):
            assert session.execute("SELECT 1").fetchone() == (1,)
            assert places.starts == 1
    finally:
        (places.server.data / "postgresql.auto.conf").unlink()
        places.server.stop()


def test_an_unnamed_statement_can_be_bound_again_after_a_sleep(sleepy: RunningProxy) -> None:
    with psycopg.connect(sleepy.url(), autocommit=True) as session:
        pgconn = session.pgconn
        assert not pgconn.prepare(b"", b"SELECT $1::text || '!'").error_message
        wait_until(lambda: sleepy.state() is State.ASLEEP)
        result = pgconn.exec_prepared(b"", [b"hello"])
        assert result.get_value(0, 0) == b"hello!"


def test_what_cannot_be_carried_keeps_a_database_awake_and_is_named(sleepy: RunningProxy) -> None:
    with psycopg.connect(sleepy.url(), autocommit=True) as session:
        session.execute("CREATE TEMP TABLE mine (a int)")
        wait_until(lambda: sleepy.front.hindrances.get(PLACE) == "temporary tables")
        assert session.execute("SELECT * FROM mine").fetchall() == []
        assert sleepy.places.stops == 0
        session.execute("DROP TABLE mine")
        wait_until(lambda: sleepy.state() is State.ASLEEP)
        assert session.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("idle", [1.5, math.inf])
def test_a_replication_connection_keeps_a_database_awake_and_is_named(
    places: PlainPlaces, idle: float
) -> None:
    places.fault, places.delay = "", 0.0

    def why(proxy: RunningProxy) -> str:
        (described,) = proxy.run(_described(proxy))
        return described.why

    with running_proxy(places, Limits(idle=idle)) as proxy:
        with psycopg.connect(proxy.url(), autocommit=True) as session:
            session.execute("SELECT 1")
            wait_until(lambda: why(proxy) == ("it never sleeps" if idle == math.inf else ""))
        with psycopg.connect(proxy.url(replication="database"), autocommit=True) as session:
            session.pgconn.exec_(b"IDENTIFY_SYSTEM")
            wait_until(lambda: why(proxy) == "a logical replication connection")
            time.sleep(3)
            assert why(proxy) == "a logical replication connection"
            assert session.pgconn.exec_(b"IDENTIFY_SYSTEM").ntuples == 1


async def _described(proxy: RunningProxy) -> list[PlaceStatus]:
    return proxy.front.described()


def test_a_query_that_begins_as_a_database_goes_to_sleep_goes_on(proxy: RunningProxy) -> None:
    with psycopg.connect(proxy.url(), autocommit=True) as session:
        session.pgconn.send_query(b"SELECT pg_sleep(7)")  # longer than it is waited for
        wait_until(proxy.is_seen_at_work)
        assert not proxy.run(proxy.front._parting.take_down(PLACE))
        assert proxy.front.hindrances[PLACE] == "a query or a transaction"
        result = session.pgconn.get_result()
        assert result is not None
        assert not result.error_message
        assert session.pgconn.get_result() is None


def test_idle_sessions_outlive_a_crash(proxy: RunningProxy) -> None:
    with psycopg.connect(proxy.url(), autocommit=True) as session:
        session.execute("SET work_mem = '9MB'")
        wait_until(proxy.every_state_is_kept)
        proxy.places.server.stop(signal.SIGQUIT)
        assert session.execute("SHOW work_mem").fetchone() == ("9MB",)
    assert proxy.places.starts == 2


def test_a_session_that_is_to_end_when_it_is_idle_for_long_does(proxy: RunningProxy) -> None:
    with psycopg.connect(proxy.url(), autocommit=True) as session:
        session.execute("SET idle_session_timeout = '6s'")  # by then its state is kept
        wait_until(proxy.every_state_is_kept)
        wait_until(lambda: select.select([session], [], [], 0)[0])
        with pytest.raises(psycopg.errors.IdleSessionTimeout):
            session.execute("SELECT 1")


def test_a_session_whose_place_goes_while_it_comes_back_comes_back_once(
    proxy: RunningProxy,
) -> None:
    """Its client has spoken, is told so by the relay once more, and the first backend is gone."""
    with psycopg.connect(proxy.url(), autocommit=True) as session:
        for number in range(3):
            session.execute(f"SET work_mem = '{number + 5}MB'")
            wait_until(proxy.every_state_is_kept)
            proxy.places.server.stop(signal.SIGQUIT)
            proxy.wait_until_parted()
            # The front still believes it awake: the session enters, loses the place, and enters
            # again.
            assert session.execute("SHOW work_mem").fetchone() == (f"{number + 5}MB",)
    assert proxy.places.starts == 4


def test_a_session_in_a_transaction_ends_with_its_backend(proxy: RunningProxy) -> None:
    with psycopg.connect(proxy.url(), autocommit=True) as session:
        session.execute("BEGIN")
        proxy.places.server.stop(signal.SIGINT)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


MOMENTS: dict[str, Callable[[Front], bool]] = {
    "its state is written down": lambda front: any(s.going_down for s in front.sessions()),
    "its backend is let go": lambda front: all(not s.backend_link for s in front.sessions()),
    "its database has just gone to sleep": lambda front: front.state(PLACE) is State.ASLEEP,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_client_that_speaks_while_its_session_is_taken_down_is_answered(
    places: PlainPlaces, moment: str
) -> None:
    places.fault, places.delay = "", 0.0
    with (
        running_proxy(places, Limits(idle=0.2)) as proxy,
        psycopg.connect(proxy.url(), autocommit=True) as session,
    ):
        for number in range(3):
            proxy.at(MOMENTS[moment], lambda: session.pgconn.send_query(b"SELECT 1"))
            wait_until(lambda: answered(session.pgconn))
            result = session.pgconn.get_result()
            assert result is not None, number
            assert result.get_value(0, 0) == b"1", result.error_message
            assert session.pgconn.get_result() is None


def answered(connection: psycopg.pq.abc.PGconn) -> bool:
    connection.consume_input()
    return not connection.is_busy()
