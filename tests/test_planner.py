"""The choice of a plan, as tables of cases."""

from __future__ import annotations

import pytest

from agentmem.replica.planner import (
    Costs,
    ExactScan,
    Plan,
    Segments,
    SegmentSize,
    Statistics,
    estimate,
    gathers,
    patient_seal_rows,
    pushes_down,
    segments_to_merge,
)

MILLION = 1_000_000
# A graph, and a forest of the same rows.
GRAPH_NS, FOREST_NS = 120_000.0, 1_500_000.0
COSTS = Costs(scan=0.15, gather=0.5)


def statistics(
    *,
    top_k: int = 10,
    live: int,
    matching: int | None = None,
    tail: int = 0,
    segments: int = 0,
    search_ns: float = GRAPH_NS,
    effort_per_hit: float = 0.02,
    scattered: float = 1.0,
    filtered_ns: float = float("inf"),
) -> Statistics:
    matching = live if matching is None else matching
    return Statistics(
        top_k, matching, live, 256, tail, segments, search_ns, effort_per_hit, scattered, filtered_ns
    )


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        # No segments: there is nothing but the tail.
        (statistics(live=100, tail=100), ExactScan),
        (statistics(live=20_000, tail=20_000), ExactScan),
        # Segments pay once the rows in them are many more than those in the tail.
        (statistics(live=100_000, segments=100_000), Segments),
        (statistics(live=100_000, segments=100_000, search_ns=FOREST_NS), Segments),
        (statistics(live=100_000, tail=20_000, segments=80_000), Segments),
        (statistics(live=5_000, tail=2_000, segments=3_000), ExactScan),
        # The memories of one owner are scored one by one.
        (statistics(live=100_000, segments=100_000, matching=1), ExactScan),
        (statistics(live=100_000, segments=100_000, matching=100), ExactScan),
        (statistics(live=MILLION, segments=MILLION, matching=1000), ExactScan),
        # So are 10,000 that stand side by side, and not those that stand alone.
        (statistics(live=100_000, segments=100_000, matching=10_000, scattered=0.0), ExactScan),
        (statistics(live=100_000, segments=100_000, matching=10_000, scattered=1.0), Segments),
        # Nearly all match: as without a filter. With a forest, half of them are scored as soon.
        (statistics(live=100_000, segments=100_000, matching=90_000, search_ns=FOREST_NS), Segments),
        (statistics(live=100_000, segments=100_000, matching=30_000, search_ns=FOREST_NS), ExactScan),
        (statistics(live=100_000, segments=100_000, matching=30_000), Segments),
        # An index would have to be searched a hundred times as deep.
        (statistics(live=100_000, segments=100_000, matching=1_000), ExactScan),
        # All matching ones are wanted.
        (statistics(live=MILLION, segments=MILLION, matching=1000, top_k=1000), ExactScan),
        # Memories without vectors do not count for the tail.
        (statistics(live=MILLION, segments=100_000, tail=10), Segments),
        (statistics(live=0), ExactScan),
        # An index that does not find at any depth is of no use.
        (statistics(live=MILLION, segments=MILLION, search_ns=float("inf")), ExactScan),
        # Many hits make it dear.
        (statistics(live=100_000, segments=100_000, top_k=200), Segments),
        (statistics(live=100_000, segments=100_000, top_k=5000), ExactScan),
    ],
)
def test_plan(given: Statistics, chosen: type[Plan]) -> None:
    assert isinstance(estimate(given, COSTS).plan, chosen)


def test_the_plan_is_the_cheaper_one() -> None:
    for matching in (1, 50, 1000, 5000, 20_000, 70_000, 100_000):
        for scattered in (0.0, 0.5, 1.0):
            given = statistics(live=100_000, segments=100_000, matching=matching, scattered=scattered)
            found = estimate(given, COSTS)
            assert isinstance(found.plan, Segments) == (found.segments_ns < found.exact_ns)


def test_a_filter_makes_segments_fetch_more() -> None:
    alone = estimate(statistics(live=100_000, segments=100_000, top_k=100), COSTS).plan
    filtered = estimate(statistics(live=100_000, segments=100_000, top_k=100, matching=80_000), COSTS).plan
    assert isinstance(alone, Segments)
    assert isinstance(filtered, Segments)
    assert (alone.fetch_rows, alone.effort) == (153, 2.0)
    assert (filtered.fetch_rows, filtered.effort) == (191, 2.0 / 0.8)


