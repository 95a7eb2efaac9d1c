from pagestore.v1 import page_pb2 as _page_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ComputeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPUTE_STATE_UNSPECIFIED: _ClassVar[ComputeState]
    COMPUTE_STATE_STOPPED: _ClassVar[ComputeState]
    COMPUTE_STATE_STARTING: _ClassVar[ComputeState]
    COMPUTE_STATE_RUNNING: _ClassVar[ComputeState]
    COMPUTE_STATE_STOPPING: _ClassVar[ComputeState]
    COMPUTE_STATE_FAILED: _ClassVar[ComputeState]
COMPUTE_STATE_UNSPECIFIED: ComputeState
COMPUTE_STATE_STOPPED: ComputeState
COMPUTE_STATE_STARTING: ComputeState
COMPUTE_STATE_RUNNING: ComputeState
COMPUTE_STATE_STOPPING: ComputeState
COMPUTE_STATE_FAILED: ComputeState

class Point(_message.Message):
    __slots__ = ("lsn", "unix_micros", "checkpoint", "or_unix_micros")
    LSN_FIELD_NUMBER: _ClassVar[int]
    UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    OR_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    unix_micros: int
    checkpoint: str
    or_unix_micros: int
    def __init__(self, lsn: _Optional[int] = ..., unix_micros: _Optional[int] = ..., checkpoint: _Optional[str] = ..., or_unix_micros: _Optional[int] = ...) -> None: ...

class Database(_message.Message):
    __slots__ = ("name", "tenant_id", "timeline_id", "lsn", "url", "compute", "parent", "branch_lsn", "physical_bytes", "created_unix_micros", "postgres_database", "created", "compute_error", "compute_pid", "compute_dir", "wal_bytes", "set_aside", "set_aside_complaint", "url_fault", "operator_conninfo", "remarks", "slots", "slot_wal_limit", "postgres_major", "idle", "expires_unix_micros", "retention", "sizes")
    class SetAsideEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    BRANCH_LSN_FIELD_NUMBER: _ClassVar[int]
    PHYSICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_DATABASE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_ERROR_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_PID_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_DIR_FIELD_NUMBER: _ClassVar[int]
    WAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_COMPLAINT_FIELD_NUMBER: _ClassVar[int]
    URL_FAULT_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_CONNINFO_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOT_WAL_LIMIT_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_MAJOR_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant_id: bytes
    timeline_id: bytes
    lsn: int
    url: str
    compute: ComputeState
    parent: str
    branch_lsn: int
    physical_bytes: int
    created_unix_micros: int
    postgres_database: str
    created: bool
    compute_error: str
    compute_pid: int
    compute_dir: str
    wal_bytes: int
    set_aside: _containers.ScalarMap[str, str]
    set_aside_complaint: str
    url_fault: str
    operator_conninfo: str
    remarks: _containers.RepeatedScalarFieldContainer[str]
    slots: _containers.RepeatedCompositeFieldContainer[DatabaseSlot]
    slot_wal_limit: int
    postgres_major: int
    idle: float
    expires_unix_micros: int
    retention: Retention
    sizes: Sizes
    def __init__(self, name: _Optional[str] = ..., tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ..., url: _Optional[str] = ..., compute: _Optional[_Union[ComputeState, str]] = ..., parent: _Optional[str] = ..., branch_lsn: _Optional[int] = ..., physical_bytes: _Optional[int] = ..., created_unix_micros: _Optional[int] = ..., postgres_database: _Optional[str] = ..., created: _Optional[bool] = ..., compute_error: _Optional[str] = ..., compute_pid: _Optional[int] = ..., compute_dir: _Optional[str] = ..., wal_bytes: _Optional[int] = ..., set_aside: _Optional[_Mapping[str, str]] = ..., set_aside_complaint: _Optional[str] = ..., url_fault: _Optional[str] = ..., operator_conninfo: _Optional[str] = ..., remarks: _Optional[_Iterable[str]] = ..., slots: _Optional[_Iterable[_Union[DatabaseSlot, _Mapping]]] = ..., slot_wal_limit: _Optional[int] = ..., postgres_major: _Optional[int] = ..., idle: _Optional[float] = ..., expires_unix_micros: _Optional[int] = ..., retention: _Optional[_Union[Retention, _Mapping]] = ..., sizes: _Optional[_Union[Sizes, _Mapping]] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("seconds", "wal_bytes", "own", "kept_from_lsn")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    KEPT_FROM_LSN_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    wal_bytes: int
    own: bool
    kept_from_lsn: int
    def __init__(self, seconds: _Optional[int] = ..., wal_bytes: _Optional[int] = ..., own: _Optional[bool] = ..., kept_from_lsn: _Optional[int] = ...) -> None: ...

class Sizes(_message.Message):
    __slots__ = ("logical_bytes", "shared_bytes", "history_bytes")
    LOGICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    logical_bytes: int
    shared_bytes: int
    history_bytes: int
    def __init__(self, logical_bytes: _Optional[int] = ..., shared_bytes: _Optional[int] = ..., history_bytes: _Optional[int] = ...) -> None: ...

class DetachDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "name")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ...) -> None: ...

