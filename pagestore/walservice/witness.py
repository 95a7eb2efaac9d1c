"""A second file that says how far a log was durable: what tells torn from replaced.

The problem. A log that was being written when the process died ends somewhere behind the position
in its control file, and is searched for its end. But zeros behind a record look the same whether
the rest never came or whether somebody has put an older copy of the segment there. In the one case
nothing was promised; in the other, acknowledged commits are gone.

So after each sync the writer (native/core/receiver/writer.c) also writes here up to where the log
is durable. It does not sync that: a commit costs one more write into the page cache. A kill loses
nothing of it. After a power cut it may be old (the kernel writes it within half a minute), but is
never too new, since it is written after the sync. A log that ends before it is damaged, and is
never cut. Likewise each replacement of the control file is counted here, so that an older copy is
known.

The file testifies against others, and nothing rests on it: where it is missing or unreadable, the
control file alone binds. Two sectors, each written as a whole and checksummed by itself. A position
counts in the *epoch* that the control file is in: to cut a log begins another.
The layout is in docs/formats/safekeeper.md.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import structlog

from pagestore._native import crc32c
from pagestore.consensus.acceptor import WalPosition
from pagestore.walservice.owner import OWNER_BYTES, Owner

NAME = "witness"
MAGIC = b"PSSKWIT\0"
VERSION = 1
SECTOR = 512

_HEAD = struct.Struct(f"<8sI{OWNER_BYTES}sQ")
_POSITION = struct.Struct("<QQQI")
_CRC = struct.Struct("<I")
_log = structlog.get_logger(__name__)


class Witness(NamedTuple):
    """
    Args:
        revision: the control file has been replaced so many times, or more often.
        epoch: of the position.
        position: the log was durable up to there; flush LSN 0: nothing was written.
        record_crc: xl_crc of the record that ends there.
    """

    revision: int
    epoch: int = 0
    position: WalPosition = WalPosition(0, 0)
    record_crc: int = 0


def write_revision(directory: Path, owner: Owner, revision: int) -> None:
    """Counts a replacement of the control file. What it cannot write only weakens it."""
    path = directory / NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            head = _HEAD.pack(MAGIC, VERSION, owner.encode(), revision)
            os.pwrite(descriptor, _sealed(head), 0)
            if os.fstat(descriptor).st_size < 2 * SECTOR:
                os.ftruncate(descriptor, 2 * SECTOR)
        finally:
            os.close(descriptor)
    except OSError as error:
        _log.warning("no witness", path=str(path), error=str(error))


def read(directory: Path, owner: Owner) -> Witness | None:
    """What it says; None when it says nothing that can be trusted."""
    path = directory / NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("no witness", path=str(path), error=str(error))
        return None
    found = decode(raw)
    if found is None:
        why = "its checksum does not hold, or it is of another version"
        _log.warning("no witness", path=str(path), error=why)
        return None
    whose, witness = found
    if whose != owner:
        _log.warning("no witness", path=str(path), error="it is another log's")
        return None
    return witness


def decode(raw: bytes) -> tuple[Owner, Witness] | None:
    """Whose the file says that it is, and what it says; None where that cannot be trusted."""
    head = _unsealed(raw[: _HEAD.size + _CRC.size])
    if head is None:
        return None
    magic, version, whose, revision = _HEAD.unpack(head)
    if (magic, version) != (MAGIC, VERSION):
        return None
    owner = Owner.decode(whose)
    told = _unsealed(raw[SECTOR : SECTOR + _POSITION.size + _CRC.size])
    if told is None:
        return owner, Witness(revision)
    epoch, flush_lsn, prev_record_lsn, record_crc = _POSITION.unpack(told)
    position = WalPosition(flush_lsn, prev_record_lsn)
    return owner, Witness(revision, epoch, position, record_crc)


def _sealed(body: bytes) -> bytes:
    return body + _CRC.pack(crc32c(body))


def _unsealed(raw: bytes) -> bytes | None:
    body, stored = raw[: -_CRC.size], raw[-_CRC.size :]
    if len(raw) <= _CRC.size or _CRC.pack(crc32c(body)) != stored:
        return None
    return body
