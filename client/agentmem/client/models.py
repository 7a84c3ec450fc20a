"""Memories and answers as callers see them, and their translation to and from the messages of the API.

Datetimes are aware and in UTC; embeddings are tuples of floats; revisions count the commits of the writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from agentmem.client import values
from agentmem.client.errors import ServerError, invalid_field
from agentmem.client.values import MetadataInput, Scalar
from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2


class MemoryType(StrEnum):
    """What kind of memory it is. Plain strings are accepted wherever one is given."""

    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    PROCEDURAL = "procedural"
    WORKING = "working"


class SearchMode(StrEnum):
    """How a search compares: by meaning and words, by meaning alone, or by words alone."""

    HYBRID = "hybrid"
    SEMANTIC = "semantic"
    TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class NewMemory:
    """A memory to add. Only its content is required.

    Attributes:
        content: the text, 1 byte to 256 KiB.
        id: unique in the namespace; the server assigns a UUIDv7 when empty.
        type: what kind of memory it is.
        user_id, agent_id, session_id: whose memory it is; empty when it does not apply.
        importance: 0 to 1.
        tags: up to 64 labels.
        metadata: up to 64 keys; values are strings, numbers, booleans, or lists of these.
        embedding: numbers as many as the namespace's dimension; the server embeds the content when None.
        embedding_model: the model that made the embedding.
        event_time: when it happened, an aware datetime; the time of the write when None.
    """

    content: str = field(kw_only=False)
    id: str = ""
    type: MemoryType | str = MemoryType.EPISODIC
    user_id: str = ""
    agent_id: str = ""
    session_id: str = ""
    importance: float = 0.0
    tags: Sequence[str] = ()
    metadata: Mapping[str, MetadataInput] = field(default_factory=dict)
    embedding: Sequence[float] | None = None
    embedding_model: str = ""
    event_time: datetime | None = None


class _WritableFields(TypedDict, total=False):
    type: MemoryType | str
    user_id: str
    agent_id: str
    session_id: str
    importance: float
    tags: Sequence[str]
    metadata: Mapping[str, MetadataInput]
    embedding_model: str
    event_time: datetime | None


class AddFields(_WritableFields, total=False):
    """The keywords of ``add``: the fields of NewMemory but its content."""

    id: str
    embedding: Sequence[float] | None


class UpdateFields(_WritableFields, total=False):
    """The keywords of ``update``: what may change in a memory.

    An event_time of None is the time when the memory was created.
    """

    content: str
    embedding: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory as stored, in one version.

    Attributes:
        namespace: the tenant that it belongs to.
        embedding: scaled to unit length; None unless it was asked for and there is one.
        event_time: when it happened.
        create_time, update_time: when the server learned the memory, and this version of it.
        version: 1, 2, ...
    """

    id: str
    namespace: str
    content: str
    type: MemoryType
    user_id: str
    agent_id: str
    session_id: str
    importance: float
    tags: tuple[str, ...]
    metadata: Mapping[str, Scalar | list[Scalar]]
    embedding: tuple[float, ...] | None
    embedding_model: str
    event_time: datetime
    create_time: datetime
    update_time: datetime
    version: int


@dataclass(frozen=True)
class AddedMemory:
    """The id and version that a new memory got.

    The version is 1, unless a memory with this id was deleted before: then its versions go on.
    """

    id: str
    version: int


@dataclass(frozen=True)
class AddResult:
    """What was added, in the order given, and the revision of the commit."""

    memories: tuple[AddedMemory, ...]
    revision: int


@dataclass(frozen=True)
class GetResult:
    """The memories found, in the order asked for, and the ids of those that were not.

    ``applied_revision``: the answer shows every write up to this revision; so in every read.
    """

    memories: tuple[Memory, ...]
    missing_ids: tuple[str, ...]
    applied_revision: int


@dataclass(frozen=True)
class DeleteResult:
    """The ids that are gone now, those that named no memory, and the revision of the commit."""

    deleted_ids: tuple[str, ...]
    missing_ids: tuple[str, ...]
    revision: int


@dataclass(frozen=True)
class Page:
    """One page of a list. ``next_page_token`` is empty on the last; a page before it may be short."""

    memories: tuple[Memory, ...]
    next_page_token: str
    applied_revision: int


@dataclass(frozen=True)
class Hit:
    """A memory found by a search.

    ``score``: semantic: cosine, -1 to 1; text: BM25, above 0; hybrid: 0 to 1, to be compared within one
    search.
    """

    memory: Memory
    score: float


@dataclass(frozen=True)
class SearchResult:
    """The hits, best first."""

    hits: tuple[Hit, ...]
    applied_revision: int


