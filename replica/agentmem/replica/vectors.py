"""The vectors of one namespace: an exact tail for what is fresh, sealed segments for the rest.

A search scores exactly whatever it returns; the forests of the segments only propose. What is deleted stays
in its part as a dead row until the part is written anew, and is cut out of every answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentmem.core.records import FloatVector
from agentmem.replica.annoy_segment import AnnoySegment, FloatRows, RowNumbers
from agentmem.replica.columns import Column
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set
from agentmem.replica.planner import Segments, SegmentSize, Statistics, gathers, plan
from agentmem.replica.ranking import best

GATHER_CHUNK_ROWS = 1024
# A tail with more dead rows than live ones, and this many, is copied without them.
MIN_COMPACTED_ROWS = 1024


@dataclass(frozen=True, slots=True)
class VectorHits:
    """Ordinals, uint64 [n], and their cosines, float32 [n], best first; how they were found, in words."""

    ordinals: OrdinalArray
    cosines: FloatVector
    plan: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The tail or a segment, as a view has it.

    Attributes:
        ordinals: uint64 [n], ascending.
        rows: unit vectors, float32 [n, dimension].
        dead: row numbers, int64, in no order.
        segment: None for the tail.
    """

    ordinals: OrdinalArray
    rows: FloatRows
    dead: RowNumbers
    segment: AnnoySegment | None = None

    def locate(self, ordinals: OrdinalArray) -> tuple[npt.NDArray[np.bool_], RowNumbers]:
        """Which of the ordinals have a row here, bool [n], and the row numbers of those that have."""
        if not len(self.ordinals):
            return np.zeros(len(ordinals), dtype=np.bool_), np.empty(0, dtype=np.int64)
        rows = np.searchsorted(self.ordinals, ordinals)
        here = self.ordinals[np.minimum(rows, len(self.ordinals) - 1)] == ordinals
        return here, rows[here]

    def scores(self, query: FloatVector, rows: RowNumbers) -> FloatVector:
        """The cosines of some rows, float32 [n]."""
        if not gathers(len(rows), len(self.rows)):
            scanned: FloatVector = (self.rows @ query)[rows]
            return scanned
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), GATHER_CHUNK_ROWS):
            chunk = rows[start : start + GATHER_CHUNK_ROWS]
            scores[start : start + len(chunk)] = np.take(self.rows, chunk, axis=0) @ query
        return scores

    def scan(self, query: FloatVector, allowed: OrdinalArray | None) -> VectorHits:
        """All live rows, or those among the allowed ordinals, with their cosines, in no order."""
        if allowed is not None:
            here, rows = self.locate(allowed)
            return VectorHits(allowed[here], self.scores(query, rows))
        scores: FloatVector = self.rows @ query
        if not len(self.dead):
            return VectorHits(self.ordinals, scores)
        live = np.ones(len(scores), dtype=np.bool_)
        live[self.dead] = False
        return VectorHits(self.ordinals[live], scores[live])


