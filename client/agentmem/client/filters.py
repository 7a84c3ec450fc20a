"""Filters: which memories a call speaks of.

    Field("user_id") == "ana"
    (Field("event_time") >= since) & ~Field("tags").contains("draft")
    Field("metadata.city").is_in(["Lima", "Quito"]) | (Field("importance") > 0.5)

or the same as text, which every call takes, too:

    user_id = "ana"
    event_time >= "2023-05-01" and not tags contains "draft"
    metadata.city in ("Lima", "Quito") or importance > 0.5

``filter_parser`` has all of that form. The server decides which fields and operators it serves and refuses
the others with FILTER_UNSUPPORTED.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NoReturn, TypeAlias, TypedDict

from agentmem.client import values
from agentmem.client.errors import invalid_field
from agentmem.client.filter_parser import parse
from agentmem.client.filter_text import readable
from agentmem.client.models import MemoryType, memory_type
from agentmem.v1 import filter_pb2

# Filters that were read from texts not long ago, and the longest text of one.
MAX_KEPT_FILTERS = 256
MAX_KEPT_CHARACTERS = 1_024

FilterOperand: TypeAlias = str | int | float | bool | datetime


class Filter:
    """An immutable condition, or several joined with ``&`` (and), ``|`` (or), ``~`` (not).

    Made by ``Field``, by ``Filter.parse`` from its readable form, which ``str`` gives back, or from a message
    of the API for what these cannot say.
    """

    __slots__ = ("_message",)

    def __init__(self, message: filter_pb2.Filter) -> None:
        if not isinstance(message, filter_pb2.Filter):
            raise invalid_field("filter", f"is made of an agentmem.v1.Filter, not of {values.kind(message)}")
        self._message = filter_pb2.Filter()
        self._message.CopyFrom(message)

    @classmethod
    def parse(cls, text: str, *, now: datetime | None = None) -> Filter:
        """The filter that a text such as ``user_id = "ana" and event_time >= "2023-05-01"`` describes.

        ``agentmem.client.filter_parser`` has the whole language.

        Args:
            now: what ``now`` in the text means; the moment of this call when None.

        Raises:
            FilterSyntaxError: the text describes none; it says what was expected where.
        """
        return cls._of(parse(values.text("filter", text), now))

    @classmethod
    def _of(cls, message: filter_pb2.Filter) -> Filter:
        """Of a message that nobody else has, so it need not be copied."""
        made = object.__new__(cls)
        made._message = message
        return made

    def copy_to(self, message: filter_pb2.Filter) -> None:
        """Puts the filter into a request."""
        message.CopyFrom(self._message)

    def to_proto(self) -> filter_pb2.Filter:
        """The filter as a message of the API; the caller's own copy."""
        message = filter_pb2.Filter()
        message.CopyFrom(self._message)
        return message

    def __and__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        return _joined("all_of", (self, other))

    def __or__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        return _joined("any_of", (self, other))

    def __invert__(self) -> Filter:
        if self._message.WhichOneof("kind") == "negated":
            return Filter(self._message.negated)
        return Filter._of(filter_pb2.Filter(negated=self._message))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._message == other._message

    def __hash__(self) -> int:
        return hash(self._message.SerializeToString(deterministic=True))

    def __bool__(self) -> NoReturn:
        # `a and b` would silently drop a, and `1 < Field("x") < 3` its first half.
        raise TypeError("a Filter has no truth value; join filters with &, | and ~")

    def __str__(self) -> str:
        return readable(self._message)

    def __repr__(self) -> str:
        return f"Filter.parse({str(self)!r})"


def all_of(filters: Iterable[Filter]) -> Filter | None:
    """All of the filters joined with ``&``; None when there is none."""
    given = tuple(filters)
    if len(given) < 2:
        return given[0] if given else None
    return _joined("all_of", given)


FilterInput: TypeAlias = Filter | str


