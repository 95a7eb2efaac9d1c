"""From where on a timeline's WAL is kept, and who still needs what.

A *consumer* (a page server) names itself when it first releases WAL of a timeline; from then on
nothing above its *released* position is dropped, until it says that it will not come again. The
members of the timeline need no name here: what they have flushed is heard from them.

The file says from where WAL is kept before anything below is removed, so that a crash between
the two leaves files that are no longer looked at. What a consumer has released is written with
it, and when the consumer is new; a crash may forget the last releases, and then keeps more.
The layout is in docs/formats/safekeeper.md.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pagestore import durable
from pagestore._native import crc32c
from pagestore.consensus.acceptor import State
from pagestore.errors import DataLoss
from pagestore.walservice.owner import OWNER_BYTES, Owner

NAME = "horizon"
MAGIC = b"PSSKHOR\0"
VERSION = 2
WITHOUT_OWNER = 1
"""Read, and replaced by the newest."""
NEVER_AGAIN = 2**64 - 1
"""Released up to here: the consumer will not come again."""

_HEAD = struct.Struct("<8sIIQ")
_CONSUMER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Horizon:
    """`consumers` by name, with the LSN below which each needs nothing any more."""

    oldest_lsn: int = 0
    consumers: Mapping[str, int] = field(default_factory=dict)

    def base_lsn(self, state: State) -> int:
        """The first position whose WAL is there."""
        return max(state.start.flush_lsn, self.oldest_lsn)

    def released(self, consumer: str, lsn: int) -> Horizon:
        """After `consumer` has released what is below `lsn`; never less than before."""
        others = {name: at for name, at in self.consumers.items() if name != consumer}
        if lsn != NEVER_AGAIN:
            others[consumer] = max(lsn, self.consumers.get(consumer, 0))
        return Horizon(self.oldest_lsn, others)


def encode(horizon: Horizon, owner: Owner) -> bytes:
    head = _HEAD.pack(MAGIC, VERSION, len(horizon.consumers), horizon.oldest_lsn)
    parts = [head, owner.encode()]
    for name, lsn in sorted(horizon.consumers.items()):
        raw = name.encode()
        parts += [_CONSUMER.pack(lsn, len(raw)), raw]
    body = b"".join(parts)
    return body + _CRC.pack(crc32c(body))


def decode(raw: bytes, owner: Owner, where: str) -> Horizon:
    """Raises DataLoss (HORIZON_DAMAGED, HORIZON_FOREIGN), naming `where`."""
    body, version, count, oldest_lsn = _checked(raw, where)
    consumers, at = {}, _HEAD.size
    if version == VERSION:
        at += OWNER_BYTES
        owner.check(body[_HEAD.size : at], "HORIZON_FOREIGN", where)
    for _ in range(count):
        lsn, length = _CONSUMER.unpack_from(body, at)
        at += _CONSUMER.size
        consumers[body[at : at + length].decode()] = lsn
        at += length
    return Horizon(oldest_lsn, consumers)


def owner_in(raw: bytes, where: str) -> Owner | None:
    """Whose a horizon file says it is; None where it is of a version that does not.

    Raises:
        DataLoss: HORIZON_DAMAGED, naming `where`.
    """
    body, version, _, _ = _checked(raw, where)
    if version != VERSION:
        return None
    return Owner.decode(body[_HEAD.size : _HEAD.size + OWNER_BYTES])


def _checked(raw: bytes, where: str) -> tuple[bytes, int, int, int]:
    """All before the checksum, which holds; the version, how many consumers, the oldest LSN."""
    body = raw[: -_CRC.size]
    if len(raw) < _HEAD.size + _CRC.size or _CRC.unpack(raw[-_CRC.size :])[0] != crc32c(body):
        raise _damaged(where, "its checksum does not hold")
    magic, version, count, oldest_lsn = _HEAD.unpack_from(body)
    if magic != MAGIC or version not in (VERSION, WITHOUT_OWNER):
        raise _damaged(where, f"it is not of version {WITHOUT_OWNER} or {VERSION}")
    return body, version, count, oldest_lsn


def read(directory: Path, owner: Owner) -> Horizon:
    """Where there is no file, all is kept, and nobody has released anything."""
    path = directory / NAME
    try:
        return decode(path.read_bytes(), owner, str(path))
    except FileNotFoundError:
        return Horizon()


def replace(directory: Path, horizon: Horizon, owner: Owner) -> None:
    """Durable when it returns; OSError leaves the old file in force."""
    durable.replace(directory / NAME, encode(horizon, owner))


def _damaged(where: str, why: str) -> DataLoss:
    return DataLoss(
        "HORIZON_DAMAGED",
        f"The file {where} cannot be trusted: {why}.",
        "Restore it from a copy; without it nobody knows which WAL may be missing.",
    )
