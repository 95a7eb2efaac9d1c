"""What the control plane remembers, each record as JSON (packing.py).

See docs/formats/control-state.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from pagestore.client.companions import Companions
from pagestore.control import packing
from pagestore.errors import DataLoss
from pagestore.ids import TenantId, TimelineId

REMEMBERED_ANSWERS = 32
"""Moves of one name; a retry comes within fewer."""


def _to_timeline(value: object) -> object:
    return TimelineId.parse(value) if isinstance(value, str) else value


def _to_tenant(value: object) -> object:
    return TenantId.parse(value) if isinstance(value, str) else value


Timeline = Annotated[TimelineId, BeforeValidator(_to_timeline), PlainSerializer(str)]
Tenant = Annotated[TenantId, BeforeValidator(_to_tenant), PlainSerializer(str)]


class Record(BaseModel):
    """One value; frozen, so that a change is a new value in a transaction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def encode(self) -> bytes:
        """Without what is as it is where nothing is written: so is it read, and by versions from
        before a field too."""
        return packing.pack(self.model_dump_json(exclude_defaults=True).encode())

    @classmethod
    def decode(cls, raw: bytes, where: str) -> Self:
        """The inverse of :meth:`encode`.

        Raises:
            DataLoss: CONTROL_STATE_CORRUPT, naming `where` the value was.
        """
        try:
            return cls.model_validate_json(packing.unpack(raw))
        except (ValidationError, ValueError) as error:
            fault = str(error)
        raise DataLoss(
            "CONTROL_STATE_CORRUPT",
            f"The control plane's state has a value that cannot be read ({where}): {fault}.",
            "Use the pagestore version that wrote it, or restore the folder `control` from a copy.",
        )


class TimelineState(StrEnum):
    PENDING = "pending"
    """Somebody is making it. One found at start is the rest of a verb that was killed."""
    LIVE = "live"
    DROPPED = "dropped"
    """Nobody names it. It goes once no timeline branches off it any more."""


class UnmadeLog(Record):
    """That the WAL service has made no log of a timeline; see logs.py."""

    prev_record_lsn: int = 0
    """Start of the record that ends at the branch LSN, 0 if unknown."""
    members: tuple[int, ...] | None = None
    """The safekeepers that were asked to make it, and may have; None while nobody was."""
    doubtful: bool = False
    """A newer state than this one may have known of a log: who needs to know asks."""


class TimelineRecord(Record):
    """One timeline that the control plane has made, so that none is ever forgotten."""

    timeline: Timeline
    tenant: Tenant
    state: TimelineState
    database: str
    """The name it was made for; empty for the template."""
    parent: Timeline | None
    branch_lsn: int
    """A root: the LSN of its import."""
    usable_lsn: int = 0
    """Before it, the database was still being made; no point may lie there."""
    system_id: int = 0
    imported: bool = False
    created_micros: int
    major: int = 15
    """Of Postgres: the root's, which its branches have too. Before there were others it was 15."""
    before: Timeline | None = None
    """Of a root that an upgrade has made: the timeline that was upgraded, whose LSNs are lower."""
    unmade_log: UnmadeLog | None = None
    """Of a branch on which nothing was ever started; None where the WAL service has its log."""

    @property
    def was_never_started(self) -> bool:
        """Nobody can have a trace of it but the page server."""
        unmade = self.unmade_log
        return unmade is not None and unmade.members is None and not unmade.doubtful


class UserSettings(Record):
    """What a user has set of a database's server (ALTER SYSTEM, `pagestore settings`)."""

    wanted: dict[str, str] = {}
    good: dict[str, str] = {}
    """With these a server has started last."""
    set_aside: dict[str, str] = {}
    """What no server started with, and so is no longer wanted. See setting_aside.py."""
    complaint: str = ""
    """The server's own words on it."""


OF_OLD = frozenset({"port", "wanted"})
"""Fields of a database's record, once."""


class DatabaseRecord(Record):
    """A name, and everything that must stay when its timeline changes."""

    tenant: Tenant
    name: str
    timeline: Timeline
    parent: str = ""
    parent_timeline: Timeline | None = None
    """What the parent stood on when this was branched: by it the parent is known to be the same
    one, whatever it is called now. None in records from before it was written down."""
    branch_lsn: int
    created_micros: int
    sealed_password: str = ""
    """The owner's; see operator_key.py. Empty: not known."""
    password: str = ""
    """The same in clear, of old: sealed when the state is opened."""
    postgres_database: str
    settings: UserSettings = UserSettings()
    """The database's, whatever timeline it stands on: a branch begins with a copy."""
    idle: float | None = None
    """Seconds without activity until it is put to sleep; 0: never; None: as the proxy has it."""
    expires_micros: int = 0
    """Unix time at which it is removed by itself; 0: never. A branch does not have its parent's."""
    password_was_reset: bool = False
    """Older states of its cluster may have another password than this one."""

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_no_more(cls, fields: Any) -> Any:
        """Records of old say where its compute listened, and whether it should run."""
        if isinstance(fields, dict):
            return {name: value for name, value in fields.items() if name not in OF_OLD}
        return fields

    def keep_settings(self, other: DatabaseRecord) -> DatabaseRecord:
        """`other`, a record of the same database from before, with the settings of this one: they
        change with each stop and start of a compute."""
        return other.model_copy(update={"settings": self.settings})


