"""The vectors of one namespace on the writing side: a tail that grows, and the sealed segments."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count

import numpy as np

from agentmem.core.records import FloatVector, unit_vector
from agentmem.core.unit_vectors import unit_rows
from agentmem.replica.columns import Column
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array
from agentmem.replica.planner import DEFAULT_COSTS, Costs, SegmentSize
from agentmem.replica.row_codes import CodeColumn, RowCodes
from agentmem.replica.segment import Segment
from agentmem.replica.segment_files import FloatRows
from agentmem.replica.vectors import Part, VectorView

# A tail with more dead rows than live ones, and this many, is copied without them.
MIN_COMPACTED_ROWS = 1024
# Of the parts of this process.
_NUMBERS = count()


class _Tail:
    """Fresh rows, on the writing side."""

    def __init__(self, dimension: int) -> None:
        self.ordinals = Column(np.uint64)
        self.rows = Column(np.float32, dimension)
        self.codes = CodeColumn(RowCodes.of(np.empty((0, dimension), dtype=np.float32)))
        self.dead = Column(np.int64)
        self._number = next(_NUMBERS)

    @classmethod
    def of(cls, ordinals: OrdinalArray, rows: FloatRows, codes: RowCodes) -> _Tail:
        tail = cls(rows.shape[1])
        tail.ordinals, tail.rows, tail.codes = Column.of(ordinals), Column.of(rows), CodeColumn(codes)
        return tail

    def extend(self, ordinals: Sequence[int], rows: FloatRows) -> None:
        self.ordinals.extend(ordinals)
        self.rows.extend(rows)
        self.codes.extend(rows)

    def view(self, costs: Costs = DEFAULT_COSTS) -> Part:
        return Part(
            self.ordinals.rows(self.ordinals.count),
            self.rows.rows(self.rows.count),
            self.codes.view(),
            self.dead.rows(self.dead.count),
            self._number,
            costs=costs,
        )


class _Sealed:
    """A segment, on the writing side."""

    def __init__(self, segment: Segment, live: OrdinalSet) -> None:
        self.segment = segment
        dead = np.isin(segment.ordinals, ordinal_array(live), assume_unique=True, invert=True)
        self.dead = Column.of(np.flatnonzero(dead).astype(np.int64))
        self._number = next(_NUMBERS)

    def view(self, costs: Costs = DEFAULT_COSTS) -> Part:
        segment, dead = self.segment, self.dead.rows(self.dead.count)
        return Part(segment.ordinals, segment.rows, segment.codes, dead, self._number, segment, costs)


class NamespaceVectors:
    """The writing side. One thread adds and drops; ``view`` gives what others may search."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._tail = _Tail(dimension)
        self._sealed: list[_Sealed] = []

    @classmethod
    def of(cls, ordinals: OrdinalArray, rows: FloatRows) -> NamespaceVectors:
        """Begins with unit vectors, float32 [n, dimension], of ordinals, uint64 [n], ascending."""
        vectors = cls(rows.shape[1])
        vectors._tail = _Tail.of(ordinals, rows, RowCodes.of(rows))
        return vectors

    @property
    def tail_rows(self) -> int:
        """Live rows of the tail."""
        return self._tail.ordinals.count - self._tail.dead.count

    @property
    def segment_names(self) -> list[str]:
        return [sealed.segment.name for sealed in self._sealed]

    @property
    def segment_sizes(self) -> list[SegmentSize]:
        return [SegmentSize(sealed.segment.count, sealed.dead.count) for sealed in self._sealed]

    def add(self, ordinal: int, vector: FloatVector) -> None:
        """Adds a unit vector, float32 [dimension]; the ordinal is larger than all before.

        Raises:
            ValueError: the vector has another dimension.
        """
        if len(vector) != self.dimension:
            raise self._wrong_dimension(ordinal, vector)
        self._tail.extend([ordinal], vector[np.newaxis])

    def extend(self, ordinals: Sequence[int], vectors: Sequence[FloatVector]) -> None:
        """Adds several, each of about unit length; it is brought to that. Raises as ``add``."""
        for ordinal, vector in zip(ordinals, vectors, strict=True):
            if len(vector) != self.dimension:
                raise self._wrong_dimension(ordinal, vector)
        if len(vectors) == 1:
            self.add(ordinals[0], unit_vector(vectors[0]))
            return
        self._tail.extend(ordinals, unit_rows(np.stack(vectors)))

    def _wrong_dimension(self, ordinal: int, vector: FloatVector) -> ValueError:
        return ValueError(
            f"the vector at ordinal {ordinal} has {len(vector)} components, not {self.dimension}"
        )

    def drop(self, ordinal: int) -> None:
        """Makes a row dead; nothing happens when the ordinal has none."""
        wanted = np.array([ordinal], dtype=np.uint64)
        parts: list[_Tail | _Sealed] = [self._tail, *self._sealed]
        for part in parts:
            _, rows = part.view().locate(wanted)
            if len(rows):
                part.dead.append(rows[0])
                break
        dead = self._tail.dead.count
        if dead >= MIN_COMPACTED_ROWS and 2 * dead > self._tail.ordinals.count:
            self._cut_tail(after_ordinal=0)

    def add_segment(self, segment: Segment, live: OrdinalSet) -> None:
        """Takes up an open segment; its rows that are not in ``live`` are dead."""
        self._sealed.append(_Sealed(segment, live))

    def replace(
        self, replaced: Collection[str], last_ordinal: int, segment: Segment | None, live: OrdinalSet
    ) -> None:
        """Takes up a segment for others and for the rows of the tail up to ``last_ordinal``.

        Args:
            replaced: the names of the segments that end.
            segment: None when there was no live row to write.
        """
        self._sealed = [sealed for sealed in self._sealed if sealed.segment.name not in replaced]
        if segment is not None:
            self.add_segment(segment, live)
        self._cut_tail(after_ordinal=last_ordinal)

    def _cut_tail(self, after_ordinal: int) -> None:
        """Copies the live rows behind an ordinal into a new tail; older views keep the old one."""
        old = self._tail.view()
        is_kept = old.ordinals > after_ordinal
        is_kept[old.dead] = False
        kept = np.flatnonzero(is_kept)
        self._tail = _Tail.of(old.ordinals[kept], old.rows[kept], old.codes[kept])

    def view(self, costs: Costs = DEFAULT_COSTS) -> VectorView:
        segments = tuple(sealed.view(costs) for sealed in self._sealed)
        return VectorView(self._tail.view(costs), segments, costs)
