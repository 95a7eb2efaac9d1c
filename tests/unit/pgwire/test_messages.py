"""Messages of a login: framing, and those that are built."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.pgwire import messages
from pagestore.pgwire.messages import Message, MessageReader, ProtocolViolation

MESSAGES = st.builds(Message, st.binary(min_size=1, max_size=1), st.binary(max_size=100))


@given(st.lists(MESSAGES, max_size=5), st.integers(1, 7), st.binary(max_size=4))
def test_messages_come_whole_however_they_are_cut(
    sent: list[Message], step: int, rest: bytes
) -> None:
    data = b"".join(message.encode() for message in sent) + rest
    reader = MessageReader()
    found = []
    for at in range(0, len(data), step):
        found += reader.feed(data[at : at + step])
    assert found == sent
    assert reader.take_rest() == rest


@pytest.mark.parametrize("length", [0, 3, messages.MAX_LOGIN_BYTES + 1, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_with_its_head(length: int) -> None:
    with pytest.raises(ProtocolViolation):
        MessageReader().feed(b"p" + length.to_bytes(4, "big"))


def test_an_error_has_the_fields_that_clients_read() -> None:
    raw = messages.error_response("3D000", 'database "x" does not exist', hint="Create it.")
    (message,) = MessageReader().feed(raw)
    assert message.kind == b"E"
    fields = messages.read_error(message.body)
    assert fields == {
        "S": "FATAL",
        "V": "FATAL",
        "C": "3D000",
        "M": 'database "x" does not exist',
        "H": "Create it.",
    }


def test_a_nul_in_a_text_ends_it_and_not_the_message() -> None:
    (message,) = MessageReader().feed(messages.error_response("XX000", "one\0two", hint="three"))
    assert messages.read_error(message.body)["M"] == "one"
    assert messages.read_error(message.body)["H"] == "three"


def test_what_a_client_answers_first_is_read_as_it_was_written() -> None:
    raw = messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc")
    (message,) = MessageReader().feed(raw)
    assert messages.read_sasl_initial(message.body) == ("SCRAM-SHA-256", b"n,,n=,r=abc")


@pytest.mark.parametrize("body", [b"", b"SCRAM", b"SCRAM\0", b"SCRAM\0\0\0\0\5ab", b"S\0\0\0\0\0x"])
def test_a_first_answer_whose_length_lies_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        messages.read_sasl_initial(body)


def test_offers_and_keys_have_postgress_bytes() -> None:
    assert messages.sasl_mechanisms(["A", "B"]) == b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0"
    assert messages.authentication_ok() == b"R\0\0\0\x08\0\0\0\0"
    assert messages.backend_key(7, b"abcd") == b"K\0\0\0\x0c\0\0\0\x07abcd"
    assert messages.ready_for_query() == b"Z\0\0\0\x05I"
