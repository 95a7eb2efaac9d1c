"""Tokens: who calls, and for whom, as an installation's key has signed it.

A token is made by whoever holds the *signing key* of an installation (the control plane, `up`)
and checked by everybody who holds its *public keys*. A page server or a safekeeper that is broken
into has public keys and a token of its own narrow scope, and can make none.

What a token says is of fixed size (docs/formats/token.md): a scope; when it was made and when it
ends, in Unix seconds; for a tenant's the tenant, for a timeline's also the timeline. Which calls a
scope opens is not said here but by the services (pagestore/services/permissions.py). A timeline's
token names no ancestors: it reads what its timeline inherits, by its timeline's own name.

The same key signs where a safekeeper finds a compute (:meth:`Signer.sign_address`): who may call a
safekeeper may still not tell it where to connect.

Keys are changed without a pause: two public keys are accepted, the newer one signs.

Nothing here reads a clock.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pagestore.errors import DataLoss, InvalidInput, PermissionDenied, Unauthenticated
from pagestore.ids import TenantId, TimelineId

PREFIX = "pst1_"
KEY_BYTES = 32
A_FILE = "A file of keys"
MAX_KEYS = 2
"""Accepted at a time: the one that signs, and the one before it."""
_CLAIMS = struct.Struct(">BBH4sQQ16s16s")
_VERSION = 1
_SIGNATURE_BYTES = 64
_TEXT = re.compile(r"pst1_[A-Za-z0-9_-]{160}")
_SIGNED = re.compile(r"(.*) signature='([^']*)'", re.DOTALL)
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{91}")
_DOMAIN = b"pagestore token\0"
"""Signed in front of the claims: no other thing that the key signs can be taken for a token."""
_ADDRESS_DOMAIN = b"pagestore address\0"
_ADDRESS = struct.Struct(">16s16sQ")
_KEY_ID_BYTES = 4
_NOBODY = bytes(16)


class Scope(enum.IntEnum):
    """Numbers never change once released. Up to 15 they are parts and the operator."""

    OPERATOR = 1
    PAGESERVER = 2
    SAFEKEEPER = 3
    PROXY = 4
    COMPUTE_AGENT = 5
    """`pagestore compute`, which starts Postgres; not a Postgres."""
    EXPORTER = 6
    """Whoever watches: it opens what parts say of themselves, and nothing else."""
    TENANT = 16
    TIMELINE = 17
    """What a Postgres holds, and so whoever is a superuser in it."""


_NAMED = {
    Scope.OPERATOR: "the operator",
    Scope.PAGESERVER: "a page server",
    Scope.SAFEKEEPER: "a safekeeper",
    Scope.PROXY: "a proxy",
    Scope.COMPUTE_AGENT: "a host of computes",
    Scope.EXPORTER: "an exporter of metrics",
    Scope.TENANT: "a tenant",
    Scope.TIMELINE: "a compute",
}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says.

    Args:
        issued, expires: Unix seconds; `expires` 0 for never.
        tenant: of a TENANT's and a TIMELINE's token.
        timeline: of a TIMELINE's.
    """

    scope: Scope
    issued: int
    expires: int = 0
    tenant: TenantId | None = None
    timeline: TimelineId | None = None

    def __post_init__(self) -> None:
        owned = self.scope in (Scope.TENANT, Scope.TIMELINE)
        if owned != (self.tenant is not None) or (self.scope is Scope.TIMELINE) != (
            self.timeline is not None
        ):
            raise ValueError(f"{self.scope.name} does not go with its tenant and timeline")

    @property
    def whose(self) -> str:
        """Whom it stands for, in words."""
        return _NAMED[self.scope]

    def has_expired(self, now: float) -> bool:
        return 0 < self.expires <= now


