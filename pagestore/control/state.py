"""The control plane's state in LMDB: one environment, one transaction a verb.

Tables and their keys (values are records, see records.py; storage.py seals them)::

    timelines    timeline (16)                        TimelineRecord
    children     parent (16) timeline (16)            -
    owned        tenant (16) name NUL timeline (16)   -
    unsettled    timeline (16), pending or dropped    -
    databases    tenant (16) name                     DatabaseRecord
    checkpoints  tenant (16) name NUL checkpoint      CheckpointRecord
    events       tenant (16) name NUL sequence u64be  EventRecord
    answers      tenant (16) name                     AnswersRecord
    retentions   tenant (16) name                     RetentionRecord
    expiries     unix micros u64be tenant (16) name   -
    tenants      tenant (16)                          TenantRecord
    tenant_names name                                 tenant (16): an index of tenants
    usage        tenant (16) created u64be hour u32be HourRecord: usage.py
    usage_sources source                              SourceRecord
    meta         "template"                           TemplateRecord of the default tenant
    meta         "template" tenant (16)               TemplateRecord of another
                 "-17", "-18" behind either           likewise, of a later Postgres than 15
    meta         "members"                            MembersRecord
    meta         "key"                                KeyRecord
    meta         "whole"                              see storage.py
    kept_files   timeline (16) path                   a file that no WAL holds: kept_files.py
    pgstat       timeline (16)                        bytes of pg_stat/pgstat.stat, of old
    auto_conf    tenant (16) name                     bytes of postgresql.auto.conf, of old

A timeline is entered as *pending* before any service is asked to make it, and becomes *live*
in the transaction that gives it a name. Whatever a killed verb leaves is known: at start every
pending timeline is dropped, and what is dropped is deleted everywhere. The three tables behind
`timelines` are its indexes, so that no verb's cost grows with the number of timelines; `expiries`
is one of `databases`.

Synchronous and quick (a synced commit takes a quarter of a millisecond); callers hold the
lock of the names they change. Not a history: it holds no pages and no WAL.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pagestore import locks
from pagestore.client.names import MAX_NAME_BYTES
from pagestore.control import kept_files
from pagestore.control.records import (
    Answer,
    AnswersRecord,
    CheckpointRecord,
    DatabaseRecord,
    EventRecord,
    KeyRecord,
    MembersRecord,
    RetentionRecord,
    TemplateRecord,
    TenantRecord,
    TimelineRecord,
    TimelineState,
)
from pagestore.control.storage import Storage, Writer
from pagestore.control.usage_tables import UsageRead, UsageWritten
from pagestore.errors import FailedPrecondition, NotFound
from pagestore.ids import DEFAULT_TENANT, DEFAULT_TENANT_NAME, TenantId, TimelineId
from pagestore.pgformat import versions

TABLES = (
    *("timelines", "children", "owned", "unsettled"),
    *("databases", "checkpoints", "events", "answers", "meta"),
    *("kept_files", "pgstat", "auto_conf"),
    *("tenants", "tenant_names", "expiries", "retentions"),
    *("usage", "usage_sources"),
)
BY_DATABASE = ("databases", "answers", "auto_conf", "retentions")
"""Tables with one value a database."""

_DEFAULT = TenantRecord(tenant=DEFAULT_TENANT, name=DEFAULT_TENANT_NAME, created_micros=0)
_SEQUENCE = struct.Struct(">Q")
_EXPIRY = struct.Struct(">Q")
EXPIRED_AT_ONCE = 100
_TIMELINE_BYTES = 16
_PGSTAT = "pg_stat/pgstat.stat"


def now_micros() -> int:
    return time.time_ns() // 1000


class ControlState:
    """
    Raises:
        FailedPrecondition: CONTROL_STATE_IN_USE.
        DataLoss: CONTROL_STATE_CORRUPT, CONTROL_STATE_OLDER, CONTROL_STATE_FOREIGN.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.version = 0
        """Another number after each transaction that may have changed something."""
        self.on_timeline: Callable[[TimelineId, TimelineRecord | None], None] | None = None
        """Told of each timeline that is entered, changed or forgotten (None), by then or soon."""
        self._lock = _locked(directory / "lock")
        try:
            self._storage = Storage(directory, TABLES)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        self._storage.close()
        os.close(self._lock)

    @property
    def storage(self) -> Storage:
        """What it lies in, for whoever keeps a copy elsewhere."""
        return self._storage

    @property
    def accepted(self) -> bool:
        """Whether somebody has said that an older copy of the state will do."""
        return self._storage.accepted

    def forget_acceptance(self) -> None:
        """It counted once."""
        self._storage.forget_acceptance()

    def overwrite_unused(self) -> None:
        """What the latest two transactions do not hold is in the file no more, either."""
        self._storage.overwrite_unused()

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A write transaction: all of it, or none when the body raises."""
        try:
            with self._storage.writing() as writer:
                yield Change(writer, self.on_timeline)
        finally:
            # Also where it failed: it may be in force all the same.
            self.version += 1

    def view(self) -> View:
        """Each method sees the latest committed state."""
        return View(self._storage)

    def __enter__(self) -> ControlState:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _template_key(tenant: TenantId, major: int) -> bytes:
    """Those of the first tenant and the oldest major say nothing of it: there were no others."""
    of_tenant = b"" if tenant == DEFAULT_TENANT else tenant.raw
    of_major = b"" if major == versions.OLDEST.major else b"-%d" % major
    return b"template" + of_tenant + of_major


class _Tables(UsageRead):
    """Keys and decoding, over any way of getting values."""

    def template(
        self, tenant: TenantId = DEFAULT_TENANT, major: int = versions.OLDEST.major
    ) -> TemplateRecord | None:
        return self._one(TemplateRecord, "meta", _template_key(tenant, major))

    def templates(self, tenant: TenantId = DEFAULT_TENANT) -> dict[int, TemplateRecord]:
        """By their majors."""
        found = {each.major: self.template(tenant, each.major) for each in versions.ALL}
        return {major: record for major, record in found.items() if record is not None}

    def tenant(self, tenant: TenantId | str) -> TenantRecord | None:
        """By its id or its name."""
        if tenant in (DEFAULT_TENANT, DEFAULT_TENANT_NAME):
            return self._one(TenantRecord, "tenants", DEFAULT_TENANT.raw) or _DEFAULT
        raw = tenant.raw if isinstance(tenant, TenantId) else None
        if isinstance(tenant, str) and 0 < len(tenant.encode()) <= MAX_NAME_BYTES:
            raw = self._get("tenant_names", tenant.encode())
        return self._one(TenantRecord, "tenants", raw) if raw else None

    def known_tenant(self, tenant: TenantId | str) -> TenantRecord:
        """
        Raises:
            NotFound: TENANT_NOT_FOUND.
        """
        record = self.tenant(tenant)
        if record is None:
            shown = str(tenant)[:40]
            raise NotFound(
                "TENANT_NOT_FOUND",
                f"There is no tenant {shown!r}.",
                "`pagestore tenant ls` lists them; `pagestore tenant add NAME` makes one.",
            )
        return record

    def tenants(self) -> list[TenantRecord]:
        """The default one first."""
        found = self._all(TenantRecord, "tenants", b"")
        others = [item for item in found if item.tenant != DEFAULT_TENANT]
        return [self.known_tenant(DEFAULT_TENANT), *sorted(others, key=lambda item: item.name)]

    def count_databases(self, tenant: TenantId) -> int:
        return len(self._scan("databases", tenant.raw))

    def members(self) -> MembersRecord:
        return self._one(MembersRecord, "meta", b"members") or MembersRecord()

    def key(self) -> KeyRecord | None:
        return self._one(KeyRecord, "meta", b"key")

    def live_timelines(self) -> list[TimelineRecord]:
        return [item for item in self.timelines() if item.state is TimelineState.LIVE]

    def timelines(self) -> list[TimelineRecord]:
        """In whatever state they are."""
        return self._all(TimelineRecord, "timelines", b"")

    def timeline_ids(self) -> set[TimelineId]:
        """In whatever state they are."""
        return {TimelineId(key) for key, _ in self._scan("timelines", b"")}

    def timeline(self, timeline: TimelineId) -> TimelineRecord | None:
        return self._one(TimelineRecord, "timelines", timeline.raw)

    def known_timeline(self, timeline: TimelineId) -> TimelineRecord:
        """
        Raises:
            NotFound: TIMELINE_NOT_FOUND.
        """
        record = self.timeline(timeline)
        if record is None:
            raise NotFound("TIMELINE_NOT_FOUND", f"The control plane knows no timeline {timeline}.")
        return record

    def unsettled(self) -> list[TimelineRecord]:
        """Timelines that are pending or dropped."""
        found = self._scan("unsettled", b"")
        return [self.known_timeline(TimelineId(key)) for key, _ in found]

    def has_children(self, timeline: TimelineId) -> bool:
        return self._has("children", timeline.raw)

    def timelines_of(self, tenant: TenantId, name: str) -> list[TimelineRecord]:
        """Those that were made for a database, in whatever state."""
        prefix = _within(tenant, name)
        found = self._scan("owned", prefix)
        return [self.known_timeline(TimelineId(key[len(prefix) :])) for key, _ in found]

    def database(self, tenant: TenantId, name: str) -> DatabaseRecord | None:
        return self._one(DatabaseRecord, "databases", _database_key(tenant, name))

    def known_database(self, tenant: TenantId, name: str) -> DatabaseRecord:
        """
        Raises:
            NotFound: DATABASE_NOT_FOUND.
        """
        record = self.database(tenant, name)
        if record is None:
            raise NotFound(
                "DATABASE_NOT_FOUND",
                f"There is no database {name[:80]!r}.",
                "`pagestore ls` lists them; `pagestore create NAME` makes one.",
            )
        return record

    def databases(self, tenant: TenantId | None = None) -> list[DatabaseRecord]:
        return self._all(DatabaseRecord, "databases", tenant.raw if tenant else b"")

    def checkpoint(self, tenant: TenantId, name: str, checkpoint: str) -> CheckpointRecord | None:
        key = _within(tenant, name) + checkpoint.encode()
        return self._one(CheckpointRecord, "checkpoints", key)

    def checkpoints(self, tenant: TenantId, name: str) -> list[CheckpointRecord]:
        return self._all(CheckpointRecord, "checkpoints", _within(tenant, name))

    def retention(self, tenant: TenantId, name: str) -> RetentionRecord | None:
        """None: as the installation has it."""
        return self._one(RetentionRecord, "retentions", _database_key(tenant, name))

    def events(self, tenant: TenantId, name: str) -> list[EventRecord]:
        """Oldest first."""
        return self._all(EventRecord, "events", _within(tenant, name))

    def answers(self, tenant: TenantId, name: str) -> AnswersRecord:
        key = _database_key(tenant, name)
        return self._one(AnswersRecord, "answers", key) or AnswersRecord()

    def kept_files(self, timeline: TimelineId) -> dict[str, bytes]:
        """By their paths in a data directory."""
        raw = timeline.raw
        old = self._get("pgstat", raw)
        found = {} if old is None else {_PGSTAT: old}
        for key, content in self._scan("kept_files", raw):
            found[key[len(raw) :].decode()] = kept_files.unpack(content)
        return found

    def old_auto_conf(self, record: DatabaseRecord) -> bytes | None:
        """A database's postgresql.auto.conf as it was kept by name, of old; its parent's, while
        it had none. Not that of a stranger who has the parent's name since."""
        own = self._get("auto_conf", _database_key(record.tenant, record.name))
        if own is not None or not record.parent:
            return own
        origin: TimelineRecord | None = self.timeline(record.timeline)
        while origin is not None and origin.database == record.name:
            origin = None if origin.parent is None else self.timeline(origin.parent)
        is_parents = origin is not None and origin.state is TimelineState.LIVE
        if origin is None or not is_parents or origin.database != record.parent:
            return None
        return self._get("auto_conf", _database_key(record.tenant, record.parent))


