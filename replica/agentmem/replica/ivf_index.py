"""Inverted lists over the rows of a segment, each row as a code of four bits for two components.

The rows around a centre make a list. Of the lists whose centres are nearest to a question all codes are
looked at, 32 at a time in a register (IVF, PQ fast scan in faiss); the best of them are proposed, to be
scored exactly. Looking at 100,000 codes takes 0.4 ms, so a filter is no reason to give up: all lists are
looked at, and what does not match is left out there. Unlike in a graph, a question need not be like what is
stored.
"""

from __future__ import annotations

from math import isqrt
from pathlib import Path

import numpy as np

from agentmem.core.records import FloatVector
from agentmem.replica.one_thread_faiss import faiss
from agentmem.replica.segment_files import FloatRows, RowMask, RowNumbers

KIND = "ivf"
FILE = "index.ivf"
METRIC = "inner product"  # of unit vectors: the cosine
PARAMETERS = {"bits": 4, "components_per_code": 2, "iterations": 10, "trained_rows_per_list": 64}
MAX_LISTS, MIN_ROWS_PER_LIST = 4096, 8
# Of fewer all codes are looked at, which takes 0.13 ms: of short lists, what is near is in many.
MIN_SCANNED_ROWS = 25_000
# What is looked at, as a share of the lists: the first that reaches the recall is taken. With less than the
# first, questions of a few words had 0.944 among 300,000, where those of the calibration had 0.98.
TRIED_SHARES = (0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)
# Codes tell near rows apart but roughly. With 64 proposals recall@10 among 100,000 stayed below 0.95.
MIN_PROPOSED_ROWS = 192
PROPOSED_PER_ROW = 3
DEPTH_PER_HIT = 1
TARGET_RECALL = 0.98
HARD_CALIBRATION = True
TAKES_FILTER = True
SELF_TEST_DEPTH = 8
# Of each component, hundreds of times less than by what rows differ.
TRAINING_NOISE = np.float32(1e-4)


class InvertedLists:
    """Open lists. Any thread may search them; their file may be unlinked meanwhile.

    Args:
        rows: float32 [n, dimension], of which they were built.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no lists of so many rows.
    """

    def __init__(self, path: Path, rows: FloatRows) -> None:
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} has no lists: {error}") from error
        if (
            not isinstance(index, faiss.IndexIVFPQFastScan)
            or index.ntotal != len(rows)
            or index.d != rows.shape[1]
        ):
            raise ValueError(f"{path} has no lists of {len(rows)} rows of {rows.shape[1]} components")
        self._index = index

    @property
    def items(self) -> int:
        return int(self._index.ntotal)

    def nearest(self, query: FloatVector, rows: int, depth: int, among: RowMask | None = None) -> RowNumbers:
        """Row numbers, int64, of what is probably nearest to the query: ``rows`` or more.

        One whose code is the least like the query in every part is left out by faiss. Where it would be
        wanted the answer is too short, and the caller looks at all.

        Args:
            query: float32 [dimension].
            depth: how many lists are looked at; more is better and slower.
            among: what may be proposed, bool [n]; None for every row.
        """
        wanted = min(max(MIN_PROPOSED_ROWS, PROPOSED_PER_ROW * rows), self.items)
        found = np.empty(wanted, dtype=np.int64)
        products = np.empty(wanted, dtype=np.float32)
        asked = np.ascontiguousarray(query, dtype=np.float32)
        depth = min(depth, self._index.nlist)
        if among is None:
            how = faiss.SearchParametersIVF(nprobe=depth)
        else:
            bits = np.packbits(among, bitorder="little")
            how = faiss.SearchParametersIVF(nprobe=depth, sel=faiss.IDSelectorBitmap(bits))
        self._index.search_c(
            1, faiss.swig_ptr(asked), wanted, faiss.swig_ptr(products), faiss.swig_ptr(found), how
        )
        # What it does not reach it fills up with -1.
        return found[: np.count_nonzero(found >= 0)]


open_index = InvertedLists


def tried_depths(count: int) -> list[int]:
    """The depths of which one is chosen, ascending."""
    lists = list_count(count)
    fewest = min(1.0, MIN_SCANNED_ROWS / count)
    return sorted({max(1, round(lists * max(share, fewest))) for share in TRIED_SHARES})


def list_count(count: int) -> int:
    """How many lists so many rows are parted into."""
    return max(1, min(2 * isqrt(count), count // MIN_ROWS_PER_LIST, MAX_LISTS))


def build(path: Path, rows: FloatRows) -> None:
    """Writes the lists of float32 [n, dimension], unsynced."""
    count, dimension = rows.shape
    lists, bits = list_count(count), PARAMETERS["bits"]
    parts = dimension // PARAMETERS["components_per_code"] if dimension % 2 == 0 else dimension
    centres = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFPQFastScan(centres, dimension, lists, parts, bits, faiss.METRIC_INNER_PRODUCT)
    for clustering in (index.cp, index.pq.cp):
        clustering.niter = PARAMETERS["iterations"]
        clustering.min_points_per_centroid = 1  # it would warn
    index.cp.spherical = True  # lists of more equal length
    index.cp.max_points_per_centroid = PARAMETERS["trained_rows_per_list"]
    random = np.random.default_rng(count)
    trained = rows[random.permutation(count)[: lists * PARAMETERS["trained_rows_per_list"]]]
    # A table of 16 codes needs as many rows, and of rows that are all the same nothing could be learnt.
    trained = np.resize(trained, (max(len(trained), 1 << bits), dimension))
    index.train(trained + TRAINING_NOISE * random.standard_normal(trained.shape, dtype=np.float32))
    index.add(np.ascontiguousarray(rows))
    faiss.write_index(index, str(path))
