from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Place(_message.Message):
    __slots__ = ("id", "name", "point")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    point: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., point: _Optional[str] = ...) -> None: ...

class LookUpRoleRequest(_message.Message):
    __slots__ = ("target", "user")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    target: str
    user: str
    def __init__(self, target: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class LookUpRoleResponse(_message.Message):
    __slots__ = ("found", "password", "can_login", "valid_until")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    CAN_LOGIN_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    found: bool
    password: str
    can_login: bool
    valid_until: float
    def __init__(self, found: _Optional[bool] = ..., password: _Optional[str] = ..., can_login: _Optional[bool] = ..., valid_until: _Optional[float] = ...) -> None: ...

class FindPlaceRequest(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: str
    def __init__(self, target: _Optional[str] = ...) -> None: ...

class FoundPlace(_message.Message):
    __slots__ = ("place", "inner", "idle")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    INNER_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    inner: str
    idle: float
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., inner: _Optional[str] = ..., idle: _Optional[float] = ...) -> None: ...

class StartPlaceRequest(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ...) -> None: ...

class PlaceAddress(_message.Message):
    __slots__ = ("socket", "host", "port")
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    socket: str
    host: str
    port: int
    def __init__(self, socket: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class StopPlaceRequest(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ...) -> None: ...

class StopPlaceResponse(_message.Message):
    __slots__ = ("hindrance",)
    HINDRANCE_FIELD_NUMBER: _ClassVar[int]
    hindrance: str
    def __init__(self, hindrance: _Optional[str] = ...) -> None: ...

class ListAwakePlacesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAwakePlacesResponse(_message.Message):
    __slots__ = ("places",)
    PLACES_FIELD_NUMBER: _ClassVar[int]
    places: _containers.RepeatedCompositeFieldContainer[AwakePlace]
    def __init__(self, places: _Optional[_Iterable[_Union[AwakePlace, _Mapping]]] = ...) -> None: ...

class AwakePlace(_message.Message):
    __slots__ = ("place", "address", "idle")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    address: PlaceAddress
    idle: float
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., address: _Optional[_Union[PlaceAddress, _Mapping]] = ..., idle: _Optional[float] = ...) -> None: ...

class CountQueriesRequest(_message.Message):
    __slots__ = ("life", "queries")
    class QueriesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LIFE_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    life: str
    queries: _containers.ScalarMap[str, int]
    def __init__(self, life: _Optional[str] = ..., queries: _Optional[_Mapping[str, int]] = ...) -> None: ...

class CountQueriesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CarryOutRequest(_message.Message):
    __slots__ = ("place", "message", "hint", "wait_ms", "end_all")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    END_ALL_FIELD_NUMBER: _ClassVar[int]
    place: Place
    message: str
    hint: str
    wait_ms: int
    end_all: bool
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., wait_ms: _Optional[int] = ..., end_all: _Optional[bool] = ...) -> None: ...

class CarryOutResponse(_message.Message):
    __slots__ = ("carried", "ended")
    CARRIED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    carried: int
    ended: int
    def __init__(self, carried: _Optional[int] = ..., ended: _Optional[int] = ...) -> None: ...

class GetProxyStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProxyStatus(_message.Message):
    __slots__ = ("address", "places", "berths")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    BERTHS_FIELD_NUMBER: _ClassVar[int]
    address: str
    places: _containers.RepeatedCompositeFieldContainer[ProxyPlace]
    berths: int
    def __init__(self, address: _Optional[str] = ..., places: _Optional[_Iterable[_Union[ProxyPlace, _Mapping]]] = ..., berths: _Optional[int] = ...) -> None: ...

class ProxyPlace(_message.Message):
    __slots__ = ("place", "state", "sessions", "waiting", "idle_seconds", "why", "idle_limit", "queries", "wake_seconds")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    IDLE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    WAKE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    place: Place
    state: str
    sessions: int
    waiting: int
    idle_seconds: float
    why: str
    idle_limit: float
    queries: int
    wake_seconds: float
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., state: _Optional[str] = ..., sessions: _Optional[int] = ..., waiting: _Optional[int] = ..., idle_seconds: _Optional[float] = ..., why: _Optional[str] = ..., idle_limit: _Optional[float] = ..., queries: _Optional[int] = ..., wake_seconds: _Optional[float] = ...) -> None: ...
