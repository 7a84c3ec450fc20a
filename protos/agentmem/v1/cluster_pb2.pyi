import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_ROLE_UNSPECIFIED: _ClassVar[NodeRole]
    NODE_ROLE_WRITER: _ClassVar[NodeRole]
    NODE_ROLE_REPLICA: _ClassVar[NodeRole]

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNSPECIFIED: _ClassVar[NodeState]
    NODE_STATE_CATCHING_UP: _ClassVar[NodeState]
    NODE_STATE_SERVING: _ClassVar[NodeState]
    NODE_STATE_DRAINING: _ClassVar[NodeState]
NODE_ROLE_UNSPECIFIED: NodeRole
NODE_ROLE_WRITER: NodeRole
NODE_ROLE_REPLICA: NodeRole
NODE_STATE_UNSPECIFIED: NodeState
NODE_STATE_CATCHING_UP: NodeState
NODE_STATE_SERVING: NodeState
NODE_STATE_DRAINING: NodeState

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

class GetNodeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNodeResponse(_message.Message):
    __slots__ = ("node", "position", "known_epoch", "set_aside_entries", "writer_id", "writer_address")
    NODE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    KNOWN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    WRITER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    position: Position
    known_epoch: int
    set_aside_entries: int
    writer_id: str
    writer_address: str
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., known_epoch: _Optional[int] = ..., set_aside_entries: _Optional[int] = ..., writer_id: _Optional[str] = ..., writer_address: _Optional[str] = ...) -> None: ...

class GetNodeReportRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNodeReportResponse(_message.Message):
    __slots__ = ("node", "epoch", "known_epoch", "start_time", "uptime", "cpu_time", "resident_memory_bytes", "anonymous_memory_bytes", "connections", "open_calls", "store", "index_bytes", "latency_bounds_s", "methods", "caches", "event_loop_lag_counts")
    NODE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KNOWN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    CPU_TIME_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ANONYMOUS_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    OPEN_CALLS_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    INDEX_BYTES_FIELD_NUMBER: _ClassVar[int]
    LATENCY_BOUNDS_S_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    CACHES_FIELD_NUMBER: _ClassVar[int]
    EVENT_LOOP_LAG_COUNTS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    epoch: int
    known_epoch: int
    start_time: _timestamp_pb2.Timestamp
    uptime: _duration_pb2.Duration
    cpu_time: _duration_pb2.Duration
    resident_memory_bytes: int
    anonymous_memory_bytes: int
    connections: int
    open_calls: int
    store: StoreUse
    index_bytes: int
    latency_bounds_s: _containers.RepeatedScalarFieldContainer[float]
    methods: _containers.RepeatedCompositeFieldContainer[MethodReport]
    caches: _containers.RepeatedCompositeFieldContainer[CacheReport]
    event_loop_lag_counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., epoch: _Optional[int] = ..., known_epoch: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., cpu_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resident_memory_bytes: _Optional[int] = ..., anonymous_memory_bytes: _Optional[int] = ..., connections: _Optional[int] = ..., open_calls: _Optional[int] = ..., store: _Optional[_Union[StoreUse, _Mapping]] = ..., index_bytes: _Optional[int] = ..., latency_bounds_s: _Optional[_Iterable[float]] = ..., methods: _Optional[_Iterable[_Union[MethodReport, _Mapping]]] = ..., caches: _Optional[_Iterable[_Union[CacheReport, _Mapping]]] = ..., event_loop_lag_counts: _Optional[_Iterable[int]] = ...) -> None: ...