@dataclass(frozen=True, slots=True)
class VectorView:
    """The vectors of a namespace at one revision. Any thread may search it."""

    tail: Part
    segments: tuple[Part, ...]

    def search(self, query: FloatVector, top_k: int, allowed: OrdinalSet, live: OrdinalSet) -> VectorHits:
        """The ``top_k`` allowed memories nearest to the query, all of them when they are fewer.

        Args:
            query: float32 [dimension], unit length.
            allowed: the ordinals of ``live`` that match the filter.
            live: the live ordinals of the namespace.
        """
        statistics = Statistics(
            top_k=top_k,
            matching=len(allowed),
            live=len(live),
            tail_rows=len(self.tail.rows),
            segment_rows=sum(len(part.rows) for part in self.segments),
            forest_rows=sum(part.segment.forest_rows for part in self.segments if part.segment),
        )
        chosen = plan(statistics)
        # One conversion for all parts; None stands for everything.
        wanted = ordinal_array(allowed) if len(allowed) < len(live) else None
        if isinstance(chosen, Segments):
            found = self._proposed(query, top_k, chosen, allowed)
            if found is not None:
                forests = f"{chosen.fetch_rows} rows from each of {len(self.segments)} forests"
                words = f"{forests}, and a scan of the tail"
                return _merge([found, self.tail.scan(query, wanted)], top_k, words)
        words = "exact scan of all rows" if wanted is None else "exact scan of the matching rows"
        return _merge([part.scan(query, wanted) for part in (*self.segments, self.tail)], top_k, words)

    def cosines(self, query: FloatVector, ordinals: OrdinalArray) -> FloatVector:
        """The cosine of each ordinal, float32 [n]; NaN for those without a vector."""
        cosines = np.full(len(ordinals), np.nan, dtype=np.float32)
        for part in (*self.segments, self.tail):
            here, rows = part.locate(ordinals)
            cosines[here] = np.take(part.rows, rows, axis=0) @ query
        return cosines

    def _proposed(
        self, query: FloatVector, top_k: int, chosen: Segments, allowed: OrdinalSet
    ) -> VectorHits | None:
        """The allowed ones of what the forests propose; None when they are too few, or come too late."""
        proposed = _merge([self._nearest(part, query, chosen) for part in self.segments])
        kept = np.isin(
            proposed.ordinals, ordinal_array(ordinal_set(proposed.ordinals) & allowed), assume_unique=True
        )
        if np.count_nonzero(kept[: chosen.last_rank]) < top_k:
            return None
        return VectorHits(proposed.ordinals[kept], proposed.cosines[kept])

    @staticmethod
    def _nearest(part: Part, query: FloatVector, chosen: Segments) -> VectorHits:
        assert part.segment is not None
        nodes = max(chosen.fetch_rows, int(chosen.effort * part.segment.forest_rows))
        rows = part.segment.nearest(query, min(chosen.fetch_rows, len(part.rows)), nodes)
        return VectorHits(part.ordinals[rows], np.take(part.rows, rows, axis=0) @ query)


def _merge(hits: Sequence[VectorHits], top_k: int | None = None, plan: str = "") -> VectorHits:
    ordinals = np.concatenate([part.ordinals for part in hits])
    cosines = np.concatenate([part.cosines for part in hits])
    places = best(ordinals, cosines, len(ordinals) if top_k is None else top_k)
    return VectorHits(ordinals[places], cosines[places], plan)


class _Tail:
    """Fresh rows, on the writing side."""

    def __init__(self, dimension: int) -> None:
        self.ordinals = Column(np.uint64)
        self.rows = Column(np.float32, dimension)
        self.dead = Column(np.int64)

    def view(self) -> Part:
        return Part(
            self.ordinals.rows(self.ordinals.count),
            self.rows.rows(self.rows.count),
            self.dead.rows(self.dead.count),
        )


class _Sealed:
    """A segment, on the writing side."""

    def __init__(self, segment: AnnoySegment, live: OrdinalSet) -> None:
        self.segment = segment
        dead = np.isin(segment.ordinals, ordinal_array(live), assume_unique=True, invert=True)
        self.dead = Column.of(np.flatnonzero(dead).astype(np.int64))

    def view(self) -> Part:
        segment = self.segment
        return Part(segment.ordinals, segment.rows, self.dead.rows(self.dead.count), segment)


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
        vectors._tail.ordinals, vectors._tail.rows = Column.of(ordinals), Column.of(rows)
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
            raise ValueError(
                f"the vector at ordinal {ordinal} has {len(vector)} components, not {self.dimension}"
            )
        self._tail.ordinals.append(ordinal)
        self._tail.rows.append(vector)

    def drop(self, ordinal: int) -> None:
        """Makes a row dead; nothing happens when the ordinal has none."""
        wanted = np.array([ordinal], dtype=np.uint64)
        parts: list[_Tail | _Sealed] = [self._tail, *self._sealed]
        for part in parts:
            here, rows = part.view().locate(wanted)
            if here[0]:
                part.dead.append(rows[0])
                break
        dead = self._tail.dead.count
        if dead >= MIN_COMPACTED_ROWS and 2 * dead > self._tail.ordinals.count:
            self._cut_tail(after_ordinal=0)

    def add_segment(self, segment: AnnoySegment, live: OrdinalSet) -> None:
        """Takes up an open segment; its rows that are not in ``live`` are dead."""
        self._sealed.append(_Sealed(segment, live))

    def replace(
        self, replaced: Collection[str], last_ordinal: int, segment: AnnoySegment | None, live: OrdinalSet
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
        kept = old.ordinals > after_ordinal
        kept[old.dead] = False
        self._tail = _Tail(self.dimension)
        self._tail.ordinals = Column.of(old.ordinals[kept])
        self._tail.rows = Column.of(old.rows[kept])

    def view(self) -> VectorView:
        return VectorView(self._tail.view(), tuple(sealed.view() for sealed in self._sealed))
