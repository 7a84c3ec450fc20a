import datetime

from agentmem.v1 import consistency_pb2 as _consistency_pb2
from agentmem.v1 import failure_pb2 as _failure_pb2
from agentmem.v1 import filter_pb2 as _filter_pb2
from agentmem.v1 import memory_pb2 as _memory_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DuplicatePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DUPLICATE_POLICY_UNSPECIFIED: _ClassVar[DuplicatePolicy]
    DUPLICATE_POLICY_ADD: _ClassVar[DuplicatePolicy]
    DUPLICATE_POLICY_SKIP: _ClassVar[DuplicatePolicy]
    DUPLICATE_POLICY_MERGE: _ClassVar[DuplicatePolicy]

class AddOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADD_OUTCOME_UNSPECIFIED: _ClassVar[AddOutcome]
    ADD_OUTCOME_ADDED: _ClassVar[AddOutcome]
    ADD_OUTCOME_SKIPPED: _ClassVar[AddOutcome]
    ADD_OUTCOME_MERGED: _ClassVar[AddOutcome]

class ImportConflict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMPORT_CONFLICT_UNSPECIFIED: _ClassVar[ImportConflict]
    IMPORT_CONFLICT_FAIL: _ClassVar[ImportConflict]
    IMPORT_CONFLICT_SKIP: _ClassVar[ImportConflict]

class VectorPrecision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VECTOR_PRECISION_UNSPECIFIED: _ClassVar[VectorPrecision]
    VECTOR_PRECISION_FLOAT32: _ClassVar[VectorPrecision]
    VECTOR_PRECISION_FLOAT16: _ClassVar[VectorPrecision]
DUPLICATE_POLICY_UNSPECIFIED: DuplicatePolicy
DUPLICATE_POLICY_ADD: DuplicatePolicy
DUPLICATE_POLICY_SKIP: DuplicatePolicy
DUPLICATE_POLICY_MERGE: DuplicatePolicy
ADD_OUTCOME_UNSPECIFIED: AddOutcome
ADD_OUTCOME_ADDED: AddOutcome
ADD_OUTCOME_SKIPPED: AddOutcome
ADD_OUTCOME_MERGED: AddOutcome
IMPORT_CONFLICT_UNSPECIFIED: ImportConflict
IMPORT_CONFLICT_FAIL: ImportConflict
IMPORT_CONFLICT_SKIP: ImportConflict
VECTOR_PRECISION_UNSPECIFIED: VectorPrecision
VECTOR_PRECISION_FLOAT32: VectorPrecision
VECTOR_PRECISION_FLOAT16: VectorPrecision

class AddMemoriesRequest(_message.Message):
    __slots__ = ("namespace", "memories", "request_id", "on_duplicate", "acknowledgement")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ON_DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
    request_id: str
    on_duplicate: DuplicatePolicy
    acknowledgement: _consistency_pb2.Acknowledgement
    def __init__(self, namespace: _Optional[str] = ..., memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ..., request_id: _Optional[str] = ..., on_duplicate: _Optional[_Union[DuplicatePolicy, str]] = ..., acknowledgement: _Optional[_Union[_consistency_pb2.Acknowledgement, _Mapping]] = ...) -> None: ...

class AddMemoriesResponse(_message.Message):
    __slots__ = ("memories", "revision", "epoch", "acknowledged")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[AddedMemory]
    revision: int
    epoch: int
    acknowledged: _consistency_pb2.Acknowledged
    def __init__(self, memories: _Optional[_Iterable[_Union[AddedMemory, _Mapping]]] = ..., revision: _Optional[int] = ..., epoch: _Optional[int] = ..., acknowledged: _Optional[_Union[_consistency_pb2.Acknowledged, _Mapping]] = ...) -> None: ...

class BatchAddMemoriesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[AddMemoriesRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[AddMemoriesRequest, _Mapping]]] = ...) -> None: ...

class BatchAddMemoriesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchAddResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchAddResult, _Mapping]]] = ...) -> None: ...

