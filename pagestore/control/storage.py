"""Where the control plane's state lies: an LMDB environment whose every transaction is whole.

Each value is sealed: ``version u8 | CRC-32 u32le | body``, the CRC (zlib's) over the table's
name, the key and the body, so that a value under another's key is found too. Each transaction
that changes something also writes ``meta / "whole"`` (lmdbfile/whole.py), and is noted in the
file beside (lmdbfile/witness.py). Before LMDB maps the file it is walked and all of this is
held against it, once, at open.

A state has one version, which all its values say. 3 is as 2, but that records may be packed
(packing.py), which those who read up to 2 take for damage. Version 1 sealed only the values of
records, over the body alone, and said nothing of the whole. What is of an older version is written
anew by one transaction when it is opened.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import lmdb

from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.lmdbfile import whole, witness
from pagestore.lmdbfile.changes import Changes
from pagestore.lmdbfile.failing import store_errors
from pagestore.lmdbfile.findings import Findings, Seal, check_file
from pagestore.lmdbfile.pages import Damaged, Entry, Pages, unused
from pagestore.lmdbfile.whole import Change, Tally, Whole
from pagestore.lmdbfile.witness import Fault, Witness

MAP_BYTES = 1 << 34
"""Address space, not disk: 16 GiB are some ten million databases."""
VERSION = 3
NEEDS = "0.1.0 of 2026-11-30"
"""The first pagestore that reads this version."""
FILE = "data.mdb"
META = "meta"
WHOLE_KEY = b"whole"
NEEDS_KEY = b"needs"
"""From version 3 on: the first pagestore that reads it."""
ASKED = ((META.encode(), WHOLE_KEY), (META.encode(), NEEDS_KEY))
SEALED_ALIKE = (2, VERSION)
UNSEALED_1 = ("children", "owned", "unsettled", "pgstat", "auto_conf")
"""Tables whose values version 1 did not seal."""

_HEAD = struct.Struct("<BI")
_REASONS = {
    Fault.GONE: "CONTROL_STATE_CORRUPT",
    Fault.OLDER: "CONTROL_STATE_OLDER",
    Fault.FOREIGN: "CONTROL_STATE_FOREIGN",
}


class Reader:
    """Reading within one transaction; every value's seal is checked."""

    def __init__(self, storage: Storage, txn: Any) -> None:
        self._storage = storage
        self._txn = txn

    def get(self, table: str, key: bytes) -> bytes | None:
        raw = self._txn.get(key, db=self._storage.tables[table])
        return None if raw is None else self._open(table, key, bytes(raw))

    def scan(self, table: str, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """In the order of keys."""
        found = []
        with self._txn.cursor(db=self._storage.tables[table]) as cursor:
            if cursor.set_range(prefix):
                for raw_key, value in cursor:
                    key = bytes(raw_key)
                    if not key.startswith(prefix):
                        break
                    found.append((key, self._open(table, key, bytes(value))))
        return found

    def has(self, table: str, prefix: bytes) -> bool:
        """Whether any key has it; of as many as may be, one is looked at."""
        with self._txn.cursor(db=self._storage.tables[table]) as cursor:
            return bool(cursor.set_range(prefix)) and bytes(cursor.key()).startswith(prefix)

    def keys(self, table: str) -> list[bytes]:
        """All, in order; of an index, which says nothing else."""
        with self._txn.cursor(db=self._storage.tables[table]) as cursor:
            return [bytes(key) for key in cursor.iternext(keys=True, values=False)]

    def scan_from(
        self, table: str, prefix: bytes, after: bytes, count: int
    ) -> list[tuple[bytes, bytes]]:
        """The first so many with `prefix`, behind the key `after`."""
        found: list[tuple[bytes, bytes]] = []
        with self._txn.cursor(db=self._storage.tables[table]) as cursor:
            if not cursor.set_range(max(after, prefix)):
                return found
            for raw_key, value in cursor:
                key = bytes(raw_key)
                if not key.startswith(prefix) or len(found) == count:
                    break
                if key > after:
                    found.append((key, self._open(table, key, bytes(value))))
        return found

    def last_key(self, table: str, prefix: bytes) -> bytes | None:
        """The last key with `prefix`, which ends with NUL."""
        with self._txn.cursor(db=self._storage.tables[table]) as cursor:
            after = prefix[:-1] + b"\x01"
            found = cursor.prev() if cursor.set_range(after) else cursor.last()
            key = bytes(cursor.key()) if found else b""
            return key if key.startswith(prefix) else None

    def _open(self, table: str, key: bytes, raw: bytes) -> bytes:
        try:
            return unseal(table.encode(), key, raw, self._storage.version)
        except Damaged as error:
            raise corrupt(self._storage.path, str(error)) from error


class Writer(Reader):
    """One write transaction; reads see its own writes."""

    def __init__(self, storage: Storage, txn: Any) -> None:
        super().__init__(storage, txn)
        self.tally = Tally()

    def put(self, table: str, key: bytes, body: bytes) -> None:
        name = table.encode()
        value = seal(name, key, body, self._storage.version)
        old = self._txn.replace(key, value, db=self._storage.tables[table])
        self.tally.put(name, key, None if old is None else bytes(old), value)

    def delete(self, table: str, key: bytes) -> None:
        old = self._txn.pop(key, db=self._storage.tables[table])
        self.tally.delete(table.encode(), key, None if old is None else bytes(old))


class Storage:
    """One process has it open, which its caller sees to.

    Args:
        tables: their names; those that are new to a state are made.
        version: of a state that is begun; older than ours where one is put together again.

    Raises:
        DataLoss: CONTROL_STATE_CORRUPT; CONTROL_STATE_OLDER, CONTROL_STATE_FOREIGN: it is whole,
            but not the one that was written last.
        FailedPrecondition: CONTROL_STATE_VERSION: a later pagestore wrote it.
    """

    def __init__(self, directory: Path, tables: Sequence[str], version: int = VERSION) -> None:
        self.path = directory / FILE
        self.version = version
        self.accepted = witness.acceptance_file(self.path).exists()
        """Whether somebody has said that an older copy will do."""
        said = self._checked()
        self._changes: Changes | None = None
        self._in_order = threading.Lock()
        self._env: Any = None
        with self._errors():
            self._env = lmdb.open(str(directory), max_dbs=len(tables) + 8, map_size=MAP_BYTES)
        try:
            self.tables = self._tables(tables, said)
            self._witness = Witness(self.path, self._last(said))
        except BaseException:
            self._env.close()
            raise

    def close(self) -> None:
        self._env.close()
        self._witness.close()

    def forget_acceptance(self) -> None:
        """It counted once."""
        witness.acceptance_file(self.path).unlink(missing_ok=True)
        self.accepted = False

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        with self._errors(), self._env.begin() as txn:
            yield Reader(self, txn)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """A transaction: all of it, durable, or none when the body raises.

        Raises:
            ResourceExhausted: STORE_FULL. Unavailable: IO_ERROR.
        """
        after: Whole | None = None
        # LMDB has one writer at a time as it is; what follows it sees them in their order.
        with self._in_order, self._errors():
            with self._env.begin(write=True) as txn:
                writer = Writer(self, txn)
                yield writer
                if writer.tally.touched:
                    after = self._seal_whole(writer, txn)
            if after is not None:
                if self._changes is not None:
                    self._changes.note(after, writer.tally.changes)
                self._witness.note(after.transaction)

    def follow(self, changes: Changes) -> None:
        """Hands over what each transaction changes from now on."""
        with self._in_order:
            self._changes = changes

    @contextmanager
    def whole(self) -> Iterator[tuple[Whole, Iterator[Change]]]:
        """What the state says of the whole, with all entries: as of one transaction."""
        with self._errors(), self._env.begin() as txn:
            raw = Reader(self, txn).get(META, WHOLE_KEY)
            if raw is None:
                raise corrupt(self.path, "it says nothing of the whole")
            yield Whole.unpack(raw), self._all_entries(txn)

    def _all_entries(self, txn: Any) -> Iterator[Change]:
        for table, handle in self.tables.items():
            with txn.cursor(db=handle) as cursor:
                for key, value in cursor:
                    if (table, bytes(key)) != (META, WHOLE_KEY):
                        yield Change(table.encode(), bytes(key), bytes(value))

    def overwrite_unused(self) -> None:
        """Zeros over everything in the file that the latest two transactions do not hold: of what
        was replaced before them, nothing is left that the file system still shows.

        Raises:
            Unavailable: IO_ERROR.
        """
        # No other transaction may take a page that is free now.
        with self._errors(), self._env.begin(write=True), self.path.open("r+b") as file:
            for begin, end in unused(file.read()):
                file.seek(begin)
                file.write(bytes(end - begin))
            file.flush()
            os.fsync(file.fileno())

    def _seal_whole(self, writer: Writer, txn: Any) -> Whole:
        said = writer.get(META, WHOLE_KEY)
        if said is None:
            raise corrupt(self.path, "it says nothing of the whole")
        after = writer.tally.after(Whole.unpack(said), txn.id())
        self._put_whole(txn, self.tables[META], after)
        return after

    def _put_whole(self, txn: Any, meta: Any, said: Whole) -> None:
        value = seal(META.encode(), WHOLE_KEY, said.pack(), self.version)
        txn.put(WHOLE_KEY, value, db=meta)

    def _errors(self) -> AbstractContextManager[None]:
        return store_errors(
            self.path,
            lambda what: corrupt(self.path, what),
            full="STORE_FULL",
            env=self._env,
        )

    def _checked(self) -> State | None:
        try:
            said = read_state(self.path)
        except Damaged as error:
            raise corrupt(self.path, str(error)) from error
        complaint = witness.complaint(
            self.path,
            said.whole if said else None,
            identified=said is not None and said.version > 1,
        )
        if complaint is not None and not self.accepted:
            raise DataLoss(
                _REASONS[complaint.fault],
                f"{complaint.words}.",
                "Put the newest copy of the control plane's state back. To go on with this one, "
                "`pagestore lost --accept control`: nothing that it does not know is deleted.",
            )
        return said

    def _tables(self, names: Sequence[str], said: State | None) -> dict[str, Any]:
        """Makes what is missing, with the first transaction that speaks of the whole."""
        known = said.tables if said else frozenset()
        old = said is not None and said.version < self.version
        if said is not None and not old and known.issuperset(map(str.encode, names)):
            with self._errors():
                return {name: self._env.open_db(name.encode(), create=False) for name in names}
        with self._errors(), self._env.begin(write=True) as txn:
            every = dict.fromkeys([*names, *sorted(name.decode() for name in known)])
            tables = {name: self._env.open_db(name.encode(), txn=txn) for name in every}
            if said is None:
                new = self._say_needs(txn, tables, Whole(txn.id(), os.urandom(16), 0))
            elif old:
                new = self._say_needs(txn, tables, self._written_anew(txn, tables, said))
            else:
                new = said.whole._replace(transaction=txn.id())
            self._put_whole(txn, tables[META], new)
        return {name: tables[name] for name in names}

    def _written_anew(self, txn: Any, tables: dict[str, Any], old: State) -> Whole:
        """Each entry sealed as of now; of those that knew whose they are, that stays."""
        total = 0
        for table, key, body in old.entries or self._bodies(txn, tables, old.version):
            value = seal(table, key, body, self.version)
            total += whole.entry_hash(table, key, value)
            txn.put(key, value, db=tables[table.decode()])
        store_id = os.urandom(16) if old.version == 1 else old.whole.store_id
        return Whole(txn.id(), store_id, total % (1 << 128))

    @staticmethod
    def _bodies(txn: Any, tables: dict[str, Any], version: int) -> Iterator[Entry]:
        """Of a checked state, but what it says of the whole. No more than a table at a time: who
        asks writes meanwhile."""
        for name, handle in tables.items():
            table = name.encode()
            with txn.cursor(db=handle) as cursor:
                found = [(bytes(key), bytes(value)) for key, value in cursor]
            for key, value in found:
                if (name, key) != (META, WHOLE_KEY):
                    yield Entry(table, key, unseal(table, key, value, version))

    def _say_needs(self, txn: Any, tables: dict[str, Any], said: Whole) -> Whole:
        if self.version < VERSION:
            return said  # they said nothing of it
        table = META.encode()
        value = seal(table, NEEDS_KEY, NEEDS.encode(), self.version)
        txn.put(NEEDS_KEY, value, db=tables[META])
        added = whole.entry_hash(table, NEEDS_KEY, value)
        return said._replace(total=(said.total + added) % (1 << 128))

    def _last(self, said: State | None) -> Whole:
        with self.reading() as reader:
            raw = reader.get(META, WHOLE_KEY)
        if raw is None:
            raise corrupt(self.path, "it says nothing of the whole")
        return Whole.unpack(raw)


class State:
    """What a checked file has; ``entries`` are there, unsealed, only of version 1."""

    def __init__(
        self,
        said: Whole,
        tables: frozenset[bytes],
        version: int,
        entries: Sequence[Entry] = (),
    ) -> None:
        self.whole = said
        self.tables = tables
        self.version = version
        self.entries = entries


def read_state(path: Path) -> State | None:
    """Checks a file; None where there is none, or none was ever written to.

    Raises:
        Damaged. FailedPrecondition: CONTROL_STATE_VERSION.
    """
    found = check_file(path, Seal.CRC32_BEFORE, ASKED, VERSION)
    if found is None or found.entries + len(found.tables) == 0:
        return None
    if found.loose:
        raise Damaged(0, "it has an entry that is in no table")
    value, needs = found.values
    if value is None:
        return _read_1(path, found)
    if needs is not None:
        _refuse_newer(path, value, needs)
    version = version_of(value)
    if version != VERSION:
        found = check_file(path, Seal.CRC32_BEFORE, ASKED, version) or found
    if found.unsealed is not None:
        raise _unsealed(*found.unsealed)
    said = Whole.unpack(unseal(*ASKED[0], value, version))
    before = found.value_before
    older = Whole.unpack(unseal(*ASKED[0], before, version_of(before))) if before else None
    whole.check(found, said, older)
    return State(said, found.tables, version)


def _refuse_newer(path: Path, said: bytes, needs: bytes) -> None:
    """
    Raises:
        FailedPrecondition: CONTROL_STATE_VERSION. Not where one byte only looks like it.
    """
    version, crc = _HEAD.unpack_from(needs) if len(needs) >= _HEAD.size else (0, 0)
    body = needs[_HEAD.size :]
    if version > VERSION and said[:1] == needs[:1] and crc == _crc(META.encode(), NEEDS_KEY, body):
        raise FailedPrecondition(
            "CONTROL_STATE_VERSION",
            f"The control plane's state ({path}) has version {version}, which needs pagestore "
            f"{body.decode(errors='replace')}; this one reads versions up to {VERSION}.",
            "Use that version, or a later one.",
        )


def _read_1(path: Path, found: Findings) -> State:
    """A state of version 1, with all its entries: it is written anew."""
    entries = _unsealed_1(Pages(path.read_bytes()).entries())
    return State(Whole(found.transaction, bytes(16), 0), found.tables, 1, entries)


def _unsealed_1(entries: list[Entry]) -> list[Entry]:
    """Entries of version 1, with their bodies."""
    found = []
    for table, key, value in entries:
        body = value
        if table.decode() not in UNSEALED_1:
            head, body = value[: _HEAD.size], value[_HEAD.size :]
            if head != _HEAD.pack(1, zlib.crc32(body)):
                raise Damaged(0, f"a damaged value ({table.decode()} {key!r})")
        found.append(Entry(table, key, body))
    return found


def version_of(value: bytes) -> int:
    """The version that a sealed value says; ours, if it says none whose values are sealed alike."""
    return value[0] if value and value[0] in SEALED_ALIKE else VERSION


def seal(table: bytes, key: bytes, body: bytes, version: int = VERSION) -> bytes:
    return _HEAD.pack(version, _crc(table, key, body)) + body


def unseal(table: bytes, key: bytes, raw: bytes, version: int = VERSION) -> bytes:
    """
    Raises:
        Damaged: the value is not what was written in this table under this key.
    """
    body = raw[_HEAD.size :]
    if raw[: _HEAD.size] != _HEAD.pack(version, _crc(table, key, body)):
        raise _unsealed(table, key)
    return body


def _unsealed(table: bytes, key: bytes) -> Damaged:
    return Damaged(0, f"a damaged value ({table.decode(errors='replace')} {key!r})")


def _crc(table: bytes, key: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(key, zlib.crc32(table)))


def corrupt(path: Path, fault: str) -> DataLoss:
    return DataLoss(
        "CONTROL_STATE_CORRUPT",
        f"The control plane's state is damaged ({path}: {fault}); nothing of it was used.",
        "Restore the folder `control` of the data directory from a copy.",
    )
