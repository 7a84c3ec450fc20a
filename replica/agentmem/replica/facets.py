"""Which memories of a namespace match a filter: postings for values, columns for numbers and times.

Postings and columns are only appended to and are shared by all views. What a query sees of them is what
its view had: the result of every filter is cut down to the view's live ordinals, and columns to its rows.

What a condition means is decided in ``agentmem.core.filters`` alone. Equality is a look-up; every other
operator on texts and metadata asks ``Condition.holds`` for each distinct value of the field. Numbers and
times are looked up in order (ranges.py), or compared as arrays while there are few. A property test holds
the outcome against ``Filter.matches``.

The content is not indexed here. Where a filter asks for it, everything else decides first; ``Filter.matches``
itself decides of each record that is left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agentmem.core.filters import (
    FIELD_KINDS,
    METADATA_PREFIX,
    TYPE_NAMES,
    AllOf,
    AnyOf,
    Condition,
    Filter,
    Kind,
    Not,
    Value,
    field_values,
    needs,
)
from agentmem.core.times import timestamp_us
from agentmem.replica.columns import Column
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set, places_of
from agentmem.replica.ranges import MIN_ROWS, Ranges
from agentmem.replica.value_postings import ValueKey, ValuePostings, value_of
from agentmem.v1 import filter_pb2, memory_pb2

_COLUMN_DTYPES = {Kind.TIME: np.int64, Kind.NUMBER: np.float64}
_COLUMN_FIELDS = tuple(field for field, kind in FIELD_KINDS.items() if kind in _COLUMN_DTYPES)
# Looked for in the records.
CONTENT = "content"
_POSTING_FIELDS = tuple(
    field for field, kind in FIELD_KINDS.items() if kind not in _COLUMN_DTYPES and field != CONTENT
)
_TEXT_FIELDS = tuple(
    field for field in _POSTING_FIELDS if FIELD_KINDS[field] is Kind.TEXT and field != "type"
)
_NUMBER_FIELDS = tuple(field for field, kind in FIELD_KINDS.items() if kind is Kind.NUMBER)
_TIME_FIELDS = tuple(field for field, kind in FIELD_KINDS.items() if kind is Kind.TIME)

NO_SESSION = -1
# In a column of times: the memory has none.
NO_TIME = np.iinfo(np.int64).max

_Mask = npt.NDArray[np.bool_]
# The memories of ordinals, uint64 [n]; those that the store has no more are left out.
Memories = Callable[[OrdinalArray], Iterable[tuple[int, memory_pb2.Memory]]]


@dataclass(frozen=True, slots=True)
class SessionPlaces:
    """Of each of n memories its session, int64 [n], NO_SESSION for none, and its place in it, int64 [n].

    Neighbours have places one apart. The place of one that is alone in its session here means nothing.
    """

    codes: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FacetParts:
    """What facets are made of, to be kept elsewhere.

    Attributes:
        ordinals: of the rows, uint64 [n], ascending; all are live.
        columns: by field, float64 or int64 [n] each.
        session_codes: of each row, int64 [n]; NO_SESSION, or a place in ``sessions``.
        postings: by field and value, as ``key_of`` has it.
    """

    ordinals: OrdinalArray
    columns: dict[str, npt.NDArray[Any]]
    session_codes: npt.NDArray[np.int64]
    sessions: list[str]
    any_expires: bool
    postings: dict[str, dict[ValueKey, int | OrdinalSet]]


class Facets:
    """The filterable fields of one namespace. One thread adds, any thread asks."""

    def __init__(self) -> None:
        self._postings: dict[str, ValuePostings] = {field: ValuePostings() for field in _POSTING_FIELDS}
        self._ordinals = Column(np.uint64)
        self._columns = {field: Column(_COLUMN_DTYPES[FIELD_KINDS[field]]) for field in _COLUMN_FIELDS}
        # Which session each row is of: a place in the list of sessions, NO_SESSION for none.
        self._session_codes = Column(np.int64)
        # Which row of its session each row is, the dead ones counted.
        self._session_places = Column(np.int64)
        self._session_sizes: list[int] = []
        # Sessions of rows that are dead: places in these are more than one apart for some neighbours.
        self._sessions_with_gaps: set[int] = set()
        self._any_expires = False
        # Of each column that was asked for a range.
        self._ranges: dict[str, Ranges] = {}
        self._sorting = threading.Lock()
        self._sessions: list[str] = []
        self._code_of_session: dict[str, int] = {}

    @property
    def rows(self) -> int:
        """How many memories were added; a view keeps the count it was published with."""
        return self._ordinals.count

    def all_ordinals(self) -> OrdinalSet:
        """Of all that were added; a copy."""
        return ordinal_set(self._ordinals.rows(self.rows))

    def added(self, first_row: int, rows: int) -> OrdinalSet:
        """Those of the first ``rows`` rows from a row on."""
        return ordinal_set(self._ordinals.rows(rows)[first_row:])

    def add(self, ordinal: int, memory: memory_pb2.Memory) -> None:
        """Adds a memory; its ordinal is larger than all before."""
        self.extend([ordinal], [memory])

    def extend(self, ordinals: Sequence[int], memories: Sequence[memory_pb2.Memory]) -> None:
        """Adds memories; their ordinals ascend, and are larger than all before."""
        # What ``field_values`` says, without the detour where most memories are alike: each write comes here.
        for field in _TEXT_FIELDS:
            self._postings[field].extend([getattr(memory, field) for memory in memories], ordinals)
        types = [TYPE_NAMES.get(memory.type, "") for memory in memories]  # else it is of a later release
        self._postings["type"].extend(types, ordinals)
        for ordinal, memory in zip(ordinals, memories, strict=True):
            if memory.tags:
                self._add_values("tags", memory, ordinal)
            for key in memory.metadata:
                self._add_values(METADATA_PREFIX + key, memory, ordinal)
        for field in _NUMBER_FIELDS:
            self._columns[field].extend([getattr(memory, field) for memory in memories])
        for field in _TIME_FIELDS:
            self._columns[field].extend(
                [
                    timestamp_us(getattr(memory, field)) if memory.HasField(field) else NO_TIME
                    for memory in memories
                ]
            )
        self._any_expires = self._any_expires or any(memory.HasField("expire_time") for memory in memories)
        codes = [self._session_code(memory.session_id) for memory in memories]
        self._session_codes.extend(codes)
        self._session_places.extend([0 if code == NO_SESSION else self._next_place(code) for code in codes])
        self._ordinals.extend(ordinals)

    def _next_place(self, code: int) -> int:
        self._session_sizes[code] += 1
        return self._session_sizes[code] - 1

    def _add_values(self, field: str, memory: memory_pb2.Memory, ordinal: int) -> None:
        for value in field_values(memory, field):
            if field not in self._postings:
                self._postings[field] = ValuePostings()
            self._postings[field].add(value, ordinal)

    def note_dead(self, ordinal: int) -> None:
        """Says that a memory that was added has ended, before a view without it is published."""
        row = int(np.searchsorted(self._ordinals.rows(self.rows), np.uint64(ordinal)))
        code = int(self._session_codes.rows(self.rows)[row])
        if code != NO_SESSION:
            self._sessions_with_gaps.add(code)

    def _session_code(self, session_id: str) -> int:
        if not session_id:
            return NO_SESSION
        code = self._code_of_session.get(session_id)
        if code is None:
            code = self._code_of_session[session_id] = len(self._sessions)
            self._sessions.append(session_id)
            self._session_sizes.append(0)
        return code

    def having(self, field: str) -> list[int | OrdinalSet]:
        """Of each text that memories have in a field, the ordinal or the ordinals; not to be changed."""
        # list() of a dict is one step to other threads, iterating over it is not.
        return list(self._postings[field].by_value.values())

    def session_places(
        self, ordinals: OrdinalArray, found: npt.NDArray[np.intp], live: OrdinalSet, rows: int
    ) -> SessionPlaces:
        """Where live memories stand in their sessions, in the order in which they were written.

        Args:
            ordinals: uint64 [n], all in ``live``.
            found: their rows, from ``rows_of``.
            live, rows: those of a view.
        """
        codes = self._session_codes.rows(rows)[found]
        ranks = self._session_places.rows(rows)[found]
        # A session may be noted too early for this view, which costs time and changes nothing.
        for code in self._sessions_with_gaps.intersection(codes.tolist()) if self._sessions_with_gaps else ():
            session = ordinal_array(self._of_session(code) & live)
            mask = codes == code
            ranks[mask] = np.searchsorted(session, ordinals[mask])
        return SessionPlaces(codes, ranks)

    def beside(
        self, ordinals: OrdinalArray, distance: int, allowed: OrdinalSet, live: OrdinalSet, rows: int
    ) -> OrdinalSet:
        """The allowed memories at most so many places from one of some live memories, in its session.

        Args:
            ordinals: uint64 [n], all in ``live``.
            allowed: a part of ``live``.
            live, rows: those of a view.
        """
        found = OrdinalSet()
        codes = self._session_codes.rows(rows)[self.rows_of(ordinals, rows)]
        for code, ordinal in zip(codes.tolist(), ordinals.tolist(), strict=True):
            if code != NO_SESSION:
                session = self._of_session(code) & live
                place = session.rank(ordinal) - 1
                found |= session[max(0, place - distance) : place + distance + 1]
        return found & allowed

    def has_sessions(self) -> bool:
        """Whether any memory was in a session."""
        return bool(self._sessions)

    def rows_of(self, ordinals: OrdinalArray, rows: int) -> npt.NDArray[np.intp]:
        """The row of each of some memories, [n].

        Args:
            ordinals: uint64 [n], each added.
            rows: those of a view.
        """
        return places_of(ordinals, self._ordinals.rows(rows))

    def values(self, field: str, rows: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """A number or time of each row, float64 or int64 [n]; NO_TIME for one that has none."""
        values: npt.NDArray[Any] = self._columns[field].rows(self.rows)[rows]
        return values

    def _of_session(self, code: int) -> OrdinalSet:
        posting = self._postings["session_id"].by_value[self._sessions[code]]
        return posting if isinstance(posting, OrdinalSet) else OrdinalSet((posting,))

    def matching(self, node: Filter, live: OrdinalSet, rows: int, memories: Memories) -> OrdinalSet:
        """The ordinals of ``live`` that the filter matches.

        Args:
            live: the live ordinals of a view.
            rows: the view's count of rows.
            memories: reads the records, for a filter that asks for the content. What it leaves out does not
                match.
        """
        if not needs(node, CONTENT):
            return self._matching(node, live, rows)
        sure, possible = self._bounds(node, live, rows)
        undecided = ordinal_array(possible - sure)
        found = [ordinal for ordinal, memory in memories(undecided) if node.matches(memory)]
        return sure | OrdinalSet(found)

    @property
    def has_expiring(self) -> bool:
        """Whether any memory ever had an expire_time."""
        return self._any_expires

    def has_postings(self, condition: Condition) -> bool:
        """Whether a condition is looked up by its values: EQ or IN, of neither numbers, times nor content."""
        is_looked_up = condition.operator in (filter_pb2.OPERATOR_EQ, filter_pb2.OPERATOR_IN)
        return is_looked_up and condition.field not in self._columns and condition.field != CONTENT

    def at_most(self, condition: Condition) -> int:
        """How many memories, dead ones too, a condition with EQ or IN can hold for."""
        if not self.has_postings(condition):
            return self.rows
        return sum(len(each) if isinstance(each, OrdinalSet) else 1 for each in self._found(condition))

    def newest(self, condition: Condition) -> int | None:
        """The newest memory, dead ones too, that a condition of postings holds for."""
        newest = (each.max() if isinstance(each, OrdinalSet) else each for each in self._found(condition))
        return max(newest, default=None)

    def has_any(self, field: str, texts: Iterable[str]) -> bool:
        """Whether any memory, dead ones too, has one of some texts in a field of texts."""
        return not self._postings[field].by_value.keys().isdisjoint(texts)

    def _found(self, condition: Condition) -> list[int | OrdinalSet]:
        postings = self._postings.get(condition.field)
        return [] if postings is None else postings.having(condition)

    def _bounds(self, node: Filter, live: OrdinalSet, rows: int) -> tuple[OrdinalSet, OrdinalSet]:
        """The ordinals that match whatever the contents are, and those that match with some contents."""
        if not needs(node, CONTENT):
            decided = self._matching(node, live, rows)
            return decided, decided
        if isinstance(node, Not):
            sure, possible = self._bounds(node.node, live, rows)
            return live - possible, live - sure
        if isinstance(node, Condition):
            return OrdinalSet(), live
        bounds = [self._bounds(part, live, rows) for part in node.nodes]
        join = OrdinalSet.intersection if isinstance(node, AllOf) else OrdinalSet.union
        return join(*(sure for sure, _ in bounds)), join(*(possible for _, possible in bounds))

    def _matching(self, node: Filter, live: OrdinalSet, rows: int) -> OrdinalSet:
        if isinstance(node, AllOf):
            result = live
            for part in node.nodes:
                result = self._matching(part, result, rows)
                if not result:
                    break
            return result
        if isinstance(node, AnyOf):
            return OrdinalSet().union(*(self._matching(part, live, rows) for part in node.nodes))
        if isinstance(node, Not):
            return live - self._matching(node.node, live, rows)
        if node.field in self._columns:
            return self._compared(node.field, node.operator, node.values, rows) & live
        postings = self._postings.get(node.field)
        return OrdinalSet() if postings is None else postings.matching(node) & live

    def _compared(self, field: str, operator: int, values: Sequence[Value], rows: int) -> OrdinalSet:
        """The ordinals, of ``rows`` rows at least, with a number or time for which the comparison holds."""
        column = self._columns[field].rows(rows)
        missing = NO_TIME if column.dtype == np.int64 else None
        found, sorted_rows = OrdinalSet(), 0
        ranges = self._ranges_of(field, rows)
        if ranges is not None:
            found, sorted_rows = ranges.matching(operator, values, missing), ranges.rows
        if sorted_rows < rows:
            unsorted = column[sorted_rows:]
            mask = compare(unsorted, operator, values)
            if missing is not None:
                mask &= unsorted != missing
            found |= ordinal_set(self._ordinals.rows(rows)[sorted_rows:][mask])
        return found

    def _ranges_of(self, field: str, rows: int) -> Ranges | None:
        """The column's ranges, made anew when it pays and nobody else is at it; None when it has none."""
        known = self._ranges.get(field)
        if rows < MIN_ROWS or (known is not None and known.serves(rows)):
            return known
        if not self._sorting.acquire(blocking=False):
            return known
        try:
            made = Ranges(self._columns[field].rows(rows), self._ordinals.rows(rows))
            self._ranges[field] = made
            return made
        finally:
            self._sorting.release()

    def expired(self, live: OrdinalSet, rows: int, now_us: int) -> OrdinalSet:
        """The ordinals of ``live`` whose time is over; ``live`` and ``rows`` are those of a view."""
        if not self._any_expires:
            return OrdinalSet()
        return self._compared("expire_time", filter_pb2.OPERATOR_LTE, (now_us,), rows) & live

    def counts(self, field: str, live: OrdinalSet) -> list[tuple[str, int]]:
        """The texts that memories of ``live`` have in a field, and how many have each, in no order."""
        found = []
        # list() of a dict is one step to other threads, iterating over it is not.
        for key, posting in list(self._postings[field].by_value.items()):
            if isinstance(posting, OrdinalSet):
                count = posting.intersection_cardinality(live)
            else:
                count = int(posting in live)
            if count:
                found.append((str(value_of(key)), count))
        return found

    def time_span(self, field: str, live: OrdinalSet, rows: int) -> tuple[int, int]:
        """The first and the last time in a column of times that every memory has, microseconds since 1970.

        Args:
            live, rows: those of a view; there is at least one memory.
        """
        mask = np.isin(self._ordinals.rows(rows), ordinal_array(live), assume_unique=True)
        times: npt.NDArray[np.int64] = self._columns[field].rows(rows)[mask]
        return int(times.min()), int(times.max())

    def with_embedding_model(self, model: str, ordinals: OrdinalArray) -> Facets:
        """The same, to be added to instead; these ordinals have the model, and no others have one.

        This one serves older views on.
        """
        changed = copy(self)
        changed._postings = dict(self._postings)
        postings = changed._postings["embedding_model"] = ValuePostings()
        if model and len(ordinals):
            postings.present = ordinal_set(ordinals)
            # As a value that only one has is kept.
            one = int(ordinals[0]) if len(ordinals) == 1 else None
            postings.by_value[model] = postings.present.copy() if one is None else one
        return changed

    @staticmethod
    def dtype_of(field: str) -> npt.DTypeLike:
        """The type of a column's elements. Raises KeyError: the field has none."""
        return _COLUMN_DTYPES[FIELD_KINDS[field]]

    def parts(self, live: OrdinalSet) -> FacetParts:
        """What is known of the memories in ``live``, and nothing of others; a copy."""
        kept = self.cut_to(live)
        return FacetParts(
            ordinals=kept._ordinals.rows(kept.rows),
            columns={field: column.rows(kept.rows) for field, column in kept._columns.items()},
            session_codes=kept._session_codes.rows(kept.rows),
            sessions=[
                session if size else ""
                for session, size in zip(kept._sessions, kept._session_sizes, strict=True)
            ],
            any_expires=kept._any_expires,
            postings={field: each.by_value for field, each in kept._postings.items() if each.by_value},
        )

    @classmethod
    def of_parts(cls, parts: FacetParts) -> Facets:
        """Raises ValueError or KeyError: these are not the parts of facets."""
        facets = cls()
        if {len(column) for column in (parts.session_codes, *parts.columns.values())} != {
            len(parts.ordinals)
        }:
            raise ValueError("the columns have different lengths")
        if set(parts.columns) != set(facets._columns):
            raise ValueError(f"the columns are {', '.join(parts.columns)}")
        facets._postings |= {field: ValuePostings.of(by_value) for field, by_value in parts.postings.items()}
        facets._ordinals = Column.of(parts.ordinals)
        facets._columns = {field: Column.of(parts.columns[field]) for field in facets._columns}
        places, sizes = _counted(parts.session_codes, len(parts.sessions))
        facets._session_codes, facets._session_places = Column.of(parts.session_codes), Column.of(places)
        facets._session_sizes, facets._sessions = sizes.tolist(), list(parts.sessions)
        facets._code_of_session = {name: code for code, name in enumerate(parts.sessions) if name}
        facets._any_expires = parts.any_expires
        return facets

    def cut_to(self, live: OrdinalSet) -> Facets:
        """A copy without the memories that are not in ``live``; this one serves older views on."""
        kept = Facets()
        for field, postings in self._postings.items():
            kept._postings[field] = postings.cut_to(live)
        ordinals: OrdinalArray = self._ordinals.rows(self.rows)
        mask = np.isin(ordinals, ordinal_array(live), assume_unique=True)
        kept._ordinals = Column.of(ordinals[mask])
        for field, column in self._columns.items():
            kept._columns[field] = Column.of(column.rows(self.rows)[mask])
        codes = self._session_codes.rows(self.rows)[mask]
        places, sizes = _counted(codes, len(self._sessions))
        kept._session_codes = Column.of(codes)
        kept._session_places = Column.of(places)
        kept._session_sizes = sizes.tolist()
        kept._any_expires = self._any_expires
        kept._sessions = list(self._sessions)
        kept._code_of_session = dict(self._code_of_session)
        return kept


