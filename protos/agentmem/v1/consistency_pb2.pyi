import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AcknowledgementLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACKNOWLEDGEMENT_LEVEL_UNSPECIFIED: _ClassVar[AcknowledgementLevel]
    ACKNOWLEDGEMENT_LEVEL_LOCAL: _ClassVar[AcknowledgementLevel]
    ACKNOWLEDGEMENT_LEVEL_REPLICATED: _ClassVar[AcknowledgementLevel]
    ACKNOWLEDGEMENT_LEVEL_APPLIED: _ClassVar[AcknowledgementLevel]
ACKNOWLEDGEMENT_LEVEL_UNSPECIFIED: AcknowledgementLevel
ACKNOWLEDGEMENT_LEVEL_LOCAL: AcknowledgementLevel
ACKNOWLEDGEMENT_LEVEL_REPLICATED: AcknowledgementLevel
ACKNOWLEDGEMENT_LEVEL_APPLIED: AcknowledgementLevel

class Consistency(_message.Message):
    __slots__ = ("min_revision", "min_epoch", "max_staleness", "strong")
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    MIN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    MAX_STALENESS_FIELD_NUMBER: _ClassVar[int]
    STRONG_FIELD_NUMBER: _ClassVar[int]
    min_revision: int
    min_epoch: int
    max_staleness: _duration_pb2.Duration
    strong: bool
    def __init__(self, min_revision: _Optional[int] = ..., min_epoch: _Optional[int] = ..., max_staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., strong: _Optional[bool] = ...) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("level", "replicas", "timeout")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    level: AcknowledgementLevel
    replicas: int
    timeout: _duration_pb2.Duration
    def __init__(self, level: _Optional[_Union[AcknowledgementLevel, str]] = ..., replicas: _Optional[int] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Acknowledged(_message.Message):
    __slots__ = ("reached", "replicated", "applied")
    REACHED_FIELD_NUMBER: _ClassVar[int]
    REPLICATED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    reached: bool
    replicated: int
    applied: int
    def __init__(self, reached: _Optional[bool] = ..., replicated: _Optional[int] = ..., applied: _Optional[int] = ...) -> None: ...
