"""How a search is done: pure functions from plain numbers to a plan.

By meaning:

    cost of an exact scan   = every row of the namespace, read in order, or the matching rows alone:
                              as one piece where they stand together, else gathered
    cost of segments        = a search of each index, deeper for a filter and for many hits,
                              and the tail's rows, read in order

What reading and gathering cost is measured when the process starts (machine_costs.py), what a search of an
index costs when it is opened, and how deep it has to be when it is built (segment.py). An exact search has
recall 1, so it is chosen whenever it is not dearer, and when what the indexes propose shows that the filter
leaves out what is near. By words, under a filter:

    cost of pushing down    = the matching ordinals as a part of the query
    cost of over-fetching   = as many hits as it takes until enough of them match
    cost of scoring         = the hits of all words that match (postings.py); for plain words alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PUSH_DOWN_NS_PER_ORDINAL = 2000
FETCH_NS_PER_HIT = 320
# Of words alone: of each hit in the postings; of a search of the index, which leaves out most hits.
SCORE_NS_PER_HIT = 90
FIND_BEST_NS = 150_000

# Hits by words to be fetched, as a multiple of what is wanted of them.
OVERFETCH = 2
# How late the last hit may come among the candidates: as a multiple of where it comes on the average when the
# filter is a matter of chance, and so many hits later for what chance may do.
LATE = 1.5
LATE_HITS = 3

# A segment is written again when this share of its rows is deleted.
WORN_SHARE = 0.2
# A new segment takes in those that are at most so many times as large: each is searched, whatever its size.
MERGED_SIZE = 2
# What is an import, and how much longer the tail may grow in one.
POURING_ROWS_PER_S, MIN_POURING_S = 2_000, 1.0
MAX_POURED_SEALS = 10


@dataclass(frozen=True, slots=True)
class Costs:
    """What scoring rows takes on this machine, nanoseconds of CPU for each component.

    The defaults are of one core, measured on 100,000 rows of 256.

    Attributes:
        scan: of rows that are read in order.
        gather: of rows that are read one by one.
    """

    scan: float = 0.15
    gather: float = 0.5


DEFAULT_COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known before a search.

    Attributes:
        matching: live memories that match the filter; ``live`` when there is none.
        live: live memories of the namespace.
        tail_rows, segment_rows: rows with vectors, dead ones included.
        search_ns: CPU time of a search of all indexes for ten hits without a filter.
        effort_per_hit: how many times as deep as for ten hits an index has to be searched, for each hit.
        scattered: the share of the matching rows that are read one by one; the others stand side by side.
        filtered_ns: CPU time of a search of all indexes for ten hits under a filter that they are given;
            infinite when one of them does not take it.
    """

    top_k: int
    matching: int
    live: int
    dimension: int
    tail_rows: int
    segment_rows: int
    search_ns: float
    effort_per_hit: float = 0.0
    scattered: float = 1.0
    filtered_ns: float = float("inf")


@dataclass(frozen=True, slots=True)
class ExactScan:
    """Score all matching rows."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Take candidates from the index of each segment, and all of the tail.

    Attributes:
        fetch_rows: candidates from each segment. When the last hit wanted is not among so many of the best
            candidates, the filter leaves out what is nearest to the question. Of what lies further off an
            index finds too little.
        effort: how many times as deep as for ten hits without a filter the indexes are searched.
        pushes_down: the filter is given to the indexes, which look at all that they have.
    """

    fetch_rows: int
    effort: float
    pushes_down: bool = False


Plan = ExactScan | Segments


@dataclass(frozen=True, slots=True)
class Estimate:
    """The plan that is cheapest, and what each was thought to cost, CPU nanoseconds; infinite for none."""

    plan: Plan
    exact_ns: float
    segments_ns: float

    @property
    def least_ns(self) -> float:
        """Of the plan."""
        return min(self.exact_ns, self.segments_ns)

    def __str__(self) -> str:
        exact = f"estimated {self.exact_ns / 1e6:.3f} ms exactly"
        if self.segments_ns == float("inf"):
            return exact
        return f"{exact}, {self.segments_ns / 1e6:.3f} ms by segments"


