"""The protocol's lesser-known parts, byte by byte, as Postgres itself has them."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.pgwire.messages import read_error
from pagestore.pgwire.startup import cancel_packet, startup_packet
from tests.clients.client import Door
from tests.clients.disturbing import put_to_sleep
from tests.clients.wire import GSS_REQUEST, TLS_REQUEST, Wire, wire
from tests.integration.proxied import RunningProxy, running_proxy
from tests.unit.relay.driver import tls_client
from tests.waiting import wait_until


@pytest.fixture
def door(proxy: RunningProxy) -> Door:
    return Door(proxy.port)


@pytest.fixture
def session(door: Door) -> Iterator[Wire]:
    with wire(door) as made:
        assert made.log_in()[-1].kind == b"Z"
        yield made


@pytest.mark.parametrize(
    ("version", "key_bytes"), [((3, 0), 4), ((3, 1), 4), ((3, 2), 32)], ids=str
)
def test_each_version_gets_a_cancel_key_of_its_length(
    door: Door, version: tuple[int, int], key_bytes: int
) -> None:
    with wire(door) as session:
        assert b"v" not in {message.kind for message in session.log_in(version)}
        assert len(session.key) == key_bytes
        session.say(b"Q", b"SELECT pg_sleep(60)\0")
        wait_until(lambda: cancelled(door, session))


def cancelled(door: Door, session: Wire) -> bool:
    with socket.create_connection((door.host, door.port)) as canceller:
        canceller.sendall(cancel_packet(session.process, session.key))
        assert canceller.recv(1) == b"", "it answers nothing, when it is done"
    session.socket.settimeout(0.3)
    try:
        while (message := session.take()).kind != b"E":
            pass
    except TimeoutError:
        return False  # the query had not begun
    return read_error(message.body)["C"] == "57014"


def test_grease_is_negotiated_away(door: Door) -> None:
    with wire(door) as session:
        told = session.log_in((3, 9999), **{"_pq_.test_protocol_negotiation": ""})
        first, last = told[0], told[-1]
        assert first.kind == b"v"
        assert first.body == struct.pack(">HHI", 3, 2, 1) + b"_pq_.test_protocol_negotiation\0"
        assert last.kind == b"Z"
        assert len(session.key) == 32


def test_encryption_is_answered_by_what_there_is(
    proxy: RunningProxy, door: Door, certificate: tuple[Path, Path]
) -> None:
    with wire(door) as session:
        session.send(GSS_REQUEST)
        assert session.socket.recv(1) == b"N"
        session.send(TLS_REQUEST)
        assert session.socket.recv(1) == b"S"
        session.start_tls(tls_client(certificate[0], ["postgresql"]))
        assert session.log_in()[-1].kind == b"Z"
    with running_proxy(proxy.places) as plain, wire(Door(plain.port)) as session:
        for request in (TLS_REQUEST, GSS_REQUEST):
            session.send(request)
            assert session.socket.recv(1) == b"N"
        assert session.log_in()[-1].kind == b"Z"


def test_another_protocol_than_postgres_gets_no_tls(
    door: Door, certificate: tuple[Path, Path]
) -> None:
    with wire(door) as session, pytest.raises(ssl.SSLError, match="alert"):
        session.start_tls(tls_client(certificate[0], ["h2"]))
    with wire(door) as session:
        session.start_tls(tls_client(certificate[0]))
        assert session.log_in()[-1].kind == b"Z"


@pytest.mark.parametrize("request_for", [TLS_REQUEST, GSS_REQUEST], ids=["tls", "gss"])
def test_plain_text_behind_a_request_for_encryption_is_refused(
    door: Door, request_for: bytes
) -> None:
    with wire(door) as session:
        session.send(request_for + startup_packet({"user": door.user}))
        assert session.error()["C"] == "08P01"
        with pytest.raises(EOFError):
            session.take()


def test_physical_replication_is_refused_and_logical_passes(
    proxy: RunningProxy, door: Door
) -> None:
    proxy.places.server.sql("ALTER ROLE ann REPLICATION")
    with wire(door) as session:
        told = session.log_in(replication="true")
        assert b"export" in told[-1].body
    with wire(door) as session:
        assert session.log_in(replication="database")[-1].kind == b"Z"
        session.say(b"Q", b"IDENTIFY_SYSTEM\0")
        assert [message.kind for message in session.until_ready()] == [b"T", b"D", b"C", b"Z"]
        session.say(b"Q", b"CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL pgoutput\0")
        assert session.until_ready()[-2].kind == b"C"


@pytest.mark.parametrize(
    ("role", "privilege", "sqlstate", "words"),
    [
        ("CONNECTION LIMIT 0", "", "53300", "too many connections for role"),
        ("NOLOGIN", "", "28000", "not permitted to log in"),
        ("LOGIN", "REVOKE CONNECT ON DATABASE other FROM public", "42501", "permission denied"),
    ],
    ids=["limit", "nologin", "connect"],
)
def test_a_backends_error_comes_as_it_is(
    proxy: RunningProxy, door: Door, role: str, privilege: str, sqlstate: str, words: str
) -> None:
    server = proxy.places.server
    with wire(door) as session:  # it is awake
        assert session.log_in()[-1].kind == b"Z"
        server.sql(
            f"CREATE ROLE bob LOGIN PASSWORD 'pass word'; ALTER ROLE bob {role}; {privilege}"
        )
        proxy.places.learn_roles()
        try:
            with wire(Door(door.port, user="bob", database="app/other")) as refused:
                fields = refused.log_in(user="bob", database="app/other")[-1]
            assert f"C{sqlstate}".encode() in fields.body
            assert words.encode() in fields.body
        finally:
            server.sql("DROP ROLE bob; GRANT CONNECT ON DATABASE other TO public")


def test_a_function_call_is_answered(session: Wire) -> None:
    oid = 1598  # random()
    session.say(b"F", struct.pack(">IHHH", oid, 0, 0, 0))
    assert [message.kind for message in session.until_ready()] == [b"V", b"Z"]


def test_many_statements_in_one_query_and_what_fails_among_them(session: Wire) -> None:
    session.say(b"Q", b"SELECT 1; SELECT 2; SELECT 1/0; SELECT 3\0")
    kinds = b"".join(message.kind for message in session.until_ready())
    assert kinds == b"TDCTDC" + b"E" + b"Z" or kinds == b"TDCTDCTEZ"
    session.say(b"Q", b"\0")
    assert [message.kind for message in session.until_ready()] == [b"I", b"Z"]


def test_a_copy_that_its_client_gives_up(session: Wire) -> None:
    session.say(b"Q", b"CREATE TEMP TABLE t (a int); COPY t FROM STDIN\0")
    while session.take().kind != b"G":
        pass
    session.say(b"d", b"1\n")
    session.say(b"f", b"no more\0")
    error, ready = session.until_ready()
    assert (error.kind, ready.kind) == (b"E", b"Z")
    assert b"C57014" in error.body


def test_what_a_backend_says_unasked_arrives_while_its_client_says_nothing(
    proxy: RunningProxy, session: Wire
) -> None:
    server = proxy.places.server
    server.sql("ALTER SYSTEM SET TimeZone = 'Pacific/Fiji'")
    try:
        server.sql("SELECT pg_reload_conf()")
        message = session.take()
        assert (message.kind, message.body) == (b"S", b"TimeZone\0Pacific/Fiji\0")
    finally:
        server.sql("ALTER SYSTEM RESET TimeZone")
        server.sql("SELECT pg_reload_conf()")


def test_a_session_that_flushed_instead_of_syncing_still_sleeps(
    proxy: RunningProxy, session: Wire
) -> None:
    session.say(b"P", b"one\0SELECT 1\0\0\0")
    session.say(b"H")
    assert session.take().kind == b"1"
    session.say(b"S")
    assert session.until_ready()[-1].kind == b"Z"
    put_to_sleep(proxy)
    session.say(b"B", b"\0one\0\0\0\0\0\0\0")
    session.say(b"E", b"\0\0\0\0\0")
    session.say(b"S")
    assert [message.kind for message in session.until_ready()] == [b"2", b"D", b"C", b"Z"]
