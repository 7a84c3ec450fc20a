"""Python values to protobuf values and back; what does not fit raises InvalidArgument naming the field."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from numbers import Real
from typing import Any, TypeAlias, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agentmem.client.errors import ServerError, invalid_field
from agentmem.client.times import NanosecondDatetime, nanosecond
from agentmem.v1 import memory_pb2

Scalar: TypeAlias = str | int | float | bool
MetadataInput: TypeAlias = Scalar | Sequence[Scalar]
Choice = TypeVar("Choice", bound=StrEnum)

# Numbers travel as doubles, which hold every integer up to here.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_EXACT_INTEGER = 2**53


def kind(value: object) -> str:
    """The type of a value, for messages."""
    return "None" if value is None else type(value).__name__


def text(field: str, value: object) -> str:
    """A string that can be sent."""
    if not isinstance(value, str):
        raise invalid_field(field, f"must be a string, not {kind(value)}")
    if value.isascii():
        return str(value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid_field(field, f"is not valid Unicode: {error.reason}") from error
    return str(value)


def texts(field: str, value: object) -> list[str]:
    """Several strings. A single string is refused: it would count as the sequence of its letters."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise invalid_field(field, f"must be a sequence of strings, not {kind(value)}")
    return [text(field, item) for item in value]


def number(field: str, value: object) -> float:
    """A finite number that a double holds exactly."""
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_field(field, f"must be a number, not {kind(value)}")
    if isinstance(value, int) and abs(value) > MAX_EXACT_INTEGER:
        raise invalid_field(field, "is an integer beyond 2**53, which would lose digits; send it as a string")
    if not math.isfinite(value):
        raise invalid_field(field, "must be finite")
    return float(value)


def integer(field: str, value: object, *, low: int, high: int) -> int:
    """A whole number from low to high."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid_field(field, f"must be an int, not {kind(value)}")
    if not low <= value <= high:
        raise invalid_field(field, f"must be from {low} to {high}, not {value}")
    return value


def boolean(field: str, value: object) -> bool:
    """True or False, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise invalid_field(field, f"must be True or False, not {kind(value)}")
    return value


def choice(field: str, value: object, choices: type[Choice]) -> Choice:
    """One of the choices, from itself or its name."""
    if type(value) is choices:
        return value
    try:
        return choices(value)  # type: ignore[arg-type]
    except ValueError:
        raise invalid_field(field, f"must be one of {', '.join(choices)}, not {value!r}") from None


def timestamp(field: str, value: object) -> Timestamp:
    """A datetime with a time zone. Without one it would mean another moment on another machine."""
    if not isinstance(value, datetime):
        raise invalid_field(field, f"must be a datetime, not {kind(value)}")
    if value.utcoffset() is None:
        raise invalid_field(field, "must have a time zone, as in datetime.now(UTC)")
    message = Timestamp()
    try:
        message.FromDatetime(value.astimezone(UTC))
    except (OverflowError, ValueError) as error:
        raise invalid_field(field, f"cannot be sent: {error}") from error
    message.nanos += nanosecond(value)
    return message


def to_datetime(message: Timestamp) -> datetime:
    """An aware datetime in UTC; a NanosecondDatetime when it is not of whole microseconds."""
    microseconds, beyond = divmod(message.nanos, 1000)
    # As its own ToDatetime, without checks that the server has made.
    moment = _EPOCH + timedelta(0, message.seconds, microseconds)
    return NanosecondDatetime.of(moment, beyond) if beyond else moment


def duration(field: str, value: object) -> Duration:
    """A length of time above zero: a timedelta, or a number of seconds; to the microsecond."""
    if not isinstance(value, timedelta):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise invalid_field(field, f"must be a timedelta or a number of seconds, not {kind(value)}")
        try:
            value = timedelta(seconds=number(field, value))
        except OverflowError as error:
            raise invalid_field(field, f"is too long: {error}") from error
    if value <= timedelta(0):
        raise invalid_field(field, "must be above 0")
    message = Duration()
    message.FromTimedelta(value)
    return message


