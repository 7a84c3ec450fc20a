"""The vectors of one namespace: an exact tail for what is fresh, sealed segments for the rest.

A search scores exactly whatever it returns; the indexes of the segments only propose. What is deleted stays
in its part as a dead row until the part is written anew, and is cut out of every answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

from agentmem.core.records import FloatVector, unit_vector
from agentmem.core.unit_vectors import unit_rows
from agentmem.replica.among import Among, Located, Rows
from agentmem.replica.columns import Column
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array
from agentmem.replica.planner import (
    DEFAULT_COSTS,
    Costs,
    Estimate,
    Segments,
    SegmentSize,
    Statistics,
    estimate,
    gathers,
)
from agentmem.replica.ranking import best
from agentmem.replica.segment import Segment
from agentmem.replica.segment_files import FloatRows, RowNumbers

# Rows that are wanted, looked at together: whether they are gathered or all between them are scored.
SCORED_CHUNK_ROWS = 1024
# A tail with more dead rows than live ones, and this many, is copied without them.
MIN_COMPACTED_ROWS = 1024
# Of how many matching memories on it is looked at whether they stand side by side, by so many of them.
MIN_SAMPLED = 2048
SAMPLES = 64
# Rows that are so close to each other are read as one piece.
NEIGHBOURING_ROWS = 4
# How far the nearest may come behind the first proposals, as a share of where they would come by chance.
# Questions about conversations have 0.01 to 0.24, whatever share matches, and 0.55 and more when a filter
# leaves out all that is near.
MAX_DISORDER = 0.35
_NEIGHBOURS = np.arange(1, NEIGHBOURING_ROWS + 1)
_NO_ROWS: RowNumbers = np.empty(0, dtype=np.int64)
# Of the parts of this process.
_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class VectorHits:
    """Ordinals, uint64 [n], and their cosines, float32 [n], best first.

    Attributes:
        how: they were found, in words.
        estimated: what that was thought to cost.
    """

    ordinals: OrdinalArray
    cosines: FloatVector
    how: str = ""
    estimated: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """The tail or a segment, as a view has it.

    Attributes:
        ordinals: uint64 [n]; ascending in the tail, in no order in a segment.
        rows: unit vectors, float32 [n, dimension].
        dead: row numbers, int64, in no order.
        number: of the tail or the segment. In later views it has the same rows in the same places, and the
            tail more of them behind.
        segment: None for the tail.
        costs: of this machine.
    """

    ordinals: OrdinalArray
    rows: FloatRows
    dead: RowNumbers
    number: int
    segment: Segment | None = None
    costs: Costs = DEFAULT_COSTS

    def locate(self, ordinals: OrdinalArray) -> tuple[RowNumbers, RowNumbers]:
        """Which of the ordinals have a row here, by their places, and the row numbers of those.

        Args:
            ordinals: uint64 [n], ascending.
        """
        if self.segment is not None:
            return self.segment.lookup.find(ordinals)
        if not len(self.ordinals) or not len(ordinals) or ordinals[-1] < self.ordinals[0]:
            return _NO_ROWS, _NO_ROWS
        start = int(ordinals.searchsorted(self.ordinals[0]))
        wanted = ordinals[start:]
        rows = self.ordinals.searchsorted(wanted)
        here = np.flatnonzero(self.ordinals[np.minimum(rows, len(self.ordinals) - 1)] == wanted)
        return here + start, rows[here]

    def rows_of(self, ordinals: OrdinalArray) -> Rows:
        """The rows of those of the ordinals that have one here.

        Args:
            ordinals: uint64 [n], ascending.
        """
        _, rows = self.locate(ordinals)
        if not len(rows):
            return slice(0, 0)
        if self.segment is not None:
            rows = np.sort(rows)
        first, last = int(rows[0]), int(rows[-1])
        return slice(first, last + 1) if last - first + 1 == len(rows) else rows

    def scores(self, query: FloatVector, rows: Rows) -> FloatVector:
        """The cosines of some rows, float32 [n]."""
        if isinstance(rows, slice):
            piece: FloatVector = self.rows[rows] @ query
            return piece
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), SCORED_CHUNK_ROWS):
            chunk = rows[start : start + SCORED_CHUNK_ROWS]
            first, last = int(chunk[0]), int(chunk[-1])
            if gathers(len(chunk), last - first + 1, self.costs):
                scores[start : start + len(chunk)] = np.take(self.rows, chunk, axis=0) @ query
            else:
                scores[start : start + len(chunk)] = (self.rows[first : last + 1] @ query)[chunk - first]
        return scores

    def scan(self, query: FloatVector, allowed: OrdinalArray | None) -> VectorHits:
        """All live rows, or those among the allowed ordinals, with their cosines, in no order.

        Args:
            allowed: uint64 [n], ascending.
        """
        if allowed is not None:
            rows = self.rows_of(allowed)
            return VectorHits(self.ordinals[rows], self.scores(query, rows))
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
    costs: Costs = DEFAULT_COSTS
    _parts: tuple[Part, ...] = field(init=False)
    _numbers: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", (*self.segments, self.tail))
        object.__setattr__(self, "_numbers", tuple(part.number for part in self._parts))

    def search(
        self, query: FloatVector, top_k: int, allowed: OrdinalSet | Among, live: OrdinalSet
    ) -> VectorHits:
        """The ``top_k`` allowed memories nearest to the query, all of them when they are fewer.

        Args:
            query: float32 [dimension], unit length.
            allowed: the ordinals of ``live`` that match the filter.
            live: the live ordinals of the namespace.
        """
        among = allowed if isinstance(allowed, Among) else Among(allowed)
        is_filtered = len(among.allowed) < len(live)
        estimated = self._estimated(top_k, among if is_filtered else None, len(live))
        chosen = estimated.plan
        if isinstance(chosen, Segments):
            if chosen.pushes_down and is_filtered:
                found = self._matching(query, top_k, among.ordinals)
            else:
                found = self._proposed(query, top_k, chosen, among.allowed)
            if found is not None:
                of_these = " that match" if chosen.pushes_down else ""
                proposals = f"{chosen.fetch_rows} rows{of_these} from each of {len(self.segments)} segments"
                fresh = self.tail.scan(query, among.ordinals if is_filtered else None)
                return _merge([found, fresh], top_k, f"{proposals}, and a scan of the tail", estimated)
        if is_filtered:
            located = among.located(self._parts, self._numbers)
            scanned = VectorHits(located.ordinals, self._scores(query, located))
            return _merge([scanned], top_k, "exact scan of the matching rows", estimated)
        hits = [part.scan(query, None) for part in self._parts]
        return _merge(hits, top_k, "exact scan of all rows", estimated)

    def _scores(self, query: FloatVector, located: Located) -> FloatVector:
        """The cosines of the located rows, float32 [n]."""
        scores = np.empty(len(located.ordinals), dtype=np.float32)
        start = 0
        for part, rows, end in zip(self._parts, located.rows, located.ends, strict=True):
            if end > start:
                scores[start:end] = part.scores(query, rows)
                start = end
        return scores

    def _estimated(self, top_k: int, among: Among | None, live: int) -> Estimate:
        """As ``estimate``; for the same memories mostly from before."""
        if among is None:
            return self.estimate(top_k, None, live)
        key = (top_k, live, len(self.tail.rows), self._numbers)
        known = among.estimated(key)
        if known is None:
            known = self.estimate(top_k, among.ordinals, live)
            among.keep_estimate(key, known)
        return known

    def estimate(self, top_k: int, wanted: OrdinalArray | None, live: int) -> Estimate:
        """What a search costs, and so how it is done.

        Args:
            wanted: the ordinals that match, uint64 [n], ascending; None for all.
            live: how many memories the namespace has.
        """
        matching = live if wanted is None else len(wanted)
        segments = [part.segment for part in self.segments if part.segment is not None]
        return estimate(
            Statistics(
                top_k=top_k,
                matching=matching,
                live=live,
                dimension=self.tail.rows.shape[1],
                tail_rows=len(self.tail.rows),
                segment_rows=sum(len(part.rows) for part in self.segments),
                search_ns=sum(segment.search_ns for segment in segments),
                filtered_ns=sum(segment.filtered_ns for segment in segments),
                effort_per_hit=max((segment.effort_per_hit for segment in segments), default=0.0),
                scattered=1.0 if wanted is None else self._scattered(wanted),
            ),
            self.costs,
        )

    def cosines(self, query: FloatVector, ordinals: OrdinalArray) -> FloatVector:
        """The cosine of each ordinal, float32 [n]; NaN for those without a vector.

        Args:
            ordinals: uint64 [n], ascending.
        """
        located = Located.among(self._parts, ordinals)
        return self._placed(query, located, ordinals.searchsorted(located.ordinals), len(ordinals))

    def cosines_among(self, query: FloatVector, among: Among) -> FloatVector:
        """The same of each of its ordinals."""
        located = among.located(self._parts, self._numbers)
        return self._placed(query, located, among.places(located), len(among.ordinals))

    def _placed(
        self, query: FloatVector, located: Located, places: npt.NDArray[np.intp], count: int
    ) -> FloatVector:
        cosines = np.full(count, np.nan, dtype=np.float32)
        cosines[places] = self._scores(query, located)
        return cosines

    def _scattered(self, wanted: OrdinalArray) -> float:
        """About which share of the wanted rows have other rows between them."""
        if len(wanted) < MIN_SAMPLED or not self.segments:
            return 1.0
        largest = max(self.segments, key=lambda part: len(part.rows))
        sample = wanted[np.linspace(0, len(wanted) - 1, SAMPLES).astype(np.int64)]
        _, rows = largest.locate(sample)
        behind = np.minimum(rows[:, np.newaxis] + _NEIGHBOURS, len(largest.ordinals) - 1)
        neighbours = largest.ordinals[behind]
        places = np.minimum(wanted.searchsorted(neighbours), len(wanted) - 1)
        has_neighbour = (wanted[places] == neighbours).any(axis=1)
        # What is not in this segment is read one by one, too.
        return 1.0 - np.count_nonzero(has_neighbour) / SAMPLES

    def _proposed(
        self, query: FloatVector, top_k: int, chosen: Segments, allowed: OrdinalSet
    ) -> VectorHits | None:
        """The allowed ones of what the indexes propose; None when they are too few, or come too late."""
        proposed = _merge([self._nearest(part, query, chosen) for part in self.segments], chosen.fetch_rows)
        ordinals = proposed.ordinals.tolist()
        kept = np.fromiter(map(allowed.__contains__, ordinals), dtype=np.bool_, count=len(ordinals))
        if np.count_nonzero(kept) < top_k:
            return None
        return VectorHits(proposed.ordinals[kept], proposed.cosines[kept])

    def _matching(self, query: FloatVector, top_k: int, wanted: OrdinalArray) -> VectorHits | None:
        """What the indexes propose of the wanted; None when one of them cannot tell which are near."""
        found = []
        for part in self.segments:
            assert part.segment is not None
            _, among = part.locate(wanted)
            rows = part.segment.nearest_of(query, top_k, among)
            if len(rows) < min(top_k, len(among)):
                return None
            cosines = np.take(part.rows, rows, axis=0) @ query
            if len(rows) < len(among) and not tells_apart(cosines, top_k):
                return None
            found.append(VectorHits(part.ordinals[rows], cosines))
        return _merge(found, top_k)

    @staticmethod
    def _nearest(part: Part, query: FloatVector, chosen: Segments) -> VectorHits:
        assert part.segment is not None
        rows = part.segment.nearest(query, chosen.fetch_rows, chosen.effort)
        return VectorHits(part.ordinals[rows], np.take(part.rows, rows, axis=0) @ query)


def tells_apart(cosines: FloatVector, top_k: int) -> bool:
    """Whether an index knows which rows are near a question: the nearest are among its first proposals.

    Where a filter leaves out all that is near, the others are so much alike that a code says nothing of their
    order. Then the nearest of what was proposed come anywhere, and nearer ones were not proposed.

    Args:
        cosines: of the proposals, in their order, the most promising first.
    """
    count = len(cosines)
    if count <= top_k:
        return True
    nearest = np.argpartition(cosines, count - top_k)[count - top_k :]
    first, anywhere = (top_k - 1) / 2, (count - 1) / 2
    return float(nearest.mean()) - first <= MAX_DISORDER * (anywhere - first)


def _merge(
    hits: Sequence[VectorHits],
    top_k: int | None = None,
    how: str = "",
    estimated: Estimate | None = None,
) -> VectorHits:
    filled = [part for part in hits if len(part.ordinals)]
    if not filled:
        return VectorHits(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.float32), how, estimated)
    if len(filled) == 1:
        ordinals, cosines = filled[0].ordinals, filled[0].cosines
    else:
        ordinals = np.concatenate([part.ordinals for part in filled])
        cosines = np.concatenate([part.cosines for part in filled])
    places = best(ordinals, cosines, len(ordinals) if top_k is None else top_k)
    return VectorHits(ordinals[places], cosines[places], how, estimated)


class _Tail:
    """Fresh rows, on the writing side."""

    def __init__(self, dimension: int) -> None:
        self.ordinals = Column(np.uint64)
        self.rows = Column(np.float32, dimension)
        self.dead = Column(np.int64)
        self._number = next(_NUMBERS)

    def view(self, costs: Costs = DEFAULT_COSTS) -> Part:
        return Part(
            self.ordinals.rows(self.ordinals.count),
            self.rows.rows(self.rows.count),
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
        return Part(segment.ordinals, segment.rows, dead, self._number, segment, costs)


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
            raise self._wrong_dimension(ordinal, vector)
        self._tail.ordinals.append(ordinal)
        self._tail.rows.append(vector)

    def extend(self, ordinals: Sequence[int], vectors: Sequence[FloatVector]) -> None:
        """Adds several, each of about unit length; it is brought to that. Raises as ``add``."""
        for ordinal, vector in zip(ordinals, vectors, strict=True):
            if len(vector) != self.dimension:
                raise self._wrong_dimension(ordinal, vector)
        if len(vectors) == 1:
            self.add(ordinals[0], unit_vector(vectors[0]))
            return
        self._tail.ordinals.extend(ordinals)
        self._tail.rows.extend(unit_rows(np.stack(vectors)))

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
        kept = old.ordinals > after_ordinal
        kept[old.dead] = False
        self._tail = _Tail(self.dimension)
        self._tail.ordinals = Column.of(old.ordinals[kept])
        self._tail.rows = Column.of(old.rows[kept])

    def view(self, costs: Costs = DEFAULT_COSTS) -> VectorView:
        segments = tuple(sealed.view(costs) for sealed in self._sealed)
        return VectorView(self._tail.view(costs), segments, costs)
