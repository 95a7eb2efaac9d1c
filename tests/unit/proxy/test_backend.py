"""The login to a backend, with what the client's SCRAM left."""

from __future__ import annotations

import pytest

from pagestore.pgwire import messages
from pagestore.pgwire.messages import Message, MessageReader, ProtocolViolation
from pagestore.pgwire.scram import PLAIN, Keys, ServerExchange
from pagestore.proxy.backend import Declined, Ready, backend_login
from tests.unit.proxy.play import KEYS, SALT, VERIFIER, Peer

PARAMETERS = {"user": "ann", "database": "app"}
STATUS = Message(b"S", b"server_version\0" + b"15.8\0").encode()


class Backend:
    """Postgres's side of a login."""

    def __init__(self, *, knows_role: bool = True) -> None:
        verifier = (
            VERIFIER if knows_role else Keys.of_password("x", SALT, 4096).verifier(SALT, 4096)
        )
        self._exchange = ServerExchange(verifier, "servernonce0123456789", None)
        self._started = False

    def __call__(self, data: bytes) -> bytes:
        if not self._started:
            self._started = True
            return messages.sasl_mechanisms([PLAIN])
        (message,) = MessageReader().feed(data)
        if message.body.startswith(PLAIN.encode()):
            name, first = messages.read_sasl_initial(message.body)
            return messages.sasl_continue(self._exchange.first(name, first))
        done = self._exchange.final(message.body)
        if done is None:
            return messages.error_response("28P01", "password authentication failed")
        end = messages.backend_key(42, b"secr") + messages.ready_for_query()
        return messages.sasl_final(done[1]) + messages.authentication_ok() + STATUS + end


def test_the_clients_keys_open_the_backend() -> None:
    peer = Peer([], Backend())
    assert peer.play(backend_login(PARAMETERS, KEYS)) == Ready(STATUS, 42, b"secr")
    assert b"ann\0database\0app\0" in peer.sent


def test_a_backend_that_trusts_asks_for_nothing() -> None:
    answer = messages.authentication_ok() + STATUS + messages.ready_for_query()
    assert Peer([], lambda data: answer).play(backend_login(PARAMETERS, KEYS)) == Ready(
        STATUS, 0, b""
    )


def test_what_a_backend_declines_with_is_kept_as_it_came() -> None:
    told = messages.error_response("3D000", 'database "x" does not exist')
    answer = messages.authentication_ok() + told
    outcome = Peer([], lambda data: answer).play(backend_login(PARAMETERS, KEYS))
    assert outcome == Declined(told, "3D000", 'database "x" does not exist')
    wrong = Peer([], Backend(knows_role=False)).play(backend_login(PARAMETERS, KEYS))
    assert isinstance(wrong, Declined)
    assert wrong.sqlstate == "28P01"


@pytest.mark.parametrize("method", [3, 5, 99])
def test_another_method_of_authentication_is_no_backend_of_ours(method: int) -> None:
    answer = Message(b"R", method.to_bytes(4, "big")).encode()
    with pytest.raises(ProtocolViolation):
        Peer([], lambda data: answer).play(backend_login(PARAMETERS, KEYS))


def test_a_backend_that_only_claims_to_know_the_role_is_none() -> None:
    answers = iter(
        [
            messages.sasl_mechanisms([PLAIN]),
            b"",
        ]
    )

    def heard(data: bytes) -> bytes:
        if data[:1] != b"p":
            return next(answers)
        (message,) = MessageReader().feed(data)
        if message.body.startswith(PLAIN.encode()):
            nonce = message.body.rpartition(b"r=")[2].decode()
            return messages.sasl_continue(f"r={nonce}x,s=AAAA,i=4096".encode())
        return messages.sasl_final(b"v=AAAA")

    with pytest.raises(ProtocolViolation):
        Peer([], heard).play(backend_login(PARAMETERS, KEYS))
