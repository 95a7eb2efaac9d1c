"""The control file of a timeline's log: what a safekeeper must remember of it.

Replaced as a whole: written beside, fsynced, renamed over, the directory fsynced. A crash leaves
the old one or the new one. The layout is in docs/formats/safekeeper.md.
"""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

from pagestore import durable
from pagestore._native import crc32c
from pagestore.consensus.acceptor import Attachment, State, TermSwitch, WalPosition
from pagestore.consensus.members import Configuration, Member
from pagestore.errors import DataLoss

NAME = "control"
MAGIC = b"PSSKCTL\0"
ALONE_VERSION = 1
MEMBERS_VERSION = 3
"""Of a timeline that has a configuration: the same, and that configuration behind it."""

_HEAD = struct.Struct("<8sIIQQQQQQQII")
_SWITCH = struct.Struct("<QQ")
_CONFIGURATION = struct.Struct("<QIIIQQ")
_MEMBER = struct.Struct("<IQ")
_CRC = struct.Struct("<I")
_CLEAN = 1
_ATTACHED = 2


def encode(state: State, *, clean: bool) -> bytes:
    attachment = state.attachment or Attachment(0, "")
    conninfo = attachment.conninfo.encode()
    flags = (_CLEAN if clean else 0) | (_ATTACHED if state.attachment else 0)
    head = _HEAD.pack(
        MAGIC,
        MEMBERS_VERSION if state.configuration.members else ALONE_VERSION,
        flags,
        state.system_id,
        state.start.flush_lsn,
        state.start.prev_record_lsn,
        state.term,
        state.position.flush_lsn,
        state.position.prev_record_lsn,
        attachment.term,
        len(state.history),
        len(conninfo),
    )
    switches = b"".join(_SWITCH.pack(item.term, item.start_lsn) for item in state.history)
    body = head + switches + conninfo + _encode_configuration(state)
    return body + _CRC.pack(crc32c(body))


def _encode_configuration(state: State) -> bytes:
    own, configuration = state.member, state.configuration
    if not configuration.members:
        return b""
    head = _CONFIGURATION.pack(
        own.incarnation,
        own.number,
        len(configuration.members),
        len(configuration.joining),
        configuration.generation,
        state.known_commit_lsn,
    )
    both = (*configuration.members, *configuration.joining)
    return head + b"".join(_MEMBER.pack(item.number, item.incarnation) for item in both)


def _with_configuration(state: State, raw: bytes) -> State | None:
    """None when the length does not fit."""
    if len(raw) < _CONFIGURATION.size:
        return None
    incarnation, number, members, joining, generation, commit_lsn = _CONFIGURATION.unpack_from(raw)
    if len(raw) != _CONFIGURATION.size + (members + joining) * _MEMBER.size:
        return None
    both = tuple(Member(*item) for item in _MEMBER.iter_unpack(raw[_CONFIGURATION.size :]))
    return dataclasses.replace(
        state,
        member=Member(number, incarnation),
        configuration=Configuration(generation, both[:members], both[members:]),
        known_commit_lsn=commit_lsn,
    )


def decode(raw: bytes, where: str) -> tuple[State, bool]:
    """The state, and whether its position is the log's end (else the log must be searched).

    Raises:
        DataLoss: CONTROL_DAMAGED, naming `where`.
    """
    if len(raw) < _HEAD.size + _CRC.size or not raw.startswith(MAGIC):
        raise _damaged(where, "it is no control file of a safekeeper")
    body, stored = raw[: -_CRC.size], _CRC.unpack(raw[-_CRC.size :])[0]
    if crc32c(body) != stored:
        raise _damaged(where, "its checksum does not hold")
    (
        _,
        version,
        flags,
        system_id,
        start_lsn,
        start_prev,
        term,
        flush_lsn,
        flush_prev,
        attached_term,
        switches,
        conninfo_length,
    ) = _HEAD.unpack_from(body)
    if version not in (ALONE_VERSION, MEMBERS_VERSION):
        raise _damaged(where, f"its version is {version}, this program knows 1 and 3")
    conninfo_at = _HEAD.size + switches * _SWITCH.size
    members_at = conninfo_at + conninfo_length
    if len(body) < members_at or (version == ALONE_VERSION and len(body) != members_at):
        raise _damaged(where, "its length does not fit its contents")
    history = tuple(
        TermSwitch(*_SWITCH.unpack_from(body, _HEAD.size + i * _SWITCH.size))
        for i in range(switches)
    )
    attachment = None
    if flags & _ATTACHED:
        attachment = Attachment(attached_term, body[conninfo_at:members_at].decode())
    state = State(
        WalPosition(start_lsn, start_prev),
        system_id,
        term,
        history,
        attachment,
        WalPosition(flush_lsn, flush_prev),
    )
    if version == MEMBERS_VERSION:
        whole = _with_configuration(state, body[members_at:])
        if whole is None:
            raise _damaged(where, "its length does not fit its contents")
        state = whole
    return state, bool(flags & _CLEAN)


def read(directory: Path) -> tuple[State, bool]:
    """See :func:`decode`. FileNotFoundError where there is none."""
    path = directory / NAME
    with path.open("rb") as file:
        return decode(file.read(), str(path))


def replace(directory: Path, state: State, *, clean: bool) -> None:
    """Durable when it returns; OSError leaves the old file in force."""
    # For its owner alone: a conninfo may hold a password.
    durable.replace(directory / NAME, encode(state, clean=clean), mode=durable.PRIVATE)


def _damaged(where: str, why: str) -> DataLoss:
    return DataLoss(
        "CONTROL_DAMAGED",
        f"The control file {where} cannot be trusted: {why}.",
        "Restore it from a copy; without it the safekeeper does not know what it promised.",
    )
