"""A secret of a directory's own: made where there is none, or none that is whole."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from pagestore import durable

SECRET_BYTES = 32
_TEXT = re.compile(rb"[0-9a-f]{64}\n")


def secret_of(path: Path) -> bytes:
    """SECRET_BYTES of randomness, the same each time as long as the file is there."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        text = b""
    if not _TEXT.fullmatch(text):
        text = secrets.token_hex(SECRET_BYTES).encode() + b"\n"
        durable.replace(path, text)
    return bytes.fromhex(text.decode())
