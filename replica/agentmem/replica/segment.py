"""A sealed segment: vectors of one namespace that change no more, with an index that proposes the nearest.

How deep an index must be searched depends on the vectors. So it is measured when the index is built, for
a recall@10 of 0.95 or more on queries that are harder than most; and what that costs, when it is opened.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agentmem.core.data_directory import sync
from agentmem.core.records import FloatVector
from agentmem.replica.ordinals import OrdinalArray
from agentmem.replica.row_codes import RowCodes
from agentmem.replica.row_lookup import RowLookup
from agentmem.replica.segment_files import (
    CODES_FILE,
    ORDINALS_FILE,
    ROWS_FILE,
    SCALES_FILE,
    SEGMENT_FORMAT,
    SIDECAR_FILE,
    FloatRows,
    RowMask,
    RowNumbers,
    SegmentError,
    Sidecar,
    file_sha256,
    read_sidecar,
)

# Of every segment, whatever its index.
ROW_FILES = (ORDINALS_FILE, ROWS_FILE, CODES_FILE, SCALES_FILE)
KINDS = ("annoy", "hnsw", "ivf")
# For an index that reaches it with no depth that was tried: dearer than any scan.
HOPELESS_DEPTH = 1 << 30
CALIBRATION_QUERIES = 384
MEASURED_QUERIES = 32
CALIBRATION_HITS = 10
# From a row, for what is not hard: a cosine of 0.82.
CALIBRATION_DISTANCE = 0.7
CALIBRATION_CHUNK_ROWS = 65_536
SELF_TEST_ROWS = 32
SELF_TEST_HITS = 10
# A row that looks for itself finds itself, or its equal, but for what float32 loses.
SELF_TEST_COSINE = 0.999
SELF_TEST_FOUND_SHARE = 0.9


class SegmentIndex(Protocol):
    """What annoy_index.py, hnsw_index.py and ivf_index.py have."""

    @property
    def items(self) -> int: ...

    def nearest(
        self, query: FloatVector, rows: int, depth: int, among: RowMask | None = None
    ) -> RowNumbers: ...


def has_faiss() -> bool:
    """Whether faiss is installed."""
    return importlib.util.find_spec("faiss") is not None


def _module(kind: str) -> ModuleType:
    """Raises SegmentError: no such kind, or what it needs is not installed."""
    # Loaded when first needed: faiss takes 12 MiB, and may be missing.
    if kind == "annoy":
        from agentmem.replica import annoy_index

        return annoy_index
    if kind == "hnsw" and has_faiss():
        from agentmem.replica import hnsw_index

        return hnsw_index
    if kind == "ivf" and has_faiss():
        from agentmem.replica import ivf_index

        return ivf_index
    raise SegmentError(f"there is no index of the kind {kind!r} here")


def _opened(kind: str, folder: Path, rows: FloatRows) -> SegmentIndex:
    module = _module(kind)
    index: SegmentIndex = module.open_index(folder / module.FILE, rows)
    return index


class Segment:
    """An open segment. Any thread may search it; its files may be unlinked meanwhile.

    Attributes:
        ordinals: of each row, uint64 [count].
        rows: unit vectors, float32 [count, dimension].
        codes: of the rows.
        lookup: finds the row of an ordinal.
        search_ns: CPU time of a search for ten hits without a filter, as measured when it was opened.
        filtered_ns: of one under a filter that the index is given; infinite when it does not take any.
        effort_per_hit: how many times as deep as for ten hits it has to be searched, for each hit.
    """

    def __init__(
        self,
        name: str,
        sidecar: Sidecar,
        ordinals: OrdinalArray,
        rows: FloatRows,
        codes: RowCodes,
        index: SegmentIndex,
    ) -> None:
        self.name = name
        self.sidecar = sidecar
        self.ordinals = ordinals
        self.rows = rows
        self.codes = codes
        self.lookup = RowLookup(ordinals)
        self.search_ns = float("inf")
        self.filtered_ns = float("inf")
        self.effort_per_hit = 0.0
        self._index = index

    @classmethod
    def open(cls, folder: Path) -> Segment:
        """Maps a segment's files after checking every byte of them.

        Raises:
            SegmentError: something is missing, or not what the sidecar says, or the index does not find.
        """
        try:
            sidecar = read_sidecar(folder)
            if sidecar.format != SEGMENT_FORMAT:
                raise SegmentError(f"{folder} has format {sidecar.format}")
            module = _module(sidecar.index)
            if sidecar.depth < 1:
                raise SegmentError(f"{folder} has depth {sidecar.depth}")
            if sidecar.metric != module.METRIC:
                raise SegmentError(f"{folder} has metric {sidecar.metric}")
            for name in (*ROW_FILES, module.FILE):
                if file_sha256(folder / name) != sidecar.sha256[name]:
                    raise SegmentError(f"{folder / name} fails its checksum")
            ordinals: OrdinalArray = np.fromfile(folder / ORDINALS_FILE, dtype="<u8")
            shape = (sidecar.count, sidecar.dimension)
            rows: FloatRows = _mapped(folder / ROWS_FILE, "<f4", shape)
            scales = _mapped(folder / SCALES_FILE, "<f4", (sidecar.count + 1,))
            codes = RowCodes(_mapped(folder / CODES_FILE, "i1", shape), scales[:-1], float(scales[-1]))
            index = _opened(sidecar.index, folder, rows)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SegmentError(f"{folder} cannot be read: {error}") from error
        if not len(ordinals) == sidecar.count == index.items:
            raise SegmentError(f"{folder} has {len(ordinals)} ordinals and {index.items} items")
        segment = cls(folder.name, sidecar, ordinals, rows, codes, index)
        segment.effort_per_hit = module.DEPTH_PER_HIT / sidecar.depth
        segment._self_test(module.SELF_TEST_DEPTH)
        if sidecar.depth < HOPELESS_DEPTH:
            segment._measure(takes_filter=module.TAKES_FILTER)
        return segment

    @property
    def count(self) -> int:
        return self.sidecar.count

    def nearest(self, query: FloatVector, rows: int, effort: float) -> RowNumbers:
        """Row numbers, int64, of what is probably nearest to the query: ``rows`` or more.

        Args:
            query: float32 [dimension].
            effort: how many times as deep as for ten hits without a filter.
        """
        rows = min(rows, self.count)
        return self._index.nearest(query, rows, max(rows, int(effort * self.sidecar.depth)))

    def nearest_of(self, query: FloatVector, rows: int, among: RowNumbers) -> RowNumbers:
        """As ``nearest``, of some rows, by an index that takes a filter: it looks at all that it has.

        Args:
            among: distinct, in any order.
        """
        mask = np.zeros(self.count, dtype=np.bool_)
        mask[among] = True
        return self._index.nearest(query, min(rows, self.count), self.count, mask)

    def _self_test(self, depth: int) -> None:
        sample = np.unique(np.linspace(0, self.count - 1, SELF_TEST_ROWS).astype(np.int64))
        found = 0
        for row in sample:
            query = self.rows[row]
            hits = self._index.nearest(query, min(SELF_TEST_HITS, self.count), depth)
            found += bool(len(hits)) and float((self.rows[hits] @ query).max()) >= SELF_TEST_COSINE
        if found < SELF_TEST_FOUND_SHARE * len(sample):
            raise SegmentError(f"segment {self.name} finds {found} of {len(sample)} of its own rows")

    def _measure(self, *, takes_filter: bool) -> None:
        queries = _questions(self.rows, MEASURED_QUERIES, hard=False)
        self.search_ns = _typical_ns(lambda query: self.nearest(query, CALIBRATION_HITS, 1.0), queries)
        if takes_filter:
            half = np.arange(0, self.count, 2)
            self.filtered_ns = _typical_ns(
                lambda query: self.nearest_of(query, CALIBRATION_HITS, half), queries
            )


def _mapped(path: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    # A plain array of the same memory: np.memmap adds a microsecond to each operation.
    return np.memmap(path, dtype=dtype, mode="r", shape=shape).view(np.ndarray)


def _typical_ns(search: Callable[[FloatVector], RowNumbers], queries: FloatRows) -> float:
    """The median of the CPU time that a search takes, nanoseconds."""
    took_ns = []
    for query in queries:
        began_ns = time.thread_time_ns()
        search(query)
        took_ns.append(time.thread_time_ns() - began_ns)
    return float(np.median(took_ns))


def write_segment(
    folder: Path, *, dimension: int, kind: str = "annoy", replaces: list[str], space: int = 0
) -> None:
    """Builds codes, index and sidecar beside the ordinals and rows in the folder, and syncs all of it.

    Args:
        kind: of the index, one of KINDS.

    Raises:
        OSError, ValueError: the folder lacks the two files, or they do not fit together, or the disk is full.
        SegmentError: there is no such index here.
    """
    module = _module(kind)
    ordinals: OrdinalArray = np.fromfile(folder / ORDINALS_FILE, dtype="<u8")
    rows = np.memmap(folder / ROWS_FILE, dtype="<f4", mode="r").reshape(-1, dimension).view(np.ndarray)
    if len(ordinals) != len(rows):
        raise ValueError(f"{folder} has {len(ordinals)} ordinals for {len(rows)} rows")
    codes = RowCodes.of(rows)
    codes.codes.tofile(folder / CODES_FILE)
    np.append(codes.scales, codes.residual).astype("<f4").tofile(folder / SCALES_FILE)
    module.build(folder / module.FILE, rows)
    index = _opened(kind, folder, rows)
    questions = _questions(rows, CALIBRATION_QUERIES, hard=module.HARD_CALIBRATION)
    depth = _needed_depth(index, module.tried_depths(len(rows)), rows, questions, module.TARGET_RECALL)
    files = (*ROW_FILES, module.FILE)
    sidecar = Sidecar(
        format=SEGMENT_FORMAT,
        index=kind,
        metric=module.METRIC,
        dimension=dimension,
        parameters=module.PARAMETERS,
        count=len(rows),
        depth=depth,
        replaces=replaces,
        sha256={name: file_sha256(folder / name) for name in files},
        space=space,
    )
    (folder / SIDECAR_FILE).write_text(json.dumps(asdict(sidecar), indent=1), encoding="utf-8")
    for name in (*files, SIDECAR_FILE):
        sync(folder / name)
    sync(folder)


def _questions(rows: FloatRows, count: int, *, hard: bool) -> FloatRows:
    """What stands for questions, which are not in the segment but off its rows, float32 [count, dimension].

    Each lies beside a row. Of the hard ones half lie further off, and half between two rows.
    """
    random = np.random.default_rng(len(rows))
    first = rows[random.integers(0, len(rows), count)]
    beside = random.standard_normal(first.shape, dtype=np.float32)
    beside /= np.linalg.norm(beside, axis=1, keepdims=True)
    queries = first + CALIBRATION_DISTANCE * beside
    if hard:
        second = rows[random.integers(0, len(rows), count)]
        queries = first + np.where(np.arange(len(first))[:, np.newaxis] % 2, second, beside)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return np.asarray(queries, dtype=np.float32)


def _needed_depth(
    index: SegmentIndex, depths: list[int], rows: FloatRows, queries: FloatRows, target_recall: float
) -> int:
    """The smallest of the depths that reaches the target recall."""
    hits = min(CALIBRATION_HITS, len(rows))
    nearest = _nearest_exactly(queries, rows, hits)
    for depth in depths:
        found = 0
        for query, expected in zip(queries, nearest, strict=True):
            proposed = index.nearest(query, hits, max(hits, depth))
            found += len(np.intersect1d(proposed, expected))
        if found >= target_recall * hits * len(queries):
            return max(hits, depth)
    return HOPELESS_DEPTH


def _nearest_exactly(queries: FloatRows, rows: FloatRows, hits: int) -> RowNumbers:
    """The row numbers of the largest products with each query, int64 [queries, hits], in no order."""
    numbers = np.empty((len(queries), 0), dtype=np.int64)
    scores = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, len(rows), CALIBRATION_CHUNK_ROWS):
        chunk = rows[start : start + CALIBRATION_CHUNK_ROWS]
        scores = np.hstack([scores, queries @ chunk.T])
        numbers = np.hstack([numbers, np.tile(np.arange(start, start + len(chunk)), (len(queries), 1))])
        kept = np.argpartition(-scores, min(hits, scores.shape[1]) - 1, axis=1)[:, :hits]
        scores = np.take_along_axis(scores, kept, axis=1)
        numbers = np.take_along_axis(numbers, kept, axis=1)
    return numbers
