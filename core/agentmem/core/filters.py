"""The filter language: what a filter means, decided once.

``compile_filter`` checks a Filter message and turns it into a tree that answers for one memory at a time
(``matches``). The indexes of a replica answer for many at once; they use the same leaves (``Condition.holds``
on the distinct values of a field), so that a filter means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from agentmem.core.errors import InvalidArgument, invalid_field
from agentmem.core.times import timestamp_us
from agentmem.core.validation import check_time
from agentmem.v1 import filter_pb2, memory_pb2

MAX_CONDITIONS = 256
# In all of a filter.
MAX_VALUES = 1000
MAX_DEPTH = 16
METADATA_PREFIX = "metadata."
# Compiled ones that are kept, which take some ten times their bytes.
MAX_KNOWN_FILTERS = 2_048
MAX_KNOWN_FILTER_BYTES = 256

# A value of a field: text, a number, a boolean, or for times microseconds since 1970.
Value = str | float | bool | int

TYPE_NAMES = {
    memory_pb2.MEMORY_TYPE_EPISODIC: "episodic",
    memory_pb2.MEMORY_TYPE_SEMANTIC: "semantic",
    memory_pb2.MEMORY_TYPE_PROCEDURAL: "procedural",
    memory_pb2.MEMORY_TYPE_WORKING: "working",
}


class Kind(Enum):
    """What the values of a field are, and so which operators it takes."""

    TEXT = "text"
    TAGS = "tags"
    NUMBER = "number"
    TIME = "time"
    METADATA = "metadata"


FIELD_KINDS = {
    "id": Kind.TEXT,
    "user_id": Kind.TEXT,
    "agent_id": Kind.TEXT,
    "session_id": Kind.TEXT,
    "type": Kind.TEXT,
    "tags": Kind.TAGS,
    "importance": Kind.NUMBER,
    "event_time": Kind.TIME,
    "create_time": Kind.TIME,
    "update_time": Kind.TIME,
    "expire_time": Kind.TIME,
    "content": Kind.TEXT,
    "version": Kind.NUMBER,
    "embedding_model": Kind.TEXT,
}

_EQUALITY = {filter_pb2.OPERATOR_EQ, filter_pb2.OPERATOR_NE, filter_pb2.OPERATOR_IN}
_ORDER = {
    filter_pb2.OPERATOR_GT,
    filter_pb2.OPERATOR_GTE,
    filter_pb2.OPERATOR_LT,
    filter_pb2.OPERATOR_LTE,
    filter_pb2.OPERATOR_BETWEEN,
}
_STRING = {filter_pb2.OPERATOR_PREFIX, filter_pb2.OPERATOR_CONTAINS}
_OPERATORS = {
    Kind.TEXT: _EQUALITY | _STRING | {filter_pb2.OPERATOR_EXISTS},
    Kind.TAGS: _EQUALITY | _STRING | {filter_pb2.OPERATOR_EXISTS},
    Kind.NUMBER: _EQUALITY | _ORDER | {filter_pb2.OPERATOR_EXISTS},
    Kind.TIME: _EQUALITY | _ORDER | {filter_pb2.OPERATOR_EXISTS},
    Kind.METADATA: _EQUALITY | _ORDER | _STRING | {filter_pb2.OPERATOR_EXISTS},
}


@dataclass(frozen=True, slots=True)
class AllOf:
    nodes: tuple[Filter, ...]

    def matches(self, memory: memory_pb2.Memory) -> bool:
        return all(node.matches(memory) for node in self.nodes)


@dataclass(frozen=True, slots=True)
class AnyOf:
    nodes: tuple[Filter, ...]

    def matches(self, memory: memory_pb2.Memory) -> bool:
        return any(node.matches(memory) for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Not:
    node: Filter

    def matches(self, memory: memory_pb2.Memory) -> bool:
        return not self.node.matches(memory)


@dataclass(frozen=True, slots=True)
class Condition:
    """A field, an operator (never NE, which compiles to Not(EQ)) and its values."""

    field: str
    kind: Kind
    operator: filter_pb2.Operator
    values: tuple[Value, ...]
    # For IN: the values, to be looked up.
    keys: frozenset[tuple[bool, Value]] = frozenset()

    def matches(self, memory: memory_pb2.Memory) -> bool:
        return any(self.holds(value) for value in field_values(memory, self.field))

    def holds(self, value: Value) -> bool:
        """Whether the condition holds for this one value of the field."""
        if self.operator == filter_pb2.OPERATOR_IN:
            return _key(value) in self.keys
        return _HOLDS[self.operator](value, self.values)


Filter = AllOf | AnyOf | Not | Condition


def _same_sort(value: Value, other: Value) -> bool:
    # bool is an int in Python; in metadata `true` and 1 are different values.
    return isinstance(value, str) == isinstance(other, str) and isinstance(value, bool) == isinstance(
        other, bool
    )


def _key(value: Value) -> tuple[bool, Value]:
    # Equal to the key of another value when both are of one sort and equal.
    return isinstance(value, bool), value


def _equals(value: Value, other: Value) -> bool:
    return _same_sort(value, other) and value == other


def _ordered(compare: Callable[[Value, Value], bool]) -> Callable[[Value, Sequence[Value]], bool]:
    return lambda value, values: _same_sort(value, values[0]) and compare(value, values[0])


_HOLDS: dict[int, Callable[[Value, Sequence[Value]], bool]] = {
    filter_pb2.OPERATOR_EQ: lambda value, values: _equals(value, values[0]),
    filter_pb2.OPERATOR_GT: _ordered(lambda value, other: value > other),  # type: ignore[operator]
    filter_pb2.OPERATOR_GTE: _ordered(lambda value, other: value >= other),  # type: ignore[operator]
    filter_pb2.OPERATOR_LT: _ordered(lambda value, other: value < other),  # type: ignore[operator]
    filter_pb2.OPERATOR_LTE: _ordered(lambda value, other: value <= other),  # type: ignore[operator]
    filter_pb2.OPERATOR_BETWEEN: lambda value, values: (
        _same_sort(value, values[0]) and values[0] <= value <= values[1]  # type: ignore[operator]
    ),
    filter_pb2.OPERATOR_PREFIX: lambda value, values: (
        isinstance(value, str) and value.startswith(str(values[0]))
    ),
    filter_pb2.OPERATOR_CONTAINS: lambda value, values: isinstance(value, str) and str(values[0]) in value,
    filter_pb2.OPERATOR_EXISTS: lambda value, values: True,
}


def field_values(memory: memory_pb2.Memory, field: str) -> Iterator[Value]:
    """The values of one field; none when it is empty or missing."""
    kind = FIELD_KINDS.get(field, Kind.METADATA)
    if kind is Kind.METADATA:
        key = field.removeprefix(METADATA_PREFIX)
        if key in memory.metadata:
            yield from metadata_values(memory.metadata[key])
    elif kind is Kind.TAGS:
        yield from memory.tags
    elif kind is Kind.TIME:
        if memory.HasField(field):
            yield timestamp_us(getattr(memory, field))
    elif kind is Kind.NUMBER:
        # A double, as the values of a filter are; the version is an integer.
        yield float(getattr(memory, field))
    elif field == "type":
        if memory.type in TYPE_NAMES:  # else it is of a later release
            yield TYPE_NAMES[memory.type]
    elif value := getattr(memory, field):
        yield value


def metadata_values(value: memory_pb2.MetadataValue) -> Iterator[Value]:
    """The scalar values of one metadata entry, without empty texts."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        for item in value.list_value.values:
            yield from metadata_values(item)
    elif kind is not None and (scalar := getattr(value, kind)) != "":
        yield scalar