_TYPE_TO_PROTO = {
    MemoryType.EPISODIC: memory_pb2.MEMORY_TYPE_EPISODIC,
    MemoryType.SEMANTIC: memory_pb2.MEMORY_TYPE_SEMANTIC,
    MemoryType.PROCEDURAL: memory_pb2.MEMORY_TYPE_PROCEDURAL,
    MemoryType.WORKING: memory_pb2.MEMORY_TYPE_WORKING,
}
_TYPE_FROM_PROTO = {number: kind for kind, number in _TYPE_TO_PROTO.items()}
_MODE_TO_PROTO = {
    SearchMode.HYBRID: reader_pb2.SEARCH_MODE_HYBRID,
    SearchMode.SEMANTIC: reader_pb2.SEARCH_MODE_SEMANTIC,
    SearchMode.TEXT: reader_pb2.SEARCH_MODE_TEXT,
}
_TEXT_FIELDS = frozenset(("id", "content", "user_id", "agent_id", "session_id", "embedding_model"))
_FIELDS_OF_NEW = tuple(each.name for each in fields(NewMemory))


def memory_type(field_name: str, value: object) -> MemoryType:
    """A memory type from itself or its name."""
    try:
        return MemoryType(value)  # type: ignore[arg-type]
    except ValueError:
        raise invalid_field(field_name, f"must be one of {', '.join(MemoryType)}, not {value!r}") from None


def search_mode(value: object) -> reader_pb2.SearchMode:
    """A search mode from itself or its name, as the API has it."""
    try:
        return _MODE_TO_PROTO[SearchMode(value)]  # type: ignore[arg-type]
    except ValueError:
        raise invalid_field("mode", f"must be one of {', '.join(SearchMode)}, not {value!r}") from None


def new_memory(memory: NewMemory | str, given: Mapping[str, object]) -> NewMemory:
    """A memory to add, from its content or from a NewMemory, with the fields given besides."""
    for name in given:
        if name not in _FIELDS_OF_NEW:
            raise invalid_field(name, "is not a field of a new memory")
    if isinstance(memory, NewMemory):
        return replace(memory, **given)  # type: ignore[arg-type]
    return NewMemory(memory, **given)  # type: ignore[arg-type]


def new_memory_to_proto(memory: NewMemory) -> memory_pb2.Memory:
    """The message for a memory to add."""
    return fields_to_proto({name: getattr(memory, name) for name in _FIELDS_OF_NEW})


def update_to_proto(given: Mapping[str, object]) -> memory_pb2.Memory:
    """The message for an update, with the fields given."""
    if not given:
        raise invalid_field("fields", "must name at least one field to change")
    if given.get("embedding", ()) is None:
        raise invalid_field(
            "embedding",
            "must be a sequence of numbers, not None; when it is left out, new content is embedded",
        )
    return fields_to_proto(given)


def fields_to_proto(given: Mapping[str, object]) -> memory_pb2.Memory:
    """A message with these writable fields set; an embedding or event_time of None is left empty."""
    message = memory_pb2.Memory()
    for name, value in given.items():
        if name in _TEXT_FIELDS:
            setattr(message, name, values.text(name, value))
        elif name == "type":
            message.type = _TYPE_TO_PROTO[memory_type(name, value)]
        elif name == "importance":
            message.importance = values.number(name, value)
        elif name == "tags":
            message.tags.extend(values.texts(name, value))
        elif name == "metadata":
            for key, item in values.metadata(name, value).items():
                message.metadata[key].CopyFrom(item)
        elif name == "embedding":
            message.embedding = b"" if value is None else values.embedding(name, value)
        elif name == "event_time":
            if value is not None:
                message.event_time.CopyFrom(values.timestamp(name, value))
        else:
            raise invalid_field(name, "is not a field that can be written")
    return message


def memory_from_proto(message: memory_pb2.Memory) -> Memory:
    """A memory that a server sent."""
    kind = _TYPE_FROM_PROTO.get(message.type)
    if kind is None:
        raise ServerError(f"memory {message.id!r} has type {message.type}, which this client does not know")
    return Memory(
        id=message.id,
        namespace=message.namespace,
        content=message.content,
        type=kind,
        user_id=message.user_id,
        agent_id=message.agent_id,
        session_id=message.session_id,
        importance=message.importance,
        tags=tuple(message.tags),
        metadata=values.to_metadata(message.metadata),
        embedding=values.to_embedding(message.embedding),
        embedding_model=message.embedding_model,
        event_time=values.to_datetime(message.event_time),
        create_time=values.to_datetime(message.create_time),
        update_time=values.to_datetime(message.update_time),
        version=message.version,
    )


def memories_from_proto(messages: Iterable[memory_pb2.Memory]) -> tuple[Memory, ...]:
    """Memories that a server sent, in their order."""
    return tuple(map(memory_from_proto, messages))


def add_result_from_proto(message: writer_pb2.AddMemoriesResponse) -> AddResult:
    """The answer to an add."""
    return AddResult(tuple(AddedMemory(each.id, each.version) for each in message.memories), message.revision)


def search_result_from_proto(message: reader_pb2.SearchMemoriesResponse) -> SearchResult:
    """The answer to a search."""
    hits = tuple(Hit(memory_from_proto(hit.memory), hit.score) for hit in message.hits)
    return SearchResult(hits, message.applied_revision)