def to_timedelta(message: Duration) -> timedelta:
    """A length of time, to the microsecond."""
    return message.ToTimedelta()


def embedding(field: str, value: object) -> bytes:
    """Numbers as little-endian float32."""
    numbers: Sequence[Any]
    if isinstance(value, list | tuple):
        numbers = value
    elif isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise invalid_field(field, f"must be a sequence of numbers, not {kind(value)}")
    else:
        numbers = tuple(value)
    if not numbers:
        raise invalid_field(field, "must not be empty")
    try:
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
        # As finite as they are: a 64-bit float holds the squares of what fits a 32-bit one.
        finite = math.isfinite(math.hypot(*numbers))
    except (struct.error, TypeError, OverflowError) as error:
        raise invalid_field(field, f"must be numbers that a 32-bit float holds: {error}") from error
    if not finite:
        raise invalid_field(field, "must be finite numbers")
    return packed


def to_embedding(packed: bytes) -> tuple[float, ...] | None:
    """The numbers of an embedding; None when it is empty: there is none, or none was asked for."""
    if not packed:
        return None
    if len(packed) % 4:
        raise ServerError(
            f"the server sent an embedding of {len(packed)} bytes, which are not float32 values"
        )
    return struct.unpack(f"<{len(packed) // 4}f", packed)


def check_decodable(message: memory_pb2.Memory) -> None:
    """Raises ServerError when the embedding or the metadata of a memory mean nothing to this client."""
    to_embedding(message.embedding)
    to_metadata(message.metadata)


def metadata(field: str, value: object) -> dict[str, memory_pb2.MetadataValue]:
    """A mapping from strings to strings, numbers, booleans, or flat lists of these."""
    if not isinstance(value, dict | Mapping):  # a dict is known sooner
        raise invalid_field(field, f"must be a mapping, not {kind(value)}")
    return {text(f"{field} key", key): _metadata_value(f"{field}.{key}", item) for key, item in value.items()}


def _metadata_value(field: str, value: object) -> memory_pb2.MetadataValue:
    if isinstance(value, str | bool | Real):
        return _scalar(field, value)
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        items = memory_pb2.MetadataList(values=[_scalar(field, item) for item in value])
        return memory_pb2.MetadataValue(list_value=items)
    raise invalid_field(field, f"must be a string, number, bool or a list of these, not {kind(value)}")


def _scalar(field: str, value: object) -> memory_pb2.MetadataValue:
    if isinstance(value, str):
        return memory_pb2.MetadataValue(string_value=text(field, value))
    if isinstance(value, bool):
        return memory_pb2.MetadataValue(bool_value=value)
    if isinstance(value, Real):
        return memory_pb2.MetadataValue(number_value=number(field, value))
    raise invalid_field(field, f"may hold strings, numbers and booleans, not {kind(value)}")


def to_metadata(message: Mapping[str, memory_pb2.MetadataValue]) -> dict[str, Scalar | list[Scalar]]:
    """Metadata as Python values. Numbers come back as floats, whatever they were sent as."""
    return {
        key: [_to_scalar(item) for item in value.list_value.values]
        if value.WhichOneof("kind") == "list_value"
        else _to_scalar(value)
        for key, value in message.items()
    }


def _to_scalar(message: memory_pb2.MetadataValue) -> Scalar:
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return message.string_value
    if kind == "number_value":
        return message.number_value
    if kind == "bool_value":
        return message.bool_value
    raise ServerError("the server sent a metadata value of a kind that this client does not know")


def equal_to_base(value: object, other: object, base: type) -> bool:
    """Whether two results are equal: in all fields if they are of one class, else in those of the base."""
    if not isinstance(other, base):
        return False
    of = type(value) if type(other) is type(value) else base
    return all(getattr(value, each.name) == getattr(other, each.name) for each in fields(of))
