from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SlruKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SLRU_KIND_UNSPECIFIED: _ClassVar[SlruKind]
    SLRU_KIND_XACT: _ClassVar[SlruKind]
    SLRU_KIND_MULTIXACT_OFFSETS: _ClassVar[SlruKind]
    SLRU_KIND_MULTIXACT_MEMBERS: _ClassVar[SlruKind]
    SLRU_KIND_COMMIT_TS: _ClassVar[SlruKind]
SLRU_KIND_UNSPECIFIED: SlruKind
SLRU_KIND_XACT: SlruKind
SLRU_KIND_MULTIXACT_OFFSETS: SlruKind
SLRU_KIND_MULTIXACT_MEMBERS: SlruKind
SLRU_KIND_COMMIT_TS: SlruKind

class ReadLsn(_message.Message):
    __slots__ = ("request_lsn", "not_modified_since_lsn")
    REQUEST_LSN_FIELD_NUMBER: _ClassVar[int]
    NOT_MODIFIED_SINCE_LSN_FIELD_NUMBER: _ClassVar[int]
    request_lsn: int
    not_modified_since_lsn: int
    def __init__(self, request_lsn: _Optional[int] = ..., not_modified_since_lsn: _Optional[int] = ...) -> None: ...

class RelTag(_message.Message):
    __slots__ = ("spc_oid", "db_oid", "rel_number", "fork")
    SPC_OID_FIELD_NUMBER: _ClassVar[int]
    DB_OID_FIELD_NUMBER: _ClassVar[int]
    REL_NUMBER_FIELD_NUMBER: _ClassVar[int]
    FORK_FIELD_NUMBER: _ClassVar[int]
    spc_oid: int
    db_oid: int
    rel_number: int
    fork: int
    def __init__(self, spc_oid: _Optional[int] = ..., db_oid: _Optional[int] = ..., rel_number: _Optional[int] = ..., fork: _Optional[int] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "reason", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class GetPagesRequest(_message.Message):
    __slots__ = ("request_id", "tenant_id", "timeline_id", "read_lsn", "rel", "blocks", "wait_ms")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    READ_LSN_FIELD_NUMBER: _ClassVar[int]
    REL_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    tenant_id: bytes
    timeline_id: bytes
    read_lsn: ReadLsn
    rel: RelTag
    blocks: _containers.RepeatedScalarFieldContainer[int]
    wait_ms: int
    def __init__(self, request_id: _Optional[int] = ..., tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., read_lsn: _Optional[_Union[ReadLsn, _Mapping]] = ..., rel: _Optional[_Union[RelTag, _Mapping]] = ..., blocks: _Optional[_Iterable[int]] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class GetPagesResponse(_message.Message):
    __slots__ = ("request_id", "status", "pages")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    status: Status
    pages: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, request_id: _Optional[int] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., pages: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetRelSizeRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "read_lsn", "rel", "allow_missing")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    READ_LSN_FIELD_NUMBER: _ClassVar[int]
    REL_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    read_lsn: ReadLsn
    rel: RelTag
    allow_missing: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., read_lsn: _Optional[_Union[ReadLsn, _Mapping]] = ..., rel: _Optional[_Union[RelTag, _Mapping]] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class GetRelSizeResponse(_message.Message):
    __slots__ = ("exists", "nblocks")
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    NBLOCKS_FIELD_NUMBER: _ClassVar[int]
    exists: bool
    nblocks: int
    def __init__(self, exists: _Optional[bool] = ..., nblocks: _Optional[int] = ...) -> None: ...

class GetDbSizeRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "read_lsn", "db_oid")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    READ_LSN_FIELD_NUMBER: _ClassVar[int]
    DB_OID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    read_lsn: ReadLsn
    db_oid: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., read_lsn: _Optional[_Union[ReadLsn, _Mapping]] = ..., db_oid: _Optional[int] = ...) -> None: ...