class DetachDatabaseResponse(_message.Message):
    __slots__ = ("database", "done", "changed")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    database: Database
    done: bool
    changed: bool
    def __init__(self, database: _Optional[_Union[Database, _Mapping]] = ..., done: _Optional[bool] = ..., changed: _Optional[bool] = ...) -> None: ...

class ChangeRetentionRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "seconds", "wal_bytes")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    seconds: float
    wal_bytes: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., seconds: _Optional[float] = ..., wal_bytes: _Optional[int] = ...) -> None: ...

class DatabaseSlot(_message.Message):
    __slots__ = ("name", "plugin", "wal_bytes", "lost")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLUGIN_FIELD_NUMBER: _ClassVar[int]
    WAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    name: str
    plugin: str
    wal_bytes: int
    lost: bool
    def __init__(self, name: _Optional[str] = ..., plugin: _Optional[str] = ..., wal_bytes: _Optional[int] = ..., lost: _Optional[bool] = ...) -> None: ...

class CreateDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "name", "if_not_exists", "settings", "postgres_major", "ttl")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IF_NOT_EXISTS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_MAJOR_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    if_not_exists: bool
    settings: _containers.ScalarMap[str, str]
    postgres_major: int
    ttl: float
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ..., if_not_exists: _Optional[bool] = ..., settings: _Optional[_Mapping[str, str]] = ..., postgres_major: _Optional[int] = ..., ttl: _Optional[float] = ...) -> None: ...

class BranchDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "source", "name", "at", "if_not_exists", "ttl")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    IF_NOT_EXISTS_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    source: str
    name: str
    at: Point
    if_not_exists: bool
    ttl: float
    def __init__(self, tenant_id: _Optional[bytes] = ..., source: _Optional[str] = ..., name: _Optional[str] = ..., at: _Optional[_Union[Point, _Mapping]] = ..., if_not_exists: _Optional[bool] = ..., ttl: _Optional[float] = ...) -> None: ...

class GetDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "name", "brief", "check_url", "reveal")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    CHECK_URL_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    brief: bool
    check_url: bool
    reveal: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ..., brief: _Optional[bool] = ..., check_url: _Optional[bool] = ..., reveal: _Optional[bool] = ...) -> None: ...

class ListDatabasesRequest(_message.Message):
    __slots__ = ("tenant_id", "page_size", "page_token", "unlisted")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNLISTED_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    page_size: int
    page_token: str
    unlisted: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., unlisted: _Optional[bool] = ...) -> None: ...

