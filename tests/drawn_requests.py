"""Requests drawn at random, from so few names and values that they often meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st
from model_state import Predicate

from agentmem.core.validation import decode_embedding
from agentmem.v1 import filter_pb2, memory_pb2, writer_pb2

NAMESPACES = ("ns", "n")
IDS = ("a", "a!", "é", "b")
CONTENTS = ("tea", "coffee at noon")
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
# Waits, times to live and ages of versions: equal ones meet to the microsecond.
SPANS_US = (1, 2, 1000, SECOND_US, HOUR_US)
POLICIES = (
    writer_pb2.DUPLICATE_POLICY_UNSPECIFIED,
    writer_pb2.DUPLICATE_POLICY_ADD,
    writer_pb2.DUPLICATE_POLICY_SKIP,
    writer_pb2.DUPLICATE_POLICY_MERGE,
)
PRECISIONS = (
    writer_pb2.VECTOR_PRECISION_UNSPECIFIED,
    writer_pb2.VECTOR_PRECISION_FLOAT32,
    writer_pb2.VECTOR_PRECISION_FLOAT16,
)
WriteRequest: TypeAlias = (
    writer_pb2.AddMemoriesRequest
    | writer_pb2.UpdateMemoryRequest
    | writer_pb2.DeleteMemoriesRequest
    | writer_pb2.UpdateNamespaceRequest
)
KINDS = (
    memory_pb2.VERSION_KIND_WRITTEN,
    memory_pb2.VERSION_KIND_DELETED,
    memory_pb2.VERSION_KIND_EXPIRED,
)
UPDATABLE = (
    "content",
    "type",
    "user_id",
    "agent_id",
    "session_id",
    "importance",
    "tags",
    "metadata",
    "embedding",
    "event_time",
    "expire_time",
    "ttl",
)

# One of each more often, so that much happens to it.
namespaces = st.sampled_from((NAMESPACES[0], *NAMESPACES))
ids = st.sampled_from((IDS[0], IDS[0], IDS[0], *IDS))
spans_us = st.sampled_from(SPANS_US)
# Most requests have none; the others are few enough to be used again.
request_ids = st.sampled_from(("", "", "", "r1", "r2"))
expectations = st.sampled_from(("", "", "right", "wrong"))


@dataclass(frozen=True, slots=True)
class NamedFilter:
    """A filter, and what it means."""

    message: filter_pb2.Filter
    matches: Predicate


def _condition(field: str, operator: filter_pb2.Operator, value: str | float) -> filter_pb2.Filter:
    condition = filter_pb2.Condition(field=field, operator=operator)
    if isinstance(value, str):
        condition.values.add(string_value=value)
    else:
        condition.values.add(number_value=value)
    return filter_pb2.Filter(condition=condition)


FILTERS = (
    NamedFilter(_condition("user_id", filter_pb2.OPERATOR_EQ, "ann"), lambda each: each.user_id == "ann"),
    NamedFilter(_condition("user_id", filter_pb2.OPERATOR_NE, "ann"), lambda each: each.user_id != "ann"),
    NamedFilter(_condition("tags", filter_pb2.OPERATOR_EQ, "x"), lambda each: "x" in each.tags),
    NamedFilter(_condition("importance", filter_pb2.OPERATOR_GT, 0.3), lambda each: each.importance > 0.3),
)
filters = st.sampled_from(FILTERS)


def _vector(components: Sequence[float]) -> bytes:
    return np.array(components, dtype="<f4").tobytes()


_components = st.sampled_from((-1.0, 1.0, 0.3))
_usual = st.tuples(_components, _components, _components).map(_vector)
_odd = st.tuples(_components, _components).map(_vector)
embeddings = st.integers(0, 3).flatmap(lambda number: _usual if number else _odd)


_OPTIONAL = (
    "type",
    "user_id",
    "agent_id",
    "session_id",
    "importance",
    "tags",
    "metadata",
    "embedding",
    "embedding",
    "embedding",
    "event_time",
    "ttl",
    "ttl",
    "ttl",
)


def _metadata_value(value: object) -> memory_pb2.MetadataValue:
    if isinstance(value, str):
        return memory_pb2.MetadataValue(string_value=value)
    assert isinstance(value, float)
    return memory_pb2.MetadataValue(number_value=value)


@st.composite
def memories(draw: st.DrawFn) -> memory_pb2.Memory:
    """The fields that a caller may set, few at a time."""
    memory = memory_pb2.Memory(
        content=draw(st.sampled_from((CONTENTS[0], CONTENTS[0], CONTENTS[1]))),
        type=memory_pb2.MEMORY_TYPE_EPISODIC,
    )
    for name in draw(st.lists(st.sampled_from(_OPTIONAL), max_size=2, unique=True)):
        if name == "type":
            memory.type = memory_pb2.MEMORY_TYPE_SEMANTIC
        elif name == "user_id":
            memory.user_id = "ann"
        elif name == "agent_id":
            memory.agent_id = "bot"
        elif name == "session_id":
            memory.session_id = draw(st.sampled_from("st"))
        elif name == "importance":
            memory.importance = draw(st.sampled_from((0.5, 1.0)))
        elif name == "tags":
            memory.tags.extend(draw(st.lists(st.sampled_from("xyz"), min_size=1, max_size=2, unique=True)))
        elif name == "metadata":
            values = st.sampled_from((1.0, "one")).map(_metadata_value)
            drawn = draw(st.dictionaries(st.sampled_from("kl"), values, min_size=1, max_size=2))
            for key, value in drawn.items():
                memory.metadata[key].CopyFrom(value)
        elif name == "embedding":
            memory.embedding = draw(embeddings)
            memory.embedding_model = draw(st.sampled_from(("", "", "", "m")))
        elif name == "event_time":
            memory.event_time.FromMicroseconds(draw(st.sampled_from((1, 2_000_000_000_000_001))))
        else:
            memory.ttl.FromMicroseconds(draw(spans_us))
    return memory


def expiring_at(memory: memory_pb2.Memory, now_us: int) -> None:
    """Turns the ttl of a memory into its expire_time."""
    if memory.HasField("ttl"):
        memory.expire_time.FromMicroseconds(now_us + memory.ttl.ToMicroseconds())
        memory.ClearField("ttl")


@st.composite
def adds(draw: st.DrawFn) -> writer_pb2.AddMemoriesRequest:
    """Without repeated ids; an empty id is to be generated."""
    given = draw(st.lists(memories(), min_size=1, max_size=3))
    taken: set[str] = set()
    for memory in given:
        memory_id = draw(ids | st.just(""))
        memory.id = "" if memory_id in taken else memory_id
        taken.add(memory_id)
    return writer_pb2.AddMemoriesRequest(
        namespace=draw(namespaces),
        memories=given,
        request_id=draw(request_ids),
        on_duplicate=draw(st.sampled_from(POLICIES)),
    )


def written_over(namespace: str, memory: memory_pb2.Memory, *, is_there: bool) -> WriteRequest:
    """An add of a memory, or an update to all that it has."""
    if not is_there:
        return writer_pb2.AddMemoriesRequest(namespace=namespace, memories=[memory])
    fields = [descriptor.name for descriptor, _ in memory.ListFields() if descriptor.name in UPDATABLE]
    return writer_pb2.UpdateMemoryRequest(namespace=namespace, memory=memory, update_mask={"paths": fields})


@st.composite
def updates(draw: st.DrawFn) -> writer_pb2.UpdateMemoryRequest:
    """Of one or more fields, some of them unset. Without expected_version."""
    memory = draw(memories())
    memory.id = draw(ids)
    fields = draw(st.lists(st.sampled_from((*UPDATABLE, "ttl")), min_size=1, max_size=3, unique=True))
    if "expire_time" in fields and "ttl" in fields:
        fields.remove("ttl")
    if "embedding" in fields and not memory.embedding:
        memory.embedding = draw(embeddings)
    if "embedding" in fields and draw(st.booleans()):
        fields.append("embedding_model")
    return writer_pb2.UpdateMemoryRequest(
        namespace=draw(namespaces),
        memory=memory,
        update_mask={"paths": fields},
        request_id=draw(request_ids),
    )


@st.composite
def deletes(draw: st.DrawFn) -> writer_pb2.DeleteMemoriesRequest:
    """By id."""
    return writer_pb2.DeleteMemoriesRequest(
        namespace=draw(namespaces),
        ids=draw(st.lists(ids, min_size=1, max_size=3, unique=True)),
        purge=draw(st.sampled_from((False, False, True))),
        request_id=draw(request_ids),
    )


@st.composite
def namespace_updates(draw: st.DrawFn) -> writer_pb2.UpdateNamespaceRequest:
    settings = writer_pb2.NamespaceSettings(
        max_versions=draw(st.sampled_from((0, 1, 2, 3))),
        vector_precision=draw(st.sampled_from(PRECISIONS)),
    )
    age_us = draw(st.sampled_from((0, *SPANS_US)))
    if age_us:
        settings.max_version_age.FromMicroseconds(age_us)
    fields = st.sampled_from(("max_versions", "max_versions", "max_version_age", "vector_precision"))
    return writer_pb2.UpdateNamespaceRequest(
        namespace=draw(namespaces),
        settings=settings,
        update_mask={"paths": draw(st.lists(fields, min_size=1, max_size=2, unique=True))},
        request_id=draw(request_ids),
    )


def foreign_version(
    memory: memory_pb2.Memory, version: int, kind: memory_pb2.VersionKind, time_us: int
) -> memory_pb2.MemoryVersion:
    """A version as another store would have exported it."""
    memory.id = memory.id or IDS[0]
    if kind == memory_pb2.VERSION_KIND_WRITTEN:
        expiring_at(memory, time_us)
        memory.create_time.FromMicroseconds(time_us)
        if not memory.HasField("event_time"):
            memory.event_time.FromMicroseconds(time_us)
        if memory.embedding:
            memory.embedding = decode_embedding(memory.embedding, "embedding").tobytes()
    else:
        memory = memory_pb2.Memory(id=memory.id)
        if kind == memory_pb2.VERSION_KIND_EXPIRED:
            memory.expire_time.FromMicroseconds(time_us - 1)
    memory.version = version
    memory.update_time.FromMicroseconds(time_us)
    return memory_pb2.MemoryVersion(memory=memory, kind=kind)
