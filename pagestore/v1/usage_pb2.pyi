from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetUsageRequest(_message.Message):
    __slots__ = ("tenant_id", "name", "since_unix_micros", "until_unix_micros")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    name: str
    since_unix_micros: int
    until_unix_micros: int
    def __init__(self, tenant_id: _Optional[bytes] = ..., name: _Optional[str] = ..., since_unix_micros: _Optional[int] = ..., until_unix_micros: _Optional[int] = ...) -> None: ...

class GetUsageOfAllRequest(_message.Message):
    __slots__ = ("since_unix_micros", "until_unix_micros")
    SINCE_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    since_unix_micros: int
    until_unix_micros: int
    def __init__(self, since_unix_micros: _Optional[int] = ..., until_unix_micros: _Optional[int] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("databases", "since_unix_micros")
    DATABASES_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    databases: _containers.RepeatedCompositeFieldContainer[DatabaseUsage]
    since_unix_micros: int
    def __init__(self, databases: _Optional[_Iterable[_Union[DatabaseUsage, _Mapping]]] = ..., since_unix_micros: _Optional[int] = ...) -> None: ...

class DatabaseUsage(_message.Message):
    __slots__ = ("tenant", "name", "removed", "awake_micros", "cpu_micros", "queries", "wakes")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    AWAKE_MICROS_FIELD_NUMBER: _ClassVar[int]
    CPU_MICROS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    WAKES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    removed: bool
    awake_micros: int
    cpu_micros: int
    queries: int
    wakes: int
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ..., removed: _Optional[bool] = ..., awake_micros: _Optional[int] = ..., cpu_micros: _Optional[int] = ..., queries: _Optional[int] = ..., wakes: _Optional[int] = ...) -> None: ...
