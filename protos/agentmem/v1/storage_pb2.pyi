from agentmem.v1 import writer_pb2 as _writer_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReembeddingStep(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REEMBEDDING_STEP_UNSPECIFIED: _ClassVar[ReembeddingStep]
    REEMBEDDING_STEP_BEGUN: _ClassVar[ReembeddingStep]
    REEMBEDDING_STEP_SWITCHED: _ClassVar[ReembeddingStep]
    REEMBEDDING_STEP_CANCELLED: _ClassVar[ReembeddingStep]
    REEMBEDDING_STEP_CLEARED: _ClassVar[ReembeddingStep]
REEMBEDDING_STEP_UNSPECIFIED: ReembeddingStep
REEMBEDDING_STEP_BEGUN: ReembeddingStep
REEMBEDDING_STEP_SWITCHED: ReembeddingStep
REEMBEDDING_STEP_CANCELLED: ReembeddingStep
REEMBEDDING_STEP_CLEARED: ReembeddingStep

class LogEntry(_message.Message):
    __slots__ = ("epoch", "revision", "time_us", "operations", "namespaces", "request", "receipt", "promotion")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    time_us: int
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    namespaces: _containers.RepeatedCompositeFieldContainer[NamespaceChange]
    request: RequestOutcome
    receipt: _writer_pb2.PurgeReceipt
    promotion: Promotion
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., time_us: _Optional[int] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ..., namespaces: _Optional[_Iterable[_Union[NamespaceChange, _Mapping]]] = ..., request: _Optional[_Union[RequestOutcome, _Mapping]] = ..., receipt: _Optional[_Union[_writer_pb2.PurgeReceipt, _Mapping]] = ..., promotion: _Optional[_Union[Promotion, _Mapping]] = ...) -> None: ...

class Promotion(_message.Message):
    __slots__ = ("writer_id",)
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    writer_id: str
    def __init__(self, writer_id: _Optional[str] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("kind", "ordinal", "replaced_ordinal", "record_crc32c", "vector_crc32c", "namespace_number", "removed_ordinals", "forgotten_before", "forgotten_before_us", "purged_id_digest", "coming_vector_crc32c", "space", "coming_space", "cleared_ordinals")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Operation.Kind]
        KIND_PUT: _ClassVar[Operation.Kind]
        KIND_DELETE: _ClassVar[Operation.Kind]
        KIND_PRUNE: _ClassVar[Operation.Kind]
        KIND_PURGE: _ClassVar[Operation.Kind]
        KIND_EMBED: _ClassVar[Operation.Kind]
        KIND_CLEAR: _ClassVar[Operation.Kind]
    KIND_UNSPECIFIED: Operation.Kind
    KIND_PUT: Operation.Kind
    KIND_DELETE: Operation.Kind
    KIND_PRUNE: Operation.Kind
    KIND_PURGE: Operation.Kind
    KIND_EMBED: Operation.Kind
    KIND_CLEAR: Operation.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    REPLACED_ORDINAL_FIELD_NUMBER: _ClassVar[int]
    RECORD_CRC32C_FIELD_NUMBER: _ClassVar[int]
    VECTOR_CRC32C_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    REMOVED_ORDINALS_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_BEFORE_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_BEFORE_US_FIELD_NUMBER: _ClassVar[int]
    PURGED_ID_DIGEST_FIELD_NUMBER: _ClassVar[int]
    COMING_VECTOR_CRC32C_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    COMING_SPACE_FIELD_NUMBER: _ClassVar[int]
    CLEARED_ORDINALS_FIELD_NUMBER: _ClassVar[int]
    kind: Operation.Kind
    ordinal: int
    replaced_ordinal: int
    record_crc32c: int
    vector_crc32c: int
    namespace_number: int
    removed_ordinals: _containers.RepeatedScalarFieldContainer[int]
    forgotten_before: int
    forgotten_before_us: int
    purged_id_digest: bytes
    coming_vector_crc32c: int
    space: int
    coming_space: int
    cleared_ordinals: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, kind: _Optional[_Union[Operation.Kind, str]] = ..., ordinal: _Optional[int] = ..., replaced_ordinal: _Optional[int] = ..., record_crc32c: _Optional[int] = ..., vector_crc32c: _Optional[int] = ..., namespace_number: _Optional[int] = ..., removed_ordinals: _Optional[_Iterable[int]] = ..., forgotten_before: _Optional[int] = ..., forgotten_before_us: _Optional[int] = ..., purged_id_digest: _Optional[bytes] = ..., coming_vector_crc32c: _Optional[int] = ..., space: _Optional[int] = ..., coming_space: _Optional[int] = ..., cleared_ordinals: _Optional[_Iterable[int]] = ...) -> None: ...

class NamespaceChange(_message.Message):
    __slots__ = ("name", "number", "settings", "dimension", "embedding_model", "reembedding")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    REEMBEDDING_FIELD_NUMBER: _ClassVar[int]
    name: str
    number: int
    settings: _writer_pb2.NamespaceSettings
    dimension: int
    embedding_model: str
    reembedding: ReembeddingStep
    def __init__(self, name: _Optional[str] = ..., number: _Optional[int] = ..., settings: _Optional[_Union[_writer_pb2.NamespaceSettings, _Mapping]] = ..., dimension: _Optional[int] = ..., embedding_model: _Optional[str] = ..., reembedding: _Optional[_Union[ReembeddingStep, str]] = ...) -> None: ...

class RequestOutcome(_message.Message):
    __slots__ = ("key", "fingerprint", "response", "ordinal", "time_us", "revision")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    fingerprint: bytes
    response: bytes
    ordinal: int
    time_us: int
    revision: int
    def __init__(self, key: _Optional[bytes] = ..., fingerprint: _Optional[bytes] = ..., response: _Optional[bytes] = ..., ordinal: _Optional[int] = ..., time_us: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...
