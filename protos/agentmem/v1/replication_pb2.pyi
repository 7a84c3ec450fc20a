from agentmem.v1 import cluster_pb2 as _cluster_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubscribeRequest(_message.Message):
    __slots__ = ("replica_id", "address", "position")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    address: str
    position: Position
    def __init__(self, replica_id: _Optional[str] = ..., address: _Optional[str] = ..., position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("cluster_id", "epoch", "revision", "chain_hash")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHAIN_HASH_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    epoch: int
    revision: int
    chain_hash: bytes
    def __init__(self, cluster_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., chain_hash: _Optional[bytes] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("heartbeat", "entries", "diverged")
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DIVERGED_FIELD_NUMBER: _ClassVar[int]
    heartbeat: Heartbeat
    entries: Entries
    diverged: Diverged
    def __init__(self, heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., entries: _Optional[_Union[Entries, _Mapping]] = ..., diverged: _Optional[_Union[Diverged, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("cluster_id", "epoch", "head_revision", "time_us")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HEAD_REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    epoch: int
    head_revision: int
    time_us: int
    def __init__(self, cluster_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., head_revision: _Optional[int] = ..., time_us: _Optional[int] = ...) -> None: ...

class Diverged(_message.Message):
    __slots__ = ("detail",)
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    detail: str
    def __init__(self, detail: _Optional[str] = ...) -> None: ...

class Entries(_message.Message):
    __slots__ = ("entries", "head_revision")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    HEAD_REVISION_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ShippedEntry]
    head_revision: int
    def __init__(self, entries: _Optional[_Iterable[_Union[ShippedEntry, _Mapping]]] = ..., head_revision: _Optional[int] = ...) -> None: ...

class ShippedEntry(_message.Message):
    __slots__ = ("log_value", "records")
    LOG_VALUE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    log_value: bytes
    records: _containers.RepeatedCompositeFieldContainer[ShippedRecord]
    def __init__(self, log_value: _Optional[bytes] = ..., records: _Optional[_Iterable[_Union[ShippedRecord, _Mapping]]] = ...) -> None: ...

class ShippedRecord(_message.Message):
    __slots__ = ("ordinal", "record", "vector")
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    ordinal: int
    record: bytes
    vector: bytes
    def __init__(self, ordinal: _Optional[int] = ..., record: _Optional[bytes] = ..., vector: _Optional[bytes] = ...) -> None: ...

class LogEntry(_message.Message):
    __slots__ = ("epoch", "revision", "time_us", "operations")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    time_us: int
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., time_us: _Optional[int] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("kind", "ordinal", "replaced_ordinal", "record_crc32c", "vector_crc32c")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Operation.Kind]
        KIND_PUT: _ClassVar[Operation.Kind]
        KIND_DELETE: _ClassVar[Operation.Kind]
    KIND_UNSPECIFIED: Operation.Kind
    KIND_PUT: Operation.Kind
    KIND_DELETE: Operation.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    REPLACED_ORDINAL_FIELD_NUMBER: _ClassVar[int]
    RECORD_CRC32C_FIELD_NUMBER: _ClassVar[int]
    VECTOR_CRC32C_FIELD_NUMBER: _ClassVar[int]
    kind: Operation.Kind
    ordinal: int
    replaced_ordinal: int
    record_crc32c: int
    vector_crc32c: int
    def __init__(self, kind: _Optional[_Union[Operation.Kind, str]] = ..., ordinal: _Optional[int] = ..., replaced_ordinal: _Optional[int] = ..., record_crc32c: _Optional[int] = ..., vector_crc32c: _Optional[int] = ...) -> None: ...

class ReportProgressRequest(_message.Message):
    __slots__ = ("replica_id", "applied_revision", "searchable_revision", "state")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    SEARCHABLE_REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    applied_revision: int
    searchable_revision: int
    state: _cluster_pb2.NodeState
    def __init__(self, replica_id: _Optional[str] = ..., applied_revision: _Optional[int] = ..., searchable_revision: _Optional[int] = ..., state: _Optional[_Union[_cluster_pb2.NodeState, str]] = ...) -> None: ...

class ReportProgressResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