class GetDbSizeResponse(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    def __init__(self, bytes: _Optional[int] = ...) -> None: ...

class GetSlruSegmentRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "read_lsn", "kind", "segment")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    READ_LSN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    read_lsn: ReadLsn
    kind: SlruKind
    segment: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., read_lsn: _Optional[_Union[ReadLsn, _Mapping]] = ..., kind: _Optional[_Union[SlruKind, str]] = ..., segment: _Optional[int] = ...) -> None: ...

class GetSlruSegmentResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class GetRelationMapRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "read_lsn", "spc_oid", "db_oid")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    READ_LSN_FIELD_NUMBER: _ClassVar[int]
    SPC_OID_FIELD_NUMBER: _ClassVar[int]
    DB_OID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    read_lsn: ReadLsn
    spc_oid: int
    db_oid: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., read_lsn: _Optional[_Union[ReadLsn, _Mapping]] = ..., spc_oid: _Optional[int] = ..., db_oid: _Optional[int] = ...) -> None: ...

class GetRelationMapResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class GetBaseBackupRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "lsn", "wait_ms", "hot_pages", "for_compute")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    HOT_PAGES_FIELD_NUMBER: _ClassVar[int]
    FOR_COMPUTE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    lsn: int
    wait_ms: int
    hot_pages: bool
    for_compute: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ..., wait_ms: _Optional[int] = ..., hot_pages: _Optional[bool] = ..., for_compute: _Optional[bool] = ...) -> None: ...

class BaseBackupChunk(_message.Message):
    __slots__ = ("header", "file", "relations", "pages", "end", "bundle")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    header: BackupHeader
    file: BackupFile
    relations: BackupRelations
    pages: BackupPages
    end: BackupEnd
    bundle: BackupBundle
    def __init__(self, header: _Optional[_Union[BackupHeader, _Mapping]] = ..., file: _Optional[_Union[BackupFile, _Mapping]] = ..., relations: _Optional[_Union[BackupRelations, _Mapping]] = ..., pages: _Optional[_Union[BackupPages, _Mapping]] = ..., end: _Optional[_Union[BackupEnd, _Mapping]] = ..., bundle: _Optional[_Union[BackupBundle, _Mapping]] = ...) -> None: ...

class BackupBundle(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[BaseBackupChunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[BaseBackupChunk, _Mapping]]] = ...) -> None: ...

class BackupHeader(_message.Message):
    __slots__ = ("lsn", "counters", "settings", "branch_lsn", "owner", "slots", "subscriptions", "last_record_lsn")
    LSN_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    BRANCH_LSN_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    counters: ControlCounters
    settings: ControlSettings
    branch_lsn: int
    owner: bytes
    slots: _containers.RepeatedScalarFieldContainer[str]
    subscriptions: BackupPages
    last_record_lsn: int
    def __init__(self, lsn: _Optional[int] = ..., counters: _Optional[_Union[ControlCounters, _Mapping]] = ..., settings: _Optional[_Union[ControlSettings, _Mapping]] = ..., branch_lsn: _Optional[int] = ..., owner: _Optional[bytes] = ..., slots: _Optional[_Iterable[str]] = ..., subscriptions: _Optional[_Union[BackupPages, _Mapping]] = ..., last_record_lsn: _Optional[int] = ...) -> None: ...