class BatchAddResult(_message.Message):
    __slots__ = ("response", "failure")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    response: AddMemoriesResponse
    failure: _failure_pb2.Failure
    def __init__(self, response: _Optional[_Union[AddMemoriesResponse, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class AddedMemory(_message.Message):
    __slots__ = ("id", "version", "outcome")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: int
    outcome: AddOutcome
    def __init__(self, id: _Optional[str] = ..., version: _Optional[int] = ..., outcome: _Optional[_Union[AddOutcome, str]] = ...) -> None: ...

class UpdateMemoryRequest(_message.Message):
    __slots__ = ("namespace", "memory", "update_mask", "expected_version", "request_id", "acknowledgement")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    memory: _memory_pb2.Memory
    update_mask: _field_mask_pb2.FieldMask
    expected_version: int
    request_id: str
    acknowledgement: _consistency_pb2.Acknowledgement
    def __init__(self, namespace: _Optional[str] = ..., memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., expected_version: _Optional[int] = ..., request_id: _Optional[str] = ..., acknowledgement: _Optional[_Union[_consistency_pb2.Acknowledgement, _Mapping]] = ...) -> None: ...

class UpdateMemoryResponse(_message.Message):
    __slots__ = ("memory", "revision", "epoch", "acknowledged")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    memory: _memory_pb2.Memory
    revision: int
    epoch: int
    acknowledged: _consistency_pb2.Acknowledged
    def __init__(self, memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., revision: _Optional[int] = ..., epoch: _Optional[int] = ..., acknowledged: _Optional[_Union[_consistency_pb2.Acknowledged, _Mapping]] = ...) -> None: ...

class BatchUpdateMemoriesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[UpdateMemoryRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[UpdateMemoryRequest, _Mapping]]] = ...) -> None: ...

class BatchUpdateMemoriesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchUpdateResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchUpdateResult, _Mapping]]] = ...) -> None: ...

class BatchUpdateResult(_message.Message):
    __slots__ = ("response", "failure")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    response: UpdateMemoryResponse
    failure: _failure_pb2.Failure
    def __init__(self, response: _Optional[_Union[UpdateMemoryResponse, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class DeleteMemoriesRequest(_message.Message):
    __slots__ = ("namespace", "ids", "filter", "purge", "expected_version", "request_id", "acknowledgement")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PURGE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    filter: _filter_pb2.Filter
    purge: bool
    expected_version: int
    request_id: str
    acknowledgement: _consistency_pb2.Acknowledgement
    def __init__(self, namespace: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., purge: _Optional[bool] = ..., expected_version: _Optional[int] = ..., request_id: _Optional[str] = ..., acknowledgement: _Optional[_Union[_consistency_pb2.Acknowledgement, _Mapping]] = ...) -> None: ...

class DeleteMemoriesResponse(_message.Message):
    __slots__ = ("deleted_ids", "missing_ids", "revision", "receipt", "deleted_count", "epoch", "acknowledged")
    DELETED_IDS_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    deleted_ids: _containers.RepeatedScalarFieldContainer[str]
    missing_ids: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    receipt: PurgeReceipt
    deleted_count: int
    epoch: int
    acknowledged: _consistency_pb2.Acknowledged
    def __init__(self, deleted_ids: _Optional[_Iterable[str]] = ..., missing_ids: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ..., receipt: _Optional[_Union[PurgeReceipt, _Mapping]] = ..., deleted_count: _Optional[int] = ..., epoch: _Optional[int] = ..., acknowledged: _Optional[_Union[_consistency_pb2.Acknowledged, _Mapping]] = ...) -> None: ...

class BatchDeleteMemoriesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[DeleteMemoriesRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[DeleteMemoriesRequest, _Mapping]]] = ...) -> None: ...

class BatchDeleteMemoriesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchDeleteResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchDeleteResult, _Mapping]]] = ...) -> None: ...

