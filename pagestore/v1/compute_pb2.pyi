from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CarriedFiles(_message.Message):
    __slots__ = ("files", "settings", "settings_known")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FILES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_KNOWN_FIELD_NUMBER: _ClassVar[int]
    files: _containers.ScalarMap[str, bytes]
    settings: _containers.ScalarMap[str, str]
    settings_known: bool
    def __init__(self, files: _Optional[_Mapping[str, bytes]] = ..., settings: _Optional[_Mapping[str, str]] = ..., settings_known: _Optional[bool] = ...) -> None: ...

class StartComputeRequest(_message.Message):
    __slots__ = ("name", "tenant_id", "timeline_id", "owner", "carried", "wal_password", "password", "session_key", "postgres_major")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CARRIED_FIELD_NUMBER: _ClassVar[int]
    WAL_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_MAJOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant_id: bytes
    timeline_id: bytes
    owner: str
    carried: CarriedFiles
    wal_password: str
    password: str
    session_key: str
    postgres_major: int
    def __init__(self, name: _Optional[str] = ..., tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., owner: _Optional[str] = ..., carried: _Optional[_Union[CarriedFiles, _Mapping]] = ..., wal_password: _Optional[str] = ..., password: _Optional[str] = ..., session_key: _Optional[str] = ..., postgres_major: _Optional[int] = ...) -> None: ...

class StartComputeResponse(_message.Message):
    __slots__ = ("compute", "failure")
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    compute: Compute
    failure: StartFailure
    def __init__(self, compute: _Optional[_Union[Compute, _Mapping]] = ..., failure: _Optional[_Union[StartFailure, _Mapping]] = ...) -> None: ...

class StartFailure(_message.Message):
    __slots__ = ("message", "hint", "complaint", "status", "status_known")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    COMPLAINT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_KNOWN_FIELD_NUMBER: _ClassVar[int]
    message: str
    hint: str
    complaint: str
    status: int
    status_known: bool
    def __init__(self, message: _Optional[str] = ..., hint: _Optional[str] = ..., complaint: _Optional[str] = ..., status: _Optional[int] = ..., status_known: _Optional[bool] = ...) -> None: ...

class Compute(_message.Message):
    __slots__ = ("name", "tenant_id", "timeline_id", "port", "alive", "why", "fenced", "complaint", "remarks", "socket_directory", "directory", "pid", "gone", "host", "measured")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    COMPLAINT_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    SOCKET_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant_id: bytes
    timeline_id: bytes
    port: int
    alive: bool
    why: str
    fenced: bool
    complaint: str
    remarks: _containers.RepeatedScalarFieldContainer[str]
    socket_directory: str
    directory: str
    pid: int
    gone: bool
    host: str
    measured: Measured
    def __init__(self, name: _Optional[str] = ..., tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., port: _Optional[int] = ..., alive: _Optional[bool] = ..., why: _Optional[str] = ..., fenced: _Optional[bool] = ..., complaint: _Optional[str] = ..., remarks: _Optional[_Iterable[str]] = ..., socket_directory: _Optional[str] = ..., directory: _Optional[str] = ..., pid: _Optional[int] = ..., gone: _Optional[bool] = ..., host: _Optional[str] = ..., measured: _Optional[_Union[Measured, _Mapping]] = ...) -> None: ...

class Measured(_message.Message):
    __slots__ = ("started_unix_micros", "until_unix_micros", "cpu_micros")
    STARTED_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    CPU_MICROS_FIELD_NUMBER: _ClassVar[int]
    started_unix_micros: int
    until_unix_micros: int
    cpu_micros: int
    def __init__(self, started_unix_micros: _Optional[int] = ..., until_unix_micros: _Optional[int] = ..., cpu_micros: _Optional[int] = ...) -> None: ...

class StopComputeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class StopComputeResponse(_message.Message):
    __slots__ = ("carried", "measured")
    CARRIED_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    carried: CarriedFiles
    measured: Measured
    def __init__(self, carried: _Optional[_Union[CarriedFiles, _Mapping]] = ..., measured: _Optional[_Union[Measured, _Mapping]] = ...) -> None: ...

class DiscardComputeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DiscardComputeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchComputesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MeasureComputesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ComputesUpdate(_message.Message):
    __slots__ = ("whole", "computes", "generations_above")
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    COMPUTES_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_ABOVE_FIELD_NUMBER: _ClassVar[int]
    whole: bool
    computes: _containers.RepeatedCompositeFieldContainer[Compute]
    generations_above: int
    def __init__(self, whole: _Optional[bool] = ..., computes: _Optional[_Iterable[_Union[Compute, _Mapping]]] = ..., generations_above: _Optional[int] = ...) -> None: ...

class GetComputeSettingsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ComputeSettings(_message.Message):
    __slots__ = ("settings", "known", "after_restart")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    AFTER_RESTART_FIELD_NUMBER: _ClassVar[int]
    settings: _containers.ScalarMap[str, str]
    known: bool
    after_restart: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, settings: _Optional[_Mapping[str, str]] = ..., known: _Optional[bool] = ..., after_restart: _Optional[_Iterable[str]] = ...) -> None: ...

class ChangeComputeSettingsRequest(_message.Message):
    __slots__ = ("name", "set", "reset")
    class SetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    name: str
    set: _containers.ScalarMap[str, str]
    reset: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., set: _Optional[_Mapping[str, str]] = ..., reset: _Optional[_Iterable[str]] = ...) -> None: ...