class ListDatabasesResponse(_message.Message):
    __slots__ = ("databases", "next_page_token", "unlisted")
    DATABASES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNLISTED_FIELD_NUMBER: _ClassVar[int]
    databases: _containers.RepeatedCompositeFieldContainer[Database]
    next_page_token: str
    unlisted: UnlistedBytes
    def __init__(self, databases: _Optional[_Iterable[_Union[Database, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., unlisted: _Optional[_Union[UnlistedBytes, _Mapping]] = ...) -> None: ...

class UnlistedBytes(_message.Message):
    __slots__ = ("left_bytes", "deleted_bytes")
    LEFT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DELETED_BYTES_FIELD_NUMBER: _ClassVar[int]
    left_bytes: int
    deleted_bytes: int
    def __init__(self, left_bytes: _Optional[int] = ..., deleted_bytes: _Optional[int] = ...) -> None: ...

class WatchDatabasesRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    def __init__(self, tenant_id: _Optional[bytes] = ...) -> None: ...

class DatabaseChange(_message.Message):
    __slots__ = ("database", "gone", "whole")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    database: Database
    gone: str
    whole: bool
    def __init__(self, database: _Optional[_Union[Database, _Mapping]] = ..., gone: _Optional[str] = ..., whole: _Optional[bool] = ...) -> None: ...

class DeleteDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "name", "if_exists")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    if_exists: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ..., if_exists: _Optional[bool] = ...) -> None: ...

class DeleteDatabaseResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: _Optional[bool] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("name", "timeline_id", "lsn", "git_commit", "created_unix_micros", "automatic", "note", "expires_unix_micros", "dirty_patch", "run_id", "notes")
    class NotesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    GIT_COMMIT_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    AUTOMATIC_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    DIRTY_PATCH_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    timeline_id: bytes
    lsn: int
    git_commit: str
    created_unix_micros: int
    automatic: bool
    note: str
    expires_unix_micros: int
    dirty_patch: str
    run_id: str
    notes: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ..., git_commit: _Optional[str] = ..., created_unix_micros: _Optional[int] = ..., automatic: _Optional[bool] = ..., note: _Optional[str] = ..., expires_unix_micros: _Optional[int] = ..., dirty_patch: _Optional[str] = ..., run_id: _Optional[str] = ..., notes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CreateCheckpointRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "name", "git_commit", "keep", "dirty_patch", "run_id", "notes")
    class NotesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GIT_COMMIT_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    DIRTY_PATCH_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    name: str
    git_commit: str
    keep: float
    dirty_patch: str
    run_id: str
    notes: _containers.ScalarMap[str, str]
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., name: _Optional[str] = ..., git_commit: _Optional[str] = ..., keep: _Optional[float] = ..., dirty_patch: _Optional[str] = ..., run_id: _Optional[str] = ..., notes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class DeleteCheckpointRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "name", "if_exists")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    name: str
    if_exists: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., name: _Optional[str] = ..., if_exists: _Optional[bool] = ...) -> None: ...

class DeleteCheckpointResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: _Optional[bool] = ...) -> None: ...

class RenameDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "name", "new_name", "if_exists")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    new_name: str
    if_exists: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ..., new_name: _Optional[str] = ..., if_exists: _Optional[bool] = ...) -> None: ...

