"""The relay on real sockets: modes, back-pressure, sessions that are taken apart."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from pagestore._native import NativeError, Relay, TlsContext
from tests.unit.relay.driver import (
    FULL,
    READY,
    Driver,
    Kind,
    make_certificate,
    message,
    receive,
    tls_client,
    tls_server,
)
from tests.waiting import stays, wait_still, wait_until

LONG = 8 << 20


def test_a_piece_is_read_only_when_it_was_asked_for() -> None:
    with Driver() as d:
        client, far = d.client()
        far.sendall(b"one")
        assert d.quiet()
        d.relay.read(client)
        assert d.expect(client, Kind.DATA) == b"one"
        far.sendall(b"two")
        assert d.quiet()
        d.relay.send(client, b"answer")
        assert receive(far, 6) == b"answer"
        d.relay.close(client)
        assert d.expect(client, Kind.ENDED) == b""
        assert far.recv(1) == b""


def test_who_is_asked_hears_first_and_is_then_read() -> None:
    with Driver() as d:
        client, far = d.client()
        d.relay.ask(client, b"who?")
        assert receive(far, 4) == b"who?"
        assert d.quiet()
        far.sendall(b"ann")
        assert d.expect(client, Kind.DATA) == b"ann"


def test_joined_bytes_go_both_ways_and_ends_are_passed_on() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        c.sendall(message(b"Q", b"select 1\0"))
        assert receive(b, 14) == message(b"Q", b"select 1\0")
        b.sendall(message(b"D", b"row"))
        assert receive(c, 8) == message(b"D", b"row")
        c.shutdown(socket.SHUT_WR)
        assert b.recv(1) == b""
        b.sendall(b"rest")
        assert receive(c, 4) == b"rest"
        b.close()
        assert c.recv(1) == b""
        d.expect_end_of(client, backend)


def test_what_the_client_said_before_the_join_comes_first() -> None:
    with Driver() as d:
        client, c = d.client()
        backend, b = d.backend(client)
        c.sendall(message(b"S"))
        d.relay.join(client, backend, 0, message(b"Q", b"x\0"))
        assert receive(b, 12) == message(b"Q", b"x\0") + message(b"S")


@pytest.mark.parametrize("threads", [1, 2])
def test_megabytes_pass_unchanged_whoever_is_slow(threads: int) -> None:
    data = random.Random(1).randbytes(LONG)
    with Driver(threads) as d:
        _, c, _, b = d.pair()

        sent = 0

        def send() -> None:
            nonlocal sent
            for end in (b, c):
                for at in range(0, LONG, 65536):
                    end.sendall(data[at : at + 65536])
                    sent += 1

        sender = threading.Thread(target=send)
        sender.start()
        wait_still(lambda: sent, 0.05)  # nobody takes: all that lies between is full
        found = receive(c, LONG)
        back = receive(b, LONG)
        sender.join()
        assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()
        assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()


def test_who_does_not_read_is_not_read_for() -> None:
    with Driver() as d:
        _, c, _, b = d.pair()
        b.setblocking(False)
        sent = 0
        still = 0
        while still < 20:
            try:
                sent += b.send(bytes(65536))
                still = 0
            except BlockingIOError:
                still += 1
                time.sleep(0.01)
        assert sent < 16 << 20
        b.setblocking(True)
        assert receive(c, sent) == bytes(sent)


def test_a_session_is_taken_apart_when_it_is_at_rest_and_not_before() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        c.sendall(message(b"Q", b"begin\0"))
        receive(b, 11)
        d.relay.hold(client, True)
        assert d.quiet()
        d.relay.hold(client)
        b.sendall(message(b"Z", b"T"))
        receive(c, 6)
        assert d.quiet()
        c.sendall(message(b"Q", b"commit\0"))
        receive(b, 12)
        b.sendall(READY)
        assert d.expect(client, Kind.AT_REST) == b"\1", "its client has spoken"
        assert receive(c, 6) == READY
        # The backend is the driver's now; the client waits, unread.
        b.sendall(b"state")
        d.relay.read(backend)
        assert d.expect(backend, Kind.DATA) == b"state"
        c.sendall(message(b"Q", b"next\0"))
        assert d.expect(client, Kind.READABLE) == b""
        other, other_far = d.backend(client)
        d.relay.join(client, other, 0, b"")
        assert receive(other_far, 10) == message(b"Q", b"next\0")


def test_before_its_sync_a_pipeline_is_not_taken_apart_and_its_errors_pass() -> None:
    with Driver() as d:
        client, c, _, b = d.pair()
        sent = message(b"P", b"one\0select 1\0\0\0") + message(b"H")
        c.sendall(sent)
        receive(b, len(sent))
        d.relay.hold(client)
        assert d.quiet()
        b.sendall(message(b"E", b"boom\0\0"))
        assert receive(c, 11) == message(b"E", b"boom\0\0")
        c.sendall(message(b"S"))
        receive(b, 5)
        assert d.quiet()
        b.sendall(READY)
        assert d.expect(client, Kind.AT_REST) == b"\1"
        assert receive(c, len(READY)) == READY


def test_a_session_that_is_taken_apart_gives_its_unnamed_statement_each_time() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        parse = b"\0select $1\0\0\0"
        sent = message(b"P", parse) + message(b"B", b"\0\0\0\0\0\0\0\0") + message(b"S")
        c.sendall(sent)
        receive(b, len(sent))
        b.sendall(READY)
        receive(c, len(READY))
        d.relay.hold(client)
        assert d.expect(client, Kind.AT_REST) == b"\1" + parse
        d.relay.join(client, backend, 0, b"")
        d.relay.hold(client)
        assert d.expect(client, Kind.AT_REST) == b"\0" + parse, "the backend still has it"
        d.relay.join(client, backend, 0, message(b"Q", b"x\0"))
        receive(b, 7)
        b.sendall(READY)
        receive(c, len(READY))
        d.relay.hold(client)
        assert d.expect(client, Kind.AT_REST) == b"\1", "a query has dropped it"


def test_two_that_are_joined_can_be_joined() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        c.sendall(message(b"Q", b"SELECT\0"))
        receive(b, 12)
        d.relay.join(client, backend, 0, b"")
        b.sendall(READY)
        assert receive(c, 6) == READY
        assert d.quiet()


def test_a_hold_can_be_taken_back() -> None:
    with Driver() as d:
        client, c, _, b = d.pair()
        c.sendall(message(b"Q", b"x\0"))
        receive(b, 7)
        d.relay.hold(client)
        d.relay.release(client)
        b.sendall(READY)
        assert receive(c, 6) == READY
        assert d.quiet()


def test_a_backend_that_ends_at_rest_leaves_its_client_and_its_last_words_with_the_driver() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        words = message(b"E", b"SFATAL\0C57P01\0\0")
        b.sendall(words)
        b.close()
        assert d.expect(backend, Kind.ENDED) == b""
        assert d.expect(client, Kind.LEFT) == b"\0" + words
        c.sendall(message(b"Q", b"x\0"))
        assert d.expect(client, Kind.READABLE) == b""
        d.relay.send(client, words)
        d.relay.close(client)
        assert receive(c, len(words)) == words
        assert c.recv(1) == b""


def test_a_backend_that_ends_within_a_query_takes_its_client_along_with_its_words() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        c.sendall(message(b"Q", b"x\0"))
        receive(b, 7)
        b.sendall(message(b"E", b"boom\0\0"))
        b.close()
        assert receive(c, 11) == message(b"E", b"boom\0\0")
        assert c.recv(1) == b""
        d.expect_end_of(client, backend)


def test_an_error_that_nobody_asked_for_goes_out_with_the_next_query() -> None:
    with Driver() as d:
        _, c, _, b = d.pair()
        b.sendall(message(b"E", b"odd\0\0"))
        assert d.quiet()
        assert stays(lambda: not select.select([c], [], [], 0)[0], 0.05), "it waits"
        c.sendall(message(b"Q", b"x\0"))
        assert receive(b, 7) == message(b"Q", b"x\0")
        assert receive(c, 10) == message(b"E", b"odd\0\0")


def test_a_notification_at_rest_passes() -> None:
    with Driver() as d:
        client, c, _, b = d.pair()
        b.sendall(message(b"A", b"\0\0\0\1x\0y\0"))
        assert receive(c, 13)
        d.relay.hold(client, True)
        assert d.expect(client, Kind.AT_REST) == b"\0"


def test_a_client_that_leaves_ends_its_backend() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        c.close()
        assert b.recv(1) == b""
        b.close()
        d.expect_end_of(client, backend)


def test_a_joined_client_hears_a_last_word_between_two_messages() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        c.sendall(message(b"Q", b"BEGIN\0"))
        assert receive(b, 11) == message(b"Q", b"BEGIN\0")
        b.sendall(message(b"Z", b"T"))
        assert receive(c, 6) == message(b"Z", b"T")
        words = message(b"E", b"SFATAL\0MMoved\0\0")
        d.relay.send(client, words)
        d.relay.close(client)
        assert receive(c, len(words)) == words
        assert c.recv(1) == b""
        assert b.recv(1) == b""
        d.expect_end_of(client, backend)


def test_within_a_message_of_its_backends_it_hears_nothing_else() -> None:
    with Driver() as d:
        client, c, _, b = d.pair()
        c.sendall(message(b"Q", b"SELECT\0"))
        receive(b, 12)
        b.sendall(message(b"D", b"0123456789")[:8])
        assert receive(c, 8) == message(b"D", b"0123456789")[:8]
        d.relay.send(client, message(b"E", b"\0"))
        d.relay.close(client)
        assert c.recv(1) == b""


def test_a_held_client_that_leaves_is_told() -> None:
    with Driver() as d:
        client, c, _, _ = d.pair()
        d.relay.hold(client)
        d.expect(client, Kind.AT_REST)
        c.close()
        assert d.expect(client, Kind.ENDED) == b""


def test_beyond_the_bounds_a_client_is_told_so() -> None:
    with Driver(max_logins=2) as d:
        known = [d.client() for _ in range(2)]
        for client, _ in known:
            d.relay.watch(client)
        assert d.quiet()
        extra = socket.create_connection(d.address)
        assert extra.recv(100) == FULL
        assert extra.recv(1) == b""
        # Who is joined is no login any more.
        first, c = known[0]
        backend, _ = d.backend(first)
        d.relay.join(first, backend, 0, b"")
        wait_until(lambda: len(d.relay.sessions(10)) == 1)
        d.client()
        c.close()


def test_the_slowest_login_makes_room_for_who_comes_and_nobody_else_does() -> None:
    with Driver(max_logins=3) as d:
        parked, p = d.client()
        d.relay.watch(parked)
        slowest, s = d.client()
        slower, _ = d.client()
        for gone, far in ((slowest, s), (slower, None)):
            newcomer = socket.create_connection(d.address)
            assert b"others came" in d.expect(gone, Kind.ENDED)
            assert d.event()[1] is Kind.ACCEPTED
            if far is not None:
                assert receive(far, len(FULL)) == FULL
                assert far.recv(1) == b""
            assert not select.select([newcomer, p], [], [], 0.05)[0]
            newcomer.detach()
        p.sendall(b"still here")
        assert d.expect(parked, Kind.READABLE) == b""


def test_ids_are_never_used_again() -> None:
    with Driver() as d:
        seen = set()
        for _ in range(50):
            client, far = d.client()
            assert client not in seen
            seen.add(client)
            d.relay.close(client)
            d.expect(client, Kind.ENDED)
            d.relay.send(client, b"nobody hears it")
            far.close()
        assert d.quiet()


def test_sessions_say_how_long_nothing_moved() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        wait_until(lambda: d.relay.sessions(10)[0][2] >= 200)
        moved = time.monotonic()
        c.sendall(message(b"Q", b"x\0"))
        receive(b, 7)
        ((found, server, idle, at_rest, spoken),) = d.relay.sessions(10)
        assert (found, server, at_rest, spoken) == (client, backend, False, True)
        tick = 5  # of the clock that the relay looks at, milliseconds
        assert idle <= (time.monotonic() - moved) * 1000 + tick


def test_sessions_at_rest_for_long_are_not_listed() -> None:
    with Driver() as d:
        client, c, _, b = d.pair()
        wait_until(lambda: not d.relay.sessions(10, 20))
        assert [found[0] for found in d.relay.sessions(10, 20_000)] == [client]
        c.sendall(message(b"Q", b"x\0"))  # it owes an answer, however long that takes
        receive(b, 7)
        wait_until(lambda: any(idle > 20 for _, _, idle, _, _ in d.relay.sessions(10, 20)))
        b.sendall(READY)
        receive(c, len(READY))
        wait_until(lambda: not d.relay.sessions(10, 20))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_tls_after_a_request_in_plain_text(certificate: tuple[Path, Path]) -> None:
    tls = tls_server(*certificate)
    data = random.Random(2).randbytes(LONG)
    with Driver() as d:
        client, far = d.client()
        far.sendall(b"please")
        d.relay.read(client)
        d.expect(client, Kind.DATA)
        d.relay.send(client, b"S")
        assert receive(far, 1) == b"S"
        d.relay.begin_tls(client, tls, b"")
        secure = tls_client(certificate[0]).wrap_socket(far, server_hostname="localhost")
        d.expect(client, Kind.SECURE)
        der = secure.getpeercert(binary_form=True)
        assert der is not None
        assert tls.certificate_hash == hashlib.sha256(der).digest()
        secure.sendall(b"login")
        d.relay.read(client)
        assert d.expect(client, Kind.DATA) == b"login"
        backend, b = d.backend(client)
        d.relay.join(client, backend, 0, b"")
        sender = threading.Thread(target=b.sendall, args=(data,))
        sender.start()
        assert receive(secure, LONG) == data
        sender.join()
        sender = threading.Thread(target=secure.sendall, args=(data,))
        sender.start()
        assert receive(b, LONG) == data
        sender.join()
        secure.close()
        assert b.recv(1) == b""


def test_many_small_pieces_of_tls_all_pass(certificate: tuple[Path, Path]) -> None:
    """TLS takes many of them off the socket at once, and no event tells of what it holds."""
    piece, count = b"twenty bytes of data", 2000
    with Driver() as d:
        client, far = d.client()
        d.relay.begin_tls(client, tls_server(*certificate), b"")  # nobody else holds it
        secure = tls_client(certificate[0]).wrap_socket(far, server_hostname="localhost")
        d.expect(client, Kind.SECURE)
        backend, b = d.backend(client)
        for _ in range(count):
            secure.sendall(piece)
        d.relay.join(client, backend, 0, b"")
        assert receive(b, count * len(piece)) == piece * count


def direct(d: Driver, tls: TlsContext, context: ssl.SSLContext) -> ssl.SSLSocket:
    client, far = d.client()
    found: list[ssl.SSLSocket] = []

    def connect() -> None:
        try:
            found.append(context.wrap_socket(far, server_hostname="localhost"))
        except ssl.SSLError:
            far.close()

    connecting = threading.Thread(target=connect)
    connecting.start()
    d.relay.read(client)
    early = d.expect(client, Kind.DATA)
    assert early[0] == 0x16
    d.relay.begin_tls(client, tls, early)
    kind = d.event()[1]
    connecting.join()
    if kind is Kind.ENDED:
        raise ConnectionError
    assert kind is Kind.SECURE
    return found[0]


@pytest.mark.parametrize("protocols", [["postgresql"], None])
def test_direct_tls_with_the_protocols_name_or_none(
    certificate: tuple[Path, Path], protocols: list[str] | None
) -> None:
    tls = tls_server(*certificate)
    with Driver() as d:
        secure = direct(d, tls, tls_client(certificate[0], protocols))
        assert secure.selected_alpn_protocol() == (protocols[0] if protocols else None)


def test_another_protocol_is_refused(certificate: tuple[Path, Path]) -> None:
    tls = tls_server(*certificate)
    with Driver() as d, pytest.raises(ConnectionError):
        direct(d, tls, tls_client(certificate[0], ["h2"]))


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(NativeError, match=r"missing\.crt"):
        TlsContext(str(tmp_path / "missing.crt"), str(tmp_path / "missing.key"))


def test_junk_instead_of_tls_ends_the_client_alone(certificate: tuple[Path, Path]) -> None:
    tls = tls_server(*certificate)
    with Driver() as d:
        _, good, _, b = d.pair()
        client, far = d.client()
        d.relay.begin_tls(client, tls, b"\x16\x03\x01\xff\xff" + bytes(100))
        far.sendall(bytes(70000))
        assert d.expect(client, Kind.ENDED) == b"TLS handshake failed"
        good.sendall(b"fine")
        assert receive(b, 4) == b"fine"


def test_shutting_down_closes_everything() -> None:
    d = Driver()
    with d:
        _, c, _, b = d.pair()
    assert c.recv(1) == b""
    assert b.recv(1) == b""
    with pytest.raises(NativeError):
        d.relay.take()


def test_a_relay_has_threads() -> None:
    with pytest.raises(NativeError):
        Relay(0, -1, 1, 1, b"", b"")
