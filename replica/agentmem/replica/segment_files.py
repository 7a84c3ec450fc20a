"""The files of a sealed segment. A segment is a folder:

    ordinals.u64    ordinal of each row, in no order       little-endian uint64 [count]
    rows.f32        unit vectors                           little-endian float32 [count, dimension]
    codes.i8        of the rows, see row_codes.py          int8 [count, dimension]
    scales.f32      of the codes, and their residual       little-endian float32 [count + 1]
    index.annoy     forest over the row numbers, angular   (or)
    index.hnsw      graph over the row numbers             (or)
    index.ivf       codes of the rows, in inverted lists
    segment.json    the sidecar, written last: what the other files must be

Rows of one owner stand side by side (sealing.py), so what a search in its scope reads is one piece.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SEGMENT_FORMAT = 3
ORDINALS_FILE = "ordinals.u64"
ROWS_FILE = "rows.f32"
CODES_FILE = "codes.i8"
SCALES_FILE = "scales.f32"
SIDECAR_FILE = "segment.json"

# Number of the namespace, number of the segment.
_FOLDER_NAME = re.compile(r"[0-9]+-[0-9]+")

FloatRows = npt.NDArray[np.float32]
RowNumbers = npt.NDArray[np.signedinteger[Any]]
RowMask = npt.NDArray[np.bool_]


class SegmentError(Exception):
    """The folder is not a segment that can be trusted; its rows have to come from the store again."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What segment.json says.

    Attributes:
        index: its kind, "annoy", "hnsw" or "ivf".
        parameters: what the index was built with.
        depth: how deep the index is searched for ten hits, in its own unit.
        replaces: names of the segments whose rows this one took over.
        space: the number of the embedding space that the vectors are of.
    """

    format: int
    index: str
    metric: str
    dimension: int
    parameters: dict[str, int]
    count: int
    depth: int
    replaces: list[str]
    sha256: dict[str, str]
    space: int = 0


def read_sidecar(folder: Path) -> Sidecar:
    """Raises OSError, ValueError or TypeError when there is none or it is of another shape."""
    return Sidecar(**json.loads((folder / SIDECAR_FILE).read_bytes()))


def segment_folders(parent: Path) -> Iterator[Path]:
    """The folders of finished segments, newest first; what an interrupted build left is not among them."""
    folders = [path for path in parent.iterdir() if _FOLDER_NAME.fullmatch(path.name)]
    yield from sorted(folders, key=lambda path: int(path.name.partition("-")[2]), reverse=True)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
