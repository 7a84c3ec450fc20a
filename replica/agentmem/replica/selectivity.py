"""How many memories a filter can match at most, told in microseconds, without the filter being evaluated."""

from __future__ import annotations

from agentmem.core.filters import AllOf, AnyOf, Condition, Filter
from agentmem.replica.view import NamespaceView
from agentmem.v1 import filter_pb2

_LOOKED_UP = (filter_pb2.OPERATOR_EQ, filter_pb2.OPERATOR_IN)


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
