"""What a transaction says of the store that it leaves: whose it is, how old, and all there is.

Written as one entry among the others, in the same transaction::

    offset 0                 8               24
           ┌─────────────────┬───────────────┬───────────────┐
           │ u64 transaction │ store id, 16  │ sum, 16       │
           └─────────────────┴───────────────┴───────────────┘

The *sum* is over a hash of each entry (this one left out), modulo 2^128, in whatever order: a
transaction takes away what it replaces and adds what it puts, so that it costs the same however
many entries there are. It finds what page by page looks right and is not: a page whose last
write the disk has dropped, an entry that is gone with its count.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple, Self

from pagestore.lmdbfile.findings import Findings
from pagestore.lmdbfile.pages import Damaged

_LAYOUT = struct.Struct("<Q16s16s")
_MODULUS = 1 << 128


class Whole(NamedTuple):
    transaction: int
    store_id: bytes
    total: int

    def pack(self) -> bytes:
        return _LAYOUT.pack(self.transaction, self.store_id, self.total.to_bytes(16, "little"))

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """
        Raises:
            Damaged: it has another length.
        """
        if len(raw) != _LAYOUT.size:
            raise Damaged(0, f"the entry over all entries has {len(raw)} bytes")
        transaction, store_id, total = _LAYOUT.unpack(raw)
        return cls(transaction, store_id, int.from_bytes(total, "little"))


class Change(NamedTuple):
    """Of one entry: ``table`` is empty where a file has none, ``value`` None for what went."""

    table: bytes
    key: bytes
    value: bytes | None


class Tally:
    """What one transaction changes of the sum, and of which entries."""

    def __init__(self) -> None:
        self.change = 0
        self.touched = False
        self.changes: list[Change] = []

    def put(self, table: bytes, key: bytes, old: bytes | None, new: bytes) -> None:
        self.touched = True
        self.changes.append(Change(table, key, new))
        self.change += entry_hash(table, key, new)
        if old is not None:
            self.change -= entry_hash(table, key, old)

    def delete(self, table: bytes, key: bytes, old: bytes | None) -> None:
        if old is not None:
            self.touched = True
            self.changes.append(Change(table, key, None))
            self.change -= entry_hash(table, key, old)

    def after(self, whole: Whole, transaction: int) -> Whole:
        return Whole(transaction, whole.store_id, (whole.total + self.change) % _MODULUS)


def entry_hash(table: bytes, key: bytes, value: bytes) -> int:
    named = b"%b\0%b%b" % (table, len(key).to_bytes(2, "little"), key)
    return int.from_bytes(blake2b(named + value, digest_size=16).digest(), "little")


def check(findings: Findings, whole: Whole, before: Whole | None) -> None:
    """Holds a store to what its newest and its last but one transaction say of themselves.

    Args:
        before: what the older meta page leads to; None where it says nothing yet.

    Raises:
        Damaged
    """
    if whole.transaction != findings.transaction or (
        before is not None and before.transaction != findings.before
    ):
        raise Damaged(0, f"transaction {findings.transaction} leads to the tree of another one")
    if findings.total != whole.total:
        raise Damaged(0, "its entries are not those that were written last")
