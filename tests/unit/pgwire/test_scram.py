"""SCRAM against the RFC's own example, itself, and a real server's verifiers' form."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.pgwire.messages import ProtocolViolation
from pagestore.pgwire.scram import (
    PLAIN,
    PLUS,
    ClientExchange,
    Keys,
    ServerExchange,
    Verifier,
)

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
KEYS = Keys.of_password("pencil", SALT, 4096)
VERIFIER = KEYS.verifier(SALT, 4096)
CLIENT_NONCE, SERVER_NONCE = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FIRST = f"n,,n=user,r={CLIENT_NONCE}".encode()
FINAL = (
    f"c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
).encode()
CERTIFICATE = bytes(range(32))


def server(binding: bytes | None = None) -> ServerExchange:
    return ServerExchange(VERIFIER, SERVER_NONCE, binding)


def refusal(first: bytes, mechanism: str = PLAIN, binding: bytes | None = None) -> str:
    with pytest.raises(ProtocolViolation) as caught:
        server(binding).first(mechanism, first)
    return caught.value.sqlstate


def test_the_example_of_rfc_7677() -> None:
    exchange = server()
    first = exchange.first(PLAIN, FIRST)
    assert first == f"r={CLIENT_NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
    done = exchange.final(FINAL)
    assert done == (KEYS, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_a_good_proof_gives_the_keys_with_which_we_log_in_ourselves() -> None:
    outer = server()
    outer.first(PLAIN, FIRST)
    done = outer.final(FINAL)
    assert done is not None
    client, inner = ClientExchange(done[0], "ours"), server()
    final = client.final(inner.first(PLAIN, client.first()))
    answer = inner.final(final)
    assert answer is not None
    assert client.check(answer[1])
    assert not client.check(b"v=" + base64.b64encode(bytes(32)))


def test_another_password_has_no_keys() -> None:
    client = ClientExchange(Keys.of_password("pen", SALT, 4096), "ours")
    exchange = server()
    assert exchange.final(client.final(exchange.first(PLAIN, client.first()))) is None


def test_a_role_that_there_is_not_looks_like_one_that_there_is() -> None:
    nobody = Verifier.of_nobody("ann", b"secret")
    assert nobody == Verifier.of_nobody("ann", b"secret")
    assert nobody.salt != Verifier.of_nobody("bob", b"secret").salt
    assert (nobody.iterations, len(nobody.salt)) == (4096, 16)
    exchange = ServerExchange(nobody, SERVER_NONCE, None)
    client = ClientExchange(KEYS, "ours")
    assert exchange.final(client.final(exchange.first(PLAIN, client.first()))) is None


def bound_final(exchange: ServerExchange, certificate: bytes) -> tuple[Keys, bytes] | None:
    header = b"p=tls-server-end-point,,"
    first = exchange.first(PLUS, header + b"n=,r=ours").decode()
    channel = base64.b64encode(header + certificate).decode()
    without_proof = f"c={channel},r={first.split(',')[0][2:]}"
    message = f"n=,r=ours,{first},{without_proof}".encode()
    stored = hashlib.sha256(KEYS.client_key).digest()
    proof = bytes(
        a ^ b for a, b in zip(KEYS.client_key, hmac.digest(stored, message, "sha256"), strict=True)
    )
    return exchange.final(f"{without_proof},p={base64.b64encode(proof).decode()}".encode())


def test_plus_binds_the_login_to_the_certificate_that_the_client_saw() -> None:
    assert bound_final(server(CERTIFICATE), CERTIFICATE) is not None
    with pytest.raises(ProtocolViolation) as caught:
        bound_final(server(CERTIFICATE), bytes(32))
    assert caught.value.sqlstate == "28000"


def test_mechanism_and_flag_must_fit() -> None:
    assert refusal(FIRST, PLUS) == "08P01"
    assert refusal(FIRST, PLUS, CERTIFICATE) == "08P01"
    assert refusal(b"p=tls-unique,,n=,r=x", PLUS, CERTIFICATE) == "08P01"
    assert refusal(b"p=tls-server-end-point,,n=,r=x", PLAIN, CERTIFICATE) == "08P01"
    assert refusal(b"y,,n=,r=x", PLAIN, CERTIFICATE) == "28000"
    assert server().first(PLAIN, b"y,,n=,r=x")
    assert server(CERTIFICATE).first(PLAIN, b"n,,n=,r=x")


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n",
        b"n,",
        b"n,,",
        b"x,,n=,r=a",
        b"n,,r=a",
        b"n,,n=,r=",
        b"n,,n=,r=a b",
        b"n,a=b,n=,r=x",
    ],
)
def test_a_malformed_beginning_is_refused(first: bytes) -> None:
    assert refusal(first) in ("08P01", "0A000")


def test_a_mandatory_extension_is_refused() -> None:
    assert refusal(b"n,,m=x,n=,r=a") == "0A000"


@pytest.mark.parametrize(
    "final",
    [
        b"",
        FINAL.replace(b"biws", b"eSws"),
        FINAL.replace(b"r=r", b"r=x"),
        FINAL[:-5],
        FINAL.rpartition(b",p=")[0],
        FINAL.rpartition(b",p=")[0] + b",p=AAAA",
        b"\xff" + FINAL,
    ],
)
def test_an_end_that_does_not_fit_is_refused(final: bytes) -> None:
    exchange = server()
    exchange.first(PLAIN, FIRST)
    with pytest.raises(ProtocolViolation):
        exchange.final(final)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_whatever_comes_nobody_gets_in(first: bytes, final: bytes) -> None:
    exchange = server()
    try:
        exchange.first(PLAIN, first)
        assert exchange.final(final) is None
    except ProtocolViolation:
        pass


def test_verifiers_are_read_as_postgres_writes_them() -> None:
    parts = [
        base64.b64encode(part).decode() for part in (SALT, VERIFIER.stored_key, VERIFIER.server_key)
    ]
    text = f"SCRAM-SHA-256$4096:{parts[0]}${parts[1]}:{parts[2]}"
    assert Verifier.parse(text) == VERIFIER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$0:",
    ],
)
def test_what_is_no_verifier_is_none(text: str) -> None:
    assert Verifier.parse(text) is None
