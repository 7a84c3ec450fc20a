"""The readable form of a filter, from the message of the API to text that filter_parser.py reads back."""

from __future__ import annotations

import re

from agentmem.client import values
from agentmem.client.filter_parser import METADATA_PREFIX, NAME
from agentmem.client.times import iso_text
from agentmem.v1 import filter_pb2

_BARE = re.compile(NAME)
_SYMBOLS = {
    filter_pb2.OPERATOR_EQ: "=",
    filter_pb2.OPERATOR_NE: "!=",
    filter_pb2.OPERATOR_GT: ">",
    filter_pb2.OPERATOR_GTE: ">=",
    filter_pb2.OPERATOR_LT: "<",
    filter_pb2.OPERATOR_LTE: "<=",
    filter_pb2.OPERATOR_PREFIX: "starts with",
    filter_pb2.OPERATOR_CONTAINS: "contains",
}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def readable(message: filter_pb2.Filter) -> str:
    """The text of a filter. What no text can say, such as a list of one filter, is shown as what it means."""
    kind = message.WhichOneof("kind")
    if kind == "all_of":
        return " and ".join(_part(part) for part in message.all_of.filters)
    if kind == "any_of":
        return " or ".join(_part(part) for part in message.any_of.filters)
    if kind == "negated":
        inner = message.negated
        if inner.WhichOneof("kind") == "condition" and inner.condition.operator == filter_pb2.OPERATOR_EXISTS:
            return f"{_field(inner.condition.field)} missing"
        return f"not {_part(inner)}"
    return _condition(message.condition) if kind == "condition" else ""


def _part(message: filter_pb2.Filter) -> str:
    text = readable(message)
    return f"({text})" if message.WhichOneof("kind") in ("all_of", "any_of") else text


def _condition(condition: filter_pb2.Condition) -> str:
    field, operator = _field(condition.field), condition.operator
    operands = [_operand(value) for value in condition.values]
    if operator in _SYMBOLS:
        return f"{field} {_SYMBOLS[operator]} {', '.join(operands)}"
    if operator == filter_pb2.OPERATOR_IN:
        return f"{field} in ({', '.join(operands)})"
    if operator == filter_pb2.OPERATOR_BETWEEN:
        return f"{field} between {' and '.join(operands)}"
    if operator == filter_pb2.OPERATOR_EXISTS:
        return f"{field} exists"
    known = filter_pb2.Operator.DESCRIPTOR.values_by_number.get(operator)
    return f"{field} {known.name if known else operator} {', '.join(operands)}"


def _field(field: str) -> str:
    key = field.removeprefix(METADATA_PREFIX)
    return field if key == field or _BARE.fullmatch(key) else METADATA_PREFIX + _quoted(key)


def _operand(value: filter_pb2.FilterValue) -> str:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return _quoted(value.string_value)
    if kind == "number_value":
        return repr(value.number_value).removesuffix(".0")
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind == "time_value":
        return iso_text(values.to_datetime(value.time_value))
    return "?"


def _quoted(text: str) -> str:
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character == " " or character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
