import datetime

from agentmem.v1 import consistency_pb2 as _consistency_pb2
from agentmem.v1 import failure_pb2 as _failure_pb2
from agentmem.v1 import filter_pb2 as _filter_pb2
from agentmem.v1 import memory_pb2 as _memory_pb2
from agentmem.v1 import writer_pb2 as _writer_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_MODE_UNSPECIFIED: _ClassVar[SearchMode]
    SEARCH_MODE_HYBRID: _ClassVar[SearchMode]
    SEARCH_MODE_SEMANTIC: _ClassVar[SearchMode]
    SEARCH_MODE_TEXT: _ClassVar[SearchMode]

class ChangeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_KIND_UNSPECIFIED: _ClassVar[ChangeKind]
    CHANGE_KIND_ADDED: _ClassVar[ChangeKind]
    CHANGE_KIND_UPDATED: _ClassVar[ChangeKind]
    CHANGE_KIND_DELETED: _ClassVar[ChangeKind]
    CHANGE_KIND_EXPIRED: _ClassVar[ChangeKind]
    CHANGE_KIND_PURGED: _ClassVar[ChangeKind]
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_HYBRID: SearchMode
SEARCH_MODE_SEMANTIC: SearchMode
SEARCH_MODE_TEXT: SearchMode
CHANGE_KIND_UNSPECIFIED: ChangeKind
CHANGE_KIND_ADDED: ChangeKind
CHANGE_KIND_UPDATED: ChangeKind
CHANGE_KIND_DELETED: ChangeKind
CHANGE_KIND_EXPIRED: ChangeKind
CHANGE_KIND_PURGED: ChangeKind

class AsOf(_message.Message):
    __slots__ = ("revision", "time")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    revision: int
    time: _timestamp_pb2.Timestamp
    def __init__(self, revision: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetMemoriesRequest(_message.Message):
    __slots__ = ("namespace", "ids", "include_embedding", "as_of", "consistency")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    include_embedding: bool
    as_of: AsOf
    consistency: _consistency_pb2.Consistency
    def __init__(self, namespace: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., include_embedding: _Optional[bool] = ..., as_of: _Optional[_Union[AsOf, _Mapping]] = ..., consistency: _Optional[_Union[_consistency_pb2.Consistency, _Mapping]] = ...) -> None: ...

class GetMemoriesResponse(_message.Message):
    __slots__ = ("memories", "missing_ids", "applied_revision", "epoch")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
    missing_ids: _containers.RepeatedScalarFieldContainer[str]
    applied_revision: int
    epoch: int
    def __init__(self, memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ..., missing_ids: _Optional[_Iterable[str]] = ..., applied_revision: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class ListMemoriesRequest(_message.Message):
    __slots__ = ("namespace", "filter", "page_size", "page_token", "include_embedding", "as_of", "consistency")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    filter: _filter_pb2.Filter
    page_size: int
    page_token: str
    include_embedding: bool
    as_of: AsOf
    consistency: _consistency_pb2.Consistency
    def __init__(self, namespace: _Optional[str] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., include_embedding: _Optional[bool] = ..., as_of: _Optional[_Union[AsOf, _Mapping]] = ..., consistency: _Optional[_Union[_consistency_pb2.Consistency, _Mapping]] = ...) -> None: ...

class ListMemoriesResponse(_message.Message):
    __slots__ = ("memories", "next_page_token", "applied_revision", "epoch")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
    next_page_token: str
    applied_revision: int
    epoch: int
    def __init__(self, memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., applied_revision: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class SearchMemoriesRequest(_message.Message):
    __slots__ = ("namespace", "text", "embedding", "mode", "filter", "top_k", "include_embedding", "consistency")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    text: str
    embedding: bytes
    mode: SearchMode
    filter: _filter_pb2.Filter
    top_k: int
    include_embedding: bool
    consistency: _consistency_pb2.Consistency
    def __init__(self, namespace: _Optional[str] = ..., text: _Optional[str] = ..., embedding: _Optional[bytes] = ..., mode: _Optional[_Union[SearchMode, str]] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., top_k: _Optional[int] = ..., include_embedding: _Optional[bool] = ..., consistency: _Optional[_Union[_consistency_pb2.Consistency, _Mapping]] = ...) -> None: ...

class SearchMemoriesResponse(_message.Message):
    __slots__ = ("hits", "applied_revision", "epoch")
    HITS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[SearchHit]
    applied_revision: int
    epoch: int
    def __init__(self, hits: _Optional[_Iterable[_Union[SearchHit, _Mapping]]] = ..., applied_revision: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class BatchSearchMemoriesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[SearchMemoriesRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[SearchMemoriesRequest, _Mapping]]] = ...) -> None: ...

class BatchSearchMemoriesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchSearchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchSearchResult, _Mapping]]] = ...) -> None: ...