class BackupFile(_message.Message):
    __slots__ = ("path", "data")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    path: str
    data: bytes
    def __init__(self, path: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class RelationLength(_message.Message):
    __slots__ = ("rel", "nblocks")
    REL_FIELD_NUMBER: _ClassVar[int]
    NBLOCKS_FIELD_NUMBER: _ClassVar[int]
    rel: RelTag
    nblocks: int
    def __init__(self, rel: _Optional[_Union[RelTag, _Mapping]] = ..., nblocks: _Optional[int] = ...) -> None: ...

class BackupRelations(_message.Message):
    __slots__ = ("relations", "packed")
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    relations: _containers.RepeatedCompositeFieldContainer[RelationLength]
    packed: bytes
    def __init__(self, relations: _Optional[_Iterable[_Union[RelationLength, _Mapping]]] = ..., packed: _Optional[bytes] = ...) -> None: ...

class BackupPages(_message.Message):
    __slots__ = ("rel", "blocks", "pages")
    REL_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    rel: RelTag
    blocks: _containers.RepeatedScalarFieldContainer[int]
    pages: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, rel: _Optional[_Union[RelTag, _Mapping]] = ..., blocks: _Optional[_Iterable[int]] = ..., pages: _Optional[_Iterable[bytes]] = ...) -> None: ...

class BackupEnd(_message.Message):
    __slots__ = ("relations", "files")
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    relations: int
    files: int
    def __init__(self, relations: _Optional[int] = ..., files: _Optional[int] = ...) -> None: ...

class ControlCounters(_message.Message):
    __slots__ = ("next_full_xid", "next_oid", "next_multi", "next_multi_offset", "oldest_xid", "oldest_xid_db", "oldest_multi", "oldest_multi_db", "oldest_commit_ts_xid", "newest_commit_ts_xid", "oldest_active_xid", "full_page_writes", "checkpoint_time")
    NEXT_FULL_XID_FIELD_NUMBER: _ClassVar[int]
    NEXT_OID_FIELD_NUMBER: _ClassVar[int]
    NEXT_MULTI_FIELD_NUMBER: _ClassVar[int]
    NEXT_MULTI_OFFSET_FIELD_NUMBER: _ClassVar[int]
    OLDEST_XID_FIELD_NUMBER: _ClassVar[int]
    OLDEST_XID_DB_FIELD_NUMBER: _ClassVar[int]
    OLDEST_MULTI_FIELD_NUMBER: _ClassVar[int]
    OLDEST_MULTI_DB_FIELD_NUMBER: _ClassVar[int]
    OLDEST_COMMIT_TS_XID_FIELD_NUMBER: _ClassVar[int]
    NEWEST_COMMIT_TS_XID_FIELD_NUMBER: _ClassVar[int]
    OLDEST_ACTIVE_XID_FIELD_NUMBER: _ClassVar[int]
    FULL_PAGE_WRITES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_TIME_FIELD_NUMBER: _ClassVar[int]
    next_full_xid: int
    next_oid: int
    next_multi: int
    next_multi_offset: int
    oldest_xid: int
    oldest_xid_db: int
    oldest_multi: int
    oldest_multi_db: int
    oldest_commit_ts_xid: int
    newest_commit_ts_xid: int
    oldest_active_xid: int
    full_page_writes: bool
    checkpoint_time: int
    def __init__(self, next_full_xid: _Optional[int] = ..., next_oid: _Optional[int] = ..., next_multi: _Optional[int] = ..., next_multi_offset: _Optional[int] = ..., oldest_xid: _Optional[int] = ..., oldest_xid_db: _Optional[int] = ..., oldest_multi: _Optional[int] = ..., oldest_multi_db: _Optional[int] = ..., oldest_commit_ts_xid: _Optional[int] = ..., newest_commit_ts_xid: _Optional[int] = ..., oldest_active_xid: _Optional[int] = ..., full_page_writes: _Optional[bool] = ..., checkpoint_time: _Optional[int] = ...) -> None: ...