class RenameDatabaseResponse(_message.Message):
    __slots__ = ("database", "changed")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    database: Database
    changed: bool
    def __init__(self, database: _Optional[_Union[Database, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class RestoreDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "at", "request_id", "dry_run")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    at: Point
    request_id: str
    dry_run: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., at: _Optional[_Union[Point, _Mapping]] = ..., request_id: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class RestoreResponse(_message.Message):
    __slots__ = ("database", "kept", "summary", "changed", "to", "went_to")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    WENT_TO_FIELD_NUMBER: _ClassVar[int]
    database: Database
    kept: Checkpoint
    summary: str
    changed: bool
    to: MovePoint
    went_to: Checkpoint
    def __init__(self, database: _Optional[_Union[Database, _Mapping]] = ..., kept: _Optional[_Union[Checkpoint, _Mapping]] = ..., summary: _Optional[str] = ..., changed: _Optional[bool] = ..., to: _Optional[_Union[MovePoint, _Mapping]] = ..., went_to: _Optional[_Union[Checkpoint, _Mapping]] = ...) -> None: ...

class MovePoint(_message.Message):
    __slots__ = ("timeline_id", "lsn")
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    timeline_id: bytes
    lsn: int
    def __init__(self, timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ...) -> None: ...

class PromoteDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "source", "request_id", "dry_run")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    source: str
    request_id: str
    dry_run: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., source: _Optional[str] = ..., request_id: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ResetDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "request_id", "dry_run")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    request_id: str
    dry_run: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., request_id: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class UndoDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "request_id", "dry_run", "to_checkpoint")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    TO_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    request_id: str
    dry_run: bool
    to_checkpoint: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., request_id: _Optional[str] = ..., dry_run: _Optional[bool] = ..., to_checkpoint: _Optional[str] = ...) -> None: ...

class RedoDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "request_id", "dry_run")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    request_id: str
    dry_run: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., request_id: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class UpgradeDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "postgres_major", "request_id", "dry_run")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_MAJOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    postgres_major: int
    request_id: str
    dry_run: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., postgres_major: _Optional[int] = ..., request_id: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class UpgradeProgress(_message.Message):
    __slots__ = ("step", "done", "total", "moved", "remarks")
    STEP_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    step: str
    done: int
    total: int
    moved: RestoreResponse
    remarks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, step: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ..., moved: _Optional[_Union[RestoreResponse, _Mapping]] = ..., remarks: _Optional[_Iterable[str]] = ...) -> None: ...

class LogEntry(_message.Message):
    __slots__ = ("checkpoint", "event")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: Checkpoint
    event: Event
    def __init__(self, checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("verb", "timeline_id", "lsn", "unix_micros", "detail")
    VERB_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    verb: str
    timeline_id: bytes
    lsn: int
    unix_micros: int
    detail: str
    def __init__(self, verb: _Optional[str] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ..., unix_micros: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class ListLogRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "page_size", "page_token")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    page_size: int
    page_token: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListLogResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[LogEntry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[LogEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WakeDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "name", "reveal", "brief")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    reveal: bool
    brief: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ..., reveal: _Optional[bool] = ..., brief: _Optional[bool] = ...) -> None: ...

class GetSettingsRequest(_message.Message):
    __slots__ = ("tenant_id", "database")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ...) -> None: ...

class ChangeSettingsRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "set", "reset")
    class SetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    set: _containers.ScalarMap[str, str]
    reset: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., set: _Optional[_Mapping[str, str]] = ..., reset: _Optional[_Iterable[str]] = ...) -> None: ...

class DatabaseSettings(_message.Message):
    __slots__ = ("settings", "set_aside", "complaint", "after_restart")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SetAsideEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_FIELD_NUMBER: _ClassVar[int]
    COMPLAINT_FIELD_NUMBER: _ClassVar[int]
    AFTER_RESTART_FIELD_NUMBER: _ClassVar[int]
    settings: _containers.ScalarMap[str, str]
    set_aside: _containers.ScalarMap[str, str]
    complaint: str
    after_restart: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, settings: _Optional[_Mapping[str, str]] = ..., set_aside: _Optional[_Mapping[str, str]] = ..., complaint: _Optional[str] = ..., after_restart: _Optional[_Iterable[str]] = ...) -> None: ...

class ChangeIdleRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "idle")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    idle: float
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., idle: _Optional[float] = ...) -> None: ...

class KeepDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "ttl")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    ttl: float
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., ttl: _Optional[float] = ...) -> None: ...

class ResetPasswordRequest(_message.Message):
    __slots__ = ("tenant_id", "database")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ...) -> None: ...

class StopDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "name")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ...) -> None: ...

