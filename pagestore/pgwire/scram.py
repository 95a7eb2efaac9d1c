"""SCRAM-SHA-256, both ends, from verifiers and keys: no password is ever needed, or known.

The problem: a client proves to us that it knows a password of which we have only the *verifier*
that Postgres keeps in pg_authid, and we then log in to a backend for it. SCRAM allows just that.
With p the password::

    SaltedPassword = PBKDF2(p, salt, iterations)
    ClientKey      = HMAC(SaltedPassword, "Client Key")      StoredKey = SHA256(ClientKey)
    ServerKey      = HMAC(SaltedPassword, "Server Key")
    AuthMessage    = client-first-bare , server-first , client-final-without-proof
    proof          = ClientKey xor HMAC(StoredKey, AuthMessage)
    signature      = HMAC(ServerKey, AuthMessage)

The verifier is (salt, iterations, StoredKey, ServerKey). A good proof *gives* the ClientKey:
``proof xor HMAC(StoredKey, AuthMessage)``. With it, and the same verifier on the other side, we
are a client ourselves. The key opens this one role and is never written anywhere.

Who does not exist is answered with a made-up verifier that is always the same for one name, and
fails at the end like a wrong password, after the same work: nothing tells them apart.

Sources: RFC 5802, RFC 7677; ``auth-scram.c`` for what Postgres does where they leave room.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from pagestore.pgwire.messages import ProtocolViolation

PLAIN = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"
ITERATIONS = 4096
"""Postgres's own number, which a made-up verifier must have too."""
_SALT_BYTES = 16
_KEY_BYTES = 32
_BINDING = "tls-server-end-point"
_VERIFIER = re.compile(
    r"SCRAM-SHA-256\$(\d{1,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)"
)
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class Verifier:
    """What Postgres keeps of a password: ``rolpassword`` of pg_authid."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Verifier | None:
        """None of anything else: an md5 hash, no password, or a damaged one."""
        match = _VERIFIER.fullmatch(text)
        if match is None:
            return None
        try:
            salt, stored, server = (
                base64.b64decode(match[number], validate=True) for number in (2, 3, 4)
            )
        except binascii.Error:
            return None
        whole = len(stored) == len(server) == _KEY_BYTES and int(match[1]) > 0 and salt
        return cls(int(match[1]), salt, stored, server) if whole else None

    @classmethod
    def of_nobody(cls, name: str, secret: bytes) -> Verifier:
        """For a role that there is not: no password fits, and it is the same next time."""
        salt = _hmac(secret, b"salt\0" + name.encode(errors="surrogateescape"))[:_SALT_BYTES]
        stored, server = (
            _hmac(secret, part + name.encode(errors="surrogateescape")) for part in (b"a\0", b"b\0")
        )
        return cls(ITERATIONS, salt, stored, server)


@dataclass(frozen=True, slots=True)
class Keys:
    """What opens one role: the client's key, and by what its server is known."""

    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def of_password(cls, password: str, salt: bytes, iterations: int) -> Keys:
        """`password` as it is hashed, after SASLprep."""
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
        return cls(_hmac(salted, b"Client Key"), _hmac(salted, b"Server Key"))

    def verifier(self, salt: bytes, iterations: int) -> Verifier:
        stored = hashlib.sha256(self.client_key).digest()
        return Verifier(iterations, salt, stored, self.server_key)


