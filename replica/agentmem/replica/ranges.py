"""Ranges of a column, found by halving instead of looking at every row.

    values     those of the first rows of the column, ascending
    ordinals   the ordinal of each of them
    below      the set of the first k * block ordinals of them, for k = 0, 1, 2, …

A narrow range costs its own size. Of a wide one the rows up to the nearest ends of blocks do; what lies
between is the difference of two of the sets. Made of the rows that are there when it is first asked for, and
made anew when many have come since; these are compared one by one until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_set
from agentmem.v1 import filter_pb2

# The sets take at most a bit for each row and block, so 16 bytes for each row.
MAX_BLOCKS = 128
MIN_BLOCK_ROWS = 1024
# Fewer rows are compared one by one: it takes no longer.
MIN_ROWS = 4096
# Of the rows that were sorted; sorting again costs about as much as comparing ten times as many.
MAX_UNSORTED_SHARE = 0.125


class Ranges:
    """The rows that were in a column at one time, by value. Immutable, for any thread.

    Args:
        values: int64 or float64 [n], without NaN.
        ordinals: uint64 [n].
    """

    def __init__(self, values: npt.NDArray[Any], ordinals: OrdinalArray) -> None:
        order = np.argsort(values, kind="stable")
        self.rows = len(values)
        self._values = values[order]
        self._ordinals = ordinals[order]
        self._block_rows = max(MIN_BLOCK_ROWS, -(-self.rows // MAX_BLOCKS))
        self._below = [OrdinalSet()]
        for end in range(self._block_rows, self.rows + 1, self._block_rows):
            below = self._below[-1] | self._slice(end - self._block_rows, end)
            below.run_optimize()
            self._below.append(below)

    def serves(self, rows: int) -> bool:
        """Whether it still pays to ask this for a column of so many rows."""
        return rows - self.rows <= max(MIN_ROWS, MAX_UNSORTED_SHARE * self.rows)

    def matching(self, operator: int, values: Sequence[Any], missing: int | None) -> OrdinalSet:
        """The ordinals with a value for which the comparison holds.

        Args:
            missing: the highest of all values, which stands for none; None when every row has one.
        """
        end = self.rows if missing is None else self._first(missing)
        if operator == filter_pb2.OPERATOR_IN:
            found = [self._between(self._first(value), min(end, self._behind(value))) for value in values]
            return OrdinalSet().union(*found)
        start = 0
        if operator in (filter_pb2.OPERATOR_EQ, filter_pb2.OPERATOR_GTE, filter_pb2.OPERATOR_BETWEEN):
            start = self._first(values[0])
        elif operator == filter_pb2.OPERATOR_GT:
            start = self._behind(values[0])
        if operator in (filter_pb2.OPERATOR_EQ, filter_pb2.OPERATOR_LTE, filter_pb2.OPERATOR_BETWEEN):
            end = min(end, self._behind(values[-1]))
        elif operator == filter_pb2.OPERATOR_LT:
            end = min(end, self._first(values[0]))
        return self._between(start, end)

    def _first(self, value: Any) -> int:
        return int(np.searchsorted(self._values, value, side="left"))

    def _behind(self, value: Any) -> int:
        return int(np.searchsorted(self._values, value, side="right"))

    def _between(self, start: int, end: int) -> OrdinalSet:
        if end - start <= self._block_rows:
            return self._slice(start, end)
        first, last = self._nearest(start), self._nearest(end)
        found: OrdinalSet = self._below[last] - self._below[first]
        for place, edge, is_inside in (
            (start, first * self._block_rows, start < first * self._block_rows),
            (end, last * self._block_rows, end > last * self._block_rows),
        ):
            part = self._slice(min(place, edge), max(place, edge))
            found = found | part if is_inside else found - part
        return found

    def _nearest(self, place: int) -> int:
        return min(round(place / self._block_rows), len(self._below) - 1)

    def _slice(self, start: int, end: int) -> OrdinalSet:
        # A set is made of ordinals in order several times as fast.
        return ordinal_set(np.sort(self._ordinals[start : max(start, end)]))