class StopComputesRequest(_message.Message):
    __slots__ = ("carry_sessions",)
    CARRY_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    carry_sessions: bool
    def __init__(self, carry_sessions: _Optional[bool] = ...) -> None: ...

class StopComputesResponse(_message.Message):
    __slots__ = ("stopped",)
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    stopped: int
    def __init__(self, stopped: _Optional[int] = ...) -> None: ...

class BeginImportRequest(_message.Message):
    __slots__ = ("tenant_id", "name")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ...) -> None: ...

class BeginImportResponse(_message.Message):
    __slots__ = ("timeline_id",)
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    timeline_id: bytes
    def __init__(self, timeline_id: _Optional[bytes] = ...) -> None: ...

class RegisterDatabaseRequest(_message.Message):
    __slots__ = ("tenant_id", "name", "timeline_id", "prev_record_lsn", "system_id", "postgres_database", "settings")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_DATABASE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    timeline_id: bytes
    prev_record_lsn: int
    system_id: int
    postgres_database: str
    settings: _containers.ScalarMap[str, str]
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ..., timeline_id: _Optional[bytes] = ..., prev_record_lsn: _Optional[int] = ..., system_id: _Optional[int] = ..., postgres_database: _Optional[str] = ..., settings: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ResolvePointRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "at")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    at: Point
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., at: _Optional[_Union[Point, _Mapping]] = ...) -> None: ...

class ResolvePointResponse(_message.Message):
    __slots__ = ("timeline_id", "lsn", "prev_record_lsn")
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    timeline_id: bytes
    lsn: int
    prev_record_lsn: int
    def __init__(self, timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ..., prev_record_lsn: _Optional[int] = ...) -> None: ...

class GetSystemStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PartStatus(_message.Message):
    __slots__ = ("part", "address", "serving", "pid", "error")
    PART_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    part: str
    address: str
    serving: bool
    pid: int
    error: str
    def __init__(self, part: _Optional[str] = ..., address: _Optional[str] = ..., serving: _Optional[bool] = ..., pid: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class GetMembersStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MembersStatus(_message.Message):
    __slots__ = ("safekeepers", "settled", "timelines_left", "error")
    SAFEKEEPERS_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    TIMELINES_LEFT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    safekeepers: _containers.RepeatedScalarFieldContainer[int]
    settled: bool
    timelines_left: int
    error: str
    def __init__(self, safekeepers: _Optional[_Iterable[int]] = ..., settled: _Optional[bool] = ..., timelines_left: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class SystemStatus(_message.Message):
    __slots__ = ("parts", "data_dir", "databases", "computes_running", "store_bytes", "version", "page_server_address", "wal_service_address", "upkeep", "postgres", "objects")
    class PostgresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    PARTS_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    DATABASES_FIELD_NUMBER: _ClassVar[int]
    COMPUTES_RUNNING_FIELD_NUMBER: _ClassVar[int]
    STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SERVER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WAL_SERVICE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    UPKEEP_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[PartStatus]
    data_dir: str
    databases: int
    computes_running: int
    store_bytes: int
    version: str
    page_server_address: str
    wal_service_address: str
    upkeep: _page_pb2.Upkeep
    postgres: _containers.ScalarMap[int, str]
    objects: _page_pb2.ObjectStoreStatus
    def __init__(self, parts: _Optional[_Iterable[_Union[PartStatus, _Mapping]]] = ..., data_dir: _Optional[str] = ..., databases: _Optional[int] = ..., computes_running: _Optional[int] = ..., store_bytes: _Optional[int] = ..., version: _Optional[str] = ..., page_server_address: _Optional[str] = ..., wal_service_address: _Optional[str] = ..., upkeep: _Optional[_Union[_page_pb2.Upkeep, _Mapping]] = ..., postgres: _Optional[_Mapping[int, str]] = ..., objects: _Optional[_Union[_page_pb2.ObjectStoreStatus, _Mapping]] = ...) -> None: ...