class ServerExchange:
    """One login, as its server: :meth:`first`, then :meth:`final`.

    Args:
        nonce: ours: base64 text of at least 18 random bytes.
        binding: the hash of the certificate that this client sees; None without TLS.
    """

    def __init__(self, verifier: Verifier, nonce: str, binding: bytes | None) -> None:
        self._verifier = verifier
        self._nonce = nonce
        self._binding = binding
        self._header = b""
        self._client_first = ""
        self._server_first = ""

    def first(self, mechanism: str, data: bytes) -> bytes:
        """The server-first message.

        Raises:
            ProtocolViolation: 08P01, 28000.
        """
        flag, authzid, bare = _split_first(_ascii(data))
        self._check_flag(mechanism, flag)
        if authzid:
            raise ProtocolViolation(
                "0A000", "client uses authorization identity, but it is not supported"
            )
        attributes = _attributes(bare)
        # The name is empty from libpq; the role is the StartupMessage's, whatever stands here.
        if attributes[0][0] != "n" or len(attributes) < 2 or attributes[1][0] != "r":
            raise _malformed()
        nonce = attributes[1][1]
        if not _NONCE.fullmatch(nonce):
            raise ProtocolViolation("08P01", "non-printable characters in SCRAM nonce")
        self._header = f"{flag},{authzid},".encode()
        self._client_first = bare
        self._nonce = nonce + self._nonce
        salt = base64.b64encode(self._verifier.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={self._verifier.iterations}"
        return self._server_first.encode()

    def final(self, data: bytes) -> tuple[Keys, bytes] | None:
        """The client's keys and the server-final message; None if the password is another.

        Raises:
            ProtocolViolation: 08P01; it does not belong to the first one.
        """
        text = _ascii(data)
        without_proof, separator, encoded = text.rpartition(",p=")
        attributes = _attributes(without_proof)
        if not separator or [name for name, _ in attributes[:2]] != ["c", "r"]:
            raise _malformed()
        self._check_binding(attributes[0][1])
        if attributes[1][1] != self._nonce:
            raise ProtocolViolation("08P01", "SCRAM nonce does not match")
        proof = _decoded(encoded)
        if len(proof) != _KEY_BYTES:
            raise _malformed()
        message = f"{self._client_first},{self._server_first},{without_proof}".encode()
        client_key = _xor(proof, _hmac(self._verifier.stored_key, message))
        stored_key = hashlib.sha256(client_key).digest()
        if not hmac.compare_digest(stored_key, self._verifier.stored_key):
            return None
        keys = Keys(client_key, self._verifier.server_key)
        return keys, b"v=" + base64.b64encode(_hmac(keys.server_key, message))

    def _check_flag(self, mechanism: str, flag: str) -> None:
        offered_plus = self._binding is not None
        if mechanism == PLUS and not offered_plus:
            raise ProtocolViolation(
                "08P01", "client selected an invalid SASL authentication mechanism"
            )
        if mechanism == PLUS and flag != f"p={_BINDING}":
            raise ProtocolViolation(
                "08P01", "SCRAM with channel binding, but the client names no binding that is known"
            )
        if mechanism == PLAIN and flag.startswith("p"):
            raise ProtocolViolation("08P01", "channel binding asked for without SCRAM-SHA-256-PLUS")
        if mechanism == PLAIN and flag == "y" and offered_plus:
            # It would have used -PLUS had it seen our offer: somebody between us took it out.
            raise ProtocolViolation(
                "28000",
                "SCRAM channel binding negotiation error: the client believes that we have none",
            )

    def _check_binding(self, encoded: str) -> None:
        bound = self._binding if self._header.startswith(b"p=") else b""
        expected = base64.b64encode(self._header + (bound or b"")).decode()
        if not hmac.compare_digest(encoded.encode(), expected.encode()):
            raise ProtocolViolation("28000", "SCRAM channel binding check failed")


class ClientExchange:
    """One login, as its client, without channel binding: :meth:`first`, :meth:`final`,
    :meth:`check`."""

    def __init__(self, keys: Keys, nonce: str) -> None:
        self._keys = keys
        self._nonce = nonce
        self._first = f"n=,r={nonce}"
        self._signature = b""

    def first(self) -> bytes:
        return f"n,,{self._first}".encode()

    def final(self, server_first: bytes) -> bytes:
        """
        Raises:
            ProtocolViolation: 08P01; it does not answer our first message.
        """
        text = _ascii(server_first)
        attributes = dict(_attributes(text))
        nonce = attributes.get("r", "")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ProtocolViolation("08P01", "SCRAM nonce does not match")
        without_proof = f"c=biws,r={nonce}"
        message = f"{self._first},{text},{without_proof}".encode()
        stored_key = hashlib.sha256(self._keys.client_key).digest()
        proof = _xor(self._keys.client_key, _hmac(stored_key, message))
        self._signature = _hmac(self._keys.server_key, message)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def check(self, server_final: bytes) -> bool:
        """Whether the server knows the role's verifier too."""
        expected = b"v=" + base64.b64encode(self._signature)
        return hmac.compare_digest(server_final, expected)


def _split_first(text: str) -> tuple[str, str, str]:
    """The binding flag, the authorization identity, and the rest of a client-first message."""
    parts = text.split(",", 2)
    known = len(parts) == 3 and (parts[0] in ("n", "y") or parts[0].startswith("p="))
    if not known:
        raise _malformed()
    return parts[0], parts[1], parts[2]


def _attributes(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in text.split(","):
        if len(part) < 2 or part[1] != "=" or not part[0].isalpha():
            raise _malformed()
        pairs.append((part[0], part[2:]))
    if pairs[0][0] == "m":
        raise ProtocolViolation("0A000", "client requires an unsupported SCRAM extension")
    return pairs


def _ascii(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise _malformed() from error


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed() from error


def _malformed() -> ProtocolViolation:
    return ProtocolViolation("08P01", "malformed SCRAM message")


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