class View(_Tables):
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def _get(self, table: str, key: bytes) -> bytes | None:
        with self._storage.reading() as reader:
            return reader.get(table, key)

    def _scan(self, table: str, prefix: bytes) -> list[tuple[bytes, bytes]]:
        with self._storage.reading() as reader:
            return reader.scan(table, prefix)

    def _has(self, table: str, prefix: bytes) -> bool:
        with self._storage.reading() as reader:
            return reader.has(table, prefix)

    def databases_after(self, tenant: TenantId, name: str, count: int) -> list[DatabaseRecord]:
        """The first so many behind a name, in the order of `databases`."""
        after = _database_key(tenant, name)
        with self._storage.reading() as reader:
            found = reader.scan_from("databases", tenant.raw, after, count)
        return [DatabaseRecord.decode(raw, f"databases {key!r}") for key, raw in found]

    def encoded_databases(self, tenant: TenantId) -> dict[str, bytes]:
        """By their names, as DatabaseRecord.decode takes them."""
        return {key[16:].decode(): raw for key, raw in self._scan("databases", tenant.raw)}

    def retentions(self) -> list[tuple[TenantId, str, RetentionRecord]]:
        """Of all databases that have their own."""
        return [
            (TenantId(key[:16]), key[16:].decode(), RetentionRecord.decode(raw, f"{key!r}"))
            for key, raw in self._scan("retentions", b"")
        ]

    def all_checkpoints(self) -> list[tuple[TenantId, str, CheckpointRecord]]:
        """With the databases that they are of."""
        return [
            (
                TenantId(key[:16]),
                key[16:].split(b"\0")[0].decode(),
                CheckpointRecord.decode(raw, f"{key!r}"),
            )
            for key, raw in self._scan("checkpoints", b"")
        ]

    def with_several_timelines(self) -> list[tuple[TenantId, str]]:
        """Names for which more than one was made."""
        with self._storage.reading() as reader:
            owners = [key[: -_TIMELINE_BYTES - 1] for key in reader.keys("owned")]
        several = {owner for owner, after in itertools.pairwise(owners) if owner == after}
        return [(TenantId(key[:16]), key[16:].decode()) for key in sorted(several) if key[16:]]

    def expired(self, now_micros: int) -> list[tuple[TenantId, str]]:
        """Databases whose time is over, the longest so first; at most EXPIRED_AT_ONCE."""
        with self._storage.reading() as reader:
            first = reader.scan_from("expiries", b"", b"", EXPIRED_AT_ONCE)
        due = [key for key, _ in first if _EXPIRY.unpack_from(key)[0] <= now_micros]
        slots = [key[_EXPIRY.size :] for key in due]
        return [(TenantId(slot[:16]), slot[16:].decode()) for slot in slots]


