"""Arrays that grow while others read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FIRST_CAPACITY_ROWS = 16


class Column:
    """Rows that are only ever appended, in one array.

    One thread appends. A reader asks for as many rows as it was told are there; what it gets never changes,
    since a full array is copied into a larger one and not resized in place.

    Args:
        dtype: of the elements.
        width: elements in a row; None for plain numbers.
    """

    def __init__(self, dtype: npt.DTypeLike, width: int | None = None) -> None:
        self._data: npt.NDArray[Any] = np.empty(self._shape(FIRST_CAPACITY_ROWS, width), dtype)
        self._width = width
        self.count = 0

    @classmethod
    def of(cls, rows: npt.NDArray[Any]) -> Column:
        """A column that begins with a copy of ``rows``."""
        column = cls(rows.dtype, rows.shape[1] if rows.ndim == 2 else None)
        column._reserve(len(rows))
        column._data[: len(rows)] = rows
        column.count = len(rows)
        return column

    @staticmethod
    def _shape(rows: int, width: int | None) -> tuple[int, ...]:
        return (rows,) if width is None else (rows, width)

    def _reserve(self, rows: int) -> None:
        if rows <= len(self._data):
            return
        grown = np.empty(self._shape(max(rows, 2 * len(self._data)), self._width), self._data.dtype)
        grown[: self.count] = self._data[: self.count]
        self._data = grown

    def append(self, row: Any) -> None:
        if self.count == len(self._data):
            self._reserve(self.count + 1)
        self._data[self.count] = row
        self.count += 1

    def extend(self, rows: Sequence[Any] | npt.NDArray[Any]) -> None:
        """Appends several rows, for less than one by one."""
        end = self.count + len(rows)
        self._reserve(end)
        self._data[self.count : end] = rows
        self.count = end

    def rows(self, count: int) -> npt.NDArray[Any]:
        """The first ``count`` rows, not copied."""
        return self._data[:count]