class Signer:
    """Makes tokens. Whoever has this is the operator.

    Args:
        seed: the 32 secret bytes of an Ed25519 key.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()

    @classmethod
    def parse(cls, text: str, where: str = A_FILE) -> Signer:
        """From what a file of a signing key holds.

        Args:
            where: the file, for an error.

        Raises:
            DataLoss: FILE_CORRUPT.
        """
        return cls(parse_secret_key(text, where))

    def current(self) -> bytes:
        """The public half of the key that signs now."""
        return self.public_key

    def sign(self, claims: Claims) -> str:
        said = _CLAIMS.pack(
            _VERSION,
            claims.scope,
            0,
            key_id(self.public_key),
            claims.issued,
            claims.expires,
            claims.tenant.raw if claims.tenant else _NOBODY,
            claims.timeline.raw if claims.timeline else _NOBODY,
        )
        whole = said + self._key.sign(_DOMAIN + said)
        return PREFIX + base64.urlsafe_b64encode(whole).decode()

    def sign_address(self, tenant: TenantId, timeline: TimelineId, term: int, conninfo: str) -> str:
        """The conninfo, signed: the timeline's compute of this term is found there. A safekeeper
        wants to see that before it connects."""
        whole = key_id(self.public_key) + self._key.sign(_address(tenant, timeline, term, conninfo))
        signature = base64.urlsafe_b64encode(whole).decode().rstrip("=")
        return f"{conninfo} signature='{signature}'"

    def of_operator(self, now: float) -> str:
        """Opens everything, until the key is changed."""
        return self.sign(Claims(Scope.OPERATOR, int(now)))

    def of_part(self, scope: Scope, now: float) -> str:
        """What a part shows the others, until the key is changed."""
        return self.sign(Claims(scope, int(now)))

    def of_tenant(self, tenant: TenantId, now: float, seconds: float) -> str:
        """Opens the verbs on the tenant's own databases, for so long."""
        return self.sign(Claims(Scope.TENANT, int(now), int(now + seconds), tenant))

    def of_timeline(
        self, tenant: TenantId, timeline: TimelineId, now: float, seconds: float
    ) -> str:
        """Opens the pages of one timeline, its ancestors' as it inherits them, for so long."""
        expires = int(now + seconds)
        return self.sign(Claims(Scope.TIMELINE, int(now), expires, tenant, timeline))


class Verifier:
    """Checks tokens against public keys, the newest first."""

    def __init__(self, public_keys: Sequence[bytes]) -> None:
        self._keys = {key_id(key): Ed25519PublicKey.from_public_bytes(key) for key in public_keys}

    def verify(self, token: str, now: float) -> Claims:
        """
        Raises:
            Unauthenticated: TOKEN_MALFORMED, TOKEN_FOREIGN, TOKEN_EXPIRED.
        """
        said, signature = _parts(token)
        self._check_signature(said, signature)
        claims = _claims_in(said)
        if claims.has_expired(now):
            raise Unauthenticated(
                "TOKEN_EXPIRED",
                f"The token of {claims.whose} ended {int(now) - claims.expires} s ago.",
                "Have another made: `pagestore tenant token`; a compute's is renewed by itself.",
            )
        return claims

    def check_address(self, tenant: TenantId, timeline: TimelineId, term: int, text: str) -> None:
        """
        Raises:
            PermissionDenied: ADDRESS_NOT_SIGNED, or for another timeline, term or address.
        """
        conninfo, signature = split_address(text)
        if _SIGNATURE.fullmatch(signature):
            whole = base64.urlsafe_b64decode(signature + "=")
            key, signed = whole[:_KEY_ID_BYTES], whole[_KEY_ID_BYTES:]
            if self._has_signed(key, signed, _address(tenant, timeline, term, conninfo)):
                return
        raise PermissionDenied(
            "ADDRESS_NOT_SIGNED",
            f"No key of this installation has signed that timeline {timeline} has its compute of "
            f"term {term} there.",
            "A compute's host signs its address, and does it again when keys have changed; is "
            "`pagestore compute` running, and of this installation?",
        )

    def _has_signed(self, name: bytes, signature: bytes, said: bytes) -> bool:
        key = self._keys.get(name)
        try:
            if key is not None:
                key.verify(signature, said)
                return True
        except InvalidSignature:
            pass
        return False

    def _check_signature(self, said: bytes, signature: bytes) -> None:
        if self._has_signed(said[4:8], signature, _DOMAIN + said):
            return
        raise Unauthenticated(
            "TOKEN_FOREIGN",
            "No key of this installation has signed the token.",
            "It is another installation's, or older than the last two changes of keys: take the "
            "one in this data directory (DATA/tokens/operator), or have another made.",
        )


