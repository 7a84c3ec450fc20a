import datetime

from agentmem.v1 import cluster_pb2 as _cluster_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubscribeRequest(_message.Message):
    __slots__ = ("replica_id", "address", "position", "known_epoch", "epochs")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    KNOWN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    address: str
    position: _cluster_pb2.Position
    known_epoch: int
    epochs: _containers.RepeatedCompositeFieldContainer[EpochStart]
    def __init__(self, replica_id: _Optional[str] = ..., address: _Optional[str] = ..., position: _Optional[_Union[_cluster_pb2.Position, _Mapping]] = ..., known_epoch: _Optional[int] = ..., epochs: _Optional[_Iterable[_Union[EpochStart, _Mapping]]] = ...) -> None: ...

class EpochStart(_message.Message):
    __slots__ = ("epoch", "first_revision")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FIRST_REVISION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    first_revision: int
    def __init__(self, epoch: _Optional[int] = ..., first_revision: _Optional[int] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("heartbeat", "entries", "diverged", "snapshot_required", "stale_epoch")
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DIVERGED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    STALE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    heartbeat: Heartbeat
    entries: Entries
    diverged: Diverged
    snapshot_required: SnapshotRequired
    stale_epoch: StaleEpoch
    def __init__(self, heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., entries: _Optional[_Union[Entries, _Mapping]] = ..., diverged: _Optional[_Union[Diverged, _Mapping]] = ..., snapshot_required: _Optional[_Union[SnapshotRequired, _Mapping]] = ..., stale_epoch: _Optional[_Union[StaleEpoch, _Mapping]] = ...) -> None: ...

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

class SnapshotRequired(_message.Message):
    __slots__ = ("first_revision",)
    FIRST_REVISION_FIELD_NUMBER: _ClassVar[int]
    first_revision: int
    def __init__(self, first_revision: _Optional[int] = ...) -> None: ...

class Diverged(_message.Message):
    __slots__ = ("detail", "common_revision")
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    COMMON_REVISION_FIELD_NUMBER: _ClassVar[int]
    detail: str
    common_revision: int
    def __init__(self, detail: _Optional[str] = ..., common_revision: _Optional[int] = ...) -> None: ...

class StaleEpoch(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Entries(_message.Message):
    __slots__ = ("entries", "head_revision", "is_awaited", "traces")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    HEAD_REVISION_FIELD_NUMBER: _ClassVar[int]
    IS_AWAITED_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ShippedEntry]
    head_revision: int
    is_awaited: bool
    traces: _containers.RepeatedCompositeFieldContainer[EntryTrace]
    def __init__(self, entries: _Optional[_Iterable[_Union[ShippedEntry, _Mapping]]] = ..., head_revision: _Optional[int] = ..., is_awaited: _Optional[bool] = ..., traces: _Optional[_Iterable[_Union[EntryTrace, _Mapping]]] = ...) -> None: ...

class EntryTrace(_message.Message):
    __slots__ = ("revision", "traceparent")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    revision: int
    traceparent: str
    def __init__(self, revision: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class ShippedEntry(_message.Message):
    __slots__ = ("log_value", "records")
    LOG_VALUE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    log_value: bytes
    records: _containers.RepeatedCompositeFieldContainer[ShippedRecord]
    def __init__(self, log_value: _Optional[bytes] = ..., records: _Optional[_Iterable[_Union[ShippedRecord, _Mapping]]] = ...) -> None: ...

class ShippedRecord(_message.Message):
    __slots__ = ("ordinal", "record", "vector", "removed", "coming_vector")
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    COMING_VECTOR_FIELD_NUMBER: _ClassVar[int]
    ordinal: int
    record: bytes
    vector: bytes
    removed: bool
    coming_vector: bytes
    def __init__(self, ordinal: _Optional[int] = ..., record: _Optional[bytes] = ..., vector: _Optional[bytes] = ..., removed: _Optional[bool] = ..., coming_vector: _Optional[bytes] = ...) -> None: ...

class ReportProgressRequest(_message.Message):
    __slots__ = ("replica_id", "applied_revision", "searchable_revision", "state", "staleness", "known_epoch")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    SEARCHABLE_REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    applied_revision: int
    searchable_revision: int
    state: _cluster_pb2.NodeState
    staleness: _duration_pb2.Duration
    known_epoch: int
    def __init__(self, replica_id: _Optional[str] = ..., applied_revision: _Optional[int] = ..., searchable_revision: _Optional[int] = ..., state: _Optional[_Union[_cluster_pb2.NodeState, str]] = ..., staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., known_epoch: _Optional[int] = ...) -> None: ...

class ReportProgressResponse(_message.Message):
    __slots__ = ("epoch", "head_revision")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HEAD_REVISION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    head_revision: int
    def __init__(self, epoch: _Optional[int] = ..., head_revision: _Optional[int] = ...) -> None: ...

class FetchSnapshotRequest(_message.Message):
    __slots__ = ("snapshot_id", "offset")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: str
    offset: int
    def __init__(self, snapshot_id: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class FetchSnapshotResponse(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: SnapshotHeader
    chunk: SnapshotChunk
    def __init__(self, header: _Optional[_Union[SnapshotHeader, _Mapping]] = ..., chunk: _Optional[_Union[SnapshotChunk, _Mapping]] = ...) -> None: ...

class SnapshotHeader(_message.Message):
    __slots__ = ("snapshot_id", "position", "size_bytes", "sha256", "format")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: str
    position: _cluster_pb2.Position
    size_bytes: int
    sha256: bytes
    format: int
    def __init__(self, snapshot_id: _Optional[str] = ..., position: _Optional[_Union[_cluster_pb2.Position, _Mapping]] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., format: _Optional[int] = ...) -> None: ...

class SnapshotChunk(_message.Message):
    __slots__ = ("offset", "data", "crc32c")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    crc32c: int
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ..., crc32c: _Optional[int] = ...) -> None: ...