def _counted(
    codes: npt.NDArray[np.int64], sessions: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which row of its session each row is, and how many rows each session has."""
    places = np.zeros(len(codes), dtype=np.int64)
    sizes = np.bincount(codes[codes != NO_SESSION], minlength=sessions)
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] != NO_SESSION]
    starts = np.cumsum(sizes) - sizes
    places[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    return places, sizes


_COMPARE: dict[int, Callable[[npt.NDArray[Any], Sequence[Any]], _Mask]] = {
    filter_pb2.OPERATOR_EQ: lambda column, values: column == values[0],
    filter_pb2.OPERATOR_IN: lambda column, values: np.isin(column, values),
    filter_pb2.OPERATOR_GT: lambda column, values: column > values[0],
    filter_pb2.OPERATOR_GTE: lambda column, values: column >= values[0],
    filter_pb2.OPERATOR_LT: lambda column, values: column < values[0],
    filter_pb2.OPERATOR_LTE: lambda column, values: column <= values[0],
    filter_pb2.OPERATOR_BETWEEN: lambda column, values: (column >= values[0]) & (column <= values[1]),
    filter_pb2.OPERATOR_EXISTS: lambda column, values: np.ones(len(column), dtype=np.bool_),
}


def compare(column: npt.NDArray[Any], operator: int, values: Sequence[Value]) -> _Mask:
    """``Condition.holds`` for a whole column of numbers or times, bool [rows]."""
    return _COMPARE[operator](column, values)
