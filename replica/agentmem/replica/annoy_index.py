"""An Annoy forest over the rows of a segment: quick to build. This is the only module that imports annoy.

Annoy's item ids have 32 bits, so items are row numbers and not ordinals. Its ``dot`` metric is broken in
1.17.3, ``save`` does not sync, and ``load`` takes almost any file: hence the checksums and the self-test.

How many rows a forest must look at depends on the vectors: from a tenth of them to more than all, as a row
is counted in each tree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from annoy import AnnoyIndex

from agentmem.core.records import FloatVector
from agentmem.replica.segment_files import FloatRows, RowMask, RowNumbers

FILE = "index.annoy"
METRIC: Literal["angular"] = "angular"
PARAMETERS = {"trees": 24, "seed": 20_240_229}
ADD_CHUNK_ROWS = 4096
# What a forest looks at, as a share of its rows: the first that reaches the recall is taken.
TRIED_SHARES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.37, 0.45, 0.55, 0.7, 1.0)
# The depth is measured for ten hits. Hits beyond those that lie close together are in many leaves: from about
# a hundred on, recall 0.95 took 20 to 25 rows for each.
DEPTH_PER_HIT = 25
TARGET_RECALL = 0.95
HARD_CALIBRATION = True
TAKES_FILTER = False
SELF_TEST_DEPTH = 10 * PARAMETERS["trees"]


class AnnoyForest:
    """An open forest. Any thread may search it; its file may be unlinked meanwhile.

    Args:
        rows: float32 [n, dimension], of which the forest was built.

    Raises:
        OSError: the file cannot be mapped.
    """

    def __init__(self, path: Path, rows: FloatRows) -> None:
        self._index = AnnoyIndex(rows.shape[1], METRIC)
        self._index.load(str(path))

    @property
    def items(self) -> int:
        return int(self._index.get_n_items())

    def nearest(self, query: FloatVector, rows: int, depth: int, among: RowMask | None = None) -> RowNumbers:
        """Row numbers, int64 [at most ``rows``], of what is probably nearest to the query.

        Args:
            query: float32 [dimension].
            depth: how many rows the forest looks at, Annoy's search_k; more is better and slower.
            among: None; it does not take a filter.
        """
        return np.array(self._index.get_nns_by_vector(query.tolist(), rows, depth), dtype=np.int64)


open_index = AnnoyForest


def tried_depths(count: int) -> list[int]:
    """The depths of which one is chosen, ascending."""
    return [int(share * count) for share in TRIED_SHARES]


def build(path: Path, rows: FloatRows) -> None:
    """Writes a forest over float32 [n, dimension], unsynced."""
    index = AnnoyIndex(rows.shape[1], METRIC)
    index.set_seed(PARAMETERS["seed"])
    for start in range(0, len(rows), ADD_CHUNK_ROWS):
        for row, vector in enumerate(rows[start : start + ADD_CHUNK_ROWS].tolist(), start):
            index.add_item(row, vector)
    index.build(PARAMETERS["trees"], n_jobs=1)
    index.save(str(path))
    index.unload()
