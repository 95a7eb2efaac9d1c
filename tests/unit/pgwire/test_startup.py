"""What may come before a session, and what is made of anything else."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.pgwire.messages import ProtocolViolation
from pagestore.pgwire.startup import (
    MAX_PACKET_BYTES,
    CancelRequest,
    GssRequest,
    Packet,
    Startup,
    StartupReader,
    TlsRequest,
    cancel_packet,
    negotiated,
    startup_packet,
)

TLS, GSS = struct.pack(">II", 8, 80877103), struct.pack(">II", 8, 80877104)
WORDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)


def parse(data: bytes) -> Packet | None:
    return StartupReader().feed(data)


def refusal(*pieces: bytes) -> ProtocolViolation:
    reader = StartupReader()
    *before, last = pieces
    for piece in before:
        reader.feed(piece)
    with pytest.raises(ProtocolViolation) as caught:
        reader.feed(last)
    return caught.value


@given(st.dictionaries(WORDS, WORDS), WORDS)
def test_a_startup_message_is_read_as_it_was_written_byte_by_byte(
    others: dict[str, str], user: str
) -> None:
    parameters = {"user": user, **{f"x{name}": value for name, value in others.items()}}
    packet = startup_packet(parameters)
    reader = StartupReader()
    found = [reader.feed(packet[i : i + 1]) for i in range(len(packet))]
    assert found == [None] * (len(packet) - 1) + [Startup((3, 0), parameters, ())]


def test_the_database_is_the_users_name_where_none_is_given() -> None:
    packet = parse(startup_packet({"user": "ann"}))
    assert isinstance(packet, Startup)
    assert packet.database == "ann"
    other = parse(startup_packet({"user": "ann", "database": "app"}))
    assert isinstance(other, Startup)
    assert other.database == "app"


@pytest.mark.parametrize(
    ("version", "extensions", "spoken", "told"),
    [
        ((3, 0), (), (3, 0), b""),
        ((3, 1), (), (3, 1), b""),
        ((3, 2), (), (3, 2), b""),
        ((3, 9999), (), (3, 2), b"v\0\0\0\x0c" + b"\0\3\0\2" + b"\0\0\0\0"),
        ((3, 0), ("_pq_.x",), (3, 0), b"v\0\0\0\x13" + b"\0\3\0\0" + b"\0\0\0\1_pq_.x\0"),
    ],
)
def test_what_is_not_spoken_is_negotiated(
    version: tuple[int, int], extensions: tuple[str, ...], spoken: tuple[int, int], told: bytes
) -> None:
    wanted = {"user": "ann", **dict.fromkeys(extensions, "1")}
    packet = parse(startup_packet(wanted, version))
    assert isinstance(packet, Startup)
    assert packet.extensions == extensions
    assert "_pq_.x" not in packet.parameters
    assert negotiated(packet) == (spoken, told)


@pytest.mark.parametrize("version", [(2, 0), (4, 0), (1234, 9)])
def test_another_major_version_is_refused_by_its_number(version: tuple[int, int]) -> None:
    error = refusal(startup_packet({"user": "ann"}, version))
    assert error.sqlstate == "0A000"
    assert f"{version[0]}.{version[1]}" in error.message


@pytest.mark.parametrize("size", [4, 16, 32, 256])
def test_cancel_keys_of_every_length_are_taken(size: int) -> None:
    key = bytes(range(256))[:size]
    assert parse(cancel_packet(0xFFFFFFFE, key)) == CancelRequest(0xFFFFFFFE, key)


@pytest.mark.parametrize("size", [0, 3, 257])
def test_no_other_length_is(size: int) -> None:
    assert refusal(cancel_packet(1, bytes(size))).sqlstate == "08P01"


def test_encryption_is_asked_for_once_each() -> None:
    reader = StartupReader()
    assert reader.feed(GSS) == GssRequest()
    assert reader.feed(TLS) == TlsRequest()
    assert isinstance(reader.feed(startup_packet({"user": "ann"})), Startup)
    assert refusal(TLS, TLS).sqlstate == "08P01"
    assert refusal(GSS, GSS).sqlstate == "08P01"


def test_nothing_may_follow_a_request_for_encryption_in_plain_text() -> None:
    assert "unencrypted" in refusal(TLS + startup_packet({"user": "ann"})).message
    assert "unencrypted" in refusal(GSS + b"x").message


def test_what_follows_a_startup_is_the_logins() -> None:
    reader = StartupReader()
    assert reader.feed(startup_packet({"user": "ann"}) + b"p\0\0") is not None
    assert reader.take_rest() == b"p\0\0"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"user\0ann\0",
        b"user\0ann",
        b"user\0\0",
        b"user\0ann\0x\0\0",
        b"\0a\0\0",
    ],
)
def test_a_malformed_list_is_refused(body: bytes) -> None:
    head = struct.pack(">IHH", 8 + len(body), 3, 0)
    assert refusal(head + body).sqlstate in ("08P01", "28000")


@pytest.mark.parametrize("length", [0, 7, MAX_PACKET_BYTES + 1, 2**32 - 1])
def test_a_length_that_no_packet_has_is_refused_at_its_fourth_byte(length: int) -> None:
    assert refusal(struct.pack(">I", length)).message == "invalid length of startup packet"


def test_names_that_are_not_in_utf_8_come_out_as_they_came_in() -> None:
    body = b"user\0\xe4nne\0\0"
    packet = parse(struct.pack(">IHH", 8 + len(body), 3, 0) + body)
    assert isinstance(packet, Startup)
    assert startup_packet(packet.parameters)[8:] == body


def test_a_tls_hello_is_no_packet() -> None:
    assert refusal(bytes.fromhex("16030100f8")).sqlstate == "08P01"


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_whatever_comes_it_is_a_packet_or_refused(pieces: list[bytes]) -> None:
    reader = StartupReader()
    for piece in pieces:
        with contextlib.suppress(ProtocolViolation):
            reader.feed(piece)