class BatchSearchResult(_message.Message):
    __slots__ = ("response", "failure")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    response: SearchMemoriesResponse
    failure: _failure_pb2.Failure
    def __init__(self, response: _Optional[_Union[SearchMemoriesResponse, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class SearchHit(_message.Message):
    __slots__ = ("memory", "score")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    memory: _memory_pb2.Memory
    score: float
    def __init__(self, memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., score: _Optional[float] = ...) -> None: ...

class GetMemoryHistoryRequest(_message.Message):
    __slots__ = ("namespace", "id", "page_size", "page_token", "include_embedding", "consistency")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    id: str
    page_size: int
    page_token: str
    include_embedding: bool
    consistency: _consistency_pb2.Consistency
    def __init__(self, namespace: _Optional[str] = ..., id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., include_embedding: _Optional[bool] = ..., consistency: _Optional[_Union[_consistency_pb2.Consistency, _Mapping]] = ...) -> None: ...

class GetMemoryHistoryResponse(_message.Message):
    __slots__ = ("versions", "next_page_token", "pruned", "applied_revision", "epoch")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PRUNED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[_memory_pb2.MemoryVersion]
    next_page_token: str
    pruned: bool
    applied_revision: int
    epoch: int
    def __init__(self, versions: _Optional[_Iterable[_Union[_memory_pb2.MemoryVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., pruned: _Optional[bool] = ..., applied_revision: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class ExportMemoriesRequest(_message.Message):
    __slots__ = ("namespace", "filter", "newest_only", "consistency")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    NEWEST_ONLY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    filter: _filter_pb2.Filter
    newest_only: bool
    consistency: _consistency_pb2.Consistency
    def __init__(self, namespace: _Optional[str] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., newest_only: _Optional[bool] = ..., consistency: _Optional[_Union[_consistency_pb2.Consistency, _Mapping]] = ...) -> None: ...

class ExportMemoriesResponse(_message.Message):
    __slots__ = ("versions", "applied_revision", "epoch")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[_memory_pb2.MemoryVersion]
    applied_revision: int
    epoch: int
    def __init__(self, versions: _Optional[_Iterable[_Union[_memory_pb2.MemoryVersion, _Mapping]]] = ..., applied_revision: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class WatchPosition(_message.Message):
    __slots__ = ("epoch", "revision", "operation")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    operation: int
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., operation: _Optional[int] = ...) -> None: ...

class WatchMemoriesRequest(_message.Message):
    __slots__ = ("namespace", "after", "filter", "include_embedding", "skip_pruned")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    SKIP_PRUNED_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    after: WatchPosition
    filter: _filter_pb2.Filter
    include_embedding: bool
    skip_pruned: bool
    def __init__(self, namespace: _Optional[str] = ..., after: _Optional[_Union[WatchPosition, _Mapping]] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., include_embedding: _Optional[bool] = ..., skip_pruned: _Optional[bool] = ...) -> None: ...

class WatchMemoriesResponse(_message.Message):
    __slots__ = ("changes", "position")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[MemoryChange]
    position: WatchPosition
    def __init__(self, changes: _Optional[_Iterable[_Union[MemoryChange, _Mapping]]] = ..., position: _Optional[_Union[WatchPosition, _Mapping]] = ...) -> None: ...

class MemoryChange(_message.Message):
    __slots__ = ("kind", "memory", "position", "matches", "purged_id_digest")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    PURGED_ID_DIGEST_FIELD_NUMBER: _ClassVar[int]
    kind: ChangeKind
    memory: _memory_pb2.Memory
    position: WatchPosition
    matches: bool
    purged_id_digest: bytes
    def __init__(self, kind: _Optional[_Union[ChangeKind, str]] = ..., memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., position: _Optional[_Union[WatchPosition, _Mapping]] = ..., matches: _Optional[bool] = ..., purged_id_digest: _Optional[bytes] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ("namespace", "consistency")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    consistency: _consistency_pb2.Consistency
    def __init__(self, namespace: _Optional[str] = ..., consistency: _Optional[_Union[_consistency_pb2.Consistency, _Mapping]] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("namespace", "store", "applied_revision", "epoch")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    namespace: NamespaceStats
    store: StoreStats
    applied_revision: int
    epoch: int
    def __init__(self, namespace: _Optional[_Union[NamespaceStats, _Mapping]] = ..., store: _Optional[_Union[StoreStats, _Mapping]] = ..., applied_revision: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class NamespaceStats(_message.Message):
    __slots__ = ("memories", "vectors", "dimension", "embedding_model", "versions", "pruned_versions", "history_start_revision", "settings")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PRUNED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_START_REVISION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    memories: int
    vectors: int
    dimension: int
    embedding_model: str
    versions: int
    pruned_versions: int
    history_start_revision: int
    settings: _writer_pb2.NamespaceSettings
    def __init__(self, memories: _Optional[int] = ..., vectors: _Optional[int] = ..., dimension: _Optional[int] = ..., embedding_model: _Optional[str] = ..., versions: _Optional[int] = ..., pruned_versions: _Optional[int] = ..., history_start_revision: _Optional[int] = ..., settings: _Optional[_Union[_writer_pb2.NamespaceSettings, _Mapping]] = ...) -> None: ...

class StoreStats(_message.Message):
    __slots__ = ("namespaces", "log_first_revision", "log_last_revision", "log_bytes", "used_bytes", "file_bytes", "max_bytes")
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    LOG_FIRST_REVISION_FIELD_NUMBER: _ClassVar[int]
    LOG_LAST_REVISION_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    namespaces: int
    log_first_revision: int
    log_last_revision: int
    log_bytes: int
    used_bytes: int
    file_bytes: int
    max_bytes: int
    def __init__(self, namespaces: _Optional[int] = ..., log_first_revision: _Optional[int] = ..., log_last_revision: _Optional[int] = ..., log_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., file_bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...