class ControlSettings(_message.Message):
    __slots__ = ("system_id", "wal_level", "wal_log_hints", "max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_xacts", "max_locks_per_xact", "track_commit_timestamp", "data_checksum_version", "pg_control_version", "catalog_version", "mock_authentication_nonce")
    SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    WAL_LEVEL_FIELD_NUMBER: _ClassVar[int]
    WAL_LOG_HINTS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_WORKER_PROCESSES_FIELD_NUMBER: _ClassVar[int]
    MAX_WAL_SENDERS_FIELD_NUMBER: _ClassVar[int]
    MAX_PREPARED_XACTS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOCKS_PER_XACT_FIELD_NUMBER: _ClassVar[int]
    TRACK_COMMIT_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    DATA_CHECKSUM_VERSION_FIELD_NUMBER: _ClassVar[int]
    PG_CONTROL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CATALOG_VERSION_FIELD_NUMBER: _ClassVar[int]
    MOCK_AUTHENTICATION_NONCE_FIELD_NUMBER: _ClassVar[int]
    system_id: int
    wal_level: int
    wal_log_hints: bool
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_xacts: int
    max_locks_per_xact: int
    track_commit_timestamp: bool
    data_checksum_version: int
    pg_control_version: int
    catalog_version: int
    mock_authentication_nonce: bytes
    def __init__(self, system_id: _Optional[int] = ..., wal_level: _Optional[int] = ..., wal_log_hints: _Optional[bool] = ..., max_connections: _Optional[int] = ..., max_worker_processes: _Optional[int] = ..., max_wal_senders: _Optional[int] = ..., max_prepared_xacts: _Optional[int] = ..., max_locks_per_xact: _Optional[int] = ..., track_commit_timestamp: _Optional[bool] = ..., data_checksum_version: _Optional[int] = ..., pg_control_version: _Optional[int] = ..., catalog_version: _Optional[int] = ..., mock_authentication_nonce: _Optional[bytes] = ...) -> None: ...

class LeaseLsnRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "lsn", "ttl_seconds", "wait_ms")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    lsn: int
    ttl_seconds: int
    wait_ms: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ..., ttl_seconds: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class LeaseLsnResponse(_message.Message):
    __slots__ = ("expires_unix_seconds",)
    EXPIRES_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    expires_unix_seconds: int
    def __init__(self, expires_unix_seconds: _Optional[int] = ...) -> None: ...

class CreateTimelineRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "parent_timeline_id", "branch_lsn", "wait_ms")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    BRANCH_LSN_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    parent_timeline_id: bytes
    branch_lsn: int
    wait_ms: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., parent_timeline_id: _Optional[bytes] = ..., branch_lsn: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class DeleteTimelineRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ...) -> None: ...

class DeleteTimelineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTimelineRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "slots", "sizes")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    slots: bool
    sizes: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., slots: _Optional[bool] = ..., sizes: _Optional[bool] = ...) -> None: ...

class RetentionWindow(_message.Message):
    __slots__ = ("seconds", "wal_bytes")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    wal_bytes: int
    def __init__(self, seconds: _Optional[int] = ..., wal_bytes: _Optional[int] = ...) -> None: ...

class SetRetentionRequest(_message.Message):
    __slots__ = ("window", "timelines", "all")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    TIMELINES_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    window: RetentionWindow
    timelines: _containers.RepeatedCompositeFieldContainer[TimelineRetention]
    all: bool
    def __init__(self, window: _Optional[_Union[RetentionWindow, _Mapping]] = ..., timelines: _Optional[_Iterable[_Union[TimelineRetention, _Mapping]]] = ..., all: _Optional[bool] = ...) -> None: ...

class DetachTimelineRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "wait_ms")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    wait_ms: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class TimelineRetention(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "window", "points", "unnamed")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    UNNAMED_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    window: RetentionWindow
    points: _containers.RepeatedScalarFieldContainer[int]
    unnamed: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., window: _Optional[_Union[RetentionWindow, _Mapping]] = ..., points: _Optional[_Iterable[int]] = ..., unnamed: _Optional[bool] = ...) -> None: ...

class SetRetentionResponse(_message.Message):
    __slots__ = ("lost",)
    LOST_FIELD_NUMBER: _ClassVar[int]
    lost: _containers.RepeatedCompositeFieldContainer[TimelineRetention]
    def __init__(self, lost: _Optional[_Iterable[_Union[TimelineRetention, _Mapping]]] = ...) -> None: ...

class GetChangedBlocksRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "after_lsn", "lsn", "wait_ms")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_LSN_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    after_lsn: int
    lsn: int
    wait_ms: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., after_lsn: _Optional[int] = ..., lsn: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class ChangedRelation(_message.Message):
    __slots__ = ("spc_oid", "db_oid", "rel_number", "blocks")
    SPC_OID_FIELD_NUMBER: _ClassVar[int]
    DB_OID_FIELD_NUMBER: _ClassVar[int]
    REL_NUMBER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    spc_oid: int
    db_oid: int
    rel_number: int
    blocks: bytes
    def __init__(self, spc_oid: _Optional[int] = ..., db_oid: _Optional[int] = ..., rel_number: _Optional[int] = ..., blocks: _Optional[bytes] = ...) -> None: ...

class FlushTimelineRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ...) -> None: ...

class VerifyLayersRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ...) -> None: ...

class VerifiedLayer(_message.Message):
    __slots__ = ("path", "bytes", "status")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    path: str
    bytes: int
    status: Status
    def __init__(self, path: _Optional[str] = ..., bytes: _Optional[int] = ..., status: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class ScrubStoreRequest(_message.Message):
    __slots__ = ("tenant_id", "bytes_per_second", "objects", "check_only")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    CHECK_ONLY_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    bytes_per_second: int
    objects: bool
    check_only: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., bytes_per_second: _Optional[int] = ..., objects: _Optional[bool] = ..., check_only: _Optional[bool] = ...) -> None: ...

class ScrubbedLayer(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "path", "bytes", "first_lsn", "last_lsn", "status", "reader_timeline_ids", "repaired", "repaired_from", "moved_to", "unrepaired")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FIRST_LSN_FIELD_NUMBER: _ClassVar[int]
    LAST_LSN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    READER_TIMELINE_IDS_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_FROM_FIELD_NUMBER: _ClassVar[int]
    MOVED_TO_FIELD_NUMBER: _ClassVar[int]
    UNREPAIRED_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    path: str
    bytes: int
    first_lsn: int
    last_lsn: int
    status: Status
    reader_timeline_ids: _containers.RepeatedScalarFieldContainer[bytes]
    repaired: str
    repaired_from: str
    moved_to: str
    unrepaired: Status
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., path: _Optional[str] = ..., bytes: _Optional[int] = ..., first_lsn: _Optional[int] = ..., last_lsn: _Optional[int] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., reader_timeline_ids: _Optional[_Iterable[bytes]] = ..., repaired: _Optional[str] = ..., repaired_from: _Optional[str] = ..., moved_to: _Optional[str] = ..., unrepaired: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class TimelineInfo(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "parent_timeline_id", "branch_lsn", "last_record_lsn", "disk_consistent_lsn", "physical_bytes", "layers", "created_unix_micros", "ingest_error", "slots", "slot_wal_limit", "flush_error", "postgres_major", "kept_from_lsn", "sizes")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    BRANCH_LSN_FIELD_NUMBER: _ClassVar[int]
    LAST_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    DISK_CONSISTENT_LSN_FIELD_NUMBER: _ClassVar[int]
    PHYSICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    INGEST_ERROR_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOT_WAL_LIMIT_FIELD_NUMBER: _ClassVar[int]
    FLUSH_ERROR_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_MAJOR_FIELD_NUMBER: _ClassVar[int]
    KEPT_FROM_LSN_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    parent_timeline_id: bytes
    branch_lsn: int
    last_record_lsn: int
    disk_consistent_lsn: int
    physical_bytes: int
    layers: int
    created_unix_micros: int
    ingest_error: str
    slots: _containers.RepeatedCompositeFieldContainer[ReplicationSlot]
    slot_wal_limit: int
    flush_error: str
    postgres_major: int
    kept_from_lsn: int
    sizes: TimelineSizes
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., parent_timeline_id: _Optional[bytes] = ..., branch_lsn: _Optional[int] = ..., last_record_lsn: _Optional[int] = ..., disk_consistent_lsn: _Optional[int] = ..., physical_bytes: _Optional[int] = ..., layers: _Optional[int] = ..., created_unix_micros: _Optional[int] = ..., ingest_error: _Optional[str] = ..., slots: _Optional[_Iterable[_Union[ReplicationSlot, _Mapping]]] = ..., slot_wal_limit: _Optional[int] = ..., flush_error: _Optional[str] = ..., postgres_major: _Optional[int] = ..., kept_from_lsn: _Optional[int] = ..., sizes: _Optional[_Union[TimelineSizes, _Mapping]] = ...) -> None: ...

