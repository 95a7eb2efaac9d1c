"""An installation's keys, and the tokens of its operator and its parts.

::

    DATA/keys/signing-key     whoever has it is the operator; the control plane and the agent of
                              computes read it
    DATA/keys/public-keys     by which every part knows who calls
    DATA/tokens/operator      found there by the command line of this user, and by programs
    DATA/tokens/<part>        what a part shows the others

Made at the first `up`. See docs/formats/token.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pagestore import durable, locks
from pagestore.client.credentials import OPERATOR_TOKEN
from pagestore.errors import FailedPrecondition, Unauthenticated
from pagestore.tokens import (
    KEY_BYTES,
    MAX_KEYS,
    Scope,
    Signer,
    Verifier,
    key_text,
    parse_public_keys,
)

SIGNING_KEY = Path("keys/signing-key")
PUBLIC_KEYS = Path("keys/public-keys")
_TOKENS = {
    OPERATOR_TOKEN: Scope.OPERATOR,
    Path("tokens/pageserver"): Scope.PAGESERVER,
    Path("tokens/safekeeper"): Scope.SAFEKEEPER,
    Path("tokens/proxy"): Scope.PROXY,
    Path("tokens/compute"): Scope.COMPUTE_AGENT,
    Path("tokens/exporter"): Scope.EXPORTER,
}


def token_file(verb: str) -> Path:
    """Of a part, within the data directory; the control plane acts for the operator."""
    path = Path("tokens") / verb
    return path if path in _TOKENS else OPERATOR_TOKEN


def settle(data: Path) -> None:
    """Makes what is missing.

    Raises:
        DataLoss: FILE_CORRUPT. FailedPrecondition: KEY_LOST.
        OSError: it cannot be made.
    """
    for folder in (data / "keys", data / "tokens"):
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_mode & 0o077:  # a disk may be read-only by now
            folder.chmod(0o700)
    with locks.alone(data / "keys"):
        if not (data / SIGNING_KEY).exists():
            _refuse_lost_key(data)
            _make_key(data, [])
        signer = _signer(data)
        known = _public_keys(data)
        if signer.public_key not in known:
            # Stopped between the two files of a change: nobody has a token of the new key yet.
            _write_public_keys(data, [signer.public_key, *known])
        _write_tokens(data, signer)


def change(data: Path) -> None:
    """Signs with a new key from now on. Tokens of the one before hold until the next change, so
    whoever has one has until then to take another; parts read the new keys by themselves."""
    with locks.alone(data / "keys"):
        known = _public_keys(data)
        _make_key(data, known)
        _write_tokens(data, _signer(data))


def _make_key(data: Path, known: list[bytes]) -> None:
    """The public one first: what is signed with the new key is accepted from the first on."""
    seed = os.urandom(KEY_BYTES)
    _write_public_keys(data, [Signer(seed).public_key, *known])
    durable.replace(data / SIGNING_KEY, key_text(seed).encode())


def _write_public_keys(data: Path, keys: list[bytes]) -> None:
    text = "".join(key_text(key) for key in keys[:MAX_KEYS])
    durable.replace(data / PUBLIC_KEYS, text.encode())


def _write_tokens(data: Path, signer: Signer) -> None:
    """Those that the key has not signed are made anew."""
    newest = Verifier([signer.public_key])
    now = time.time()
    for place, scope in _TOKENS.items():
        path = data / place
        try:
            if newest.verify(path.read_text().strip(), now).scope is scope:
                continue
        except (OSError, UnicodeDecodeError, Unauthenticated):
            pass
        durable.replace(path, f"{signer.of_part(scope, now)}\n".encode())


def _public_keys(data: Path) -> list[bytes]:
    """None where the file is gone: the one that signs is among them as soon as it is missed, and
    tokens of the one before are refused by name."""
    path = data / PUBLIC_KEYS
    try:
        return parse_public_keys(path.read_text(errors="replace"), str(path))
    except FileNotFoundError:
        return []


def _signer(data: Path) -> Signer:
    path = data / SIGNING_KEY
    return Signer.parse(path.read_text(errors="replace"), str(path))


def _refuse_lost_key(data: Path) -> None:
    """Parts that still run, and whoever was given a token, know the key that is gone."""
    if (data / PUBLIC_KEYS).exists():
        raise FailedPrecondition(
            "KEY_LOST",
            f"{data / SIGNING_KEY} is missing, but {data / PUBLIC_KEYS} is there.",
            f"Put it back; or remove {data / 'keys'}: then every token is made anew.",
        )
