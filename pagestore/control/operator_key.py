"""The operator's key, and what it seals.

The problem: a database's URL holds its owner's password, and goes on being printed for the
database's whole life; so the password has to be kept, and yet nobody who reads the control plane's
state, a copy of it or a listing may learn it. It is *sealed*: encrypted under a key that lies in a
file of its own, which no copy of the state holds, and opened for an answer that has to have it.

A sealed password is base64 of ``1 | key id (4) | nonce (12) | AES-256-GCM of the password``, with
its tenant as associated data: sealed passwords of one tenant open nothing as another's.

The key is made once. Where it is lost, the passwords that it sealed are: databases work on, each
with the password that its own catalog has, and `pagestore password NAME --reset` makes one that is
known. So that nobody loses them by moving a folder, a control plane whose state has another key
than the file refuses to start, until it is told that the key is lost.

Not in here: passwords of roles that users make. pagestore never knows those.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pagestore import durable
from pagestore.control.records import KeyRecord
from pagestore.control.state import ControlState
from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.ids import TenantId
from pagestore.lmdbfile import witness

KEY_BYTES = 32
_VERSION = b"\x01"
_ID_BYTES, _NONCE_BYTES = 4, 12
_HEAD = len(_VERSION) + _ID_BYTES + _NONCE_BYTES
_PURPOSE = b"pagestore password "


class OperatorKey:
    """
    Args:
        raw: KEY_BYTES of randomness.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._cipher = AESGCM(raw)
        self._id = hashlib.sha256(b"pagestore operator key" + raw).digest()[:_ID_BYTES]

    @property
    def id(self) -> str:
        """By which it is known, without telling it."""
        return self._id.hex()

    def seal(self, tenant: TenantId, clear: str) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, clear.encode(), _PURPOSE + tenant.raw)
        return base64.b64encode(_VERSION + self._id + nonce + sealed).decode()

    def open(self, tenant: TenantId, sealed: str) -> str:
        """The password; empty where it was sealed with another key, and so is not known.

        Raises:
            DataLoss: CONTROL_STATE_CORRUPT.
        """
        if not sealed:
            return ""
        try:
            raw = base64.b64decode(sealed, validate=True)
            if base64.b64encode(raw).decode() != sealed:
                raise ValueError("bits behind the end are set")
            version, key, nonce = raw[:1], raw[1 : 1 + _ID_BYTES], raw[1 + _ID_BYTES : _HEAD]
            if version == _VERSION and key != self._id:
                return ""
            return self._cipher.decrypt(nonce, raw[_HEAD:], _PURPOSE + tenant.raw).decode()
        except (binascii.Error, InvalidTag, ValueError) as error:
            raise DataLoss(
                "CONTROL_STATE_CORRUPT",
                f"A sealed password of tenant {tenant} is damaged.",
                "`pagestore password NAME --reset` makes another one.",
            ) from error

    def derived(self, purpose: str, text: str) -> str:
        """A secret that follows from the key and `text`, and tells neither."""
        digest = hmac.digest(self._raw, f"{purpose}\0{text}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def settle(state: ControlState, path: Path) -> OperatorKey:
    """The key of a state, made now where there never was one; what is not sealed yet is sealed, and
    the file's unused space overwritten, in which it may still stand.

    Raises:
        FailedPrecondition: OPERATOR_KEY_LOST, OPERATOR_KEY_EXPOSED.
        DataLoss: FILE_CORRUPT.
    """
    key, known = _read(path), state.view().key()
    accepted = witness.acceptance_file(path)
    if known is not None and (key is None or key.id != known.key) and not accepted.exists():
        raise _lost(path, key)
    if key is None:
        key = make(path)
    if known is None or known.key != key.id or not known.overwritten:
        _seal_all(state, key)
    accepted.unlink(missing_ok=True)
    return key


def _seal_all(state: ControlState, key: OperatorKey) -> None:
    """Two transactions, so that neither of the file's two trees has a clear password any more;
    then what is in no tree goes, and only then it is said to be done."""
    with state.change() as change:
        for record in change.databases():
            if record.password:
                sealed = key.seal(record.tenant, record.password)
                update = {"sealed_password": sealed, "password": ""}
                change.put_database(record.model_copy(update=update))
        change.put_key(KeyRecord(key=key.id, overwritten=False))
    with state.change() as change:
        change.put_key(KeyRecord(key=key.id, overwritten=False))
    state.overwrite_unused()
    with state.change() as change:
        change.put_key(KeyRecord(key=key.id, overwritten=True))


def _read(path: Path) -> OperatorKey | None:
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(4096)
    except FileNotFoundError:
        return None
    if mode & 0o077:
        raise FailedPrecondition(
            "OPERATOR_KEY_EXPOSED",
            f"{path} can be read by others than its owner.",
            f"chmod 600 {path}",
        )
    try:
        raw = bytes.fromhex(text.decode())
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise DataLoss("FILE_CORRUPT", f"{path} holds no key.", "Put it back from a copy.")
    return OperatorKey(raw)


def make(path: Path) -> OperatorKey:
    """A new one, over what may be there."""
    raw = os.urandom(KEY_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, f"{raw.hex()}\n".encode())
    return OperatorKey(raw)


def _lost(path: Path, found: OperatorKey | None) -> FailedPrecondition:
    what = "is gone" if found is None else "holds another key"
    return FailedPrecondition(
        "OPERATOR_KEY_LOST",
        f"{path} {what}: the databases' passwords are sealed with the key that it held.",
        "Put it back from a copy. To go on without those passwords, `pagestore lost --accept "
        "operator-key`; then `pagestore password NAME --reset` makes a new one.",
    )
