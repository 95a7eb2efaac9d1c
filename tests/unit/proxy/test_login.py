"""Who comes in, who does not, and what either is told."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.pgwire import messages
from pagestore.pgwire.messages import MessageReader, read_error
from pagestore.pgwire.scram import Verifier
from pagestore.pgwire.startup import CancelRequest, cancel_packet, startup_packet
from pagestore.proxy.login import Admitted, Outcome, Refused, Security, login
from pagestore.proxy.needs import Role
from pagestore.proxy.target import Target
from tests.unit.proxy.play import (
    CERTIFICATE_HASH,
    KEYS,
    VERIFIER,
    Gone,
    Peer,
    ScramClient,
    startup,
)

PLAIN = Security(None)
TLS = Security(CERTIFICATE_HASH)
TLS_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
GSS_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x30"


def refused(outcome: Outcome) -> Refused:
    assert isinstance(outcome, Refused)
    (message,) = MessageReader().feed(outcome.told)
    assert read_error(message.body)["C"] == outcome.sqlstate
    return outcome


def test_the_right_password_comes_in_with_the_keys_for_the_backend() -> None:
    client = ScramClient()
    client.rest = b"Q\0\0\xff\xffand so on"
    peer = Peer([startup("app/other@before", application_name="x")], client)
    outcome = peer.play(login(PLAIN))
    assert isinstance(outcome, Admitted)
    assert outcome.target == Target("app", "other", "before")
    assert peer.asked == [(Target("app", "other", "before"), "ann")]
    assert outcome.keys == KEYS
    assert outcome.startup.parameters["application_name"] == "x"
    assert outcome.rest == client.rest


def test_a_wrong_password_and_a_role_that_is_not_hear_the_same() -> None:
    wrong = Peer([startup()], ScramClient("guess"))
    nobody = Peer([startup()], ScramClient(), Role(Verifier.of_nobody("ann", b"secret")))
    first, second = refused(wrong.play(login(PLAIN))), refused(nobody.play(login(PLAIN)))
    assert first == second
    assert (first.sqlstate, first.user) == ("28P01", "ann")
    kinds = [[m.kind for m in MessageReader().feed(bytes(p.sent))] for p in (wrong, nobody)]
    assert kinds[0] == kinds[1]


def test_a_role_that_may_not_log_in_hears_why_only_after_its_proof() -> None:
    role = Role(VERIFIER, ("28000", 'role "ann" is not permitted to log in'))
    good = refused(Peer([startup()], ScramClient(), role).play(login(PLAIN)))
    assert good.message == 'role "ann" is not permitted to log in'
    bad = refused(Peer([startup()], ScramClient("guess"), role).play(login(PLAIN)))
    assert bad.sqlstate == "28P01"


@pytest.mark.parametrize("pieces", [[TLS_REQUEST], [GSS_REQUEST, TLS_REQUEST]])
def test_encryption_is_answered_and_binds_the_login(pieces: list[bytes]) -> None:
    client = ScramClient(plus=CERTIFICATE_HASH)
    peer = Peer([*pieces, startup()], client)
    assert isinstance(peer.play(login(TLS)), Admitted)
    assert bytes(peer.sent).startswith(b"NS" if len(pieces) == 2 else b"S")
    assert peer.tls == [b""]


def test_direct_tls_gets_what_was_read_of_it() -> None:
    peer = Peer([b"\x16\x03\x01hello", startup()], ScramClient(plus=CERTIFICATE_HASH))
    assert isinstance(peer.play(login(TLS)), Admitted)
    assert peer.tls == [b"\x16\x03\x01hello"]


def test_without_a_certificate_encryption_is_declined_and_the_login_goes_on() -> None:
    peer = Peer([TLS_REQUEST, GSS_REQUEST, startup()], ScramClient())
    assert isinstance(peer.play(login(PLAIN)), Admitted)
    assert bytes(peer.sent).startswith(b"NN")
    direct = refused(Peer([b"\x16\x03\x01\x00\xff"]).play(login(PLAIN)))
    assert direct.sqlstate == "08P01"


def test_where_tls_is_required_nobody_logs_in_without() -> None:
    outcome = refused(
        Peer([startup()], ScramClient()).play(login(Security(CERTIFICATE_HASH, tls_required=True)))
    )
    assert "TLS" in outcome.message


def test_a_cancel_request_is_an_outcome() -> None:
    assert Peer([cancel_packet(7, b"secret")]).play(login(PLAIN)) == CancelRequest(7, b"secret")
    asked = Peer([TLS_REQUEST, cancel_packet(7, b"secret")])
    assert asked.play(login(TLS)) == CancelRequest(7, b"secret")


@pytest.mark.parametrize("value", ["true", "on", "1"])
def test_physical_replication_is_refused_with_the_way_out(value: str) -> None:
    outcome = refused(Peer([startup(replication=value)]).play(login(PLAIN)))
    assert outcome.sqlstate == "0A000"
    assert "export" in outcome.message


def test_logical_replication_passes() -> None:
    peer = Peer([startup(replication="database")], ScramClient())
    assert isinstance(peer.play(login(PLAIN)), Admitted)


def test_unknown_protocol_extensions_are_negotiated_before_anything_else_is_said() -> None:
    packet = startup_packet({"user": "ann", "_pq_.grease": "1"}, (3, 9999))
    peer = Peer([packet], ScramClient())
    outcome = peer.play(login(PLAIN))
    assert isinstance(outcome, Admitted)
    assert outcome.version == (3, 2)
    assert bytes(peer.sent[:1]) == b"v"


def test_who_speaks_out_of_turn_is_told_so() -> None:
    outcome = refused(Peer([startup() + b"Q\0\0\0\x06x\0"]).play(login(PLAIN)))
    assert outcome.sqlstate == "08P01"


def test_who_leaves_ends_the_login() -> None:
    with pytest.raises(Gone):
        Peer([startup()]).play(login(PLAIN))


PIECES = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.sampled_from(
        [
            TLS_REQUEST,
            GSS_REQUEST,
            startup(),
            startup()[:9],
            messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc"),
            messages.sasl_initial_response("SCRAM-SHA-256-PLUS", b"y,,n=,r=abc"),
            messages.sasl_response(b"c=biws,r=abc,p=AAAA"),
        ]
    ),
)


@given(st.lists(PIECES, max_size=6), st.sampled_from([PLAIN, TLS]))
def test_whatever_is_said_nobody_comes_in_without_a_password(
    pieces: list[bytes], security: Security
) -> None:
    peer = Peer(pieces)
    with contextlib.suppress(Gone):
        assert not isinstance(peer.play(login(security)), Admitted)
