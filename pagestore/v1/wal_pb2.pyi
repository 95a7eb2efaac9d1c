from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Member(_message.Message):
    __slots__ = ("number", "incarnation", "address")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    number: int
    incarnation: int
    address: str
    def __init__(self, number: _Optional[int] = ..., incarnation: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class Configuration(_message.Message):
    __slots__ = ("generation", "members", "joining")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    JOINING_FIELD_NUMBER: _ClassVar[int]
    generation: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    joining: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, generation: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., joining: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class WalCreateTimelineRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "start_lsn", "prev_record_lsn", "system_id", "configuration")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    START_LSN_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    start_lsn: int
    prev_record_lsn: int
    system_id: int
    configuration: Configuration
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., start_lsn: _Optional[int] = ..., prev_record_lsn: _Optional[int] = ..., system_id: _Optional[int] = ..., configuration: _Optional[_Union[Configuration, _Mapping]] = ...) -> None: ...

class WalDeleteTimelineRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ...) -> None: ...

class WalDeleteTimelineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WalGetStatusRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ...) -> None: ...

class TermSwitch(_message.Message):
    __slots__ = ("term", "start_lsn")
    TERM_FIELD_NUMBER: _ClassVar[int]
    START_LSN_FIELD_NUMBER: _ClassVar[int]
    term: int
    start_lsn: int
    def __init__(self, term: _Optional[int] = ..., start_lsn: _Optional[int] = ...) -> None: ...

class WalTimelineStatus(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "start_lsn", "term", "flush_lsn", "commit_lsn", "term_history", "receiving", "last_error", "wal_bytes", "system_id", "prev_record_lsn", "configuration", "number", "incarnation", "oldest_lsn")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    START_LSN_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    FLUSH_LSN_FIELD_NUMBER: _ClassVar[int]
    COMMIT_LSN_FIELD_NUMBER: _ClassVar[int]
    TERM_HISTORY_FIELD_NUMBER: _ClassVar[int]
    RECEIVING_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    WAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    OLDEST_LSN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    start_lsn: int
    term: int
    flush_lsn: int
    commit_lsn: int
    term_history: _containers.RepeatedCompositeFieldContainer[TermSwitch]
    receiving: bool
    last_error: str
    wal_bytes: int
    system_id: int
    prev_record_lsn: int
    configuration: Configuration
    number: int
    incarnation: int
    oldest_lsn: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., start_lsn: _Optional[int] = ..., term: _Optional[int] = ..., flush_lsn: _Optional[int] = ..., commit_lsn: _Optional[int] = ..., term_history: _Optional[_Iterable[_Union[TermSwitch, _Mapping]]] = ..., receiving: _Optional[bool] = ..., last_error: _Optional[str] = ..., wal_bytes: _Optional[int] = ..., system_id: _Optional[int] = ..., prev_record_lsn: _Optional[int] = ..., configuration: _Optional[_Union[Configuration, _Mapping]] = ..., number: _Optional[int] = ..., incarnation: _Optional[int] = ..., oldest_lsn: _Optional[int] = ...) -> None: ...

class VoteRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "term")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    term: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., term: _Optional[int] = ...) -> None: ...

class VoteResponse(_message.Message):
    __slots__ = ("granted", "term", "end_lsn", "prev_record_lsn", "last_log_term", "member", "configuration", "term_history", "start_lsn", "start_prev_record_lsn", "system_id")
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    END_LSN_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    TERM_HISTORY_FIELD_NUMBER: _ClassVar[int]
    START_LSN_FIELD_NUMBER: _ClassVar[int]
    START_PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    term: int
    end_lsn: int
    prev_record_lsn: int
    last_log_term: int
    member: Member
    configuration: Configuration
    term_history: _containers.RepeatedCompositeFieldContainer[TermSwitch]
    start_lsn: int
    start_prev_record_lsn: int
    system_id: int
    def __init__(self, granted: _Optional[bool] = ..., term: _Optional[int] = ..., end_lsn: _Optional[int] = ..., prev_record_lsn: _Optional[int] = ..., last_log_term: _Optional[int] = ..., member: _Optional[_Union[Member, _Mapping]] = ..., configuration: _Optional[_Union[Configuration, _Mapping]] = ..., term_history: _Optional[_Iterable[_Union[TermSwitch, _Mapping]]] = ..., start_lsn: _Optional[int] = ..., start_prev_record_lsn: _Optional[int] = ..., system_id: _Optional[int] = ...) -> None: ...

class ElectRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "term", "term_history", "configuration", "admit", "start_lsn", "prev_record_lsn", "system_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    TERM_HISTORY_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    ADMIT_FIELD_NUMBER: _ClassVar[int]
    START_LSN_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    term: int
    term_history: _containers.RepeatedCompositeFieldContainer[TermSwitch]
    configuration: Configuration
    admit: bool
    start_lsn: int
    prev_record_lsn: int
    system_id: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., term: _Optional[int] = ..., term_history: _Optional[_Iterable[_Union[TermSwitch, _Mapping]]] = ..., configuration: _Optional[_Union[Configuration, _Mapping]] = ..., admit: _Optional[bool] = ..., start_lsn: _Optional[int] = ..., prev_record_lsn: _Optional[int] = ..., system_id: _Optional[int] = ...) -> None: ...

class ElectResponse(_message.Message):
    __slots__ = ("term", "flush_lsn", "member", "generation")
    TERM_FIELD_NUMBER: _ClassVar[int]
    FLUSH_LSN_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    term: int
    flush_lsn: int
    member: Member
    generation: int
    def __init__(self, term: _Optional[int] = ..., flush_lsn: _Optional[int] = ..., member: _Optional[_Union[Member, _Mapping]] = ..., generation: _Optional[int] = ...) -> None: ...

class FillRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "term", "end_lsn", "donors")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    END_LSN_FIELD_NUMBER: _ClassVar[int]
    DONORS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    term: int
    end_lsn: int
    donors: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., term: _Optional[int] = ..., end_lsn: _Optional[int] = ..., donors: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class FillResponse(_message.Message):
    __slots__ = ("flush_lsn", "member", "generation")
    FLUSH_LSN_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    flush_lsn: int
    member: Member
    generation: int
    def __init__(self, flush_lsn: _Optional[int] = ..., member: _Optional[_Union[Member, _Mapping]] = ..., generation: _Optional[int] = ...) -> None: ...

class ReadLogRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "term", "start_lsn", "end_lsn")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    START_LSN_FIELD_NUMBER: _ClassVar[int]
    END_LSN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    term: int
    start_lsn: int
    end_lsn: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., term: _Optional[int] = ..., start_lsn: _Optional[int] = ..., end_lsn: _Optional[int] = ...) -> None: ...

class WatchPositionsRequest(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class PeerPosition(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "member", "term", "flush_lsn", "commit_lsn", "generation", "promised_term", "remembered")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    FLUSH_LSN_FIELD_NUMBER: _ClassVar[int]
    COMMIT_LSN_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PROMISED_TERM_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    member: Member
    term: int
    flush_lsn: int
    commit_lsn: int
    generation: int
    promised_term: int
    remembered: PeerPosition
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., member: _Optional[_Union[Member, _Mapping]] = ..., term: _Optional[int] = ..., flush_lsn: _Optional[int] = ..., commit_lsn: _Optional[int] = ..., generation: _Optional[int] = ..., promised_term: _Optional[int] = ..., remembered: _Optional[_Union[PeerPosition, _Mapping]] = ...) -> None: ...

class PositionUpdate(_message.Message):
    __slots__ = ("positions", "snapshot_complete")
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    positions: _containers.RepeatedCompositeFieldContainer[PeerPosition]
    snapshot_complete: bool
    def __init__(self, positions: _Optional[_Iterable[_Union[PeerPosition, _Mapping]]] = ..., snapshot_complete: _Optional[bool] = ...) -> None: ...

class ReleasedWal(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "lsn")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    lsn: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ...) -> None: ...

class ReleaseWalRequest(_message.Message):
    __slots__ = ("consumer", "positions")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    consumer: str
    positions: _containers.RepeatedCompositeFieldContainer[ReleasedWal]
    def __init__(self, consumer: _Optional[str] = ..., positions: _Optional[_Iterable[_Union[ReleasedWal, _Mapping]]] = ...) -> None: ...

class ReleaseWalResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChangeMembersRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "term", "configuration")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    term: int
    configuration: Configuration
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., term: _Optional[int] = ..., configuration: _Optional[_Union[Configuration, _Mapping]] = ...) -> None: ...

class ChangeMembersResponse(_message.Message):
    __slots__ = ("generation", "flush_lsn", "member")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FLUSH_LSN_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    generation: int
    flush_lsn: int
    member: Member
    def __init__(self, generation: _Optional[int] = ..., flush_lsn: _Optional[int] = ..., member: _Optional[_Union[Member, _Mapping]] = ...) -> None: ...

class AppendWalRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "term", "lsn", "data")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    term: int
    lsn: int
    data: bytes
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., term: _Optional[int] = ..., lsn: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class AppendWalResponse(_message.Message):
    __slots__ = ("flush_lsn", "commit_lsn")
    FLUSH_LSN_FIELD_NUMBER: _ClassVar[int]
    COMMIT_LSN_FIELD_NUMBER: _ClassVar[int]
    flush_lsn: int
    commit_lsn: int
    def __init__(self, flush_lsn: _Optional[int] = ..., commit_lsn: _Optional[int] = ...) -> None: ...

class AttachComputeRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "term", "conninfo", "start_lsn", "hold")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    CONNINFO_FIELD_NUMBER: _ClassVar[int]
    START_LSN_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    term: int
    conninfo: str
    start_lsn: int
    hold: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., term: _Optional[int] = ..., conninfo: _Optional[str] = ..., start_lsn: _Optional[int] = ..., hold: _Optional[bool] = ...) -> None: ...

class AttachComputeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DetachComputeRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "term", "wait_flush_lsn", "wait_ms")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    WAIT_FLUSH_LSN_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    term: int
    wait_flush_lsn: int
    wait_ms: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., term: _Optional[int] = ..., wait_flush_lsn: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class DetachComputeResponse(_message.Message):
    __slots__ = ("flush_lsn",)
    FLUSH_LSN_FIELD_NUMBER: _ClassVar[int]
    flush_lsn: int
    def __init__(self, flush_lsn: _Optional[int] = ...) -> None: ...

class ReadWalRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "start_lsn", "linger_ms")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    START_LSN_FIELD_NUMBER: _ClassVar[int]
    LINGER_MS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    start_lsn: int
    linger_ms: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., start_lsn: _Optional[int] = ..., linger_ms: _Optional[int] = ...) -> None: ...

class WalChunk(_message.Message):
    __slots__ = ("lsn", "data", "commit_lsn")
    LSN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    COMMIT_LSN_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    data: bytes
    commit_lsn: int
    def __init__(self, lsn: _Optional[int] = ..., data: _Optional[bytes] = ..., commit_lsn: _Optional[int] = ...) -> None: ...

class WatchCommitsRequest(_message.Message):
    __slots__ = ("consumer",)
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    consumer: str
    def __init__(self, consumer: _Optional[str] = ...) -> None: ...

class CommitPosition(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "commit_lsn")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    COMMIT_LSN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    commit_lsn: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., commit_lsn: _Optional[int] = ...) -> None: ...

class CommitUpdate(_message.Message):
    __slots__ = ("positions", "snapshot_complete", "safekeepers")
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    SAFEKEEPERS_FIELD_NUMBER: _ClassVar[int]
    positions: _containers.RepeatedCompositeFieldContainer[CommitPosition]
    snapshot_complete: bool
    safekeepers: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, positions: _Optional[_Iterable[_Union[CommitPosition, _Mapping]]] = ..., snapshot_complete: _Optional[bool] = ..., safekeepers: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class AlignLsnRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "lsn")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    lsn: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ...) -> None: ...

class AlignLsnResponse(_message.Message):
    __slots__ = ("lsn", "prev_record_lsn")
    LSN_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    prev_record_lsn: int
    def __init__(self, lsn: _Optional[int] = ..., prev_record_lsn: _Optional[int] = ...) -> None: ...
