"""What filters leave of namespaces, kept for the next search with the same filter.

Agents ask again and again within one user, agent or session. What was found out of such a scope - which
memories there are, where their vectors stand, who stands beside whom - holds in later views, too, as long as
nothing came to it and nothing of the namespace has ended. That nothing came is told by one of the conditions
that all of it matches: while no memory with its values is new, none is that matches the whole filter. Else
the filter is evaluated for what is new, and a look says whether what ended was in the scope.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentmem.core.filters import AllOf, Condition, Filter, needs
from agentmem.core.measurements import Lookups
from agentmem.replica import sessions
from agentmem.replica.among import Among
from agentmem.replica.facets import CONTENT, Facets
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet
from agentmem.replica.view import NamespaceView

MAX_SCOPES_BYTES = 16 * 1024 * 1024
# One takes at most this share of all.
MAX_SHARE = 1 / 16
# What a scope takes for each of its memories when all is known of it, and besides.
_BYTES_PER_MEMORY = 64
_ENTRY_BYTES = 1_500

# A namespace, and a filter as it was sent.
Key = tuple[str, bytes]


class Scope:
    """The memories of a namespace that a filter leaves. Any thread may use it.

    Attributes:
        allowed: not to be changed.
        among: the same, to be searched by vectors.
    """

    __slots__ = ("_neighbours", "_times_us", "allowed", "among", "count")

    def __init__(self, allowed: OrdinalSet) -> None:
        self.allowed = allowed
        self.count = len(allowed)
        self.among = Among(allowed)
        self._times_us: npt.NDArray[np.int64] | None = None
        # With how many memories of the namespace had ended by then.
        self._neighbours: tuple[int, sessions.Neighbours] | None = None

    @property
    def ordinals(self) -> OrdinalArray:
        """Uint64 [n], ascending."""
        return self.among.ordinals

    def rows(self, namespace: NamespaceView) -> npt.NDArray[np.intp]:
        """Their rows among the facets, [n]; these are not kept."""
        return namespace.facets.rows_of(self.ordinals, namespace.facet_rows)

    def times_us(self, namespace: NamespaceView) -> npt.NDArray[np.int64]:
        """Their event times, [n]."""
        if self._times_us is None:
            self._times_us = namespace.facets.values("event_time", self.rows(namespace))
        return self._times_us

    def neighbours(self, namespace: NamespaceView) -> sessions.Neighbours:
        """Who of them stands beside whom in a session."""
        known, dead_rows = self._neighbours, _dead_rows(namespace)
        # Who ended may have stood between two of them, and need not have been one of them.
        if known is None or known[0] != dead_rows:
            known = self._neighbours = (dead_rows, neighbours_of(namespace, self.ordinals))
        return known[1]


def _dead_rows(namespace: NamespaceView) -> int:
    return namespace.facet_rows - len(namespace.live)


def neighbours_of(namespace: NamespaceView, ordinals: OrdinalArray) -> sessions.Neighbours:
    """Who of some live memories, uint64 [n], ascending, stands beside whom in a session."""
    facets, view_rows = namespace.facets, namespace.facet_rows
    rows = facets.rows_of(ordinals, view_rows)
    return sessions.Neighbours(
        sessions.keys(facets.session_places(ordinals, rows, namespace.live, view_rows))
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """A scope and what it holds for.

    Attributes:
        facets: of the views that it is of use for; they are copied when many memories have ended.
        facet_rows, dead_rows: of the view that it was made of.
        anchor: a condition that all of it matches, looked up by value; None when there is none, or when the
            facets had memories that match it and the view did not.
        having: how many memories match the anchor, the dead ones included.
    """

    scope: Scope
    facets: weakref.ref[Facets]
    facet_rows: int
    dead_rows: int
    anchor: Condition | None
    having: int

    def holds(self, namespace: NamespaceView) -> bool:
        """Whether a view of the namespace leaves the same memories.

        With the same facets, of two views with as many dead rows none has seen a memory end that lives in the
        other: rows only come, and only die.
        """
        facets, rows = namespace.facets, namespace.facet_rows
        if self.facets() is not facets or _dead_rows(namespace) != self.dead_rows:
            return False
        if rows == self.facet_rows:
            return True
        # A count of postings tells of what is newer than the view, too.
        return (
            rows > self.facet_rows and self.anchor is not None and facets.at_most(self.anchor) == self.having
        )

    def holds_later(self, node: Filter | None, namespace: NamespaceView) -> bool:
        """The same of a later view, by a look at what came and ended; False for one that may be older."""
        facets, rows, allowed = namespace.facets, namespace.facet_rows, self.scope.allowed
        if self.facets() is not facets or rows < self.facet_rows or _dead_rows(namespace) < self.dead_rows:
            return False
        if allowed.intersection_cardinality(namespace.live) < self.scope.count:
            return False
        came = facets.added(self.facet_rows, rows) & namespace.live
        if came and node is not None:
            came = facets.matching(node, came, rows, namespace.memories)
        return not came

    @property
    def size_bytes(self) -> int:
        return _ENTRY_BYTES + _BYTES_PER_MEMORY * self.scope.count


class Scopes:
    """The longest unused are dropped first. Any thread may use it.

    Attributes:
        lookups: how often a scope was known.
    """

    def __init__(self, max_bytes: int = MAX_SCOPES_BYTES) -> None:
        self.lookups = Lookups()
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._size_bytes = 0

    def known(self, key: Key, namespace: NamespaceView) -> Scope | None:
        """The scope, if it is kept and holds for the view."""
        kept = self._found(key)
        return kept.scope if kept is not None and kept.holds(namespace) else None

    def _found(self, key: Key) -> _Kept | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
            return kept

    def scope(self, key: Key | None, node: Filter | None, namespace: NamespaceView, now_us: int) -> Scope:
        """The memories that the filter leaves of a view.

        Args:
            key: None when the scope is not to be kept.
        """
        if key is None or namespace.keeps_expired or namespace.facets.has_expiring:
            return Scope(namespace.matching(node, now_us))
        kept = self._found(key)
        if kept is not None and kept.holds(namespace):
            self._count(is_known=True)
            return kept.scope
        anchor, having = _anchor(namespace, node)
        is_known = kept is not None and kept.holds_later(node, namespace)
        self._count(is_known=is_known)
        scope = kept.scope if kept is not None and is_known else Scope(namespace.matching(node, now_us))
        # What the store says of a memory's content now is not what it says later.
        if node is None or not needs(node, CONTENT):
            facets = weakref.ref(namespace.facets)
            dead_rows = _dead_rows(namespace)
            self._keep(key, _Kept(scope, facets, namespace.facet_rows, dead_rows, anchor, having))
        return scope

    def _count(self, *, is_known: bool) -> None:
        with self._lock:
            self.lookups.count(is_known)

    def _keep(self, key: Key, kept: _Kept) -> None:
        if kept.size_bytes > self._max_bytes * MAX_SHARE:
            return
        with self._lock:
            if key in self._kept:
                self._drop(key)
            self._kept[key] = kept
            self._size_bytes += kept.size_bytes
            while self._size_bytes > self._max_bytes:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        self._size_bytes -= self._kept.pop(key).size_bytes

    @property
    def size_bytes(self) -> int:
        return self._size_bytes


def _anchor(namespace: NamespaceView, node: Filter | None) -> tuple[Condition | None, int]:
    """The condition by which is told whether a scope has grown, and how many memories match it.

    None, when there is no such condition, or when what came after the view matches it already.
    """
    facets = namespace.facets
    parts = node.nodes if isinstance(node, AllOf) else (node,)
    anchors = [part for part in parts if isinstance(part, Condition) and facets.has_postings(part)]
    if not anchors:
        return None, 0
    anchor = min(anchors, key=facets.at_most)
    having = facets.at_most(anchor)
    newest = facets.newest(anchor)
    is_shown = newest is None or (bool(namespace.live) and newest <= namespace.live.max())
    return (anchor, having) if is_shown else (None, 0)
