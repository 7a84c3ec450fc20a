"""How a search is done: pure functions from plain numbers to a plan.

By meaning:

    cost of an exact scan   = every row of the namespace, read in order,
                              or the matching rows alone, gathered one by one
    cost of segments        = the rows that the forests look at, and the tail's rows, read in order

How many rows a forest has to look at is measured when it is built (annoy_segment.py). An exact search has
recall 1, so it is chosen whenever it is not dearer, and when what the forests propose shows that the filter
leaves out what is near. By words, under a filter:

    cost of pushing down    = the matching ordinals as a part of the query
    cost of over-fetching   = as many hits as it takes until enough of them match

The constants are of one core, measured on 100,000 memories with vectors of 256; only their ratios matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SCAN_NS_PER_COMPONENT = 0.13
GATHER_NS_PER_COMPONENT = 0.45
FOREST_NS_PER_COMPONENT = 0.28

PUSH_DOWN_NS_PER_ORDINAL = 2000
FETCH_NS_PER_HIT = 320

# What forests look at is measured for ten hits (annoy_segment.py). Hits beyond those that lie close together
# are in many leaves: from about a hundred on, recall 0.95 took 20 to 25 rows for each.
FOREST_ROWS_PER_HIT = 25

# Candidates to be scored again exactly, as a multiple of what is wanted of them.
OVERFETCH = 2
MIN_FETCH_ROWS = 64
# How late the last hit may come among the candidates: as a multiple of where it comes on the average when the
# filter is a matter of chance, and so many hits later for what chance may do.
LATE = 1.5
LATE_HITS = 3

# A segment is written again when this share of its rows is deleted.
WORN_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known before a search.

    Attributes:
        matching: live memories that match the filter; ``live`` when there is none.
        live: live memories of the namespace.
        tail_rows, segment_rows: rows with vectors, dead ones included.
        forest_rows: how many rows the forests of the segments have to look at for ten hits without a filter.
    """

    top_k: int
    matching: int
    live: int
    tail_rows: int
    segment_rows: int
    forest_rows: int


@dataclass(frozen=True, slots=True)
class ExactScan:
    """Score all matching rows."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Take candidates from each segment's forest, and all of the tail.

    Attributes:
        fetch_rows: candidates from each segment.
        last_rank: when the last hit wanted is not among so many of the best candidates, the filter leaves out
            what is nearest to the question. Of what lies further off a forest finds too little.
        effort: how many times as many rows as for ten hits without a filter the forests look at.
    """

    fetch_rows: int
    last_rank: int
    effort: float


Plan = ExactScan | Segments


def gathers(matching: int, rows: int) -> bool:
    """Whether scoring the matching rows one by one is cheaper than scoring all rows in order."""
    return matching * GATHER_NS_PER_COMPONENT < rows * SCAN_NS_PER_COMPONENT


def plan(statistics: Statistics) -> Plan:
    """The cheapest way to find the best ``top_k`` of the matching memories."""
    if statistics.matching <= statistics.top_k:
        return ExactScan()
    # Of the nearest rows of all only this part matches the filter, so that many times more are looked for.
    selectivity = statistics.matching / statistics.live
    last_rank = int((LATE * statistics.top_k + LATE_HITS) / selectivity)
    fetch_rows = max(MIN_FETCH_ROWS, int(OVERFETCH * statistics.top_k / selectivity), last_rank)
    depth = max(1.0, FOREST_ROWS_PER_HIT * statistics.top_k / max(1, statistics.forest_rows))
    return _cheaper(statistics, Segments(fetch_rows, last_rank, depth / selectivity))


def _cheaper(statistics: Statistics, segments: Segments) -> Plan:
    rows = statistics.tail_rows + statistics.segment_rows
    exact_ns = min(rows * SCAN_NS_PER_COMPONENT, statistics.matching * GATHER_NS_PER_COMPONENT)
    segments_ns = (
        statistics.tail_rows * SCAN_NS_PER_COMPONENT
        + statistics.forest_rows * segments.effort * FOREST_NS_PER_COMPONENT
    )
    return ExactScan() if exact_ns <= segments_ns else segments


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


def segments_to_merge(
    tail_rows: int, segments: Sequence[SegmentSize], seal_rows: int
) -> frozenset[int] | None:
    """Which segments, by their place, are written into a new one together with the tail; None: not now.

    Log-structured: the new segment takes in all that are not bigger than itself, so sizes at least double
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
        if place not in chosen and size.rows <= written:
            chosen.add(place)
            written += size.rows - size.deleted
    return frozenset(chosen)
