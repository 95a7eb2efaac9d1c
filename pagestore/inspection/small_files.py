"""Small files that have no head of their own: told by their names, and where they lie.

Keys, tokens and secrets are never shown: what they are, whose, and whether they are whole. Of what
a tenant's server wrote there is only the size.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from pagestore import tokens
from pagestore.compute.record import RECORD_FILE
from pagestore.control.operator_key import OperatorKey
from pagestore.errors import DataLoss, PagestoreError
from pagestore.inspection import safekeeper_files
from pagestore.inspection.inspected import NOT_SHOWN, Inspected, Reader, called, shown

_OF_READERS = ("lock.mdb", "catalog.lmdb-lock")
_SERVERS = ("data", "run")
"""Folders of a compute in which its server writes (pagestore/compute/record.py)."""
_HEXADECIMAL = re.compile(rb"[0-9a-f]{64}\n?")


def is_of_readers(path: Path) -> bool:
    """Whether it is LMDB's table of who reads, which has a head like the file's own."""
    return called(path) in _OF_READERS


def is_of_a_server(path: Path) -> bool:
    """Whether a compute's server wrote it."""
    return any(
        parent.name in _SERVERS and (parent.parent / RECORD_FILE).is_file()
        for parent in path.absolute().parents
    )


def reader_of(path: Path) -> Reader | None:
    name, folder = called(path), path.absolute().parent.name
    if name in _BY_NAME:
        return _BY_NAME[name]
    for of_folder, pattern, reader in _BY_PLACE:
        if of_folder in ("", folder) and re.fullmatch(pattern, name):
            return reader
    return None


def _opaque(kind: str) -> Reader:
    def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
        del path, limit
        return Inspected(kind, {"bytes": len(raw)})

    return inspect


of_a_server = _opaque("file of a database's server: what a tenant wrote is not shown")


def _line(kind: str, pattern: str = r".+\n?") -> Reader:
    """One line of text."""

    def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
        del path, limit
        text = raw.decode(errors="backslashreplace")
        found = Inspected(kind, {"says": text.strip()})
        if re.fullmatch(pattern, text) is None:
            found.damage.append("it holds nothing of what it should")
        return found

    return inspect


def _lines(kind: str) -> Reader:
    """The last lines of a text."""

    def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
        del path
        lines = raw.decode(errors="backslashreplace").splitlines()
        last = range(max(0, len(lines) - limit), len(lines))
        rows = [(str(number + 1), lines[number]) for number in last]
        return Inspected(kind, {}, ("line", "says"), rows, len(lines))

    return inspect


def _fields(kind: str, read: Callable[[str], Any]) -> Reader:
    """Names and values."""

    def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
        del path
        found = Inspected(kind, {}, ("name", "value"))
        try:
            said = read(raw.decode())
        except ValueError as error:
            found.damage.append(str(error))
            return found
        if not isinstance(said, dict):
            found.damage.append("it holds nothing of what it should")
            return found
        rows = list(_flat(said))
        found.rows, found.count = rows[:limit], len(rows)
        return found

    return inspect


