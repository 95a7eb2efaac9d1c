"""Clients whose backends go: what they hear of it, and where in the stream they hear it."""

from __future__ import annotations

import contextlib

import pytest

from tests.unit.relay.driver import GONE, Driver, Kind, message, receive


@pytest.mark.parametrize("first", range(1, 15))
def test_a_client_that_is_dismissed_within_a_message_hears_why_behind_it(first: int) -> None:
    """Wherever the message was cut: within its head, at its end, in its body."""
    row, words = message(b"d", b"0123456789"), message(b"E", b"SFATAL\0MMoved\0\0")
    with Driver() as d:
        client, c, backend, b = d.pair()
        c.sendall(message(b"Q", b"COPY\0"))
        receive(b, 10)
        b.sendall(row[:first])
        assert receive(c, first) == row[:first]
        d.relay.dismiss(client, words)
        d.relay.close(backend)  # which waits, since it has yet to end its message
        c.sendall(message(b"Q", b"nobody hears this\0"))
        b.sendall(row[first:] + row + row)
        assert receive(c, len(row) - first + len(words)) == row[first:] + words
        assert c.recv(1) == b""
        d.expect_end_of(client, backend)
        assert not b.recv(1)


def test_who_is_dismissed_between_messages_or_held_hears_why_at_once() -> None:
    words = message(b"E", b"SFATAL\0MMoved\0\0")
    with Driver() as d:
        joined, c1, _, b1 = d.pair()
        c1.sendall(message(b"Q", b"BEGIN\0"))
        receive(b1, 11)
        held, c2, _, _ = d.pair()
        d.relay.hold(held)
        d.expect(held, Kind.AT_REST)
        for client, c in ((joined, c1), (held, c2)):
            d.relay.dismiss(client, words)
            assert receive(c, len(words)) == words
            assert c.recv(1) == b""


def test_a_client_that_is_dismissed_and_whose_backend_ends_instead_hears_the_close() -> None:
    with Driver() as d:
        client, c, backend, b = d.pair()
        c.sendall(message(b"Q", b"COPY\0"))
        receive(b, 10)
        b.sendall(message(b"d", b"0123456789")[:8])
        receive(c, 8)
        d.relay.dismiss(client, message(b"E", b"\0"))
        b.close()
        assert c.recv(1) == b""
        d.expect_end_of(client, backend)


def test_a_client_that_does_not_read_hears_its_last_words_when_it_does() -> None:
    row, words = message(b"d", bytes(1000)), message(b"E", b"SFATAL\0MMoved\0\0")
    with Driver() as d:
        client, c, backend, b = d.pair()
        c.sendall(message(b"Q", b"COPY\0"))
        receive(b, 10)
        b.setblocking(False)
        sent, rows = 0, row * 1000
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += b.send(rows[sent % len(row) :])
        d.relay.dismiss(client, words)
        b.setblocking(True)
        with contextlib.suppress(OSError):
            b.sendall(rows[sent % len(row) : len(row)])
        heard = bytearray()
        while piece := c.recv(1 << 16):
            heard += piece
        whole, rest = divmod(len(heard) - len(words), len(row))
        assert (rest, bytes(heard[-len(words) :])) == (0, words)
        assert heard[: -len(words)] == row * whole
        d.expect_end_of(client, backend)


def test_a_client_whose_backend_is_killed_at_work_is_told_so_unless_it_was_told_already() -> None:
    with Driver() as d:
        _, c, _, b = d.pair()
        c.sendall(message(b"Q", b"SELECT\0"))
        receive(b, 12)
        b.sendall(message(b"T", b"row"))
        b.close()
        assert receive(c, 8 + len(GONE)) == message(b"T", b"row") + GONE
        assert c.recv(1) == b""


def test_a_client_that_said_good_bye_is_told_nothing() -> None:
    with Driver() as d:
        _, c, _, b = d.pair()
        c.sendall(message(b"Q", b"BEGIN\0") + message(b"X"))
        receive(b, 16)
        b.close()
        assert c.recv(1) == b""