def needs(node: Filter, field: str) -> bool:
    """Whether the filter has a condition on the field."""
    if isinstance(node, AllOf | AnyOf):
        return any(needs(part, field) for part in node.nodes)
    if isinstance(node, Not):
        return needs(node.node, field)
    return node.field == field


def compile_filter(
    message: filter_pb2.Filter, path: str = "filter", *, encoded: bytes | None = None
) -> Filter | None:
    """The checked filter; None for an unset one, which every memory matches.

    Args:
        encoded: the message, serialized, where the caller has that.

    Raises:
        InvalidArgument: ``FILTER_UNSUPPORTED`` for a field, operator or combination that is not served,
            ``INVALID_FIELD`` for values that do not fit; ``path`` and the field are named.
    """
    encoded = message.SerializeToString() if encoded is None else encoded
    if len(encoded) > MAX_KNOWN_FILTER_BYTES or path != "filter":
        return _compiled(message, path)
    return _known(encoded)


# Agents ask again and again within the same scopes.
@lru_cache(MAX_KNOWN_FILTERS)
def _known(encoded: bytes) -> Filter | None:
    return _compiled(filter_pb2.Filter.FromString(encoded), "filter")


def _compiled(message: filter_pb2.Filter, path: str) -> Filter | None:
    if message.WhichOneof("kind") is None:
        return None
    return _compile(message, path, 1, _Budget())


@dataclass(slots=True)
class _Budget:
    """What a filter may still have."""

    conditions: int = MAX_CONDITIONS
    values: int = MAX_VALUES

    def take(self, condition: filter_pb2.Condition) -> None:
        self.conditions -= 1
        self.values -= len(condition.values)
        if self.conditions < 0:
            raise invalid_field("filter", f"has more than {MAX_CONDITIONS} conditions")
        if self.values < 0:
            raise invalid_field("filter", f"has more than {MAX_VALUES} values")