@pytest.mark.parametrize(
    ("matching", "scattered", "chosen"),
    [
        # Looking at all codes takes as long as reading 4,000 rows one by one, whatever matches.
        (1_000, 1.0, ExactScan()),
        (3_000, 1.0, ExactScan()),
        (5_000, 1.0, Segments(10, 1.0, pushes_down=True)),
        (5_000, 0.0, ExactScan()),
        (50_000, 0.0, Segments(10, 1.0, pushes_down=True)),
        (99_999, 1.0, Segments(10, 1.0, pushes_down=True)),
        # Without a filter only some of the lists are looked at.
        (100_000, 1.0, Segments(18, 1.0)),
    ],
)
def test_a_filter_that_indexes_take_is_given_to_them(matching: int, scattered: float, chosen: Plan) -> None:
    given = statistics(
        live=100_000, segments=100_000, matching=matching, scattered=scattered, filtered_ns=500_000.0
    )
    assert estimate(given, COSTS).plan == chosen


@pytest.mark.parametrize(
    ("matching", "rows", "expected"),
    [(0, 100, True), (10, 100, True), (50, 100, False), (100, 100, False), (20_000, 100_000, True)],
)
def test_gathers(matching: int, rows: int, expected: bool) -> None:
    assert gathers(matching, rows) is expected


@pytest.mark.parametrize(
    ("matching", "live", "fetch_hits", "expected"),
    [
        (100_000, 100_000, 64, False),  # no filter
        (100, 100_000, 20_000, True),
        (1000, 100_000, 2000, False),
        (1000, 100_000, 20_000, True),
        (50_000, 100_000, 64, False),
        (0, 100, 64, True),
    ],
)
def test_pushes_down(matching: int, live: int, fetch_hits: int, expected: bool) -> None:
    assert pushes_down(matching, live, fetch_hits) is expected


@pytest.mark.parametrize(
    ("tail", "segments", "expected"),
    [
        (0, [], None),
        (100, [], None),
        (101, [], set()),
        # The tail takes in what is at most twice what is being written.
        (101, [(202, 0)], {0}),
        (101, [(203, 0)], set()),
        (101, [(100, 0)], {0}),
        (101, [(400, 0)], set()),
        (101, [(400, 0), (200, 0), (100, 0)], {0, 1, 2}),  # 101, then 201, then 401
        (101, [(1000, 0), (200, 0), (100, 0)], {1, 2}),
        # A worn segment is written again even if the tail is short.
        (5, [(400, 79)], None),
        (5, [(400, 80)], {0}),
        (5, [(1300, 0), (400, 80), (300, 10)], {1, 2}),
        (0, [(400, 400)], {0}),
    ],
)
def test_segments_to_merge(tail: int, segments: list[tuple[int, int]], expected: set[int] | None) -> None:
    assert segments_to_merge(tail, [SegmentSize(*size) for size in segments], seal_rows=100) == expected


@pytest.mark.parametrize(
    ("tail", "tail_s", "expected"),
    [
        (10_000, 2.0, 100_000),  # an import
        (99_999, 20.0, 100_000),
        (40_000, 20.0, 10_000),  # 2,000 a second are not
        (10_000, 60.0, 10_000),
        (10_000, 0.9, 10_000),  # too early to say
        (1_000, 0.0, 10_000),
    ],
)
def test_a_tail_may_grow_longer_while_rows_pour_in(tail: int, tail_s: float, expected: int) -> None:
    assert patient_seal_rows(10_000, tail, tail_s) == expected


def test_the_number_of_segments_stays_logarithmic() -> None:
    segments: list[SegmentSize] = []
    for _ in range(1000):
        chosen = segments_to_merge(101, segments, seal_rows=100)
        assert chosen is not None
        written = 101 + sum(segments[place].rows for place in chosen)
        segments = [size for place, size in enumerate(segments) if place not in chosen]
        segments.append(SegmentSize(written, 0))
    assert sum(size.rows for size in segments) == 101_000
    assert len(segments) <= 11  # log2(1000) and the newest


def test_indexes_are_searched_deeper_for_more_hits() -> None:
    few = estimate(statistics(live=MILLION, segments=MILLION), COSTS).plan
    many = estimate(statistics(live=MILLION, segments=MILLION, top_k=1000), COSTS).plan
    assert isinstance(few, Segments)
    assert isinstance(many, Segments)
    assert few.effort == 1
    assert many.effort == 0.02 * 1000
