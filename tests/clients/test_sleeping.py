"""What a client may meet while its database sleeps, wakes, or is lost, beside the usual."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.clients.client import CHANNEL, WORK_MEM, Door
from tests.clients.disturbing import crash, put_to_sleep
from tests.integration.proxied import RunningProxy
from tests.waiting import stays, wait_until

Session = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def door(proxy: RunningProxy) -> Door:
    proxy.places.delay = 0.0
    return Door(proxy.port)


def connect(door: Door) -> Session:
    return psycopg.connect(door.libpq(), autocommit=True)


def test_who_says_good_bye_wakes_nobody(proxy: RunningProxy, door: Door) -> None:
    session = connect(door)
    put_to_sleep(proxy)
    starts = proxy.places.starts
    session.close()
    wait_until(lambda: not proxy.front.sessions())
    assert stays(lambda: proxy.places.starts == starts, 0.3)


def test_a_cancel_reaches_a_query_that_still_waits_for_its_database(
    proxy: RunningProxy, door: Door
) -> None:
    with connect(door) as session:
        put_to_sleep(proxy)
        proxy.places.delay = 1.0
        threading.Timer(0.3, session.cancel_safe).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("SELECT pg_sleep(60)")
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_notifications_of_the_last_moment_are_heard(proxy: RunningProxy, door: Door) -> None:
    """Some session speaks just when the others are taken down: all that it said arrives."""
    with connect(door) as listener, connect(door) as speaker:
        listener.execute(f"LISTEN {CHANNEL}")
        said = []
        for number in range(8):
            speaker.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(number)))
            said.append(str(number))
            threading.Event().wait(0.37 + 0.015 * number)  # about when it goes to sleep
        found = [item.payload for item in listener.notifies(timeout=5, stop_after=len(said))]
        assert found == said


def test_a_listener_whose_backend_alone_was_ended_goes_on_listening(
    proxy: RunningProxy, door: Door
) -> None:
    with connect(door) as listener, connect(door) as other:
        listener.execute(f"LISTEN {CHANNEL}")
        wait_until(proxy.every_state_is_kept)
        others = "datname = current_database() AND pid <> pg_backend_pid() AND usename = 'ann'"
        ended = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"
        assert other.execute(ended).fetchall() == [(True,)]
        listening = f"SELECT count(*) FROM pg_stat_activity WHERE {others}"
        wait_until(lambda: other.execute(listening).fetchone() == (1,))
        # It has a backend again, which may not listen yet.
        proxy.wait_until_taken_up()
        other.execute(f"NOTIFY {CHANNEL}, 'still'")
        found = [item.payload for item in listener.notifies(timeout=10, stop_after=1)]
        assert found == ["still"]


def test_another_default_than_before_is_told(proxy: RunningProxy, door: Door) -> None:
    with connect(door) as session, connect(door) as own:
        own.execute("SET TimeZone = 'Asia/Tokyo'")
        with connect(door) as other:
            other.execute("ALTER ROLE ann SET TimeZone = 'Europe/Berlin'")
        put_to_sleep(proxy)
        try:
            assert session.execute("SHOW TimeZone").fetchone() == ("Europe/Berlin",)
            assert session.info.parameter_status("TimeZone") == "Europe/Berlin"
            assert own.execute("SHOW TimeZone").fetchone() == ("Asia/Tokyo",)
            assert own.info.parameter_status("TimeZone") == "Asia/Tokyo"
        finally:
            session.execute("ALTER ROLE ann RESET TimeZone")


def test_idle_sessions_outlive_the_crash_of_another_ones_backend(
    proxy: RunningProxy, door: Door
) -> None:
    """Postgres then ends every backend, and recovers before it takes anybody in again."""
    idle = [connect(door) for _ in range(5)]
    for session in idle:
        session.execute(f"SET work_mem = '{WORK_MEM}'")
    wait_until(proxy.every_state_is_kept)
    with connect(door) as victim:
        backend = victim.execute("SELECT pg_backend_pid()").fetchone()
        assert backend is not None
        wait_until(proxy.every_state_is_kept)
        os.kill(int(str(backend[0])), signal.SIGKILL)
        proxy.wait_until_parted()
        with ThreadPoolExecutor(len(idle)) as threads:
            found = list(threads.map(lambda item: item.execute("SHOW work_mem").fetchone(), idle))
        assert found == [(WORK_MEM,)] * len(idle)
    for session in idle:
        session.close()


def test_a_transaction_ends_with_words_and_others_go_on(proxy: RunningProxy, door: Door) -> None:
    with connect(door) as idle:
        at_work = connect(door)
        wait_until(proxy.every_state_is_kept)
        at_work.execute("BEGIN")
        proxy.places.server.stop(signal.SIGINT)
        with pytest.raises(psycopg.errors.AdminShutdown):
            at_work.execute("SELECT 1")
        assert idle.execute("SELECT 1").fetchone() == (1,)
        with contextlib.suppress(psycopg.Error):
            at_work.close()


def test_many_idle_sessions_come_back_at_once(proxy: RunningProxy, door: Door) -> None:
    sessions = [connect(door) for _ in range(40)]
    for number, session in enumerate(sessions):
        session.execute(f"SET app.number = '{number}'")
    crash(proxy)
    starts = proxy.places.starts
    with ThreadPoolExecutor(len(sessions)) as threads:
        rows = threads.map(lambda item: item.execute("SHOW app.number").fetchone(), sessions)
        assert list(rows) == [(str(number),) for number in range(len(sessions))]
    assert proxy.places.starts == starts + 1
    for session in sessions:
        session.close()
