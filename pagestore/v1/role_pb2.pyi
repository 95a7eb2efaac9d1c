from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RoleAccess(_message.Message):
    __slots__ = ("role", "url")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    role: str
    url: str
    def __init__(self, role: _Optional[str] = ..., url: _Optional[str] = ...) -> None: ...

class AddRoleRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "role")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    role: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class ResetRolePasswordRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "role")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    role: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class ListRolesRequest(_message.Message):
    __slots__ = ("tenant_id", "database")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ...) -> None: ...

class ListRolesResponse(_message.Message):
    __slots__ = ("roles",)
    ROLES_FIELD_NUMBER: _ClassVar[int]
    roles: _containers.RepeatedCompositeFieldContainer[Role]
    def __init__(self, roles: _Optional[_Iterable[_Union[Role, _Mapping]]] = ...) -> None: ...

class Role(_message.Message):
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

class RemoveRoleRequest(_message.Message):
    __slots__ = ("tenant_id", "database", "role", "with_data", "if_exists")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    WITH_DATA_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: bytes
    database: str
    role: str
    with_data: bool
    if_exists: bool
    def __init__(self, tenant_id: _Optional[bytes] = ..., database: _Optional[str] = ..., role: _Optional[str] = ..., with_data: _Optional[bool] = ..., if_exists: _Optional[bool] = ...) -> None: ...

class RemoveRoleResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: bool
    def __init__(self, removed: _Optional[bool] = ...) -> None: ...