class CheckpointRecord(Record):
    name: str
    timeline: Timeline
    lsn: int
    git_commit: str = ""
    created_micros: int
    automatic: bool = False
    note: str = ""
    expires_micros: int = 0
    """Unix time at which it is forgotten by itself; 0: never, or, if it is automatic, with its
    database's history."""
    dirty_patch: str = ""
    run_id: str = ""
    notes: dict[str, str] = {}

    @property
    def companions(self) -> Companions:
        return Companions(self.git_commit, self.dirty_patch, self.run_id, self.notes)


class RetentionRecord(Record):
    """How much of its history a database keeps; none where it is as the installation has it."""

    seconds: int
    wal_bytes: int = 0
    """Of WAL before the head, if that is less; 0: no such bound."""


class Verb(StrEnum):
    CREATE = "create"
    IMPORT = "import"
    BRANCH = "branch"
    CHECKPOINT = "checkpoint"
    RESTORE = "restore"
    RESET = "reset"
    UNDO = "undo"
    REDO = "redo"
    UPGRADE = "upgrade"
    PROMOTE = "promote"
    DELETE_CHECKPOINT = "delete-checkpoint"
    RENAME = "rename"
    PORT = "port"
    """Of old: a database had a port of its own, and got another one."""
    SETTINGS = "settings"
    PASSWORD = "password"  # noqa: S105


BEGINNINGS = frozenset({Verb.CREATE, Verb.IMPORT, Verb.BRANCH})
MOVES = frozenset({Verb.RESTORE, Verb.RESET, Verb.UNDO, Verb.REDO, Verb.UPGRADE, Verb.PROMOTE})
"""Verbs after which the name stands on another timeline than before."""


class EventRecord(Record):
    """What happened to a name. Checkpoints have one too, so that undo can find the latest."""

    verb: Verb
    timeline: Timeline
    """The one the name stood on afterwards."""
    lsn: int
    """Where that timeline began to be this database, or the checkpoint."""
    created_micros: int
    detail: str = ""
    checkpoint: str = ""
    """The checkpoint made: the user's own, or the automatic one of a move. Or the deleted one."""


class Answer(BaseModel):
    """What a move was answered with, so that the same request has the same answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str
    verb: Verb
    changed: bool
    summary: str
    kept: str = ""
    """The automatic checkpoint that it made."""
    went_to: CheckpointRecord | None = None
    """That of the user's which it went to."""


class AnswersRecord(Record):
    """The latest answers to moves of a name, oldest first."""

    answers: tuple[Answer, ...] = ()

    def of(self, request: str) -> Answer | None:
        return next((item for item in self.answers if item.request == request), None)

    def and_then(self, answer: Answer) -> AnswersRecord:
        return AnswersRecord(answers=(*self.answers, answer)[-REMEMBERED_ANSWERS:])


class MembersRecord(Record):
    """How far the change of the timelines' safekeepers is."""

    settled: tuple[int, ...] = ()
    """Every timeline had these for members, when they were last looked through."""
    next_generation: int = 2
    """The lowest generation of a configuration that was never given away."""


class Quota(Record):
    """The most that a tenant may have; None for as much as there is."""

    databases: int | None = None
    awake: int | None = None
    """Running computes at a time."""
    own_bytes: int | None = None
    """At the page server."""


class TenantRecord(Record):
    """Who owns databases."""

    tenant: Tenant
    name: str
    quota: Quota = Quota()
    created_micros: int


class HourRecord(Record):
    """What a database has cost in one hour; times in microseconds. See usage.py."""

    name: str = ""
    """Its latest, as far as it was told."""
    awake: int = 0
    cpu: int = 0
    queries: int = 0
    wakes: int = 0

    def and_more(self, more: HourRecord) -> HourRecord:
        return HourRecord(
            name=more.name or self.name,
            awake=self.awake + more.awake,
            cpu=self.cpu + more.cpu,
            queries=self.queries + more.queries,
            wakes=self.wakes + more.wakes,
        )


class SourceRecord(Record):
    """What was told last by one that measures; see usage.py."""

    until: int
    cpu: int = 0
    queries: int = 0


class KeyRecord(Record):
    """By which key passwords are sealed."""

    key: str
    """Its id."""
    overwritten: bool
    """Whether the file has no clear password of before any more, in its unused space either."""


class TemplateRecord(Record):
    """The empty cluster of one major that every `create` of it branches."""

    timeline: Timeline
    lsn: int
    prev_record_lsn: int
