"""The slow-query log: how a call that took long was asked and done, without what it was about.

A record has the method, the shape of the request, the plan and its stages. Of values it has the namespace,
whose name operators give and need, and numbers and enumerations; of texts, lists and messages their sizes; of
a filter its fields and operators.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from agentmem.core.filters import FIELD_KINDS, METADATA_PREFIX
from agentmem.core.logs import FIELDS
from agentmem.v1 import filter_pb2

# A node that is overloaded has only slow calls; then writing them down would not help it.
MAX_RECORDS_PER_S = 20
MAX_SHAPE_CONDITIONS = 32
# Of a batch, the slowest.
MAX_PARTS = 3
_OPERATORS = {value: name.removeprefix("OPERATOR_") for name, value in filter_pb2.Operator.items()}
_SCALARS = (int, float, bool)

_logger = logging.getLogger(__name__)


def request_shape(request: Message) -> dict[str, Any]:
    """What kind of request it is, without what it is about."""
    shape: dict[str, Any] = {}
    for field, value in request.ListFields():
        name = field.name
        if isinstance(value, filter_pb2.Filter):
            shape[name] = filter_shape(value)
        elif field.is_repeated:
            shape[name] = len(value)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            known = field.enum_type.values_by_number.get(value) if field.enum_type else None
            shape[name] = known.name if known else value
        elif name == "namespace" or isinstance(value, _SCALARS):
            shape[name] = value
        elif isinstance(value, Message):
            shape[f"{name}_bytes"] = value.ByteSize()
        else:
            shape[f"{name}_{'bytes' if isinstance(value, bytes) else 'characters'}"] = len(value)
    return shape


def filter_shape(node: filter_pb2.Filter) -> str:
    """Its fields and operators, and how many values when it is not one. Of metadata not even the keys."""
    shape, _ = _filter_shape(node, MAX_SHAPE_CONDITIONS)
    return shape


def _filter_shape(node: filter_pb2.Filter, left: int) -> tuple[str, int]:
    """The shape, and how many more conditions may be written out."""
    kind = node.WhichOneof("kind")
    if kind == "condition":
        if not left:
            return "…", 0
        condition = node.condition
        field = condition.field if condition.field in FIELD_KINDS else "?"
        if condition.field.startswith(METADATA_PREFIX):
            field = f"{METADATA_PREFIX}*"
        operator = _OPERATORS.get(condition.operator, "?")
        count = f"[{len(condition.values)}]" if len(condition.values) > 1 else ""
        return f"{field} {operator}{count}", left - 1
    if kind == "negated":
        inner, left = _filter_shape(node.negated, left)
        return f"NOT ({inner})", left
    if kind is None:
        return "", left
    parts = []
    for each in (node.all_of if kind == "all_of" else node.any_of).filters:
        part, left = _filter_shape(each, left)
        parts.append(part)
        if not left:
            break
    return f"({(' AND ' if kind == 'all_of' else ' OR ').join(parts)})", left


class SlowCallLog:
    """Belongs to one event loop.

    Args:
        slow_s: from which on a call is slow.
    """

    def __init__(self, slow_s: float) -> None:
        self.slow_s = slow_s
        self._second = 0
        self._records = 0
        self._left_out = 0

    def write(self, method: str, status: str, seconds: float, details: dict[str, Any]) -> None:
        """Logs a call, unless there were MAX_RECORDS_PER_S in this second; the next record says how many."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._records = second, 0
        if self._records >= MAX_RECORDS_PER_S:
            self._left_out += 1
            return
        self._records += 1
        fields = {"method": method, "status": status, "milliseconds": round(seconds * 1000, 3)} | details
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        _logger.warning("slow call", extra={FIELDS: fields})
