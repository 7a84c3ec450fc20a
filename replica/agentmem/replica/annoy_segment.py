"""A sealed segment: vectors of one namespace that change no more, with an Annoy forest over them.

A segment is a folder:

    ordinals.u64    ordinal of each row, ascending         little-endian uint64 [count]
    rows.f32        unit vectors                           little-endian float32 [count, dimension]
    index.annoy     forest over the row numbers, angular
    segment.json    the sidecar, written last: what the other files must be

Annoy's item ids have 32 bits, so items are row numbers and not ordinals. Its ``dot`` metric is broken in
1.17.3, ``save`` does not sync, and ``load`` takes almost any file: hence the checksums and the self-test.

How many rows a forest must look at depends on the vectors: from a tenth of them to more than all, as a row
is counted in each tree. So it is measured when the forest is built, for recall@10 of 0.95 on queries that
are harder than most. This is the only module that imports annoy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from annoy import AnnoyIndex

from agentmem.core.data_directory import sync
from agentmem.core.records import FloatVector
from agentmem.replica.ordinals import OrdinalArray

SEGMENT_FORMAT = 1
METRIC: Literal["angular"] = "angular"
TREES = 24
SEED = 20_240_229
ORDINALS_FILE = "ordinals.u64"
ROWS_FILE = "rows.f32"
INDEX_FILE = "index.annoy"
SIDECAR_FILE = "segment.json"
ADD_CHUNK_ROWS = 4096
# What a forest looks at, as a share of its rows: the first that reaches the recall is taken.
TRIED_SHARES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.37, 0.45, 0.55, 0.7, 1.0)
# For a forest that reaches it with none of them. More than an exact scan costs.
HOPELESS_SHARE = 100.0
TARGET_RECALL = 0.95
CALIBRATION_QUERIES = 96
CALIBRATION_HITS = 10
CALIBRATION_FETCHED_ROWS = 64
CALIBRATION_CHUNK_ROWS = 65_536
SELF_TEST_ROWS = 32
SELF_TEST_HITS = 10
# A row that looks for itself finds itself, or its equal, but for what float32 loses.
SELF_TEST_COSINE = 0.999
SELF_TEST_FOUND_SHARE = 0.9

# Number of the namespace, number of the segment.
_FOLDER_NAME = re.compile(r"[0-9]+-[0-9]+")

FloatRows = npt.NDArray[np.float32]
RowNumbers = npt.NDArray[np.int64]


class SegmentError(Exception):
    """The folder is not a segment that can be trusted; its rows have to come from the store again."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What segment.json says.

    Attributes:
        share: how many rows a search should look at, as a share of ``count``.
        replaces: names of the segments whose rows this one took over.
        space: the number of the embedding space that the vectors are of.
    """

    format: int
    metric: str
    dimension: int
    trees: int
    seed: int
    count: int
    share: float
    replaces: list[str]
    sha256: dict[str, str]
    space: int = 0


class AnnoySegment:
    """An open segment. Any thread may search it; its files may be unlinked meanwhile."""

    def __init__(
        self, name: str, sidecar: Sidecar, ordinals: OrdinalArray, rows: FloatRows, index: AnnoyIndex
    ) -> None:
        self.name = name
        self.sidecar = sidecar
        self.ordinals = ordinals
        self.rows = rows
        self._index = index

    @classmethod
    def open(cls, folder: Path) -> AnnoySegment:
        """Maps a segment's files after checking every byte of them.

        Raises:
            SegmentError: something is missing, or not what the sidecar says, or the index does not find.
        """
        try:
            sidecar = Sidecar(**json.loads((folder / SIDECAR_FILE).read_bytes()))
            if (sidecar.format, sidecar.metric) != (SEGMENT_FORMAT, METRIC):
                raise SegmentError(f"{folder} has format {sidecar.format} and metric {sidecar.metric}")
            for name in (ORDINALS_FILE, ROWS_FILE, INDEX_FILE):
                if file_sha256(folder / name) != sidecar.sha256[name]:
                    raise SegmentError(f"{folder / name} fails its checksum")
            ordinals: OrdinalArray = np.fromfile(folder / ORDINALS_FILE, dtype="<u8")
            rows = np.memmap(
                folder / ROWS_FILE, dtype="<f4", mode="r", shape=(sidecar.count, sidecar.dimension)
            )
            index = AnnoyIndex(sidecar.dimension, METRIC)
            index.load(str(folder / INDEX_FILE))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SegmentError(f"{folder} cannot be read: {error}") from error
        if not len(ordinals) == sidecar.count == index.get_n_items():
            raise SegmentError(f"{folder} has {len(ordinals)} ordinals and {index.get_n_items()} items")
        # A plain array of the same memory: np.memmap adds a microsecond to each operation.
        segment = cls(folder.name, sidecar, ordinals, rows.view(np.ndarray), index)
        segment._self_test()
        return segment

    @property
    def count(self) -> int:
        return self.sidecar.count

    @property
    def forest_rows(self) -> int:
        """How many rows the forest has to look at for the target recall."""
        return int(self.sidecar.share * self.count)

    def nearest(self, query: FloatVector, rows: int, nodes: int) -> RowNumbers:
        """Row numbers, int64 [at most ``rows``], of what is probably nearest to the query.

        Args:
            query: float32 [dimension].
            nodes: how many rows the forest looks at, Annoy's search_k; more is better and slower.
        """
        return np.array(self._index.get_nns_by_vector(query.tolist(), rows, nodes), dtype=np.int64)

    def _self_test(self) -> None:
        sample = np.unique(np.linspace(0, self.count - 1, SELF_TEST_ROWS).astype(np.int64))
        found = 0
        for row in sample:
            query = self.rows[row]
            hits = self.nearest(query, SELF_TEST_HITS, SELF_TEST_HITS * TREES)
            found += bool(len(hits)) and float((self.rows[hits] @ query).max()) >= SELF_TEST_COSINE
        if found < SELF_TEST_FOUND_SHARE * len(sample):
            raise SegmentError(f"segment {self.name} finds {found} of {len(sample)} of its own rows")


def write_segment(
    folder: Path, *, dimension: int, trees: int, seed: int, replaces: list[str], space: int = 0
) -> None:
    """Builds index and sidecar beside the ordinals and rows in the folder, and syncs all of it.

    Raises:
        OSError, ValueError: the folder lacks the two files, or they do not fit together, or the disk is full.
    """
    ordinals: OrdinalArray = np.fromfile(folder / ORDINALS_FILE, dtype="<u8")
    rows = np.memmap(folder / ROWS_FILE, dtype="<f4", mode="r").reshape(-1, dimension)
    if len(ordinals) != len(rows):
        raise ValueError(f"{folder} has {len(ordinals)} ordinals for {len(rows)} rows")
    index = AnnoyIndex(dimension, METRIC)
    index.set_seed(seed)
    for start in range(0, len(rows), ADD_CHUNK_ROWS):
        for row, vector in enumerate(rows[start : start + ADD_CHUNK_ROWS].tolist(), start):
            index.add_item(row, vector)
    index.build(trees, n_jobs=1)
    index.save(str(folder / INDEX_FILE))
    share = _needed_share(index, rows, np.random.default_rng(seed))
    index.unload()
    sidecar = Sidecar(
        format=SEGMENT_FORMAT,
        metric=METRIC,
        dimension=dimension,
        trees=trees,
        seed=seed,
        count=len(rows),
        share=share,
        replaces=replaces,
        sha256={name: file_sha256(folder / name) for name in (ORDINALS_FILE, ROWS_FILE, INDEX_FILE)},
        space=space,
    )
    (folder / SIDECAR_FILE).write_text(json.dumps(asdict(sidecar), indent=1), encoding="utf-8")
    for name in (ORDINALS_FILE, ROWS_FILE, INDEX_FILE, SIDECAR_FILE):
        sync(folder / name)
    sync(folder)


def _needed_share(index: AnnoyIndex, rows: FloatRows, random: np.random.Generator) -> float:
    """The smallest of the tried shares that reaches the target recall.

    Questions are not in the segment. What stands for them lies off its rows, as they do: half of the samples
    between two rows, half beside one.
    """
    first = rows[random.integers(0, len(rows), CALIBRATION_QUERIES)]
    second = rows[random.integers(0, len(rows), CALIBRATION_QUERIES)]
    beside = random.standard_normal(first.shape)
    beside /= np.linalg.norm(beside, axis=1, keepdims=True)
    second = np.where(np.arange(len(first))[:, np.newaxis] % 2, second, beside)
    queries = (first + second).astype(np.float32)
    hits = min(CALIBRATION_HITS, len(rows))
    nearest = _nearest_exactly(queries, rows, hits)
    for share in TRIED_SHARES:
        found = 0
        for query, expected in zip(queries, nearest, strict=True):
            proposed = index.get_nns_by_vector(
                query.tolist(),
                CALIBRATION_FETCHED_ROWS,
                max(CALIBRATION_FETCHED_ROWS, int(share * len(rows))),
            )
            found += len(np.intersect1d(proposed, expected))
        if found >= TARGET_RECALL * hits * len(queries):
            return share
    return HOPELESS_SHARE


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


def segment_folders(parent: Path) -> Iterator[Path]:
    """The folders of finished segments, newest first; what an interrupted build left is not among them."""
    folders = [path for path in parent.iterdir() if _FOLDER_NAME.fullmatch(path.name)]
    yield from sorted(folders, key=lambda path: int(path.name.partition("-")[2]), reverse=True)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