def _flat(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        value = shown(name, value)
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value if isinstance(value, str) else json.dumps(value)


def _secret(kind: str) -> Reader:
    def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
        del path, limit
        found = Inspected(kind, {"bytes": len(raw), "content": NOT_SHOWN})
        if _HEXADECIMAL.fullmatch(raw) is None:
            found.damage.append("it is not 64 hexadecimal digits")
        return found

    return inspect


def _operator_key(path: Path, raw: bytes, limit: int) -> Inspected:
    found = _secret("operator's key, which seals passwords")(path, raw, limit)
    if not found.damage:
        found.facts["key_id"] = OperatorKey(bytes.fromhex(raw.decode())).id
    return found


def _signing_key(path: Path, raw: bytes, limit: int) -> Inspected:
    del limit
    found = Inspected("key that signs tokens", {"content": NOT_SHOWN})
    try:
        signer = tokens.Signer.parse(raw.decode(errors="replace"), str(path))
    except DataLoss as error:
        found.damage.append(error.message)
    else:
        found.facts["public_key"] = signer.public_key.hex()
    return found


def _public_keys(path: Path, raw: bytes, limit: int) -> Inspected:
    found = Inspected("keys by which tokens are known", {}, ("public key",))
    try:
        keys = tokens.parse_public_keys(raw.decode(errors="replace"), str(path))
    except DataLoss as error:
        found.damage.append(error.message)
    else:
        found.rows, found.count = [(key.hex(),) for key in keys][:limit], len(keys)
    return found


def _token(path: Path, raw: bytes, limit: int) -> Inspected:
    del path, limit
    found = Inspected("token", {"content": NOT_SHOWN})
    try:
        claims = tokens.unverified(raw.decode(errors="replace").strip())
    except PagestoreError as error:
        found.damage.append(error.message)
        return found
    found.facts |= {
        "of": claims.whose,
        "made": _time(claims.issued),
        "ends": _time(claims.expires) if claims.expires else "never",
        "tenant": str(claims.tenant or ""),
        "timeline": str(claims.timeline or ""),
    }
    return found


def _certificate(path: Path, raw: bytes, limit: int) -> Inspected:
    del path
    found = Inspected("certificate", {}, ("name",))
    try:
        read = x509.load_pem_x509_certificate(raw)
    except ValueError as error:
        found.damage.append(str(error))
        return found
    found.facts = {
        "subject": read.subject.rfc4514_string(),
        "issuer": read.issuer.rfc4514_string(),
        "begins": read.not_valid_before_utc.isoformat(),
        "ends": read.not_valid_after_utc.isoformat(),
    }
    try:
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    rows = [(str(name.value),) for name in names]
    found.rows, found.count = rows[:limit], len(rows)
    return found


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


_private_key = _opaque("private key of a certificate, which is not shown")
BY_MAGIC: dict[bytes, Reader] = {
    tokens.PREFIX.encode(): _token,
    b"-----BEGIN CERTIFICATE": _certificate,
    b"-----BEGIN PRIVATE KEY": _private_key,
    b"-----BEGIN EC PRIVATE KEY": _private_key,
    b"\x7fELF": _opaque("module that Postgres loads"),
}
_RULES = _lines("rules of who may log in to a database's server")
_BY_NAME: dict[str, Reader] = {
    "address": _line("address of a part"),
    "lock": _line("lock of a directory: the process that took it, where it says", r"\d*\n?"),
    "consumer": _line("name by which WAL is held back for a page server"),
    "session-secret": _secret("secret of what sessions leave behind"),
    "stranger-secret": _secret("secret of answers to roles that there are not"),
    "operator-key": _operator_key,
    "signing-key": _signing_key,
    "public-keys": _public_keys,
    "pagestore-installation": _line("mark of a data directory"),
    "recovering": _line("mark of a recovery that has not ended"),
    "compute-dir": _line("place of the computes' directories"),
    "last-safekeeper-id": _line("highest number of a safekeeper", r"\d+\n?"),
    "memory-of-peers": safekeeper_files.inspect_memory_of_peers,
    "peers": _lines("addresses of a safekeeper's peers"),
    "pagestore.toml": _fields("settings of an installation", tomllib.loads),
    "parts.json": _fields("processes of an installation", json.loads),
    "walls.json": _fields("walls around computes", json.loads),
    RECORD_FILE: _fields("record of a compute", json.loads),
    "measured": _fields("what a compute has used", json.loads),
    "pg_hba.conf": _RULES,
    "pg_ident.conf": _RULES,
    "pagestore.synchronous.conf": _lines("rule of commits of a database's server"),
    **dict.fromkeys(_OF_READERS, _opaque("LMDB's table of who reads")),
}
_LOG_OF_A_SERVER = _opaque("log of a database's server: what a tenant wrote is not shown")
_BY_PLACE: tuple[tuple[str, str, Reader], ...] = (
    ("", r".+-accept-older", _opaque("word that an older copy is accepted")),
    ("logs", r".+\.log(\.\d+)?", _LOG_OF_A_SERVER),
    ("", r".+\.log(\.\d+)?", _lines("log of a part")),
    ("", r".+\.tmp|.+#\d+", _opaque("file that was being written, and that nobody reads")),
    ("boundary", r"[0-9a-f]{8}-[0-9a-f]{16}", _opaque("boundary of what a part has removed")),
    ("race", r"[0-9a-f]{16}", _opaque("name that was made to see who may make it")),
    ("cache", r"[0-9a-f]{16}|check-[0-9a-f]+", _opaque("ranges of a layer that were fetched")),
)