class StoreUse(_message.Message):
    __slots__ = ("used_bytes", "file_bytes", "max_bytes")
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    used_bytes: int
    file_bytes: int
    max_bytes: int
    def __init__(self, used_bytes: _Optional[int] = ..., file_bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class MethodReport(_message.Message):
    __slots__ = ("method", "is_stream", "codes", "latency_counts", "total_time", "stages")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    IS_STREAM_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    LATENCY_COUNTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TIME_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    method: str
    is_stream: bool
    codes: _containers.RepeatedCompositeFieldContainer[CodeCount]
    latency_counts: _containers.RepeatedScalarFieldContainer[int]
    total_time: _duration_pb2.Duration
    stages: _containers.RepeatedCompositeFieldContainer[StageReport]
    def __init__(self, method: _Optional[str] = ..., is_stream: _Optional[bool] = ..., codes: _Optional[_Iterable[_Union[CodeCount, _Mapping]]] = ..., latency_counts: _Optional[_Iterable[int]] = ..., total_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stages: _Optional[_Iterable[_Union[StageReport, _Mapping]]] = ...) -> None: ...

class StageReport(_message.Message):
    __slots__ = ("name", "latency_counts", "total_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LATENCY_COUNTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    latency_counts: _containers.RepeatedScalarFieldContainer[int]
    total_time: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., latency_counts: _Optional[_Iterable[int]] = ..., total_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CodeCount(_message.Message):
    __slots__ = ("code", "calls")
    CODE_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    code: int
    calls: int
    def __init__(self, code: _Optional[int] = ..., calls: _Optional[int] = ...) -> None: ...

class CacheReport(_message.Message):
    __slots__ = ("name", "hits", "misses")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    name: str
    hits: int
    misses: int
    def __init__(self, name: _Optional[str] = ..., hits: _Optional[int] = ..., misses: _Optional[int] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("force",)
    FORCE_FIELD_NUMBER: _ClassVar[int]
    force: bool
    def __init__(self, force: _Optional[bool] = ...) -> None: ...

class PromoteResponse(_message.Message):
    __slots__ = ("epoch", "revision", "handed_over", "previous_writer_address", "told_addresses", "untold_addresses")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    HANDED_OVER_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_WRITER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TOLD_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    UNTOLD_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    handed_over: bool
    previous_writer_address: str
    told_addresses: _containers.RepeatedScalarFieldContainer[str]
    untold_addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., handed_over: _Optional[bool] = ..., previous_writer_address: _Optional[str] = ..., told_addresses: _Optional[_Iterable[str]] = ..., untold_addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class PrepareHandoverRequest(_message.Message):
    __slots__ = ("cluster_id", "successor_id")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESSOR_ID_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    successor_id: str
    def __init__(self, cluster_id: _Optional[bytes] = ..., successor_id: _Optional[str] = ...) -> None: ...

class PrepareHandoverResponse(_message.Message):
    __slots__ = ("position", "hold")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    position: Position
    hold: _duration_pb2.Duration
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., hold: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FollowWriterRequest(_message.Message):
    __slots__ = ("cluster_id", "epoch", "writer_id", "writer_address")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    WRITER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    epoch: int
    writer_id: str
    writer_address: str
    def __init__(self, cluster_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., writer_id: _Optional[str] = ..., writer_address: _Optional[str] = ...) -> None: ...

class FollowWriterResponse(_message.Message):
    __slots__ = ("accepted", "known_epoch")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    KNOWN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    known_epoch: int
    def __init__(self, accepted: _Optional[bool] = ..., known_epoch: _Optional[int] = ...) -> None: ...

class GetTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTopologyResponse(_message.Message):
    __slots__ = ("topology",)
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    topology: Topology
    def __init__(self, topology: _Optional[_Union[Topology, _Mapping]] = ...) -> None: ...

class WatchTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchTopologyResponse(_message.Message):
    __slots__ = ("topology",)
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    topology: Topology
    def __init__(self, topology: _Optional[_Union[Topology, _Mapping]] = ...) -> None: ...

class Topology(_message.Message):
    __slots__ = ("cluster_id", "epoch", "nodes", "answered_by")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_BY_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    epoch: int
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    answered_by: str
    def __init__(self, cluster_id: _Optional[str] = ..., epoch: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., answered_by: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("id", "role", "address", "state", "applied_revision", "searchable_revision", "staleness")
    ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    SEARCHABLE_REVISION_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    id: str
    role: NodeRole
    address: str
    state: NodeState
    applied_revision: int
    searchable_revision: int
    staleness: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., role: _Optional[_Union[NodeRole, str]] = ..., address: _Optional[str] = ..., state: _Optional[_Union[NodeState, str]] = ..., applied_revision: _Optional[int] = ..., searchable_revision: _Optional[int] = ..., staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
