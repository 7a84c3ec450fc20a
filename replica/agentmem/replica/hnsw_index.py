"""A graph (HNSW) over the rows of a segment: dear to build, quick to search.

The file has the links of the graph alone. The vectors that it compares are those of ``rows.f32``: both files
are mapped, so the processes of a host that have a segment open share its memory, and nothing is there twice.
This is the only module that imports faiss.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np

from agentmem.core.records import FloatVector
from agentmem.replica.segment_files import FloatRows, RowNumbers

KIND = "hnsw"
FILE = "index.hnsw"
METRIC = "l2"  # of unit vectors: the order is that of the cosine
# Measured with 100,000 memories of conversations, 256 components: recall@10 of 0.95 in 0.11 ms; with 16 links
# and 80 in 0.17 ms. 208 bytes a row.
PARAMETERS = {"links": 24, "construction_depth": 100}
TRIED_DEPTHS = (16, 24, 32, 48, 64, 80, 100, 128, 192, 256, 384, 512)
DEPTH_PER_HIT = 2
# Between two memories thousands may be equally near, and a question is not there. What is asked of
# conversations had up to 0.026 less than these questions beside a row: 0.934 of 10,000 with a target of 0.96.
TARGET_RECALL = 0.99
HARD_CALIBRATION = False
SELF_TEST_DEPTH = 64

# Questions come from many threads already, and a build runs beside them.
faiss.omp_set_num_threads(1)


class HnswGraph:
    """An open graph. Any thread may search it; its file may be unlinked meanwhile.

    Args:
        rows: float32 [n, dimension], of which the graph was built; kept, and not copied.

    Raises:
        OSError: the file cannot be mapped.
        ValueError: it is no graph of so many rows.
    """

    def __init__(self, path: Path, rows: FloatRows) -> None:
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_SKIP_STORAGE | faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ValueError(f"{path} is not a graph: {error}") from error
        if (
            not isinstance(index, faiss.IndexHNSWFlat)
            or index.ntotal != len(rows)
            or index.d != rows.shape[1]
        ):
            raise ValueError(f"{path} is not a graph of {len(rows)} rows of {rows.shape[1]} components")
        self._rows = rows
        self._storage = faiss.IndexFlatL2(rows.shape[1])
        # A view must have an owner, which faiss keeps alive; any serves, as the rows are kept here.
        self._storage.codes = faiss.MaybeOwnedVectorUInt8.create_view(
            faiss.swig_ptr(rows.reshape(-1).view(np.uint8)), rows.nbytes, index.hnsw.neighbors.owner
        )
        self._storage.ntotal = len(rows)
        index.storage, index.own_fields = self._storage, False
        self._index = index

    @property
    def items(self) -> int:
        return int(self._index.ntotal)

    def nearest(self, query: FloatVector, rows: int, depth: int) -> RowNumbers:
        """Row numbers, int64 [at most ``rows``], of what is probably nearest to the query, nearest first.

        Args:
            query: float32 [dimension].
            depth: how many candidates are kept while searching, efSearch; more is better and slower.
        """
        found = np.empty(rows, dtype=np.int64)
        distances = np.empty(rows, dtype=np.float32)
        asked = np.ascontiguousarray(query, dtype=np.float32)
        self._index.search_c(
            1,
            faiss.swig_ptr(asked),
            rows,
            faiss.swig_ptr(distances),
            faiss.swig_ptr(found),
            faiss.SearchParametersHNSW(efSearch=max(depth, rows)),
        )
        # What it does not reach it fills up with -1.
        return found[: np.count_nonzero(found >= 0)]


def tried_depths(count: int) -> list[int]:
    """The depths of which one is chosen, ascending."""
    return [depth for depth in TRIED_DEPTHS if depth < count] or [count]


def build(path: Path, rows: FloatRows) -> None:
    """Writes a graph over float32 [n, dimension], unsynced."""
    index = faiss.IndexHNSWFlat(rows.shape[1], PARAMETERS["links"])
    index.hnsw.efConstruction = PARAMETERS["construction_depth"]
    index.add(np.ascontiguousarray(rows))
    faiss.write_index(index, str(path), faiss.IO_FLAG_SKIP_STORAGE)