def _compile(message: filter_pb2.Filter, path: str, depth: int, budget: _Budget) -> Filter:
    if depth > MAX_DEPTH:
        raise invalid_field(path, f"is nested deeper than {MAX_DEPTH} levels")
    kind = message.WhichOneof("kind")
    if kind == "condition":
        budget.take(message.condition)
        return _compile_condition(message.condition, f"{path}.condition")
    if kind == "negated":
        return Not(_compile(message.negated, f"{path}.negated", depth + 1, budget))
    if kind is None:
        raise invalid_field(path, "is empty")
    parts = getattr(message, kind).filters
    if not parts:
        raise invalid_field(f"{path}.{kind}", "has no filters")
    nodes = tuple(
        _compile(part, f"{path}.{kind}[{index}]", depth + 1, budget) for index, part in enumerate(parts)
    )
    return AllOf(nodes) if kind == "all_of" else AnyOf(nodes)


def _compile_condition(message: filter_pb2.Condition, path: str) -> Filter:
    field = message.field
    kind = FIELD_KINDS.get(field)
    if kind is None and field.startswith(METADATA_PREFIX) and len(field) > len(METADATA_PREFIX):
        kind = Kind.METADATA
    if kind is None:
        raise InvalidArgument(
            "FILTER_UNSUPPORTED",
            f"{path}: there is no field {field!r} to filter on; the fields are "
            f"{', '.join(FIELD_KINDS)} and metadata.<key>",
            field=field,
        )
    operator = message.operator
    name = _operator_name(operator)
    if operator not in _OPERATORS[kind]:
        raise InvalidArgument(
            "FILTER_UNSUPPORTED", f"{path}: {field} does not take {name}", field=field, operator=name
        )
    values = tuple(_value(value, field, kind, f"{path}.values") for value in message.values)
    _check_values(operator, values, field, name, path)
    if field == "type" and operator in _EQUALITY and not set(values) <= set(TYPE_NAMES.values()):
        raise invalid_field(f"{path}.values", f"must be of {', '.join(TYPE_NAMES.values())} for type")
    if operator == filter_pb2.OPERATOR_NE:
        return Not(Condition(field, kind, filter_pb2.OPERATOR_EQ, values))
    keys = frozenset(map(_key, values)) if operator == filter_pb2.OPERATOR_IN else frozenset()
    return Condition(field, kind, operator, values, keys)


def _operator_name(operator: int) -> str:
    known = filter_pb2.Operator.DESCRIPTOR.values_by_number.get(operator)
    return known.name.removeprefix("OPERATOR_") if known else str(operator)


def _check_values(operator: int, values: tuple[Value, ...], field: str, name: str, path: str) -> None:
    if operator == filter_pb2.OPERATOR_IN:
        if not values:
            raise invalid_field(f"{path}.values", "must not be empty for IN")
        return
    wanted = 2 if operator == filter_pb2.OPERATOR_BETWEEN else int(operator != filter_pb2.OPERATOR_EXISTS)
    if len(values) != wanted:
        raise invalid_field(f"{path}.values", f"must be {wanted} for {name}, not {len(values)}")
    if operator in _STRING and not isinstance(values[0], str):
        hint = "; EQ holds for one item of a list, too" if operator == filter_pb2.OPERATOR_CONTAINS else ""
        raise invalid_field(f"{path}.values", f"must be text for {name}{hint}")
    if operator in _ORDER and any(isinstance(value, bool) for value in values):
        raise invalid_field(f"{path}.values", f"must not be true or false for {name}")
    if operator == filter_pb2.OPERATOR_BETWEEN and not _same_sort(values[0], values[1]):
        raise invalid_field(f"{path}.values", "must be of one kind for BETWEEN")


def _value(message: filter_pb2.FilterValue, field: str, kind: Kind, path: str) -> Value:
    given = message.WhichOneof("kind")
    if given is None:
        raise invalid_field(path, "has an empty value")
    fits = {
        Kind.TEXT: ("string_value",),
        Kind.TAGS: ("string_value",),
        Kind.NUMBER: ("number_value",),
        Kind.TIME: ("time_value",),
        Kind.METADATA: ("string_value", "number_value", "bool_value"),
    }[kind]
    if given not in fits:
        raise invalid_field(path, f"must be {' or '.join(fits)} for {field}, not {given}")
    if given == "time_value":
        check_time(message.time_value, path)
        return timestamp_us(message.time_value)
    value: Value = getattr(message, given)
    if value == "" and isinstance(value, str):
        raise invalid_field(
            path, f"must not be empty text for {field}; use EXISTS, negated, for a missing value"
        )
    if value != value:
        raise invalid_field(path, f"must not be NaN for {field}")
    return value
