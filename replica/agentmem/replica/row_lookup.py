"""Finding the rows of ordinals in a segment, whose rows are not in the order of their ordinals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agentmem.replica.ordinals import OrdinalArray
from agentmem.replica.segment_files import RowNumbers

# Of the table, 4 bytes each. A segment whose ordinals lie further apart is searched by halving.
MAX_TABLE_ENTRIES_PER_ROW = 8
NO_ROW = -1


class RowLookup:
    """Immutable, for any thread.

    Args:
        ordinals: of each row, uint64 [n], distinct, in any order; at least one.
    """

    def __init__(self, ordinals: OrdinalArray) -> None:
        self._first, self._last = int(ordinals.min()), int(ordinals.max())
        entries = self._last - self._first + 1
        self._table: npt.NDArray[np.int32] | None = None
        if entries <= MAX_TABLE_ENTRIES_PER_ROW * len(ordinals):
            self._table = np.full(entries, NO_ROW, dtype=np.int32)
            self._table[ordinals - np.uint64(self._first)] = np.arange(len(ordinals), dtype=np.int32)
        else:
            self._order = np.argsort(ordinals).astype(np.int32)
            self._sorted = ordinals[self._order]

    def find(self, ordinals: OrdinalArray) -> tuple[RowNumbers, RowNumbers]:
        """Which of the ordinals have a row here, by their places, int64, and the rows of those, int32.

        Args:
            ordinals: uint64 [n], ascending.
        """
        start, end = 0, len(ordinals)
        if end and (int(ordinals[0]) < self._first or int(ordinals[-1]) > self._last):
            start = int(ordinals.searchsorted(np.uint64(self._first)))
            end = int(ordinals.searchsorted(np.uint64(self._last), side="right"))
        wanted = ordinals[start:end]
        if self._table is not None:
            rows = self._table[wanted - np.uint64(self._first)]
        else:
            found = self._sorted.searchsorted(wanted)
            rows = np.where(self._sorted[found] == wanted, self._order[found], np.int32(NO_ROW))
        here = np.flatnonzero(rows >= 0)
        return here + start, rows if len(here) == len(rows) else rows[here]