class TimelineSizes(_message.Message):
    __slots__ = ("logical_bytes", "shared_bytes", "history_bytes")
    LOGICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    logical_bytes: int
    shared_bytes: int
    history_bytes: int
    def __init__(self, logical_bytes: _Optional[int] = ..., shared_bytes: _Optional[int] = ..., history_bytes: _Optional[int] = ...) -> None: ...

class ReplicationSlot(_message.Message):
    __slots__ = ("name", "plugin", "restart_lsn", "confirmed_flush_lsn", "lost")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLUGIN_FIELD_NUMBER: _ClassVar[int]
    RESTART_LSN_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_FLUSH_LSN_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    name: str
    plugin: str
    restart_lsn: int
    confirmed_flush_lsn: int
    lost: bool
    def __init__(self, name: _Optional[str] = ..., plugin: _Optional[str] = ..., restart_lsn: _Optional[int] = ..., confirmed_flush_lsn: _Optional[int] = ..., lost: _Optional[bool] = ...) -> None: ...

class ListTimelinesRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    def __init__(self, tenant_id: _Optional[bytes] = ...) -> None: ...

class ListTimelinesResponse(_message.Message):
    __slots__ = ("timelines",)
    TIMELINES_FIELD_NUMBER: _ClassVar[int]
    timelines: _containers.RepeatedCompositeFieldContainer[TimelineInfo]
    def __init__(self, timelines: _Optional[_Iterable[_Union[TimelineInfo, _Mapping]]] = ...) -> None: ...

class GetUpkeepRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Upkeep(_message.Message):
    __slots__ = ("wal_bytes", "flushed_bytes", "merged_bytes", "imaged_bytes", "images", "refused", "failures", "deepest_records", "objects", "level_bytes", "image_bytes", "dead_bytes", "collected_bytes", "read_faults", "last_read_fault")
    WAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FLUSHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MERGED_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGED_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    DEEPEST_RECORDS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    COLLECTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    READ_FAULTS_FIELD_NUMBER: _ClassVar[int]
    LAST_READ_FAULT_FIELD_NUMBER: _ClassVar[int]
    wal_bytes: int
    flushed_bytes: int
    merged_bytes: int
    imaged_bytes: int
    images: int
    refused: int
    failures: int
    deepest_records: int
    objects: ObjectStoreStatus
    level_bytes: _containers.RepeatedScalarFieldContainer[int]
    image_bytes: int
    dead_bytes: int
    collected_bytes: int
    read_faults: int
    last_read_fault: str
    def __init__(self, wal_bytes: _Optional[int] = ..., flushed_bytes: _Optional[int] = ..., merged_bytes: _Optional[int] = ..., imaged_bytes: _Optional[int] = ..., images: _Optional[int] = ..., refused: _Optional[int] = ..., failures: _Optional[int] = ..., deepest_records: _Optional[int] = ..., objects: _Optional[_Union[ObjectStoreStatus, _Mapping]] = ..., level_bytes: _Optional[_Iterable[int]] = ..., image_bytes: _Optional[int] = ..., dead_bytes: _Optional[int] = ..., collected_bytes: _Optional[int] = ..., read_faults: _Optional[int] = ..., last_read_fault: _Optional[str] = ...) -> None: ...