class Field:
    """A field of a memory, to be compared: ``id``, ``user_id``, ``agent_id``, ``session_id``, ``type``,
    ``tags``, ``importance``, ``event_time``, ``create_time``, ``update_time``, ``expire_time``, ``content``,
    ``version``, ``embedding_model`` or ``metadata.<key>``.

    Values are strings, numbers, booleans, or datetimes with a time zone; others raise InvalidArgument. On a
    field with several values (tags, a metadata list) a comparison holds when it holds for one of them.
    """

    __slots__ = ("name",)

    # == makes a Filter here, so there is no equality that a hash could agree with.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        if not values.text("filter field", name):
            raise invalid_field("filter field", "must not be empty")
        self.name = name

    def __eq__(self, value: FilterOperand) -> Filter:  # type: ignore[override]
        return self._compared(filter_pb2.OPERATOR_EQ, value)

    def __ne__(self, value: FilterOperand) -> Filter:  # type: ignore[override]
        return self._compared(filter_pb2.OPERATOR_NE, value)

    def __gt__(self, value: FilterOperand) -> Filter:
        return self._compared(filter_pb2.OPERATOR_GT, value)

    def __ge__(self, value: FilterOperand) -> Filter:
        return self._compared(filter_pb2.OPERATOR_GTE, value)

    def __lt__(self, value: FilterOperand) -> Filter:
        return self._compared(filter_pb2.OPERATOR_LT, value)

    def __le__(self, value: FilterOperand) -> Filter:
        return self._compared(filter_pb2.OPERATOR_LTE, value)

    def is_in(self, choices: Iterable[FilterOperand]) -> Filter:
        """The field equals one of the values, of which there must be at least one."""
        if isinstance(choices, str | bytes) or not isinstance(choices, Iterable):
            raise invalid_field(self.name, f"is_in takes several values, not {values.kind(choices)}")
        given = tuple(choices)
        if not given:
            raise invalid_field(self.name, "is_in needs at least one value")
        return self._compared(filter_pb2.OPERATOR_IN, *given)

    def between(self, low: FilterOperand, high: FilterOperand) -> Filter:
        """The field lies between the two values, both included."""
        return self._compared(filter_pb2.OPERATOR_BETWEEN, low, high)

    def prefix(self, start: str) -> Filter:
        """The field is a string that begins so."""
        return self._compared(filter_pb2.OPERATOR_PREFIX, values.text(self.name, start))

    def contains(self, value: FilterOperand) -> Filter:
        """The field is a string with this text inside it, or a list with this value in it."""
        return self._compared(filter_pb2.OPERATOR_CONTAINS, value)

    def exists(self) -> Filter:
        """The field has a value."""
        return self._compared(filter_pb2.OPERATOR_EXISTS)

    def __repr__(self) -> str:
        return f"Field({self.name!r})"

    def _compared(self, operator: filter_pb2.Operator, *operands: FilterOperand) -> Filter:
        message = filter_pb2.Filter()
        condition = message.condition
        condition.field, condition.operator = self.name, operator
        for operand in operands:
            _set_operand(condition.values.add(), self.name, operand)
        return Filter._of(message)


def _set_operand(message: filter_pb2.FilterValue, field: str, value: FilterOperand) -> None:
    # bool before the numbers: it is a kind of int.
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = values.text(field, value)
    elif isinstance(value, int | float):
        message.number_value = values.number(field, value)
    elif isinstance(value, datetime):
        message.time_value.CopyFrom(values.timestamp(field, value))
    else:
        raise invalid_field(
            field, f"cannot be compared with {values.kind(value)}; use a string, number, bool or datetime"
        )


def _joined(kind: str, filters: Iterable[Filter]) -> Filter:
    """The filters in one list. A list of the same kind is merged in, because the server bounds the depth."""
    parts: list[filter_pb2.Filter] = []
    for each in filters:
        message = each._message
        if message.WhichOneof("kind") == kind:
            parts.extend(message.all_of.filters if kind == "all_of" else message.any_of.filters)
        else:
            parts.append(message)
    joined = filter_pb2.FilterList(filters=parts)
    if kind == "all_of":
        return Filter._of(filter_pb2.Filter(all_of=joined))
    return Filter._of(filter_pb2.Filter(any_of=joined))


def filter_of(given: FilterInput | None) -> Filter | None:
    """The filter that a caller gave, read when it is text."""
    if given is None or isinstance(given, Filter):
        return given
    if isinstance(given, str):
        # What ``now`` is, is another thing each time.
        is_kept = len(given) <= MAX_KEPT_CHARACTERS and "now" not in given.lower()
        return _kept(given) if is_kept else Filter.parse(given)
    raise invalid_field("filter", f"must be a Filter or its text, not {values.kind(given)}")


@lru_cache(MAX_KEPT_FILTERS)
def _kept(text: str) -> Filter:
    """The filter of a text: an application has few of them, and calls with each many times."""
    return Filter.parse(text)


class Scope(TypedDict, total=False):
    """The keywords of list, iterate and search that narrow them; and-ed with each other and the filter.

    user_id, agent_id, session_id: whose memories. None does not narrow; an empty string is refused, lest an
        owner that was not filled in means everybody's memories.
    types: any of these.
    tags: all of these.
    since, until: bounds of event_time, both included, aware datetimes.
    """

    user_id: str | None
    agent_id: str | None
    session_id: str | None
    types: Sequence[MemoryType | str] | None
    tags: Sequence[str] | None
    since: datetime | None
    until: datetime | None


def scoped(given: FilterInput | None, scope: Mapping[str, object]) -> Filter | None:
    """The filter and the scope in one; None when neither narrows."""
    parsed = filter_of(given)
    parts = [] if parsed is None else [parsed]
    for name, value in scope.items():
        if name not in Scope.__annotations__:
            raise invalid_field(name, f"is not a keyword here; there are {', '.join(Scope.__annotations__)}")
        if value is not None:
            parts.extend(_scope_conditions(name, value))
    return all_of(parts)


def _scope_conditions(name: str, value: object) -> list[Filter]:
    if name == "tags":
        return [Field("tags") == tag for tag in values.texts(name, value)]
    if name == "types":
        kinds = [str(memory_type(name, each)) for each in values.texts(name, value)]
        if not kinds:
            raise invalid_field(name, "must not be empty; leave it out for memories of every type")
        return [Field("type").is_in(kinds)]
    if name in ("since", "until"):
        values.timestamp(name, value)
        assert isinstance(value, datetime)
        return [Field("event_time") >= value if name == "since" else Field("event_time") <= value]
    if not values.text(name, value):
        raise invalid_field(name, "must not be empty; leave it out for everybody's memories")
    return [Field(name) == str(value)]
