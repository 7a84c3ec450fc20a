import datetime

from agentmem.v1 import consistency_pb2 as _consistency_pb2
from agentmem.v1 import failure_pb2 as _failure_pb2
from agentmem.v1 import filter_pb2 as _filter_pb2
from agentmem.v1 import memory_pb2 as _memory_pb2
from agentmem.v1 import writer_pb2 as _writer_pb2
from google.protobuf import duration_pb2 as _duration_pb2
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
    SEARCH_MODE_FUZZY: _ClassVar[SearchMode]
    SEARCH_MODE_EXACT: _ClassVar[SearchMode]

class SearchOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_ORDER_UNSPECIFIED: _ClassVar[SearchOrder]
    SEARCH_ORDER_SCORE: _ClassVar[SearchOrder]
    SEARCH_ORDER_NEWEST_FIRST: _ClassVar[SearchOrder]
    SEARCH_ORDER_OLDEST_FIRST: _ClassVar[SearchOrder]

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
SEARCH_MODE_FUZZY: SearchMode
SEARCH_MODE_EXACT: SearchMode
SEARCH_ORDER_UNSPECIFIED: SearchOrder
SEARCH_ORDER_SCORE: SearchOrder
SEARCH_ORDER_NEWEST_FIRST: SearchOrder
SEARCH_ORDER_OLDEST_FIRST: SearchOrder
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

class SearchWeights(_message.Message):
    __slots__ = ("vector", "text", "recency", "importance")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RECENCY_FIELD_NUMBER: _ClassVar[int]
    IMPORTANCE_FIELD_NUMBER: _ClassVar[int]
    vector: float
    text: float
    recency: float
    importance: float
    def __init__(self, vector: _Optional[float] = ..., text: _Optional[float] = ..., recency: _Optional[float] = ..., importance: _Optional[float] = ...) -> None: ...

class Fuzziness(_message.Message):
    __slots__ = ("max_edits", "prefix")
    MAX_EDITS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    max_edits: int
    prefix: bool
    def __init__(self, max_edits: _Optional[int] = ..., prefix: _Optional[bool] = ...) -> None: ...

class SearchMemoriesRequest(_message.Message):
    __slots__ = ("namespace", "text", "embedding", "mode", "filter", "top_k", "include_embedding", "consistency", "min_score", "weights", "recency_half_life", "explain", "as_of", "order", "fuzziness", "conversational")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    RECENCY_HALF_LIFE_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    FUZZINESS_FIELD_NUMBER: _ClassVar[int]
    CONVERSATIONAL_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    text: str
    embedding: bytes
    mode: SearchMode
    filter: _filter_pb2.Filter
    top_k: int
    include_embedding: bool
    consistency: _consistency_pb2.Consistency
    min_score: float
    weights: SearchWeights
    recency_half_life: _duration_pb2.Duration
    explain: bool
    as_of: AsOf
    order: SearchOrder
    fuzziness: Fuzziness
    conversational: bool
    def __init__(self, namespace: _Optional[str] = ..., text: _Optional[str] = ..., embedding: _Optional[bytes] = ..., mode: _Optional[_Union[SearchMode, str]] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., top_k: _Optional[int] = ..., include_embedding: _Optional[bool] = ..., consistency: _Optional[_Union[_consistency_pb2.Consistency, _Mapping]] = ..., min_score: _Optional[float] = ..., weights: _Optional[_Union[SearchWeights, _Mapping]] = ..., recency_half_life: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., explain: _Optional[bool] = ..., as_of: _Optional[_Union[AsOf, _Mapping]] = ..., order: _Optional[_Union[SearchOrder, str]] = ..., fuzziness: _Optional[_Union[Fuzziness, _Mapping]] = ..., conversational: _Optional[bool] = ...) -> None: ...

class SearchMemoriesResponse(_message.Message):
    __slots__ = ("hits", "applied_revision", "epoch", "explanation")
    HITS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[SearchHit]
    applied_revision: int
    epoch: int
    explanation: SearchExplanation
    def __init__(self, hits: _Optional[_Iterable[_Union[SearchHit, _Mapping]]] = ..., applied_revision: _Optional[int] = ..., epoch: _Optional[int] = ..., explanation: _Optional[_Union[SearchExplanation, _Mapping]] = ...) -> None: ...

