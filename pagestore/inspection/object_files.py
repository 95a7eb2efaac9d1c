"""What lies in an object store, as a file, and what a data directory knows of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pagestore.errors import PagestoreError
from pagestore.ids import format_lsn
from pagestore.inspection import states
from pagestore.inspection.inspected import Inspected
from pagestore.lmdbfile.pages import Damaged
from pagestore.lmdbfile.whole import Change
from pagestore.objects import archived_wal, claims, records

_Look = Callable[[Path, bytes, int, Inspected], None]


def _reader(kind: str, look: _Look) -> Callable[[Path, bytes, int], Inspected]:
    def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
        found = Inspected(kind)
        try:
            look(path, raw, limit, found)
        except PagestoreError as error:
            found.damage.append(error.message)
        return found

    return inspect


def _store(path: Path, raw: bytes, limit: int, found: Inspected) -> None:
    found.facts["store"] = claims.read_store(raw, str(path)).hex()


def _claim(path: Path, raw: bytes, limit: int, found: Inspected) -> None:
    claimed = claims.read_claim(raw, str(path))
    made = datetime.fromtimestamp(claimed.micros / 1e6, UTC)
    found.facts |= {
        "store": claimed.store_id.hex(),
        "directory": claimed.directory.hex(),
        "generation": claimed.generation,
        "made": made.isoformat(timespec="seconds"),
    }


def _owner(path: Path, raw: bytes, limit: int, found: Inspected) -> None:
    owner = claims.read_owner(path)
    assert owner is not None, "it was read"
    found.facts |= {
        "store": owner.store_id.hex(),
        "directory": owner.directory.hex(),
        "generation": owner.generation,
    }


def _journal(path: Path, raw: bytes, limit: int, found: Inspected) -> None:
    store_id, link, kind, piece = records.look(raw, str(path))
    last = piece.batches[-1].whole
    found.facts |= {
        "holds": kind.name.lower(),
        "store": store_id.hex(),
        "generation": link.generation,
        "sequence": link.sequence,
        "goes_on_from": f"{piece.before.sequence} of generation {piece.before.generation}",
        "part": piece.part if kind is records.Kind.SNAPSHOT else None,
        "is_last_part": piece.last if kind is records.Kind.SNAPSHOT else None,
        "transactions": f"{piece.batches[0].whole.transaction} to {last.transaction}",
        "of": last.store_id.hex(),
    }
    found.columns = ("transaction", "entry", "of", "says")
    changes = [(batch.whole.transaction, change) for batch in piece.batches for change in batch[1]]
    found.count = len(changes)
    rows = []
    for transaction, change in changes[:limit]:
        try:
            rows.append((str(transaction), *_row(change, str(path))))
        except (Damaged, PagestoreError) as error:
            found.damage.append(str(error))
    found.rows = rows


def _row(change: Change, where: str) -> tuple[str, str, str]:
    table, key, value = change
    if value is not None:
        return states.entry_row(table, key, value, where)
    return table.decode(errors="replace") or key[:1].decode(errors="replace"), key.hex(), "deleted"


def _wal(path: Path, raw: bytes, limit: int, found: Inspected) -> None:
    (tenant, timeline), wal = archived_wal.look(raw, str(path))
    found.facts |= {
        "tenant": str(tenant),
        "timeline": str(timeline),
        "start": format_lsn(wal.start),
        "end": format_lsn(wal.end),
        "term": wal.term,
        "system_id": wal.system_id,
    }


def _fence(path: Path, raw: bytes, limit: int, found: Inspected) -> None:
    store_id, ends = archived_wal.look_at_fence(raw, str(path))
    found.facts["store"] = store_id.hex()
    found.columns, found.count = ("tenant", "timeline", "counts up to"), len(ends)
    shown = sorted(ends.items())[:limit]
    found.rows = [(str(tenant), str(line), format_lsn(end)) for (tenant, line), end in shown]


BY_MAGIC = {
    claims.STORE_MAGIC: _reader("name of an object store", _store),
    claims.CLAIM_MAGIC: _reader("claim of a generation", _claim),
    claims.RECORD_MAGIC: _reader("a part's claim on an object store", _owner),
    records.MAGIC: _reader("part of a journal", _journal),
    archived_wal.WAL_MAGIC: _reader("archived WAL", _wal),
    archived_wal.FENCE_MAGIC: _reader("fence of archived WAL", _fence),
}
