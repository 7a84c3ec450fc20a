"""The vectors of a namespace in its coming embedding space, gathered beside those that answer searches.

They come in the order in which the writer makes them, which is not that of their ordinals. When the coming
space takes the place of the one in use, they become the namespace's vectors, in one step.
"""

from __future__ import annotations

import numpy as np

from agentmem.core.records import FloatVector
from agentmem.replica.columns import Column
from agentmem.replica.namespace_vectors import NamespaceVectors
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array


class ComingVectors:
    """One thread uses it."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._ordinals = Column(np.uint64)
        self._rows = Column(np.float32, dimension)
        # Also those that mean nothing to the model.
        self._known = OrdinalSet()

    def add(self, ordinal: int, vector: FloatVector) -> None:
        """Adds a unit vector, float32 [dimension], or an empty one for a memory that gets none.

        One that is there already is the same, and passed over.
        """
        if ordinal in self._known:
            return
        self._known.add(ordinal)
        if len(vector):
            self._ordinals.append(ordinal)
            self._rows.append(vector)

    def missing(self, live: OrdinalSet) -> OrdinalSet:
        """The live ordinals that nothing was added for."""
        return live - self._known

    def gathered(self, live: OrdinalSet) -> tuple[NamespaceVectors | None, OrdinalArray]:
        """The vectors of the live ordinals, None when there are none; and these ordinals, ascending."""
        ordinals: OrdinalArray = self._ordinals.rows(self._ordinals.count)
        rows = np.flatnonzero(np.isin(ordinals, ordinal_array(live), assume_unique=True))
        rows = rows[np.argsort(ordinals[rows])]
        if not len(rows):
            return None, ordinals[rows]
        vectors = NamespaceVectors.of(ordinals[rows], self._rows.rows(self._rows.count)[rows])
        return vectors, ordinals[rows]
