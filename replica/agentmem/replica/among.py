"""Some memories that searches are among, and where their vectors stand: found out once for all of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array
from agentmem.replica.planner import Estimate
from agentmem.replica.segment_files import RowNumbers

if TYPE_CHECKING:
    from agentmem.replica.vectors import Part

# Rows that stand side by side, or the numbers of others, ascending.
Rows = slice | RowNumbers


@dataclass(frozen=True, slots=True)
class Located:
    """Where the vectors of some memories stand.

    Attributes:
        parts: the numbers of the parts that were looked through.
        tail_rows: of the tail, by then.
        rows: of each part those that are wanted.
        ends: how many are wanted of each part and those before it.
        ordinals: of all these rows, one part behind the other, uint64 [n].
    """

    parts: tuple[int, ...]
    tail_rows: int
    rows: tuple[Rows, ...]
    ends: tuple[int, ...]
    ordinals: OrdinalArray

    @classmethod
    def among(cls, parts: tuple[Part, ...], wanted: OrdinalArray) -> Located:
        """Looks for the wanted ordinals, uint64 [n], ascending, in parts of which the last is the tail."""
        return cls._of(parts, [part.rows_of(wanted) for part in parts])

    @classmethod
    def all_of(cls, parts: tuple[Part, ...]) -> Located:
        """All live rows of parts, of which the last is the tail."""
        return cls._of(parts, [part.live_rows() for part in parts])

    @classmethod
    def _of(cls, parts: tuple[Part, ...], found: Sequence[Rows]) -> Located:
        ordinals = [part.ordinals[rows] for part, rows in zip(parts, found, strict=True)]
        return cls(
            tuple(part.number for part in parts),
            len(parts[-1].ordinals),
            tuple(found),
            tuple(np.cumsum([len(each) for each in ordinals]).tolist()),
            np.concatenate(ordinals) if len(ordinals) > 1 else ordinals[0],
        )


class Among:
    """Any thread may use it, and what it finds out is kept; two at once find out the same.

    Args:
        allowed: not to be changed.
    """

    __slots__ = ("_estimated", "_located", "_ordinals", "_places", "allowed")

    def __init__(self, allowed: OrdinalSet) -> None:
        self.allowed = allowed
        self._ordinals: OrdinalArray | None = None
        self._located: Located | None = None
        self._places: tuple[Located, npt.NDArray[np.intp]] | None = None
        self._estimated: tuple[Hashable, Estimate] | None = None

    @property
    def ordinals(self) -> OrdinalArray:
        """Uint64 [n], ascending."""
        if self._ordinals is None:
            self._ordinals = ordinal_array(self.allowed)
        return self._ordinals

    def located(self, parts: tuple[Part, ...], numbers: tuple[int, ...]) -> Located:
        """Where their vectors stand.

        Args:
            parts: of a view, the last of them the tail.
            numbers: of the parts.
        """
        known = self._located
        # Rows come to the tail, and stay where they are. One of these may be of who had no vector yet.
        if (
            known is None
            or known.parts != numbers
            or (known.tail_rows != len(parts[-1].ordinals) and len(known.ordinals) != len(self.ordinals))
        ):
            known = self._located = Located.among(parts, self.ordinals)
        return known

    def places(self, located: Located) -> npt.NDArray[np.intp]:
        """Which of the ordinals each located row is of, [n]."""
        known = self._places
        if known is None or known[0] is not located:
            known = self._places = (located, self.ordinals.searchsorted(located.ordinals))
        return known[1]

    def estimated(self, key: Hashable) -> Estimate | None:
        """The estimate that was kept last, if it was of the same."""
        known = self._estimated
        return known[1] if known is not None and known[0] == key else None

    def keep_estimate(self, key: Hashable, estimated: Estimate) -> None:
        self._estimated = (key, estimated)