def gathers(matching: int, rows: int, costs: Costs = DEFAULT_COSTS) -> bool:
    """Whether scoring the matching rows one by one is cheaper than scoring all rows in order."""
    return matching * costs.gather < rows * costs.scan


def estimate(statistics: Statistics, costs: Costs = DEFAULT_COSTS) -> Estimate:
    """The cheapest way to find the best ``top_k`` of the matching memories."""
    rows = statistics.tail_rows + statistics.segment_rows
    a_match = statistics.scattered * costs.gather + (1 - statistics.scattered) * costs.scan
    exact_ns = statistics.dimension * min(rows * costs.scan, statistics.matching * a_match)
    if statistics.matching <= statistics.top_k or not statistics.segment_rows:
        return Estimate(ExactScan(), exact_ns, float("inf"))
    # Of the nearest rows of all only this part matches the filter, so that many times more are looked for.
    selectivity = statistics.matching / max(statistics.live, rows)
    fetch_rows = int((LATE * statistics.top_k + LATE_HITS) / selectivity)
    effort = max(1.0, statistics.effort_per_hit * statistics.top_k) / selectivity
    tail_ns = statistics.dimension * min(
        statistics.tail_rows * costs.scan, statistics.tail_rows * selectivity * costs.gather
    )
    plan, segments_ns = Segments(fetch_rows, effort), tail_ns + statistics.search_ns * effort
    if statistics.matching < statistics.live and statistics.filtered_ns < float("inf"):
        many = max(1.0, statistics.effort_per_hit * statistics.top_k)
        plan = Segments(statistics.top_k, many, pushes_down=True)
        segments_ns = tail_ns + statistics.filtered_ns * many
    return Estimate(ExactScan() if exact_ns <= segments_ns else plan, exact_ns, segments_ns)


def scores_all(hits: int, fetch_hits: int) -> bool:
    """Whether scoring so many hits of words is cheaper than having the index find the best ``fetch_hits``."""
    return hits * SCORE_NS_PER_HIT <= FIND_BEST_NS + fetch_hits * FETCH_NS_PER_HIT


def pushes_down(matching: int, live: int, fetch_hits: int) -> bool:
    """Whether a text query names the matching ordinals rather than fetching ``fetch_hits`` to filter them."""
    return matching < live and push_down_hits(matching) <= fetch_hits


def push_down_hits(matching: int) -> int:
    """How many hits could be fetched in the time that it takes to name the matching ordinals."""
    return matching * PUSH_DOWN_NS_PER_ORDINAL // FETCH_NS_PER_HIT


@dataclass(frozen=True, slots=True)
class SegmentSize:
    rows: int
    deleted: int


def patient_seal_rows(seal_rows: int, tail_rows: int, tail_s: float) -> int:
    """How long a tail may be that has grown to ``tail_rows`` in a time of ``tail_s``.

    While vectors pour in, one build in the end does instead of many, which would write the same rows again
    and again and take the processor from what comes.
    """
    is_pouring = tail_s >= MIN_POURING_S and tail_rows > tail_s * POURING_ROWS_PER_S
    return seal_rows * MAX_POURED_SEALS if is_pouring else seal_rows


def segments_to_merge(
    tail_rows: int, segments: Sequence[SegmentSize], seal_rows: int
) -> frozenset[int] | None:
    """Which segments, by their place, are written into a new one together with the tail; None: not now.

    Log-structured: the new segment takes in all that are at most twice its size, so sizes more than double
    from each to the next older and their number stays logarithmic.
    """
    chosen = {
        place
        for place, size in enumerate(segments)
        if size.deleted and size.deleted >= WORN_SHARE * size.rows
    }
    if tail_rows <= seal_rows and not chosen:
        return None
    written = tail_rows + sum(segments[place].rows - segments[place].deleted for place in chosen)
    for place in sorted(range(len(segments)), key=lambda place: segments[place].rows):
        size = segments[place]
        if place not in chosen and size.rows <= MERGED_SIZE * written:
            chosen.add(place)
            written += size.rows - size.deleted
    return frozenset(chosen)