class Change(_Tables, UsageWritten):
    """One write transaction; reads see its own writes."""

    def __init__(
        self,
        writer: Writer,
        on_timeline: Callable[[TimelineId, TimelineRecord | None], None] | None = None,
    ) -> None:
        self._writer = writer
        self._on_timeline = on_timeline

    def _get(self, table: str, key: bytes) -> bytes | None:
        return self._writer.get(table, key)

    def _scan(self, table: str, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return self._writer.scan(table, prefix)

    def _has(self, table: str, prefix: bytes) -> bool:
        return self._writer.has(table, prefix)

    def _put(self, table: str, key: bytes, value: bytes) -> None:
        self._writer.put(table, key, value)

    def _delete(self, table: str, key: bytes) -> None:
        self._writer.delete(table, key)

    def put_template(
        self,
        record: TemplateRecord,
        tenant: TenantId = DEFAULT_TENANT,
        major: int = versions.OLDEST.major,
    ) -> None:
        self._put("meta", _template_key(tenant, major), record.encode())

    def put_tenant(self, record: TenantRecord) -> None:
        self._put("tenants", record.tenant.raw, record.encode())
        self._put("tenant_names", record.name.encode(), record.tenant.raw)

    def remove_tenant(self, record: TenantRecord) -> None:
        """One without databases. What its databases began as goes with it."""
        self._delete("tenants", record.tenant.raw)
        self._delete("tenant_names", record.name.encode())
        for major, template in self.templates(record.tenant).items():
            self._delete("meta", _template_key(record.tenant, major))
            self.set_timeline_state(template.timeline, TimelineState.DROPPED)

    def take_generations(self, count: int, above: int) -> int:
        """The first of so many generations, all higher than any that were ever given away, and
        than `above`."""
        record = self.members()
        first = max(record.next_generation, above + 1)
        self.put_members(record.model_copy(update={"next_generation": first + count}))
        return first

    def put_members(self, record: MembersRecord) -> None:
        self._put("meta", b"members", record.encode())

    def put_key(self, record: KeyRecord) -> None:
        self._put("meta", b"key", record.encode())

    def put_timeline(self, record: TimelineRecord) -> None:
        raw = record.timeline.raw
        self._put("timelines", raw, record.encode())
        self._put("owned", _within(record.tenant, record.database) + raw, b"")
        if record.parent is not None:
            self._put("children", record.parent.raw + raw, b"")
        if record.state is TimelineState.LIVE:
            self._delete("unsettled", raw)
        else:
            self._put("unsettled", raw, b"")
        if self._on_timeline is not None:
            self._on_timeline(record.timeline, record)

    def set_timeline_state(self, timeline: TimelineId, state: TimelineState) -> None:
        record = self.known_timeline(timeline)
        self.put_timeline(record.model_copy(update={"state": state}))

    def detach_timeline(self, timeline: TimelineId) -> None:
        """It has no parent any more: its history begins where it was branched."""
        record = self.known_timeline(timeline)
        if record.parent is not None:
            self._delete("children", record.parent.raw + timeline.raw)
            begins = max(record.usable_lsn, record.branch_lsn)
            update = {"parent": None, "usable_lsn": begins}
            self.put_timeline(record.model_copy(update=update))

    def forget_timeline(self, timeline: TimelineId) -> None:
        record = self.known_timeline(timeline)
        if self._on_timeline is not None:
            self._on_timeline(timeline, None)
        for table in ("timelines", "unsettled"):
            self._delete(table, timeline.raw)
        self._forget_files(timeline)
        self._delete("owned", _within(record.tenant, record.database) + timeline.raw)
        if record.parent is not None:
            self._delete("children", record.parent.raw + timeline.raw)

    def put_database(self, record: DatabaseRecord) -> None:
        self._forget_expiry(record)
        if record.expires_micros:
            self._put("expiries", _expiry_key(record), b"")
        self._put("databases", _database_key(record.tenant, record.name), record.encode())

    def _forget_expiry(self, record: DatabaseRecord) -> None:
        before = self.database(record.tenant, record.name)
        if before is not None and before.expires_micros:
            self._delete("expiries", _expiry_key(before))

    def put_moved(self, record: DatabaseRecord) -> DatabaseRecord:
        """With the settings that it has by now."""
        record = self.known_database(record.tenant, record.name).keep_settings(record)
        self.put_database(record)
        return record

    def put_retention(self, tenant: TenantId, name: str, record: RetentionRecord | None) -> None:
        key = _database_key(tenant, name)
        if record is None:
            self._delete("retentions", key)
        else:
            self._put("retentions", key, record.encode())

    def put_checkpoint(self, tenant: TenantId, name: str, record: CheckpointRecord) -> None:
        key = _within(tenant, name) + record.name.encode()
        self._put("checkpoints", key, record.encode())

    def delete_checkpoint(self, tenant: TenantId, name: str, checkpoint: str) -> None:
        self._delete("checkpoints", _within(tenant, name) + checkpoint.encode())

    def remember_answer(self, tenant: TenantId, name: str, answer: Answer) -> None:
        record = self.answers(tenant, name).and_then(answer)
        self._put("answers", _database_key(tenant, name), record.encode())

    def add_event(self, tenant: TenantId, name: str, record: EventRecord) -> None:
        prefix = _within(tenant, name)
        last = self._writer.last_key("events", prefix)
        sequence = 1 if last is None else _SEQUENCE.unpack(last[len(prefix) :])[0] + 1
        self._put("events", prefix + _SEQUENCE.pack(sequence), record.encode())

    def put_kept_files(self, timeline: TimelineId, files: Mapping[str, bytes]) -> None:
        """These, and no others."""
        self._forget_files(timeline)
        for path, content in files.items():
            self._put("kept_files", timeline.raw + path.encode(), kept_files.pack(content))

    def _forget_files(self, timeline: TimelineId) -> None:
        self._delete("pgstat", timeline.raw)
        for key, _ in self._scan("kept_files", timeline.raw):
            self._delete("kept_files", key)

    def forget_old_auto_confs(self) -> None:
        for key, _ in self._scan("auto_conf", b""):
            self._delete("auto_conf", key)

    def remove_database(self, record: DatabaseRecord) -> list[TimelineId]:
        """Forgets a name with its checkpoints and log; the timelines that were only its own
        are marked dropped, and returned."""
        prefix = _within(record.tenant, record.name)
        self._forget_expiry(record)
        for table in ("checkpoints", "events"):
            for key, _ in self._scan(table, prefix):
                self._delete(table, key)
        for table in BY_DATABASE:
            self._delete(table, _database_key(record.tenant, record.name))
        dropped = []
        for timeline in self.timelines_of(record.tenant, record.name):
            if timeline.state is TimelineState.LIVE:
                self.set_timeline_state(timeline.timeline, TimelineState.DROPPED)
                dropped.append(timeline.timeline)
        return dropped

    def rename_database(self, record: DatabaseRecord, new: str) -> DatabaseRecord:
        """Everything of a name under another one, which nothing has; its branches follow."""
        tenant, old = record.tenant, record.name
        self._forget_expiry(record)
        for table in ("checkpoints", "events"):
            for key, value in self._scan(table, _within(tenant, old)):
                self._delete(table, key)
                self._put(table, _within(tenant, new) + key[len(_within(tenant, old)) :], value)
        for table in BY_DATABASE:
            moved = self._get(table, _database_key(tenant, old))
            if moved is not None:
                self._delete(table, _database_key(tenant, old))
                self._put(table, _database_key(tenant, new), moved)
        for timeline in self.timelines_of(tenant, old):
            # Dropped ones are what an earlier database of this name has left.
            if timeline.state is TimelineState.LIVE:
                self._delete("owned", _within(tenant, old) + timeline.timeline.raw)
                self.put_timeline(timeline.model_copy(update={"database": new}))
        renamed = record.model_copy(update={"name": new})
        self.put_database(renamed)
        for other in self.databases(tenant):
            if other.parent == old:
                self.put_database(other.model_copy(update={"parent": new}))
        return renamed


def _locked(path: Path) -> int:
    descriptor = locks.take(path)
    if descriptor is None:
        raise FailedPrecondition(
            "CONTROL_STATE_IN_USE", f"Another control plane runs on {path.parent}."
        )
    return descriptor


def _database_key(tenant: TenantId, name: str) -> bytes:
    return tenant.raw + name.encode()


def _expiry_key(record: DatabaseRecord) -> bytes:
    return _EXPIRY.pack(record.expires_micros) + _database_key(record.tenant, record.name)


def _within(tenant: TenantId, name: str) -> bytes:
    return _database_key(tenant, name) + b"\0"
