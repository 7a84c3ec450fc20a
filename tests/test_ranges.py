"""Ranges of a column: what they find is what comparing every row finds."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from drawn_filters import compiled, holds
from hypothesis import given, settings
from hypothesis import strategies as st
from memories import condition, make_memory

from agentmem.replica import facets, ranges
from agentmem.replica.facets import NO_TIME, Facets, compare
from agentmem.replica.ordinals import OrdinalSet, ordinal_array
from agentmem.replica.ranges import Ranges
from agentmem.v1 import filter_pb2, memory_pb2

OPERATORS = {
    filter_pb2.OPERATOR_EQ: 1,
    filter_pb2.OPERATOR_IN: 3,
    filter_pb2.OPERATOR_GT: 1,
    filter_pb2.OPERATOR_GTE: 1,
    filter_pb2.OPERATOR_LT: 1,
    filter_pb2.OPERATOR_LTE: 1,
    filter_pb2.OPERATOR_BETWEEN: 2,
    filter_pb2.OPERATOR_EXISTS: 0,
}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MAX_BLOCKS", 6)
    monkeypatch.setattr(ranges, "MIN_BLOCK_ROWS", 2)
    monkeypatch.setattr(ranges, "MIN_ROWS", 3)
    monkeypatch.setattr(facets, "MIN_ROWS", 3)


def plainly(
    column: Sequence[float], ordinals: Sequence[int], operator: int, values: Sequence[float]
) -> list[int]:
    """What comparing every row finds; NO_TIME is none."""
    mask = compare(np.array(column), operator, values) & (np.array(column) != NO_TIME)
    return sorted(np.array(ordinals)[mask].tolist())


@pytest.mark.usefixtures("small_blocks")
class TestSmallBlocks:
    @settings(max_examples=200)
    @given(
        st.lists(st.integers(0, 12) | st.just(NO_TIME), min_size=1, max_size=40),
        st.permutations(range(40)),
        st.lists(st.integers(-1, 13), min_size=3, max_size=3),
    )
    def test_every_comparison(self, column: list[int], permuted: list[int], given_values: list[int]) -> None:
        ordinals = permuted[: len(column)]
        made = Ranges(np.array(column, np.int64), np.array(ordinals, np.uint64))
        for operator, count in OPERATORS.items():
            values = given_values[:count]
            found = list(made.matching(operator, values, NO_TIME))
            assert found == plainly(column, ordinals, operator, values), operator

    @given(st.lists(st.sampled_from([-0.0, 0.0, 0.5, 1.0, -1e300]), min_size=1, max_size=30))
    def test_numbers(self, column: list[float]) -> None:
        ordinals = list(range(len(column)))
        made = Ranges(np.array(column), np.array(ordinals, np.uint64))
        for operator, count in OPERATORS.items():
            for values in ([0.0, 0.5, 1.0], [-0.0, -0.0, 0.25], [1.0, 0.5, 0.0]):
                found = list(made.matching(operator, values[:count], None))
                assert found == plainly(column, ordinals, operator, values[:count]), operator

    @given(st.data())
    def test_rows_that_come_later_and_older_views(self, data: st.DataObject) -> None:
        """Some rows are sorted, some have come since, and a view may be older than either."""
        grown = Facets()
        stored: dict[int, memory_pb2.Memory] = {}
        views: list[tuple[OrdinalSet, int]] = []
        for _ in range(data.draw(st.integers(1, 5))):
            for _ in range(data.draw(st.integers(0, 8))):
                memory = make_memory("m", event_time_us=data.draw(st.integers(0, 9)))
                if data.draw(st.booleans()):
                    memory.expire_time.FromMicroseconds(data.draw(st.integers(0, 9)))
                ordinal = len(stored) + 1
                stored[ordinal] = memory
                grown.add(ordinal, memory)
            views.append((OrdinalSet(stored), grown.rows))
            live, rows = data.draw(st.sampled_from(views))
            field = data.draw(st.sampled_from(["event_time", "expire_time"]))
            operator = data.draw(st.sampled_from([*OPERATORS]))
            times_us = data.draw(st.lists(st.integers(0, 9), min_size=3, max_size=3))[: OPERATORS[operator]]
            message = condition(field, operator, times_us=times_us)
            found = grown.matching(compiled(message), live, rows, lambda _: ())
            assert list(found) == [ordinal for ordinal in live if holds(message, stored[ordinal])]
            now_us = data.draw(st.integers(0, 9))
            gone = condition("expire_time", filter_pb2.OPERATOR_LTE, times_us=[now_us])
            expired = grown.expired(live, rows, now_us)
            assert list(expired) == [ordinal for ordinal in live if holds(gone, stored[ordinal])]


def test_many_rows() -> None:
    random = np.random.default_rng(3)
    column = random.integers(0, 5000, 30_000)
    ordinals = np.arange(1, 30_001, dtype=np.uint64)
    made = Ranges(column, ordinals)
    # Sorted again when an eighth has come since, and not for less.
    assert made.serves(30_000 + ranges.MIN_ROWS)
    assert not made.serves(30_000 + ranges.MIN_ROWS + 1)
    for low, high in ((0, 5000), (10, 20), (100, 4000), (2500, 2500), (4000, 9000), (3000, 10), (-5, -1)):
        found = made.matching(filter_pb2.OPERATOR_BETWEEN, [low, high], NO_TIME)
        expected = ordinals[(column >= low) & (column <= high)]
        assert np.array_equal(ordinal_array(found), expected)


def test_a_reader_that_finds_another_one_sorting_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ranges.MIN_ROWS
    grown = Facets()
    for ordinal in range(1, rows + 1):
        grown.add(ordinal, make_memory("m", event_time_us=ordinal % 100))
    begun, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def slow(
        values: np.ndarray[tuple[int], np.dtype[np.int64]],
        ordinals: np.ndarray[tuple[int], np.dtype[np.uint64]],
    ) -> Ranges:
        begun.set()
        assert go_on.wait(30)
        made.append(len(values))
        return Ranges(values, ordinals)

    monkeypatch.setattr(facets, "Ranges", slow)
    node = compiled(condition("event_time", filter_pb2.OPERATOR_LT, times_us=[10]))

    def ask() -> int:
        return len(grown.matching(node, OrdinalSet(range(1, rows + 1)), rows, lambda _: ()))

    counts: list[int] = []
    first = threading.Thread(target=lambda: counts.append(ask()))
    first.start()
    assert begun.wait(30)
    counts.append(ask())
    go_on.set()
    first.join(30)
    counts.append(ask())
    assert counts == [len([ordinal for ordinal in range(1, rows + 1) if ordinal % 100 < 10])] * 3
    assert made == [rows]
