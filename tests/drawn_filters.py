"""Memories and filters drawn at random, and what a filter means, said a second time, as plainly as possible.

``holds`` is written from the comments of filter.proto and shares nothing with agentmem.core.filters.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from memories import Scalar, condition, make_memory

from agentmem.core.errors import InvalidArgument
from agentmem.core.filters import Filter, compile_filter
from agentmem.v1 import filter_pb2, memory_pb2

TEXT_VALUES = ("", "a", "ab", "abc", "b", "é", "1", "true", "日本")
NUMBER_VALUES = (-1.5, 0.0, -0.0, 0.25, 0.5, 1.0, 2.0, 1e300)
TIME_VALUES_US = (-1, 0, 1, 1_000_000, 1_683_554_160_000_001, 253_402_300_799_999_999)
# Numbers are compared as doubles, and 2**53 + 1 is none.
VERSION_VALUES = (1, 2, 3, 2**53, 2**53 + 1, 2**63 - 1)
TEXTS = st.sampled_from(TEXT_VALUES)
NUMBERS = st.sampled_from(NUMBER_VALUES)
SCALARS: st.SearchStrategy[Scalar] = st.one_of(TEXTS, NUMBERS, st.booleans())
TIMES_US = st.sampled_from(TIME_VALUES_US)
VERSIONS = st.sampled_from(VERSION_VALUES)
# Every text has this word, so that a search for it finds them all.
WORD = "tea"
CONTENTS = st.sampled_from([WORD, f"green {WORD}", f"{WORD} é", f"a {WORD} 日本", f"{WORD} 1 abc"])
MODELS = ("", "model-a", "model-b")
OWNERS = ("user_id", "agent_id", "session_id")
TYPES = ("episodic", "semantic", "procedural", "working")
TIME_FIELDS = ("event_time", "create_time", "update_time", "expire_time")
# Far enough ahead that no test ends before it.
LATER_US = st.sampled_from([4_000_000_000_000_000, 4_000_000_000_000_001])


@st.composite
def memories(draw: st.DrawFn) -> memory_pb2.Memory:
    """A memory as a store may have it."""
    memory = make_memory(
        draw(TEXTS.filter(bool)),
        draw(CONTENTS),
        version=draw(VERSIONS),
        importance=draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        tags=draw(st.lists(TEXTS.filter(bool), max_size=3, unique=True)),
        metadata=draw(
            st.dictionaries(
                st.sampled_from(["k", "m.n"]), SCALARS | st.lists(SCALARS, max_size=3), max_size=2
            )
        ),
        event_time_us=draw(TIMES_US),
    )
    for owner in OWNERS:
        setattr(memory, owner, draw(TEXTS))
    memory.embedding_model = draw(st.sampled_from(MODELS))
    memory.MergeFromString(bytes([4 << 3, draw(st.sampled_from([1, 2, 3, 4, 99]))]))  # type; 99 is none yet
    memory.create_time.FromMicroseconds(draw(TIMES_US))
    memory.update_time.FromMicroseconds(draw(TIMES_US))
    if draw(st.booleans()):
        memory.expire_time.FromMicroseconds(draw(LATER_US))
    return memory


@st.composite
def conditions(draw: st.DrawFn) -> filter_pb2.Filter:
    """A condition; many are refused, for a field does not take every operator."""
    operator = draw(st.sampled_from(filter_pb2.Operator.values()[1:]))
    count = 1
    if operator == filter_pb2.OPERATOR_IN:
        count = draw(st.integers(1, 3))
    elif operator == filter_pb2.OPERATOR_BETWEEN:
        count = 2
    elif operator == filter_pb2.OPERATOR_EXISTS:
        count = 0

    def values(strategy: st.SearchStrategy[Scalar]) -> list[Scalar]:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    field = draw(
        st.sampled_from(
            ["id", *OWNERS, "tags", "type", "embedding_model", "importance", "version", *TIME_FIELDS]
            + ["metadata.k", "metadata.m.n", "metadata.unknown"] * 2
            + ["content"] * 3
        )
    )
    if field in TIME_FIELDS:
        times_us = draw(st.lists(TIMES_US | LATER_US, min_size=count, max_size=count))
        return condition(field, operator, times_us=times_us)
    if field in ("importance", "version"):
        return condition(field, operator, *values(NUMBERS | VERSIONS.map(float)))
    if field == "type":
        return condition(field, operator, *values(st.sampled_from(TYPES)))
    if field == "content":
        parts = ("tea", "ea", "green", " ", "日", "é", "1 abc")
        return condition(field, operator, *values(CONTENTS | st.sampled_from(parts)))
    if field == "embedding_model":
        return condition(field, operator, *values(st.sampled_from(["model-a", "model-b", "model"])))
    if field.startswith("metadata."):
        return condition(field, operator, *values(SCALARS))
    return condition(field, operator, *values(TEXTS))


def combined(inner: st.SearchStrategy[filter_pb2.Filter]) -> st.SearchStrategy[filter_pb2.Filter]:
    lists = st.lists(inner, min_size=1, max_size=3).map(lambda parts: filter_pb2.FilterList(filters=parts))
    return st.one_of(
        lists.map(lambda parts: filter_pb2.Filter(all_of=parts)),
        lists.map(lambda parts: filter_pb2.Filter(any_of=parts)),
        inner.map(lambda part: filter_pb2.Filter(negated=part)),
    )


def is_served(message: filter_pb2.Filter) -> bool:
    try:
        compile_filter(message)
    except InvalidArgument:
        return False
    return True


# Conditions that are refused are drawn again one by one, lest hardly any large filter is left.
FILTERS = st.recursive(conditions().filter(is_served), combined, max_leaves=6)


def compiled(message: filter_pb2.Filter) -> Filter:
    node = compile_filter(message)
    assert node is not None
    return node


def holds(message: filter_pb2.Filter, memory: memory_pb2.Memory) -> bool:
    """Whether the memory matches the filter."""
    if message.HasField("all_of"):
        return all(holds(part, memory) for part in message.all_of.filters)
    if message.HasField("any_of"):
        return any(holds(part, memory) for part in message.any_of.filters)
    if message.HasField("negated"):
        return not holds(message.negated, memory)
    asked = message.condition
    wanted = [_scalar(value) for value in asked.values]
    had = [value for value in _values(memory, asked.field) if value != ("string_value", "")]
    match filter_pb2.Operator.Name(asked.operator).removeprefix("OPERATOR_"):
        case "EXISTS":
            return bool(had)
        case "EQ" | "IN":
            return any(value in wanted for value in had)
        case "NE":
            return not any(value in wanted for value in had)
        case "PREFIX":
            return any(kind == "string_value" and text.startswith(wanted[0][1]) for kind, text in had)
        case "CONTAINS":
            return any(kind == "string_value" and wanted[0][1] in text for kind, text in had)
        case "GT":
            return any(value[0] == wanted[0][0] and value > wanted[0] for value in had)
        case "GTE":
            return any(value[0] == wanted[0][0] and value >= wanted[0] for value in had)
        case "LT":
            return any(value[0] == wanted[0][0] and value < wanted[0] for value in had)
        case "LTE":
            return any(value[0] == wanted[0][0] and value <= wanted[0] for value in had)
        case "BETWEEN":
            return any(value[0] == wanted[0][0] and wanted[0] <= value <= wanted[1] for value in had)
        case unknown:
            raise AssertionError(unknown)


def _scalar(value: filter_pb2.FilterValue | memory_pb2.MetadataValue) -> Any:
    """The kind of a value and the value: a number never equals a text, nor 1 true."""
    kind = value.WhichOneof("kind")
    if isinstance(value, filter_pb2.FilterValue) and kind == "time_value":
        return "time", (value.time_value.seconds, value.time_value.nanos // 1000)
    assert kind in ("string_value", "number_value", "bool_value")
    return kind, getattr(value, kind)


def _values(memory: memory_pb2.Memory, field: str) -> list[Any]:
    if field.startswith("metadata."):
        found = memory.metadata.get(field.removeprefix("metadata."))
        if found is None:
            return []
        if found.HasField("list_value"):
            return [_scalar(item) for item in found.list_value.values]
        return [_scalar(found)]
    if field.endswith("_time"):
        moment = getattr(memory, field)
        return [("time", (moment.seconds, moment.nanos // 1000))] if memory.HasField(field) else []
    if field == "tags":
        return [("string_value", tag) for tag in memory.tags]
    if field == "type":
        return [("string_value", TYPES[memory.type - 1])] if memory.type <= len(TYPES) else []
    value = getattr(memory, field)
    return [("string_value", value) if isinstance(value, str) else ("number_value", float(value))]
