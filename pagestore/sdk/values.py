"""What the control plane says, as values: plain, frozen, and printed without a password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pagestore.client import durations
from pagestore.client.point_messages import point_message
from pagestore.errors import InvalidInput
from pagestore.ids import format_lsn
from pagestore.v1 import control_pb2 as pb

Ttl = str | float | timedelta | None
"""How long: "30m", seconds, a timedelta; None for ever."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Of a database, as they were when they were told.

    Args:
        url: where programs connect; with the password where the call reveals it.
        lsn: "16/B374D848": where it stands.
        parent: the database that it was branched from; None for none.
        branch_lsn: where it left that; None for none.
        compute: "stopped", "starting", "running", "stopping", "failed".
        postgres: the major version.
        expires_at: when it is removed by itself; None for never.
        created: whether the call has made it.
    """

    name: str
    url: str = field(repr=False)
    lsn: str
    parent: str | None
    branch_lsn: str | None
    compute: str
    postgres: int
    physical_bytes: int
    created_at: datetime
    expires_at: datetime | None
    created: bool

    @classmethod
    def of(cls, said: pb.Database) -> Facts:
        state = pb.ComputeState.Name(said.compute).removeprefix("COMPUTE_STATE_").lower()
        return cls(
            name=said.name,
            url=said.url,
            lsn=format_lsn(said.lsn),
            parent=said.parent or None,
            branch_lsn=format_lsn(said.branch_lsn) if said.parent else None,
            compute=state,
            postgres=said.postgres_major,
            physical_bytes=said.physical_bytes,
            created_at=moment(said.created_unix_micros),
            expires_at=moment(said.expires_unix_micros) if said.expires_unix_micros else None,
            created=said.created,
        )


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a database's history is kept.

    Args:
        seconds: of it, back from now.
        wal_bytes: of WAL at most; None: as many as there are in that time.
        own: said of this database; else it is the installation's.
        kept_from: "16/B374D848": from there on all can be read; None where nothing is yet.
    """

    seconds: int
    wal_bytes: int | None
    own: bool
    kept_from: str | None

    @classmethod
    def of(cls, said: pb.Database) -> Retention:
        kept = said.retention
        kept_from = format_lsn(kept.kept_from_lsn) if kept.kept_from_lsn else None
        return cls(kept.seconds, kept.wal_bytes or None, kept.own, kept_from)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """
    Args:
        git_commit: empty for none.
        automatic: made by a move, to keep what was left.
        note: of an automatic one, what made it.
        dirty_patch: a commit on top of `git_commit`: what was not committed; empty for nothing.
        run_id: of what made it; empty for none.
        notes: by key.
        expires_at: when it is forgotten by itself; None for never.
    """

    name: str
    lsn: str
    git_commit: str
    created_at: datetime
    automatic: bool
    note: str
    dirty_patch: str = ""
    run_id: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime | None = None

    @classmethod
    def of(cls, said: pb.Checkpoint) -> Checkpoint:
        return cls(
            said.name,
            format_lsn(said.lsn),
            said.git_commit,
            moment(said.created_unix_micros),
            said.automatic,
            said.note,
            said.dirty_patch,
            said.run_id,
            dict(said.notes),
            moment(said.expires_unix_micros) if said.expires_unix_micros else None,
        )

    def fields(self) -> dict[str, Any]:
        """For programs, as JSON has them, whoever tells it."""
        return {
            "name": self.name,
            "lsn": self.lsn,
            "created_at": _told(self.created_at),
            "automatic": self.automatic,
            "note": self.note or None,
            "git_commit": self.git_commit or None,
            "dirty_patch": self.dirty_patch or None,
            "run_id": self.run_id or None,
            "notes": dict(self.notes),
            "expires_at": _told(self.expires_at) if self.expires_at else None,
        }


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a database's name.

    Args:
        verb: "create", "branch", "restore", "undo", ...
    """

    verb: str
    lsn: str
    at: datetime
    detail: str

    @classmethod
    def of(cls, said: pb.Event) -> Event:
        return cls(said.verb, format_lsn(said.lsn), moment(said.unix_micros), said.detail)


@dataclass(frozen=True, slots=True)
class Move:
    """What a restore, reset, promote, undo or redo did.

    Args:
        changed: whether the database is elsewhere than before.
        kept: the checkpoint by which one comes back; None where nothing changed.
        summary: it in one sentence.
        went_to: the checkpoint that it went to, if a user made it: the code and the notes that
            have to go back together with the database.
    """

    changed: bool
    kept: Checkpoint | None
    summary: str
    went_to: Checkpoint | None = None

    @classmethod
    def of(cls, said: pb.RestoreResponse) -> Move:
        kept = Checkpoint.of(said.kept) if said.HasField("kept") else None
        went_to = Checkpoint.of(said.went_to) if said.HasField("went_to") else None
        return cls(said.changed, kept, said.summary, went_to)


def entry_of(said: pb.LogEntry) -> Checkpoint | Event:
    if said.WhichOneof("entry") == "checkpoint":
        return Checkpoint.of(said.checkpoint)
    return Event.of(said.event)


def moment_fields(entry: Checkpoint | Event) -> dict[str, Any]:
    """Of a log's entry, likewise: of whatever kind it is, what happened, when and where."""
    if isinstance(entry, Event):
        told = {"name": None, "lsn": entry.lsn, "detail": entry.detail}
        return {"what": entry.verb, "at": _told(entry.at), **told}
    told = entry.fields()
    at, detail = told.pop("created_at"), told.pop("note") or ""
    return {"what": "checkpoint", "at": at, "detail": detail, **told}


def point_of(at: str | datetime | None) -> pb.Point | None:
    """A checkpoint's name, an LSN or a time, as ``--at`` takes them; None for the head.

    Raises:
        InvalidInput, OutOfRange: it is none of these.
    """
    if isinstance(at, datetime):
        at = at.astimezone(UTC).isoformat()
    return point_message(at)


def seconds_of(ttl: Ttl) -> float | None:
    """
    Raises:
        InvalidInput: INVALID_TTL.
    """
    if ttl is None or isinstance(ttl, float):
        return ttl
    if isinstance(ttl, timedelta):
        return ttl.total_seconds()
    if isinstance(ttl, int):
        return float(ttl)
    found = durations.seconds(ttl)
    if found is None:
        raise InvalidInput("INVALID_TTL", f"{ttl!r} is no time as 30m, 1h or 7d.")
    return found


def moment(unix_micros: int) -> datetime:
    return datetime.fromtimestamp(unix_micros / 1e6, UTC)


def _told(at: datetime) -> str:
    """Local time to the microsecond, with its offset: ``--at`` takes it."""
    return at.astimezone().isoformat(timespec="microseconds")


def sqlalchemy_url(url: str, driver: str) -> str:
    """
    Args:
        driver: "psycopg", "asyncpg", ...
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme=f"postgresql+{driver}"))


Settings = Mapping[str, str]
"""Of a database's Postgres, by their names."""