class ObjectStoreStatus(_message.Message):
    __slots__ = ("url", "generation", "behind_bytes", "behind_seconds", "wal_seconds", "last_error", "layer_bytes", "cached_bytes", "fetched_bytes")
    URL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BEHIND_BYTES_FIELD_NUMBER: _ClassVar[int]
    BEHIND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    LAYER_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FETCHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    url: str
    generation: int
    behind_bytes: int
    behind_seconds: float
    wal_seconds: float
    last_error: str
    layer_bytes: int
    cached_bytes: int
    fetched_bytes: int
    def __init__(self, url: _Optional[str] = ..., generation: _Optional[int] = ..., behind_bytes: _Optional[int] = ..., behind_seconds: _Optional[float] = ..., wal_seconds: _Optional[float] = ..., last_error: _Optional[str] = ..., layer_bytes: _Optional[int] = ..., cached_bytes: _Optional[int] = ..., fetched_bytes: _Optional[int] = ...) -> None: ...

class ImportChunk(_message.Message):
    __slots__ = ("header", "relations", "pages", "file", "slru", "end")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    SLRU_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    header: ImportHeader
    relations: BackupRelations
    pages: BackupPages
    file: BackupFile
    slru: ImportSlruSegment
    end: BackupEnd
    def __init__(self, header: _Optional[_Union[ImportHeader, _Mapping]] = ..., relations: _Optional[_Union[BackupRelations, _Mapping]] = ..., pages: _Optional[_Union[BackupPages, _Mapping]] = ..., file: _Optional[_Union[BackupFile, _Mapping]] = ..., slru: _Optional[_Union[ImportSlruSegment, _Mapping]] = ..., end: _Optional[_Union[BackupEnd, _Mapping]] = ...) -> None: ...

class ImportHeader(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "lsn", "checkpoint_lsn", "counters", "settings")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_LSN_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    lsn: int
    checkpoint_lsn: int
    counters: ControlCounters
    settings: ControlSettings
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ..., checkpoint_lsn: _Optional[int] = ..., counters: _Optional[_Union[ControlCounters, _Mapping]] = ..., settings: _Optional[_Union[ControlSettings, _Mapping]] = ...) -> None: ...

class ImportSlruSegment(_message.Message):
    __slots__ = ("kind", "segment", "data")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    kind: SlruKind
    segment: int
    data: bytes
    def __init__(self, kind: _Optional[_Union[SlruKind, str]] = ..., segment: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class GetLsnByTimeRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "unix_micros")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    unix_micros: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., unix_micros: _Optional[int] = ...) -> None: ...

class GetLastCommitRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "lsn", "wait_ms")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    lsn: int
    wait_ms: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class GetLastCommitResponse(_message.Message):
    __slots__ = ("next_full_xid", "commit_lsn")
    NEXT_FULL_XID_FIELD_NUMBER: _ClassVar[int]
    COMMIT_LSN_FIELD_NUMBER: _ClassVar[int]
    next_full_xid: int
    commit_lsn: int
    def __init__(self, next_full_xid: _Optional[int] = ..., commit_lsn: _Optional[int] = ...) -> None: ...

class GetLsnByTimeResponse(_message.Message):
    __slots__ = ("lsn", "commit_unix_micros", "before_history", "after_head", "commit_lsn")
    LSN_FIELD_NUMBER: _ClassVar[int]
    COMMIT_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    AFTER_HEAD_FIELD_NUMBER: _ClassVar[int]
    COMMIT_LSN_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    commit_unix_micros: int
    before_history: bool
    after_head: bool
    commit_lsn: int
    def __init__(self, lsn: _Optional[int] = ..., commit_unix_micros: _Optional[int] = ..., before_history: _Optional[bool] = ..., after_head: _Optional[bool] = ..., commit_lsn: _Optional[int] = ...) -> None: ...
