from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TellNamesRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedCompositeFieldContainer[TimelineName]
    def __init__(self, names: _Optional[_Iterable[_Union[TimelineName, _Mapping]]] = ...) -> None: ...

class TimelineName(_message.Message):
    __slots__ = ("timeline_id", "name")
    TIMELINE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    timeline_id: bytes
    name: str
    def __init__(self, timeline_id: _Optional[bytes] = ..., name: _Optional[str] = ...) -> None: ...

class TellNamesResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: int
    def __init__(self, run: _Optional[int] = ...) -> None: ...
