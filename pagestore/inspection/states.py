"""The two LMDB files: the page server's catalog and the control plane's state.

Read from a copy in memory, without LMDB: a file whose pages lie, or that a part is writing
meanwhile, harms nobody here. What is read then may be between two transactions: that reads as
damage, and is gone at the next look.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pagestore.control import packing, storage
from pagestore.errors import DataLoss
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.inspection.inspected import Inspected, shown
from pagestore.inspection.keys import named
from pagestore.layers.files import layer_name
from pagestore.lmdbfile.pages import Damaged, Entry, Pages
from pagestore.lmdbfile.whole import Whole
from pagestore.timeline import entries

MAGIC_AT = slice(16, 20)
MAGIC = (0xBEEFC0DE).to_bytes(4, "little")
NOTHING: tuple[object, ...] = (None, "", [], {})


def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
    found = Inspected("LMDB file")
    try:
        pages = Pages(raw)
        found.facts["transaction"] = pages.transaction
        tables = pages.tables()
        held = pages.entries()
    except Damaged as error:
        found.damage.append(str(error))
        return found
    found.count = len(held)
    if tables:
        _control_state(held, found, limit)
    else:
        _catalog(str(path), held, found, limit)
    return found


def _catalog(where: str, held: list[Entry], found: Inspected, limit: int) -> None:
    found.kind = "catalog of a page server"
    found.columns = ("entry", "tenant", "timeline", "says")
    counts: Counter[str] = Counter()
    rows: list[tuple[str, ...]] = []
    for _, key, value in held:
        kind, words = _KINDS.get(key[:1], ("unknown", _unknown))
        counts[kind] += 1
        try:
            said = words(key, value, where)
        except DataLoss as error:
            found.damage.append(error.message)
            continue
        if len(key) < 33:
            found.facts[kind] = said
        elif len(rows) < limit:
            rows.append((kind, key[1:17].hex(), key[17:33].hex(), said))
    found.rows = rows
    found.facts |= {f"{kind} entries": many for kind, many in sorted(counts.items()) if many > 1}


def _timeline(key: bytes, value: bytes, where: str) -> str:
    entry = entries.TimelineEntry.unpack(key, value, where)
    origin = "a root" if entry.parent is None else f"parent {entry.parent}"
    hidden = ", deleted" if entry.deleted else ""
    return (
        f"{origin} at {format_lsn(entry.branch_lsn)}, durable to "
        f"{format_lsn(entry.disk_consistent_lsn)}, {entry.layer_count} layers, "
        f"{entry.layer_bytes} bytes{hidden}"
    )


def _layer(key: bytes, value: bytes, where: str) -> str:
    entry = entries.LayerEntry.unpack(key, value, where)
    kind, least, greatest, first, last, values, _, size = entry.summary
    number = int.from_bytes(key[33:], "big")
    return (
        f"{layer_name(number, kind)}, level {entry.level}, {format_lsn(first)} to "
        f"{format_lsn(last)}, {named(least)} to {named(greatest)}, {values} values, {size} bytes"
    )


def _child(key: bytes, value: bytes, where: str) -> str:
    lsn = entries.unpack_child(key, value, where)
    at = "" if lsn is None else f" at {format_lsn(lsn)}"
    return f"child {TimelineId(key[33:])}{at}"


def _horizon(key: bytes, value: bytes, where: str) -> str:
    entry = entries.Horizon.unpack(key, value, where)
    by = "" if entry.held_by is None else f" {entry.held_by}"
    return f"{format_lsn(entry.lsn)}, held by {entry.holder.name.lower()}{by}"


def _lease(key: bytes, value: bytes, where: str) -> str:
    until = entries.unpack_lease(key, value, where)
    return f"{format_lsn(int.from_bytes(key[33:], 'big'))} until {until}"


def _replaced(key: bytes, value: bytes, where: str) -> str:
    kind = entries.unpack_replaced(key, value, where)
    return f"{layer_name(int.from_bytes(key[33:], 'big'), kind)} may go"


def _format(key: bytes, value: bytes, where: str) -> str:
    return str(entries.unpack_format(value, where))


def _needs(key: bytes, value: bytes, where: str) -> str:
    return entries.unpack_needs(value, where)


def _whole(key: bytes, value: bytes, where: str) -> str:
    if len(value) == entries.GENERATION_1_BYTES:
        return f"transaction {entries.unpack_generation(value, where)}"
    return _whole_words(entries.unpack_whole(value, where))


def _whole_words(whole: Whole) -> str:
    return f"transaction {whole.transaction} of store {whole.store_id.hex()}"


def _unknown(key: bytes, value: bytes, where: str) -> str:
    return f"{key.hex()}: {len(value)} bytes"


_KINDS: dict[bytes, tuple[str, Callable[[bytes, bytes, str], str]]] = {
    b"t": ("timeline", _timeline),
    b"c": ("child", _child),
    b"l": ("layer", _layer),
    b"h": ("horizon", _horizon),
    b"e": ("lease", _lease),
    b"d": ("replaced", _replaced),
    b"f": ("format", _format),
    b"g": ("whole", _whole),
    b"n": ("needs", _needs),
}


def _control_state(held: list[Entry], found: Inspected, limit: int) -> None:
    found.kind = "state of a control plane"
    found.columns = ("table", "key", "says")
    counts: Counter[str] = Counter()
    rows: list[tuple[str, ...]] = []
    said = {(table, key): value for table, key, value in held if key == storage.WHOLE_KEY}
    version = storage.version_of(said.get(storage.ASKED[0], b""))
    found.facts["version"] = str(version)
    for table, key, value in held:
        name = table.decode(errors="replace")
        counts[name] += 1
        try:
            body = storage.unseal(table, key, value, version)
        except Damaged as error:
            found.damage.append(str(error))
            continue
        if name == storage.META and key == storage.WHOLE_KEY:
            found.facts["whole"] = _whole_words(Whole.unpack(body))
        if name == storage.META and key == storage.NEEDS_KEY:
            found.facts["needs"] = f"pagestore {body.decode(errors='replace')}"
        if len(rows) < limit:
            rows.append((name, _key_words(key), _record_words(body)))
    found.rows = rows
    found.facts |= {f"{name} entries": many for name, many in sorted(counts.items())}


def entry_row(table: bytes, key: bytes, value: bytes, where: str) -> tuple[str, str, str]:
    """Of either file's entry: which kind it is of, of what, and what it says.

    Raises:
        Damaged, DataLoss: its seal does not hold.
    """
    if table:
        body = storage.unseal(table, key, value, storage.version_of(value))
        return table.decode(errors="replace"), _key_words(key), _record_words(body)
    kind, words = _KINDS.get(key[:1], ("unknown", _unknown))
    return kind, f"{key[1:17].hex()} {key[17:33].hex()}", words(key, value, where)


def _key_words(key: bytes) -> str:
    """Ids stand in front of names, which hold no NUL; the rest in hexadecimal."""
    tenant = "" if len(key) < 16 else f"{TenantId(key[:16])} "
    rest = key[16:] if tenant else key
    shown = rest.decode(errors="replace").replace("\0", " ")
    return tenant + (shown if shown.isprintable() else rest.hex())


def _record_words(body: bytes) -> str:
    try:
        fields = json.loads(packing.unpack(body))
    except ValueError:
        return f"{len(body)} bytes"
    if not isinstance(fields, dict):
        return f"{len(body)} bytes"
    return json.dumps(
        {name: shown(name, value) for name, value in fields.items() if value not in NOTHING},
        ensure_ascii=False,
    )