class BatchDeleteResult(_message.Message):
    __slots__ = ("response", "failure")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    response: DeleteMemoriesResponse
    failure: _failure_pb2.Failure
    def __init__(self, response: _Optional[_Union[DeleteMemoriesResponse, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class PurgeReceipt(_message.Message):
    __slots__ = ("namespace", "revision", "time", "memory_count", "version_count", "ids_sha256")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    VERSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    IDS_SHA256_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    revision: int
    time: _timestamp_pb2.Timestamp
    memory_count: int
    version_count: int
    ids_sha256: bytes
    def __init__(self, namespace: _Optional[str] = ..., revision: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., memory_count: _Optional[int] = ..., version_count: _Optional[int] = ..., ids_sha256: _Optional[bytes] = ...) -> None: ...

class GetPurgeReceiptRequest(_message.Message):
    __slots__ = ("namespace", "revision")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    revision: int
    def __init__(self, namespace: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetPurgeReceiptResponse(_message.Message):
    __slots__ = ("receipt", "nodes")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    receipt: PurgeReceipt
    nodes: _containers.RepeatedCompositeFieldContainer[PurgeProgress]
    def __init__(self, receipt: _Optional[_Union[PurgeReceipt, _Mapping]] = ..., nodes: _Optional[_Iterable[_Union[PurgeProgress, _Mapping]]] = ...) -> None: ...

class PurgeProgress(_message.Message):
    __slots__ = ("node_id", "applied_revision", "applied")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    applied_revision: int
    applied: bool
    def __init__(self, node_id: _Optional[str] = ..., applied_revision: _Optional[int] = ..., applied: _Optional[bool] = ...) -> None: ...

class ImportMemoriesRequest(_message.Message):
    __slots__ = ("namespace", "versions", "on_conflict", "acknowledgement")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ON_CONFLICT_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    versions: _containers.RepeatedCompositeFieldContainer[_memory_pb2.MemoryVersion]
    on_conflict: ImportConflict
    acknowledgement: _consistency_pb2.Acknowledgement
    def __init__(self, namespace: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[_memory_pb2.MemoryVersion, _Mapping]]] = ..., on_conflict: _Optional[_Union[ImportConflict, str]] = ..., acknowledgement: _Optional[_Union[_consistency_pb2.Acknowledgement, _Mapping]] = ...) -> None: ...

class ImportMemoriesResponse(_message.Message):
    __slots__ = ("imported_versions", "skipped_versions", "revision", "epoch", "acknowledged")
    IMPORTED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    imported_versions: int
    skipped_versions: int
    revision: int
    epoch: int
    acknowledged: _consistency_pb2.Acknowledged
    def __init__(self, imported_versions: _Optional[int] = ..., skipped_versions: _Optional[int] = ..., revision: _Optional[int] = ..., epoch: _Optional[int] = ..., acknowledged: _Optional[_Union[_consistency_pb2.Acknowledged, _Mapping]] = ...) -> None: ...

class NamespaceSettings(_message.Message):
    __slots__ = ("max_versions", "max_version_age", "vector_precision", "embedder")
    MAX_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_VERSION_AGE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_PRECISION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    max_versions: int
    max_version_age: _duration_pb2.Duration
    vector_precision: VectorPrecision
    embedder: str
    def __init__(self, max_versions: _Optional[int] = ..., max_version_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., vector_precision: _Optional[_Union[VectorPrecision, str]] = ..., embedder: _Optional[str] = ...) -> None: ...

class UpdateNamespaceRequest(_message.Message):
    __slots__ = ("namespace", "settings", "update_mask", "request_id", "acknowledgement")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    settings: NamespaceSettings
    update_mask: _field_mask_pb2.FieldMask
    request_id: str
    acknowledgement: _consistency_pb2.Acknowledgement
    def __init__(self, namespace: _Optional[str] = ..., settings: _Optional[_Union[NamespaceSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., request_id: _Optional[str] = ..., acknowledgement: _Optional[_Union[_consistency_pb2.Acknowledgement, _Mapping]] = ...) -> None: ...

class UpdateNamespaceResponse(_message.Message):
    __slots__ = ("settings", "revision", "epoch", "acknowledged")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    settings: NamespaceSettings
    revision: int
    epoch: int
    acknowledged: _consistency_pb2.Acknowledged
    def __init__(self, settings: _Optional[_Union[NamespaceSettings, _Mapping]] = ..., revision: _Optional[int] = ..., epoch: _Optional[int] = ..., acknowledged: _Optional[_Union[_consistency_pb2.Acknowledged, _Mapping]] = ...) -> None: ...

class ReembedNamespaceRequest(_message.Message):
    __slots__ = ("namespace", "embedder", "request_id", "acknowledgement")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    embedder: str
    request_id: str
    acknowledgement: _consistency_pb2.Acknowledgement
    def __init__(self, namespace: _Optional[str] = ..., embedder: _Optional[str] = ..., request_id: _Optional[str] = ..., acknowledgement: _Optional[_Union[_consistency_pb2.Acknowledgement, _Mapping]] = ...) -> None: ...

class ReembedNamespaceResponse(_message.Message):
    __slots__ = ("embedding_model", "coming_model", "revision", "epoch", "acknowledged")
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    COMING_MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    embedding_model: str
    coming_model: str
    revision: int
    epoch: int
    acknowledged: _consistency_pb2.Acknowledged
    def __init__(self, embedding_model: _Optional[str] = ..., coming_model: _Optional[str] = ..., revision: _Optional[int] = ..., epoch: _Optional[int] = ..., acknowledged: _Optional[_Union[_consistency_pb2.Acknowledged, _Mapping]] = ...) -> None: ...
