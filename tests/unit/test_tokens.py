"""Who calls, as a key has signed it; docs/formats/token.md by its bytes."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pagestore.errors import DataLoss, PermissionDenied, Unauthenticated
from pagestore.ids import TenantId, TimelineId
from pagestore.tokens import (
    PREFIX,
    Claims,
    Scope,
    Signer,
    Verifier,
    key_text,
    parse_public_keys,
    split_address,
)

NOW = 1_800_000_000.5
SIGNER = Signer(bytes(range(32)))
VERIFIER = Verifier([SIGNER.public_key])
TENANT, TIMELINE = TenantId(b"t" * 16), TimelineId(b"l" * 16)
ALL = [
    Claims(Scope.OPERATOR, 5),
    Claims(Scope.PAGESERVER, 5),
    Claims(Scope.SAFEKEEPER, 5),
    Claims(Scope.PROXY, 5),
    Claims(Scope.COMPUTE_AGENT, 5),
    Claims(Scope.TENANT, 5, int(NOW) + 60, TENANT),
    Claims(Scope.TIMELINE, 5, 0, TENANT, TIMELINE),
]


def reason(token: str, now: float = NOW, verifier: Verifier = VERIFIER) -> str:
    with pytest.raises(Unauthenticated) as caught:
        verifier.verify(token, now)
    return caught.value.reason


def raw(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.removeprefix(PREFIX))


@pytest.mark.parametrize("claims", ALL, ids=lambda claims: claims.scope.name)
def test_what_was_signed_is_what_is_read(claims: Claims) -> None:
    token = SIGNER.sign(claims)
    assert len(token) == len(PREFIX) + 160
    assert VERIFIER.verify(token, NOW) == claims


def test_the_layout_is_the_one_that_the_page_of_the_format_shows() -> None:
    whole = raw(SIGNER.of_timeline(TENANT, TIMELINE, NOW, 3600))
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    assert whole[0] == 1
    assert whole[1] == 17
    assert whole[2:4] == bytes(2)
    assert whole[4:8] == hashlib.sha256(key.public_bytes_raw()).digest()[:4]
    assert int.from_bytes(whole[8:16], "big") == 1_800_000_000
    assert int.from_bytes(whole[16:24], "big") == 1_800_003_600
    assert whole[24:40] == TENANT.raw
    assert whole[40:56] == TIMELINE.raw
    key.verify(whole[56:], b"pagestore token\0" + whole[:56])


def test_no_byte_can_be_changed() -> None:
    whole = raw(SIGNER.of_tenant(TENANT, NOW, 60))
    for at in range(len(whole)):
        bent = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert reason(PREFIX + base64.urlsafe_b64encode(bent).decode()) == "TOKEN_FOREIGN"


def test_it_ends_when_it_says() -> None:
    token = SIGNER.of_tenant(TENANT, NOW, 60)
    assert VERIFIER.verify(token, NOW + 59).tenant == TENANT
    assert reason(token, NOW + 60) == "TOKEN_EXPIRED"
    assert VERIFIER.verify(SIGNER.of_operator(NOW), NOW + 1e9).scope is Scope.OPERATOR


@pytest.mark.parametrize("length", [0, 1, 4, 5, 6, 100, 164, 166, 1000, 100_000])
def test_garbage_of_every_length_is_named(length: int) -> None:
    assert reason(SIGNER.of_operator(NOW).ljust(length, "A")[:length]) == "TOKEN_MALFORMED"


def test_text_that_is_no_base64_is_named() -> None:
    token = SIGNER.of_operator(NOW)
    for character in ("=", "+", "/", "\n", "é", "\0"):
        assert reason(token[:-1] + character) == "TOKEN_MALFORMED"


def test_another_key_signs_nothing_here() -> None:
    assert reason(Signer(b"x" * 32).of_operator(NOW)) == "TOKEN_FOREIGN"


def test_two_keys_are_accepted_while_they_are_changed() -> None:
    newer = Signer(b"n" * 32)
    both = Verifier([newer.public_key, SIGNER.public_key])
    for signer in (newer, SIGNER):
        assert both.verify(signer.of_operator(NOW), NOW).scope is Scope.OPERATOR
    assert reason(SIGNER.of_operator(NOW), verifier=Verifier([newer.public_key])) == "TOKEN_FOREIGN"


def test_a_version_to_come_is_refused_by_name() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    for at, value in ((0, 2), (1, 99), (2, 1)):
        said = bytearray(raw(SIGNER.of_operator(NOW))[:56])
        said[at] = value
        whole = bytes(said) + key.sign(b"pagestore token\0" + said)
        assert reason(PREFIX + base64.urlsafe_b64encode(whole).decode()) == "TOKEN_MALFORMED"


def test_a_scope_goes_with_its_ids_alone() -> None:
    for scope, tenant, timeline in (
        (Scope.OPERATOR, TENANT, None),
        (Scope.TENANT, None, None),
        (Scope.TENANT, TENANT, TIMELINE),
        (Scope.TIMELINE, TENANT, None),
    ):
        with pytest.raises(ValueError, match=scope.name):
            Claims(scope, 0, 0, tenant, timeline)


def test_files_of_keys_are_read_strictly() -> None:
    text = "# of this installation\n" + key_text(SIGNER.public_key)
    assert parse_public_keys(text) == [SIGNER.public_key]
    assert Signer.parse(key_text(bytes(range(32)))).public_key == SIGNER.public_key
    for broken in ("", "ed25519 00\n", text * 3, key_text(SIGNER.public_key)[:-5]):
        with pytest.raises(DataLoss) as caught:
            parse_public_keys(broken)
        assert caught.value.reason == "FILE_CORRUPT"
    with pytest.raises(DataLoss):
        Signer.parse("")


ADDRESS = "host='/run/x' port='1' user='a'"


def refused(text: str, *key: Any, verifier: Verifier = VERIFIER) -> str:
    with pytest.raises(PermissionDenied) as caught:
        verifier.check_address(*(key or (TENANT, TIMELINE, 7)), text)
    return caught.value.reason


def test_an_address_that_was_signed_is_believed_for_its_term_of_its_timeline_alone() -> None:
    text = SIGNER.sign_address(TENANT, TIMELINE, 7, ADDRESS)
    VERIFIER.check_address(TENANT, TIMELINE, 7, text)
    assert split_address(text)[0] == ADDRESS
    for key in (
        (TENANT, TimelineId(b"m" * 16), 7),
        (TenantId(b"u" * 16), TIMELINE, 7),
        (TENANT, TIMELINE, 8),
        (TENANT, TIMELINE, 6),
    ):
        assert refused(text, *key) == "ADDRESS_NOT_SIGNED"


def test_no_character_of_an_address_can_be_changed() -> None:
    text = SIGNER.sign_address(TENANT, TIMELINE, 7, ADDRESS)
    for at, character in enumerate(text[: len(ADDRESS)]):
        bent = text[:at] + ("x" if character != "x" else "y") + text[at + 1 :]
        assert refused(bent) == "ADDRESS_NOT_SIGNED"
    for bent in (
        ADDRESS,
        f"{ADDRESS} signature=''",
        text + "'",
        text + " ",
        f"{ADDRESS} port='2'" + text[len(ADDRESS) :],
        text + text[len(ADDRESS) :],
        text.replace("signature='", "signature='A"),
    ):
        assert refused(bent) == "ADDRESS_NOT_SIGNED"


def test_an_address_is_believed_by_two_keys_and_by_no_token() -> None:
    text, newer = SIGNER.sign_address(TENANT, TIMELINE, 7, ADDRESS), Signer(b"n" * 32)
    Verifier([newer.public_key, SIGNER.public_key]).check_address(TENANT, TIMELINE, 7, text)
    assert refused(text, verifier=Verifier([newer.public_key])) == "ADDRESS_NOT_SIGNED"
    token = raw(SIGNER.of_timeline(TENANT, TIMELINE, NOW, 60))
    shown = base64.urlsafe_b64encode(token[4:8] + token[-64:]).decode().rstrip("=")
    assert refused(f"{ADDRESS} signature='{shown}'") == "ADDRESS_NOT_SIGNED"


def test_what_is_signed_of_an_address_is_what_the_page_shows() -> None:
    text = SIGNER.sign_address(TENANT, TIMELINE, 7, ADDRESS)
    whole = base64.urlsafe_b64decode(split_address(text)[1] + "=")
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    assert whole[:4] == hashlib.sha256(key.public_bytes_raw()).digest()[:4]
    said = TENANT.raw + TIMELINE.raw + (7).to_bytes(8, "big") + ADDRESS.encode()
    key.verify(whole[4:], b"pagestore address\0" + said)
