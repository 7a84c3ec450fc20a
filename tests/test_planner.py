"""The choice of a plan, as tables of cases."""

from __future__ import annotations

import pytest

from agentmem.replica.planner import (
    FOREST_ROWS_PER_HIT,
    ExactScan,
    Plan,
    Segments,
    SegmentSize,
    Statistics,
    gathers,
    plan,
    pushes_down,
    segments_to_merge,
)

MILLION = 1_000_000


def statistics(
    *,
    top_k: int = 10,
    live: int,
    matching: int | None = None,
    tail: int = 0,
    segments: int = 0,
    share: float = 0.3,
) -> Statistics:
    return Statistics(
        top_k, live if matching is None else matching, live, tail, segments, forest_rows=int(segments * share)
    )


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        # No segments: there is nothing but the tail.
        (statistics(live=100, tail=100), ExactScan),
        (statistics(live=20_000, tail=20_000), ExactScan),
        # Segments pay once the rows in them are many more than those in the tail.
        (statistics(live=100_000, segments=100_000), Segments),
        (statistics(live=100_000, tail=20_000, segments=80_000), Segments),
        # The memories of one owner are scored one by one.
        (statistics(live=100_000, segments=100_000, matching=1), ExactScan),
        (statistics(live=100_000, segments=100_000, matching=100), ExactScan),
        (statistics(live=MILLION, segments=MILLION, matching=1000), ExactScan),
        (statistics(live=MILLION, segments=MILLION, matching=100_000), ExactScan),
        # Nearly all match: as without a filter.
        (statistics(live=100_000, segments=100_000, matching=90_000), Segments),
        # Half match: the forests would have to look at twice as many rows.
        (statistics(live=100_000, segments=100_000, matching=50_000), ExactScan),
        # All matching ones are wanted.
        (statistics(live=MILLION, segments=MILLION, matching=1000, top_k=1000), ExactScan),
        # Memories without vectors do not count for the tail.
        (statistics(live=MILLION, segments=100_000, tail=10), Segments),
        (statistics(live=0), ExactScan),
        # A forest that has to look at most of its rows is of no use.
        (statistics(live=MILLION, segments=MILLION, share=1.0), ExactScan),
    ],
)
def test_plan(given: Statistics, chosen: type[Plan]) -> None:
    assert isinstance(plan(given), chosen)


def test_a_filter_makes_segments_fetch_more() -> None:
    alone = plan(statistics(live=100_000, segments=100_000, top_k=100))
    filtered = plan(statistics(live=100_000, segments=100_000, top_k=100, matching=80_000))
    assert isinstance(alone, Segments)
    assert isinstance(filtered, Segments)
    assert (alone.fetch_rows, alone.last_rank, alone.effort) == (200, 153, 1.0)
    assert (filtered.fetch_rows, filtered.last_rank, filtered.effort) == (250, 191, 1 / 0.8)


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
        # The tail takes in what is not bigger than what is being written.
        (101, [(100, 0)], {0}),
        (101, [(400, 0)], set()),
        (101, [(400, 0), (200, 0), (100, 0)], {0, 1, 2}),  # 101, then 201, then 401
        (101, [(1000, 0), (200, 0), (100, 0)], {1, 2}),
        # A worn segment is written again even if the tail is short.
        (5, [(400, 79)], None),
        (5, [(400, 80)], {0}),
        (5, [(1000, 0), (400, 80), (300, 10)], {1, 2}),
        (0, [(400, 400)], {0}),
    ],
)
def test_segments_to_merge(tail: int, segments: list[tuple[int, int]], expected: set[int] | None) -> None:
    assert segments_to_merge(tail, [SegmentSize(*size) for size in segments], seal_rows=100) == expected


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


def test_forests_look_at_more_rows_for_more_hits() -> None:
    few = plan(statistics(live=MILLION, segments=MILLION, share=0.02))
    many = plan(statistics(live=MILLION, segments=MILLION, share=0.02, top_k=1000))
    filtered = plan(statistics(live=MILLION, segments=MILLION, share=0.02, top_k=1000, matching=800_000))
    assert isinstance(few, Segments)
    assert isinstance(many, Segments)
    assert isinstance(filtered, Segments)
    assert few.effort == 1
    assert many.effort * 20_000 == FOREST_ROWS_PER_HIT * 1000
    assert filtered.effort == pytest.approx(many.effort / 0.8)
