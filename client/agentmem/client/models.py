"""Memories as callers see them, and their translation to and from the messages of the API.

Datetimes are aware and in UTC; embeddings are tuples of floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypedDict

from agentmem.client import values
from agentmem.client.errors import ServerError, invalid_field
from agentmem.client.values import MetadataInput, Scalar
from agentmem.v1 import memory_pb2


class MemoryType(StrEnum):
    """What kind of memory it is. Plain strings are accepted wherever one is given."""

    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    PROCEDURAL = "procedural"
    WORKING = "working"


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
        expire_time: when it ends by itself, an aware datetime in the future; never when None.
        ttl: instead of expire_time, how long after the write: a timedelta, or seconds; at most 100 years.
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
    expire_time: datetime | None = None
    ttl: timedelta | float | None = None


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
    expire_time: datetime | None


class AddFields(_WritableFields, total=False):
    """The keywords of ``add``: the fields of NewMemory but its content."""

    id: str
    embedding: Sequence[float] | None
    ttl: timedelta | float | None


class UpdateFields(_WritableFields, total=False):
    """The keywords of ``update``: what may change in a memory.

    An event_time of None is the time when the memory was created. With an expire_time of None it never ends.
    """

    content: str
    embedding: Sequence[float]
    ttl: timedelta | float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory as stored, in one version.

    Attributes:
        namespace: the tenant that it belongs to.
        embedding: scaled to unit length; None unless it was asked for and there is one.
        event_time: when it happened.
        create_time, update_time: when the server learned the memory, and this version of it.
        version: 1, 2, ...
        expire_time: when it ends by itself; None when never.
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
    expire_time: datetime | None = None

    # What a server sent is decoded field by field as they are asked for: an answer may have a thousand
    # memories, of which the caller looks at a few, and of these at a few fields. _SENT is the bytes at first,
    # the message once something of it was asked for, and gone when all was.

    if not TYPE_CHECKING:  # which would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            own = vars(self)
            sent = own.get(_SENT)
            decode = _DECODED.get(name)
            if sent is not None and decode is not None:
                if isinstance(sent, bytes):
                    sent = own[_SENT] = memory_pb2.Memory.FromString(sent)
                # Of two threads that decode the same both get the value that stays.
                own.setdefault(name, decode(sent))
                if len(own) > len(_DECODED):
                    own.pop(_SENT, None)
            if name not in own:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return own[name]

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


# Else the default would be found where it has not been decoded yet.
del Memory.expire_time
_SENT = "_sent"

_TYPE_TO_PROTO = {
    MemoryType.EPISODIC: memory_pb2.MEMORY_TYPE_EPISODIC,
    MemoryType.SEMANTIC: memory_pb2.MEMORY_TYPE_SEMANTIC,
    MemoryType.PROCEDURAL: memory_pb2.MEMORY_TYPE_PROCEDURAL,
    MemoryType.WORKING: memory_pb2.MEMORY_TYPE_WORKING,
}
_TYPE_FROM_PROTO: dict[int, MemoryType] = {number: kind for kind, number in _TYPE_TO_PROTO.items()}
_TEXT_FIELDS = frozenset(("id", "content", "user_id", "agent_id", "session_id", "embedding_model"))
_TIME_FIELDS = frozenset(("event_time", "expire_time"))
_FIELDS_OF_NEW = tuple(each.name for each in fields(NewMemory))
# With what says as much when it is left out.
_DEFAULTS_OF_NEW: Mapping[str, object] = {
    each.name: each.default if each.default in ("", None, (), 0.0) else MISSING for each in fields(NewMemory)
}


def memory_type(field_name: str, value: object) -> MemoryType:
    """A memory type from itself or its name."""
    return values.choice(field_name, value, MemoryType)


def new_memory(memory: NewMemory | str, given: Mapping[str, object]) -> NewMemory:
    """A memory to add, from its content or from a NewMemory, with the fields given besides."""
    for name in given:
        if name not in _FIELDS_OF_NEW:
            raise invalid_field(name, "is not a field of a new memory")
    if isinstance(memory, NewMemory):
        if not given:
            return memory
        return replace(memory, **given)  # type: ignore[arg-type]
    return NewMemory(memory, **given)  # type: ignore[arg-type]


def new_memory_to_proto(memory: NewMemory) -> memory_pb2.Memory:
    """The message for a memory to add."""
    return fields_to_proto(
        {
            name: value
            for name, default in _DEFAULTS_OF_NEW.items()
            if (value := getattr(memory, name)) is not default
        }
    )


def added_to_proto(memory: NewMemory | str, given: Mapping[str, object]) -> memory_pb2.Memory:
    """The message for a memory to add, as ``new_memory`` takes it."""
    if isinstance(memory, NewMemory) or "content" in given or not given.keys() <= _DEFAULTS_OF_NEW.keys():
        return new_memory_to_proto(new_memory(memory, given))
    # Mostly a text with some fields, of which no NewMemory needs to be made.
    said = {name: value for name, value in given.items() if value is not _DEFAULTS_OF_NEW[name]}
    return fields_to_proto({"content": memory, "type": MemoryType.EPISODIC} | said)


def update_to_proto(given: Mapping[str, object]) -> memory_pb2.Memory:
    """The message for an update, with the fields given."""
    if not given:
        raise invalid_field("fields", "must name at least one field to change")
    if given.get("embedding", ()) is None:
        raise invalid_field(
            "embedding",
            "must be a sequence of numbers, not None; when it is left out, new content is embedded",
        )
    if given.get("ttl", 0) is None:
        raise invalid_field("ttl", "must be a length of time, not None; expire_time=None takes an end away")
    if "ttl" in given and "expire_time" in given:
        raise invalid_field("ttl", "is given with expire_time: give one of them")
    return fields_to_proto(given)


def fields_to_proto(given: Mapping[str, object]) -> memory_pb2.Memory:
    """A message with these writable fields set; a time, ttl or embedding of None is left empty."""
    if given.get("ttl") is not None and given.get("expire_time") is not None:
        raise invalid_field("ttl", "is given with expire_time: give one of them")
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
        elif name in _TIME_FIELDS:
            if value is not None:
                getattr(message, name).CopyFrom(values.timestamp(name, value))
        elif name == "ttl":
            if value is not None:
                message.ttl.CopyFrom(values.duration(name, value))
        else:
            raise invalid_field(name, "is not a field that can be written")
    return message


def memory_type_from_proto(number: int) -> MemoryType:
    """The type that a server sent. Raises ServerError for one of a later release."""
    kind = _TYPE_FROM_PROTO.get(number)
    if kind is None:
        raise ServerError(f"the server sent a memory type {number}, which this client does not know")
    return kind


def memory_from_proto(message: memory_pb2.Memory) -> Memory:
    """A memory that a server sent. Raises ServerError for one that this client does not understand."""
    if message.type not in _TYPE_FROM_PROTO:
        raise ServerError(f"memory {message.id!r} has type {message.type}, which this client does not know")
    if message.embedding or message.metadata:
        values.check_decodable(message)
    memory = object.__new__(Memory)
    # Not the message, which would keep all of the answer that it came in.
    memory.__dict__[_SENT] = message.SerializeToString()
    return memory


# The fields of a Memory.
_DECODED: Mapping[str, Callable[[memory_pb2.Memory], Any]] = {
    **{
        name: attrgetter(name)
        for name in (
            *("id", "namespace", "content", "user_id", "agent_id", "session_id"),
            *("importance", "embedding_model", "version"),
        )
    },
    "type": lambda message: _TYPE_FROM_PROTO[message.type],
    "tags": lambda message: tuple(message.tags),
    "metadata": lambda message: values.to_metadata(message.metadata),
    "embedding": lambda message: values.to_embedding(message.embedding),
    "event_time": lambda message: values.to_datetime(message.event_time),
    "create_time": lambda message: values.to_datetime(message.create_time),
    "update_time": lambda message: values.to_datetime(message.update_time),
    "expire_time": lambda message: (
        values.to_datetime(message.expire_time) if message.HasField("expire_time") else None
    ),
}


def memories_from_proto(messages: Iterable[memory_pb2.Memory]) -> tuple[Memory, ...]:
    """Memories that a server sent, in their order."""
    return tuple(map(memory_from_proto, messages))
