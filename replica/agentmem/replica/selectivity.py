"""What a filter will cost and leave, told in microseconds, without its being evaluated."""

from __future__ import annotations

from agentmem.core.filters import FIELD_KINDS, AllOf, AnyOf, Condition, Filter, Kind, Not
from agentmem.replica.facets import CONTENT
from agentmem.replica.view import NamespaceView
from agentmem.v1 import filter_pb2

_LOOKED_UP = (filter_pb2.OPERATOR_EQ, filter_pb2.OPERATOR_IN)
# Fields whose values are compared as an array of all, or found in order: 0.1 ms for 100,000 memories.
_ARRAYS = (Kind.NUMBER, Kind.TIME)
MAX_QUICKLY_COMPARED = 1_000_000


def at_most(namespace: NamespaceView, node: Filter | None) -> int:
    """A bound on the memories that match; all of the namespace where there is no better one.

    A conjunction is as narrow as the first of its parts, by which the others are cut down, makes it.
    """
    live = len(namespace.live)
    if isinstance(node, AllOf):
        return min(live, *(at_most(namespace, part) for part in node.nodes))
    if isinstance(node, AnyOf):
        return min(live, sum(at_most(namespace, part) for part in node.nodes))
    if isinstance(node, Condition) and node.operator in _LOOKED_UP:
        return min(live, namespace.facets.at_most(node))
    return live


def is_quick(namespace: NamespaceView, node: Filter | None) -> bool:
    """Whether it is evaluated without records, and without a look at each of many values."""
    if isinstance(node, AllOf | AnyOf):
        return all(is_quick(namespace, part) for part in node.nodes)
    if isinstance(node, Not):
        return is_quick(namespace, node.node)
    if node is None or node.operator in _LOOKED_UP:
        return node is None or node.field != CONTENT
    return FIELD_KINDS.get(node.field) in _ARRAYS and len(namespace.live) <= MAX_QUICKLY_COMPARED