class SearchExplanation(_message.Message):
    __slots__ = ("mode", "live_memories", "matching_memories", "tokens", "embedding_model", "steps")
    MODE_FIELD_NUMBER: _ClassVar[int]
    LIVE_MEMORIES_FIELD_NUMBER: _ClassVar[int]
    MATCHING_MEMORIES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    mode: SearchMode
    live_memories: int
    matching_memories: int
    tokens: _containers.RepeatedScalarFieldContainer[str]
    embedding_model: str
    steps: _containers.RepeatedCompositeFieldContainer[SearchStep]
    def __init__(self, mode: _Optional[_Union[SearchMode, str]] = ..., live_memories: _Optional[int] = ..., matching_memories: _Optional[int] = ..., tokens: _Optional[_Iterable[str]] = ..., embedding_model: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[SearchStep, _Mapping]]] = ...) -> None: ...

class SearchStep(_message.Message):
    __slots__ = ("name", "plan", "memories", "milliseconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    plan: str
    memories: int
    milliseconds: float
    def __init__(self, name: _Optional[str] = ..., plan: _Optional[str] = ..., memories: _Optional[int] = ..., milliseconds: _Optional[float] = ...) -> None: ...

class SearchSignals(_message.Message):
    __slots__ = ("cosine", "bm25", "vector", "text", "recency", "importance", "session")
    COSINE_FIELD_NUMBER: _ClassVar[int]
    BM25_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RECENCY_FIELD_NUMBER: _ClassVar[int]
    IMPORTANCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    cosine: float
    bm25: float
    vector: float
    text: float
    recency: float
    importance: float
    session: float
    def __init__(self, cosine: _Optional[float] = ..., bm25: _Optional[float] = ..., vector: _Optional[float] = ..., text: _Optional[float] = ..., recency: _Optional[float] = ..., importance: _Optional[float] = ..., session: _Optional[float] = ...) -> None: ...

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
    __slots__ = ("memory", "score", "signals")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    memory: _memory_pb2.Memory
    score: float
    signals: SearchSignals
    def __init__(self, memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., score: _Optional[float] = ..., signals: _Optional[_Union[SearchSignals, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("namespace", "consistency", "breakdown")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    BREAKDOWN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    consistency: _consistency_pb2.Consistency
    breakdown: bool
    def __init__(self, namespace: _Optional[str] = ..., consistency: _Optional[_Union[_consistency_pb2.Consistency, _Mapping]] = ..., breakdown: _Optional[bool] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("namespace", "store", "applied_revision", "epoch", "breakdown", "indexes")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BREAKDOWN_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    namespace: NamespaceStats
    store: StoreStats
    applied_revision: int
    epoch: int
    breakdown: NamespaceBreakdown
    indexes: IndexStats
    def __init__(self, namespace: _Optional[_Union[NamespaceStats, _Mapping]] = ..., store: _Optional[_Union[StoreStats, _Mapping]] = ..., applied_revision: _Optional[int] = ..., epoch: _Optional[int] = ..., breakdown: _Optional[_Union[NamespaceBreakdown, _Mapping]] = ..., indexes: _Optional[_Union[IndexStats, _Mapping]] = ...) -> None: ...

class NamespaceBreakdown(_message.Message):
    __slots__ = ("searchable_revision", "memories", "types", "users", "agents", "sessions", "oldest_event_time", "newest_event_time")
    SEARCHABLE_REVISION_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    NEWEST_EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    searchable_revision: int
    memories: int
    types: _containers.RepeatedCompositeFieldContainer[TypeCount]
    users: OwnerCounts
    agents: OwnerCounts
    sessions: OwnerCounts
    oldest_event_time: _timestamp_pb2.Timestamp
    newest_event_time: _timestamp_pb2.Timestamp
    def __init__(self, searchable_revision: _Optional[int] = ..., memories: _Optional[int] = ..., types: _Optional[_Iterable[_Union[TypeCount, _Mapping]]] = ..., users: _Optional[_Union[OwnerCounts, _Mapping]] = ..., agents: _Optional[_Union[OwnerCounts, _Mapping]] = ..., sessions: _Optional[_Union[OwnerCounts, _Mapping]] = ..., oldest_event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., newest_event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TypeCount(_message.Message):
    __slots__ = ("type", "memories")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    type: _memory_pb2.MemoryType
    memories: int
    def __init__(self, type: _Optional[_Union[_memory_pb2.MemoryType, str]] = ..., memories: _Optional[int] = ...) -> None: ...

class OwnerCounts(_message.Message):
    __slots__ = ("distinct", "largest")
    DISTINCT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    distinct: int
    largest: _containers.RepeatedCompositeFieldContainer[OwnerCount]
    def __init__(self, distinct: _Optional[int] = ..., largest: _Optional[_Iterable[_Union[OwnerCount, _Mapping]]] = ...) -> None: ...

class OwnerCount(_message.Message):
    __slots__ = ("name", "memories")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    memories: int
    def __init__(self, name: _Optional[str] = ..., memories: _Optional[int] = ...) -> None: ...

class IndexStats(_message.Message):
    __slots__ = ("applied_revision", "searchable_revision", "store_staleness", "search_staleness", "text_documents", "text_bytes", "facet_rows", "dead_facet_rows", "tail_rows", "dead_tail_rows", "tail_bytes", "segments", "segment_rows", "dead_segment_rows", "segment_bytes")
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    SEARCHABLE_REVISION_FIELD_NUMBER: _ClassVar[int]
    STORE_STALENESS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_STALENESS_FIELD_NUMBER: _ClassVar[int]
    TEXT_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FACET_ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_FACET_ROWS_FIELD_NUMBER: _ClassVar[int]
    TAIL_ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_TAIL_ROWS_FIELD_NUMBER: _ClassVar[int]
    TAIL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_SEGMENT_ROWS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    applied_revision: int
    searchable_revision: int
    store_staleness: _duration_pb2.Duration
    search_staleness: _duration_pb2.Duration
    text_documents: int
    text_bytes: int
    facet_rows: int
    dead_facet_rows: int
    tail_rows: int
    dead_tail_rows: int
    tail_bytes: int
    segments: int
    segment_rows: int
    dead_segment_rows: int
    segment_bytes: int
    def __init__(self, applied_revision: _Optional[int] = ..., searchable_revision: _Optional[int] = ..., store_staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., search_staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., text_documents: _Optional[int] = ..., text_bytes: _Optional[int] = ..., facet_rows: _Optional[int] = ..., dead_facet_rows: _Optional[int] = ..., tail_rows: _Optional[int] = ..., dead_tail_rows: _Optional[int] = ..., tail_bytes: _Optional[int] = ..., segments: _Optional[int] = ..., segment_rows: _Optional[int] = ..., dead_segment_rows: _Optional[int] = ..., segment_bytes: _Optional[int] = ...) -> None: ...

class NamespaceStats(_message.Message):
    __slots__ = ("memories", "vectors", "dimension", "embedding_model", "versions", "pruned_versions", "history_start_revision", "settings", "reembedding")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PRUNED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_START_REVISION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    REEMBEDDING_FIELD_NUMBER: _ClassVar[int]
    memories: int
    vectors: int
    dimension: int
    embedding_model: str
    versions: int
    pruned_versions: int
    history_start_revision: int
    settings: _writer_pb2.NamespaceSettings
    reembedding: Reembedding
    def __init__(self, memories: _Optional[int] = ..., vectors: _Optional[int] = ..., dimension: _Optional[int] = ..., embedding_model: _Optional[str] = ..., versions: _Optional[int] = ..., pruned_versions: _Optional[int] = ..., history_start_revision: _Optional[int] = ..., settings: _Optional[_Union[_writer_pb2.NamespaceSettings, _Mapping]] = ..., reembedding: _Optional[_Union[Reembedding, _Mapping]] = ...) -> None: ...

class Reembedding(_message.Message):
    __slots__ = ("embedding_model", "dimension", "done_versions", "versions")
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    DONE_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    embedding_model: str
    dimension: int
    done_versions: int
    versions: int
    def __init__(self, embedding_model: _Optional[str] = ..., dimension: _Optional[int] = ..., done_versions: _Optional[int] = ..., versions: _Optional[int] = ...) -> None: ...

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
