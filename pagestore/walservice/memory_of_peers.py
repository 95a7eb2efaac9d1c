"""What peers have said of their logs, kept beside the timelines for when they ask (testimony.py).

One file for all timelines, of slots that are written in place as the news come, and never synced:
a kill loses none of it, a power cut perhaps the newest. A slot that is torn says nothing. The file
testifies against others, and nothing rests on it: where it is missing or cannot be written, less
is remembered. The layout is in docs/formats/safekeeper.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import structlog

from pagestore._native import crc32c
from pagestore.consensus.acceptor import Heard
from pagestore.consensus.members import Member
from pagestore.ids import TenantId, TimelineId
from pagestore.walservice.watch import TimelineKey

NAME = "memory-of-peers"
SLOT = 128
_BODY = struct.Struct("<16s16sIQQQQQQ")
_CRC = struct.Struct("<I")
_log = structlog.get_logger(__name__)

Slot = tuple[int, TimelineKey]
"""A safekeeper's number, and what it has said something of."""


class MemoryOfPeers:
    """Of one event loop. `close` it."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / NAME
        self._places: dict[Slot, int] = {}
        self._free: list[int] = []
        self._slots = 0
        self._descriptor = -1

    def load(self) -> Iterator[tuple[int, TimelineKey, Heard]]:
        """All that was remembered; opens the file for what is to come."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
            raw = self._path.read_bytes()
        except OSError as error:
            _log.warning("no memory of peers", path=str(self._path), error=str(error))
            return
        self._slots = -(-len(raw) // SLOT)
        for place in range(self._slots):
            found = decode(raw[place * SLOT : place * SLOT + SLOT])
            if found is None or (found[0], found[1]) in self._places:
                self._free.append(place)
            else:
                self._places[found[0], found[1]] = place
                yield found

    def keep(self, number: int, key: TimelineKey, heard: Heard) -> None:
        place = self._places.get((number, key))
        if place is None:
            place = self._places[number, key] = self._new_place()
        self._write(place, _encoded(number, key, heard))

    def forget(self, number: int, key: TimelineKey) -> None:
        place = self._places.pop((number, key), None)
        if place is not None:
            self._free.append(place)
            self._write(place, b"")

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _new_place(self) -> int:
        if self._free:
            return self._free.pop()
        self._slots += 1
        return self._slots - 1

    def _write(self, place: int, slot: bytes) -> None:
        if self._descriptor < 0:
            return
        try:
            os.pwrite(self._descriptor, slot.ljust(SLOT, b"\0"), place * SLOT)
        except OSError as error:
            _log.warning("memory of peers not kept", path=str(self._path), error=str(error))


def _encoded(number: int, key: TimelineKey, heard: Heard) -> bytes:
    body = _BODY.pack(
        key.tenant.raw,
        key.timeline.raw,
        number,
        heard.member.incarnation,
        heard.promised,
        heard.term,
        heard.generation,
        heard.flush_lsn,
        heard.commit_lsn,
    )
    return body + _CRC.pack(crc32c(body))


def decode(raw: bytes) -> tuple[int, TimelineKey, Heard] | None:
    """Of one slot: who has said it, of which timeline, and what; None where it says nothing."""
    body, stored = raw[: _BODY.size], raw[_BODY.size : _BODY.size + _CRC.size]
    if len(body) < _BODY.size or not any(body) or _CRC.pack(crc32c(body)) != stored:
        return None
    tenant, timeline, number, incarnation, promised, term, generation, flush, commit = _BODY.unpack(
        body
    )
    heard = Heard(Member(number, incarnation), term, generation, flush, commit, promised)
    return number, TimelineKey(TenantId(tenant), TimelineId(timeline)), heard
