"""The vectors of one namespace: an exact tail for what is fresh, sealed segments for the rest.

A search scores exactly whatever it returns; the indexes of the segments, and codes of the rows, only propose.
Deleted memories stay in their part as dead rows until it is written anew, and are cut out of all answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from agentmem.core.records import FloatVector
from agentmem.replica.among import Among, Located, Rows
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet
from agentmem.replica.planner import (
    DEFAULT_COSTS,
    Costs,
    Estimate,
    Segments,
    Statistics,
    estimate,
    gathers,
)
from agentmem.replica.ranking import best
from agentmem.replica.row_codes import Products, Question, RowCodes, contenders
from agentmem.replica.segment import Segment
from agentmem.replica.segment_files import FloatRows, RowNumbers

# Rows that are wanted, looked at together: whether they are gathered or all between them are scored.
SCORED_CHUNK_ROWS = 1024
# Float32 rows are read one by one when they have more others between them than so many for each. (Codes are
# so quick to scan that they are gathered only when there are twice as many, as is measured.)
SCANNED_ROWS_EACH = 3
# Of fewer rows each is scored exactly at once; to look for the nearest among their codes takes as long.
MIN_CODED_ROWS = 300
# When more of them may be among the nearest, codes do not tell the rows apart.
MAX_CONTENDING_SHARE = 0.25
# Of how many matching memories on it is looked at whether they stand side by side, by so many of them.
MIN_SAMPLED = 2048
SAMPLES = 64
# An estimate is made anew for the same memories when the namespace has so many more, or fewer.
SAME_ESTIMATE_ROWS = 256
# Rows that are so close to each other are read as one piece.
NEIGHBOURING_ROWS = 4
# How far the nearest may come behind the first proposals, as a share of where they would come by chance.
# Questions about conversations have 0.01 to 0.24, whatever share matches, and 0.55 and more when a filter
# leaves out all that is near.
MAX_DISORDER = 0.35
_NEIGHBOURS = np.arange(1, NEIGHBOURING_ROWS + 1)
_NO_ROWS: RowNumbers = np.empty(0, dtype=np.int64)


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
        codes: of the rows.
        number: of the tail or the segment. In later views it has the same rows in the same places, and the
            tail more of them behind.
        segment: None for the tail.
        costs: of this machine.
    """

    ordinals: OrdinalArray
    rows: FloatRows
    codes: RowCodes
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
            if last - first + 1 > SCANNED_ROWS_EACH * len(chunk):
                scores[start : start + len(chunk)] = np.take(self.rows, chunk, axis=0) @ query
            else:
                scores[start : start + len(chunk)] = (self.rows[first : last + 1] @ query)[chunk - first]
        return scores

    def products(self, question: Question, rows: Rows) -> Products:
        """In proportion to the cosines of some rows, float64 [n], but for a margin."""
        if isinstance(rows, slice):
            return question.products(self.codes[rows])
        first, last = int(rows[0]), int(rows[-1])
        if gathers(len(rows), last - first + 1, self.costs):
            return question.products(self.codes[rows])
        return question.products(self.codes[first : last + 1])[rows - first]

    def live_rows(self) -> Rows:
        """All that are not dead."""
        if not len(self.dead):
            return slice(0, len(self.ordinals))
        live = np.ones(len(self.ordinals), dtype=np.bool_)
        live[self.dead] = False
        return np.flatnonzero(live)


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
                fresh = self._fresh(query, top_k, among.ordinals if is_filtered else None)
                return _merge([found, fresh], top_k, f"{proposals}, and a scan of the tail", estimated)
        located = among.located(self._parts, self._numbers) if is_filtered else Located.all_of(self._parts)
        how = "exact scan of the matching rows" if is_filtered else "exact scan of all rows"
        return _merge([_scanned(query, self._parts, located, top_k)], top_k, how, estimated)

    def _fresh(self, query: FloatVector, top_k: int, wanted: OrdinalArray | None) -> VectorHits:
        """The nearest of the tail, of its live rows or of those that are wanted."""
        tail = (self.tail,)
        located = Located.all_of(tail) if wanted is None else Located.among(tail, wanted)
        return _scanned(query, tail, located, top_k)

    def _estimated(self, top_k: int, among: Among | None, live: int) -> Estimate:
        """As ``estimate``; for the same memories mostly from before, when the namespace had about as many."""
        if among is None:
            return self.estimate(top_k, None, live)
        # Of later views, too: a few memories more make no other plan the cheaper one.
        rows = len(self.tail.rows)
        key = (top_k, live // SAME_ESTIMATE_ROWS, rows // SAME_ESTIMATE_ROWS, self._numbers)
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
        cosines[places] = _scores(query, self._parts, located)
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


def _scanned(query: FloatVector, parts: Sequence[Part], located: Located, top_k: int) -> VectorHits:
    """The nearest of the located rows, ``top_k`` or more, in no order."""
    ordinals = located.ordinals
    if len(ordinals) < MIN_CODED_ROWS:
        return VectorHits(ordinals, _scores(query, parts, located))
    question = Question(query)
    products, residual, start = [], 0.0, 0
    for part, rows, end in zip(parts, located.rows, located.ends, strict=True):
        if end > start:
            products.append(part.products(question, rows))
            residual, start = max(residual, part.codes.residual), end
    together = products[0] if len(products) == 1 else np.concatenate(products)
    places = contenders(together, question.margin(residual), top_k)
    if len(places) > MAX_CONTENDING_SHARE * len(ordinals):
        return VectorHits(ordinals, _scores(query, parts, located))
    return VectorHits(ordinals[places], _scores_at(query, parts, located, places))


def _scores(query: FloatVector, parts: Sequence[Part], located: Located) -> FloatVector:
    """The cosines of the located rows, float32 [n]."""
    scores = np.empty(len(located.ordinals), dtype=np.float32)
    start = 0
    for part, rows, end in zip(parts, located.rows, located.ends, strict=True):
        if end > start:
            scores[start:end] = part.scores(query, rows)
            start = end
    return scores


def _scores_at(
    query: FloatVector, parts: Sequence[Part], located: Located, places: npt.NDArray[np.intp]
) -> FloatVector:
    """The cosines of a few of the located rows, float32 [n], by their places among them, ascending."""
    scores = np.empty(len(places), dtype=np.float32)
    first = start = 0
    for part, rows, end in zip(parts, located.rows, located.ends, strict=True):
        last = len(places) if end == located.ends[-1] else int(places.searchsorted(end))
        if last > first:
            here = places[first:last] - start
            numbers = here + rows.start if isinstance(rows, slice) else rows[here]
            scores[first:last] = np.take(part.rows, numbers, axis=0) @ query
        first, start = last, end
    return scores


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