def key_id(public_key: bytes) -> bytes:
    """Four bytes by which a token names the key that it was signed with."""
    return hashlib.sha256(public_key).digest()[:4]


def unverified(token: str) -> Claims:
    """What a token says of itself, whoever has signed it: to be shown, never to be believed.

    Raises:
        Unauthenticated: TOKEN_MALFORMED.
    """
    return _claims_in(_parts(token)[0])


def _parts(token: str) -> tuple[bytes, bytes]:
    """What is said, and the signature."""
    if _TEXT.fullmatch(token) is None:
        raise _malformed(f"it is not {PREFIX} and 160 characters")
    whole = base64.urlsafe_b64decode(token[len(PREFIX) :])
    return whole[:-_SIGNATURE_BYTES], whole[-_SIGNATURE_BYTES:]


def split_address(text: str) -> tuple[str, str]:
    """What :meth:`Signer.sign_address` made: the conninfo, and the signature; empty where there is
    none. Neither is checked."""
    found = _SIGNED.fullmatch(text)
    return (found[1], found[2]) if found is not None else (text, "")


def _address(tenant: TenantId, timeline: TimelineId, term: int, conninfo: str) -> bytes:
    """What is signed of a compute's address (docs/formats/token.md)."""
    whose = _ADDRESS.pack(tenant.raw, timeline.raw, term)
    return _ADDRESS_DOMAIN + whose + conninfo.encode()


def key_text(key: bytes) -> str:
    """A key, secret or public, as its file has it: a line."""
    return f"ed25519 {key.hex()}\n"


def parse_secret_key(text: str, where: str = A_FILE) -> bytes:
    """What a file of a signing key holds.

    Raises:
        DataLoss: FILE_CORRUPT.
    """
    return _key_of(text.strip(), where)


def parse_public_keys(text: str, where: str = A_FILE) -> list[bytes]:
    """What a file of public keys holds, a line each, the newest first.

    Raises:
        DataLoss: FILE_CORRUPT.
    """
    lines = [line.strip() for line in text.splitlines()]
    keys = [_key_of(line, where) for line in lines if line and not line.startswith("#")]
    if not 1 <= len(keys) <= MAX_KEYS:
        raise _corrupt(where, f"has {len(keys)} keys, not 1 to {MAX_KEYS}")
    return keys


def _key_of(line: str, where: str) -> bytes:
    if re.fullmatch(r"ed25519 [0-9a-f]{64}", line) is None:
        raise _corrupt(where, "has a line that is not `ed25519` and 64 hexadecimal digits")
    return bytes.fromhex(line.partition(" ")[2])


def _claims_in(said: bytes) -> Claims:
    version, scope, reserved, _, issued, expires, tenant, timeline = _CLAIMS.unpack(said)
    try:
        if (version, reserved) != (_VERSION, 0):
            raise ValueError(f"version {version}")
        return Claims(
            Scope(scope),
            issued,
            expires,
            TenantId(tenant) if scope >= Scope.TENANT else None,
            TimelineId(timeline) if scope == Scope.TIMELINE else None,
        )
    except (ValueError, InvalidInput) as error:
        raise _malformed(f"it is of another version of pagestore ({error})") from error


def _malformed(why: str) -> Unauthenticated:
    return Unauthenticated(
        "TOKEN_MALFORMED",
        f"What was sent as a token is none: {why}.",
        "Send a whole token, as `authorization: Bearer TOKEN`.",
    )


def _corrupt(where: str, why: str) -> DataLoss:
    return DataLoss(
        "FILE_CORRUPT",
        f"{where} {why}.",
        "Restore it from a copy; or remove the folder `keys` of the data directory: the next "
        "`pagestore up` makes other keys, and every token has to be made anew.",
    )
