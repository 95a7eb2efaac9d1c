"""A history of values as a plain list, and what a snapshot of it must answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from pagestore import _native
from pagestore.keyspace import PAGE_SIZE, WILL_INIT, ValueKind

TENANT = bytes(range(16))
TIMELINE = bytes(range(16, 32))
ALL_LSNS = 2**64 - 1

Value = tuple[int, int, int, bytes]  # lsn, kind, flags, payload
Entry = tuple[bytes, int, int, int, bytes]  # key, lsn, kind, flags, payload


def page(byte: int) -> bytes:
    return bytes([byte]) * PAGE_SIZE


def batch_of(entries: list[Entry]) -> _native.Batch:
    batch = _native.Batch()
    for entry in entries:
        batch.put(*entry)
    return batch


def ends_chain(kind: int, flags: int) -> bool:
    return kind in (ValueKind.IMAGE, ValueKind.ZERO, ValueKind.TOMBSTONE) or bool(flags & WILL_INIT)


@dataclass
class History:
    """Values by key in the order in which they were put."""

    values: dict[bytes, list[Value]] = field(default_factory=dict)

    def put(self, entries: list[Entry]) -> None:
        for key, lsn, kind, flags, payload in entries:
            self.values.setdefault(key, []).append((lsn, kind, flags, payload))

    def upto(self, lsn: int) -> History:
        """The same history, as a branch at an LSN sees it."""
        return History(
            {key: [v for v in values if v[0] <= lsn] for key, values in self.values.items()}
        )

    def chain(self, key: bytes, lsn: int) -> list[Value]:
        found = []
        for value in reversed(self.values.get(key, [])):
            if value[0] > lsn:
                continue
            found.append(value)
            if ends_chain(value[1], value[2]):
                break
        return found

    def alive(self, lsn: int) -> list[tuple[bytes, bytes]]:
        found = []
        for key in sorted(self.values):
            chain = self.chain(key, lsn)
            if chain and chain[0][1] != ValueKind.TOMBSTONE:
                found.append((key, chain[0][3]))
        return found