class SetOwnerRequest(_message.Message):
    __slots__ = ("name", "password", "database", "rename_spare", "strictly")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    RENAME_SPARE_FIELD_NUMBER: _ClassVar[int]
    STRICTLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    password: str
    database: str
    rename_spare: bool
    strictly: bool
    def __init__(self, name: _Optional[str] = ..., password: _Optional[str] = ..., database: _Optional[str] = ..., rename_spare: _Optional[bool] = ..., strictly: _Optional[bool] = ...) -> None: ...

class SetOwnerResponse(_message.Message):
    __slots__ = ("database",)
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    database: str
    def __init__(self, database: _Optional[str] = ...) -> None: ...

class GetEntryRequest(_message.Message):
    __slots__ = ("name", "database_name", "password", "database")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATABASE_NAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    name: str
    database_name: str
    password: str
    database: str
    def __init__(self, name: _Optional[str] = ..., database_name: _Optional[str] = ..., password: _Optional[str] = ..., database: _Optional[str] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("url_fault", "conninfo")
    URL_FAULT_FIELD_NUMBER: _ClassVar[int]
    CONNINFO_FIELD_NUMBER: _ClassVar[int]
    url_fault: str
    conninfo: str
    def __init__(self, url_fault: _Optional[str] = ..., conninfo: _Optional[str] = ...) -> None: ...

class CountStrangersRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CountStrangersResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: int
    def __init__(self, sessions: _Optional[int] = ...) -> None: ...

class AppRoleRequest(_message.Message):
    __slots__ = ("name", "database_name", "database", "role", "password", "with_data", "if_exists")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATABASE_NAME_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    WITH_DATA_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    database_name: str
    database: str
    role: str
    password: str
    with_data: bool
    if_exists: bool
    def __init__(self, name: _Optional[str] = ..., database_name: _Optional[str] = ..., database: _Optional[str] = ..., role: _Optional[str] = ..., password: _Optional[str] = ..., with_data: _Optional[bool] = ..., if_exists: _Optional[bool] = ...) -> None: ...

class AppRole(_message.Message):
    __slots__ = ("name", "owns_schema", "may_log_in", "tables")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNS_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MAY_LOG_IN_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    name: str
    owns_schema: bool
    may_log_in: bool
    tables: int
    def __init__(self, name: _Optional[str] = ..., owns_schema: _Optional[bool] = ..., may_log_in: _Optional[bool] = ..., tables: _Optional[int] = ...) -> None: ...

class AppRolesResponse(_message.Message):
    __slots__ = ("changed", "roles")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    roles: _containers.RepeatedCompositeFieldContainer[AppRole]
    def __init__(self, changed: _Optional[bool] = ..., roles: _Optional[_Iterable[_Union[AppRole, _Mapping]]] = ...) -> None: ...

class MakeTemplateRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "postgres_major")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_MAJOR_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    postgres_major: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., postgres_major: _Optional[int] = ...) -> None: ...

class MakeTemplateResponse(_message.Message):
    __slots__ = ("lsn", "prev_record_lsn", "system_id")
    LSN_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    prev_record_lsn: int
    system_id: int
    def __init__(self, lsn: _Optional[int] = ..., prev_record_lsn: _Optional[int] = ..., system_id: _Optional[int] = ...) -> None: ...

class UpgradeTimelineRequest(_message.Message):
    __slots__ = ("tenant_id", "timeline_id", "lsn", "prev_record_lsn", "postgres_major", "to_major", "new_timeline_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_MAJOR_FIELD_NUMBER: _ClassVar[int]
    TO_MAJOR_FIELD_NUMBER: _ClassVar[int]
    NEW_TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    timeline_id: bytes
    lsn: int
    prev_record_lsn: int
    postgres_major: int
    to_major: int
    new_timeline_id: bytes
    def __init__(self, tenant_id: _Optional[bytes] = ..., timeline_id: _Optional[bytes] = ..., lsn: _Optional[int] = ..., prev_record_lsn: _Optional[int] = ..., postgres_major: _Optional[int] = ..., to_major: _Optional[int] = ..., new_timeline_id: _Optional[bytes] = ...) -> None: ...

class UpgradeTimelineUpdate(_message.Message):
    __slots__ = ("step", "done", "total", "upgraded")
    STEP_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    UPGRADED_FIELD_NUMBER: _ClassVar[int]
    step: str
    done: int
    total: int
    upgraded: UpgradedTimeline
    def __init__(self, step: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ..., upgraded: _Optional[_Union[UpgradedTimeline, _Mapping]] = ...) -> None: ...

class UpgradedTimeline(_message.Message):
    __slots__ = ("lsn", "prev_record_lsn", "system_id", "remarks")
    LSN_FIELD_NUMBER: _ClassVar[int]
    PREV_RECORD_LSN_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    prev_record_lsn: int
    system_id: int
    remarks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lsn: _Optional[int] = ..., prev_record_lsn: _Optional[int] = ..., system_id: _Optional[int] = ..., remarks: _Optional[_Iterable[str]] = ...) -> None: ...

class ForgetTimelineRequest(_message.Message):
    __slots__ = ("timeline_id",)
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    timeline_id: bytes
    def __init__(self, timeline_id: _Optional[bytes] = ...) -> None: ...

class ForgetTimelineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GrantGenerationsRequest(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class GrantGenerationsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
