"""The control file of a timeline's log: what a safekeeper must remember of it.

Replaced as a whole: written beside, fsynced, renamed over, the directory fsynced. A crash leaves
the old one or the new one. It says whose it is, and how often it has been replaced: another log's
is refused, and an older copy is known by what the witness counts (witness.py). The layout is in
docs/formats/safekeeper.md.
"""

from __future__ import annotations

import dataclasses
import struct
from dataclasses import dataclass
from pathlib import Path

from pagestore import durable
from pagestore._native import crc32c
from pagestore.consensus.acceptor import Attachment, State, TermSwitch, WalPosition
from pagestore.consensus.members import Configuration, Member
from pagestore.errors import DataLoss
from pagestore.walservice import witness
from pagestore.walservice.owner import OWNER_BYTES, Owner

NAME = "control"
MAGIC = b"PSSKCTL\0"
VERSION = 4
WITHOUT_OWNER = (1, 3)
"""Read, and replaced by the newest: 1 without a configuration, 3 with one. Nobody wrote 2."""

_HEAD = struct.Struct("<8sIIQQQQQQQII")
_SWITCH = struct.Struct("<QQ")
_IDENTITY = struct.Struct(f"<{OWNER_BYTES}sIQQ")
_CONFIGURATION = struct.Struct("<QIIIQQ")
_MEMBER = struct.Struct("<IQ")
_CRC = struct.Struct("<I")
_CLEAN = 1
_ATTACHED = 2


@dataclass(frozen=True, slots=True)
class Control:
    """
    Args:
        clean: `state.position` is the log's end; else the end is to be searched from there.
        record_crc: xl_crc of the record that ends at the position; 0 unknown.
        revision: rises with each replacement.
        epoch: rises each time that the log is cut: the revision that said so.
    """

    state: State
    clean: bool
    record_crc: int = 0
    revision: int = 0
    epoch: int = 0


def encode(control: Control, owner: Owner) -> bytes:
    state = control.state
    attachment = state.attachment or Attachment(0, "")
    conninfo = attachment.conninfo.encode()
    flags = (_CLEAN if control.clean else 0) | (_ATTACHED if state.attachment else 0)
    head = _HEAD.pack(
        MAGIC,
        VERSION,
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
    identity = _IDENTITY.pack(owner.encode(), control.record_crc, control.revision, control.epoch)
    body = head + switches + conninfo + identity + _encode_configuration(state)
    return body + _CRC.pack(crc32c(body))


def _encode_configuration(state: State) -> bytes:
    own, configuration = state.member, state.configuration
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


_LENGTH = "its length does not fit its contents"


def decode(raw: bytes, owner: Owner, where: str) -> Control:
    """
    Raises:
        DataLoss: CONTROL_DAMAGED, CONTROL_FOREIGN, naming `where`.
    """
    body, version = _checked(raw, where)
    state, clean, rest = _decode_first(body, where)
    control = Control(state, clean)
    if version == VERSION:
        if len(rest) < _IDENTITY.size:
            raise _damaged(where, _LENGTH)
        whose, record_crc, revision, epoch = _IDENTITY.unpack_from(rest)
        owner.check(whose, "CONTROL_FOREIGN", where)
        control = Control(state, clean, record_crc, revision, epoch)
        rest = rest[_IDENTITY.size :]
    if version == 1 and not rest:
        return control
    whole = _with_configuration(state, rest) if version != 1 else None
    if whole is None:
        raise _damaged(where, _LENGTH)
    return dataclasses.replace(control, state=whole)


def owner_in(raw: bytes, where: str) -> Owner | None:
    """Whose a control file says it is; None where it is of a version that does not.

    Raises:
        DataLoss: CONTROL_DAMAGED, naming `where`.
    """
    body, version = _checked(raw, where)
    _, _, rest = _decode_first(body, where)
    if version != VERSION or len(rest) < OWNER_BYTES:
        return None
    return Owner.decode(rest[:OWNER_BYTES])


def _checked(raw: bytes, where: str) -> tuple[bytes, int]:
    """All before the checksum, which holds, and the version."""
    if len(raw) < _HEAD.size + _CRC.size or not raw.startswith(MAGIC):
        raise _damaged(where, "it is no control file of a safekeeper")
    body, stored = raw[: -_CRC.size], _CRC.unpack(raw[-_CRC.size :])[0]
    if crc32c(body) != stored:
        raise _damaged(where, "its checksum does not hold")
    version = int.from_bytes(body[8:12], "little")
    if version not in (VERSION, *WITHOUT_OWNER):
        raise _damaged(where, f"its version is {version}, this program knows 1, 3 and {VERSION}")
    return body, version


def _decode_first(body: bytes, where: str) -> tuple[State, bool, bytes]:
    """What all versions begin with: a state without a configuration, whether it is clean, and the
    bytes that follow."""
    (
        _,
        _,
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
    conninfo_at = _HEAD.size + switches * _SWITCH.size
    end = conninfo_at + conninfo_length
    if len(body) < end:
        raise _damaged(where, _LENGTH)
    history = tuple(
        TermSwitch(*_SWITCH.unpack_from(body, _HEAD.size + i * _SWITCH.size))
        for i in range(switches)
    )
    attachment = None
    if flags & _ATTACHED:
        attachment = Attachment(attached_term, body[conninfo_at:end].decode())
    state = State(
        WalPosition(start_lsn, start_prev),
        system_id,
        term,
        history,
        attachment,
        WalPosition(flush_lsn, flush_prev),
    )
    return state, bool(flags & _CLEAN), body[end:]


def read(directory: Path, owner: Owner) -> Control:
    """
    Raises:
        FileNotFoundError: there is no timeline: nothing, or what a crash left of its creation.
        DataLoss: CONTROL_MISSING, CONTROL_DAMAGED, CONTROL_FOREIGN, CONTROL_OUTDATED.
    """
    path = directory / NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        _check_absent(directory)
        raise
    control = decode(raw, owner, str(path))
    seen = witness.read(directory, owner)
    if seen is not None and max(seen.revision, seen.epoch) > control.revision:
        raise DataLoss(
            "CONTROL_OUTDATED",
            f"The control file {path} is an older copy: it has been replaced since.",
            f"Restore the newest. If there is none, removing {witness.NAME} beside it lets it "
            "count; a promise that was given since may then be broken.",
        )
    return control


def is_unfinished(directory: Path) -> bool:
    """Whether nothing is there but what a crash left of a creation."""
    return all(path.name == f"{NAME}{durable.SUFFIX}" for path in directory.iterdir())


def _check_absent(directory: Path) -> None:
    try:
        if is_unfinished(directory):
            return
    except FileNotFoundError:
        return
    raise DataLoss(
        "CONTROL_MISSING",
        f"{directory} holds a log without its control file.",
        "Restore that from a copy; without it the safekeeper does not know what it promised. "
        "Nothing in the directory is touched.",
    )


def replace(directory: Path, control: Control, owner: Owner) -> None:
    """Durable when it returns; OSError leaves the old file in force."""
    # For its owner alone: a conninfo may hold a password.
    durable.replace(directory / NAME, encode(control, owner), mode=durable.PRIVATE)
    witness.write_revision(directory, owner, control.revision)


def _damaged(where: str, why: str) -> DataLoss:
    return DataLoss(
        "CONTROL_DAMAGED",
        f"The control file {where} cannot be trusted: {why}.",
        "Restore it from a copy; without it the safekeeper does not know what it promised.",
    )
