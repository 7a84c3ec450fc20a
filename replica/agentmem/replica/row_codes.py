"""Unit vectors in codes of 8 bits for each component: the nearest of many are found among these.

A row is about its code times its scale, and no component is off by more than half a scale. How far a product
of codes may be from that of the vectors follows from how far they are from their codes (Cauchy-Schwarz):

    |q · x - q' · x'|  <=  |q - q'| |x| + |q'| |x - x'|        with q' and x' the coded ones

So the rows that may be among the nearest are known for sure, and nothing is lost. Codes take a quarter of the
memory of float32, which is what a scan waits for. This is the only module that imports simsimd.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import simsimd

from agentmem.core.records import FloatVector
from agentmem.replica.columns import Column

CODE_LIMIT = 127
CODED_CHUNK_ROWS = 1024
# What float32 loses in the products, and what a row may have more than unit length.
ROUNDING = 1e-4

Codes = npt.NDArray[np.int8]
FloatRows = npt.NDArray[np.float32]
Products = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RowCodes:
    """Of some rows.

    Attributes:
        codes: int8 [n, dimension].
        scales: float32 [n].
        residual: no row is further from its code times its scale; a float32.
    """

    codes: Codes
    scales: FloatVector
    residual: float

    @classmethod
    def of(cls, rows: FloatRows) -> RowCodes:
        """Of unit vectors, float32 [n, dimension]; one at a time or all at once, they get the same codes."""
        codes = np.empty(rows.shape, dtype=np.int8)
        scales = np.empty(len(rows), dtype=np.float32)
        residual = np.float32(0)
        for start in range(0, len(rows), CODED_CHUNK_ROWS):
            chunk = slice(start, start + CODED_CHUNK_ROWS)
            residual = max(residual, _encode(rows[chunk], codes[chunk], scales[chunk]))
        return cls(codes, scales, float(residual))

    def __getitem__(self, rows: slice | npt.NDArray[np.signedinteger[Any]]) -> RowCodes:
        """Those of some of the rows: a slice, or their numbers."""
        if isinstance(rows, slice):
            return RowCodes(self.codes[rows], self.scales[rows], self.residual)
        return RowCodes(np.take(self.codes, rows, axis=0), np.take(self.scales, rows), self.residual)

    def equals(self, other: RowCodes) -> bool:
        return np.array_equal(self.codes, other.codes) and np.array_equal(self.scales, other.scales)


def _encode(rows: FloatRows, codes: Codes, scales: FloatVector) -> np.float32:
    """Fills in codes and scales; returns the residual."""
    np.abs(rows).max(axis=1, initial=0.0, out=scales)
    scales /= CODE_LIMIT
    scales[scales == 0] = 1.0
    errors = rows / scales[:, np.newaxis]
    rounded = np.rint(errors)
    codes[:] = rounded
    errors -= rounded
    errors *= scales[:, np.newaxis]
    return np.float32(np.sqrt(np.square(errors, out=errors).sum(axis=1).max(initial=0.0)))


class CodeColumn:
    """Codes of rows that are only ever appended; see ``Column``."""

    def __init__(self, coded: RowCodes) -> None:
        self._codes, self._scales = Column.of(coded.codes), Column.of(coded.scales)
        self._residual = coded.residual

    def extend(self, rows: FloatRows) -> None:
        """Appends unit vectors, float32 [n, dimension]."""
        coded = RowCodes.of(rows)
        self._codes.extend(coded.codes)
        self._scales.extend(coded.scales)
        self._residual = max(self._residual, coded.residual)

    def view(self) -> RowCodes:
        count = self._codes.count
        return RowCodes(self._codes.rows(count), self._scales.rows(count), self._residual)


class Question:
    """A unit vector, float32 [dimension], that is compared with rows."""

    __slots__ = ("_codes", "_residual", "_scale")

    def __init__(self, vector: FloatVector) -> None:
        # As RowCodes.of, for less than half of the time: each search does this.
        self._scale = float(np.abs(vector).max(initial=0.0)) / CODE_LIMIT or 1.0
        errors = vector * (1 / self._scale)
        codes = np.rint(errors)
        errors -= codes
        self._codes = codes.astype(np.int8)[np.newaxis]
        self._residual = self._scale * math.sqrt(np.square(errors, out=errors).sum())

    def products(self, rows: RowCodes) -> Products:
        """With each of these rows, float64 [n], in proportion to its cosine but for the margin."""
        products: Products = np.asarray(simsimd.cdist(self._codes, rows.codes, "dot"))[0]
        products *= rows.scales
        return products

    def margin(self, residual: float) -> float:
        """How far such a product may be from what is in proportion to the cosine.

        Args:
            residual: no row is further from its code.
        """
        return (self._residual + (1 + self._residual) * residual + ROUNDING) / self._scale


def contenders(products: Products, margin: float, top_k: int) -> npt.NDArray[np.intp]:
    """The places of all that may be among the ``top_k`` nearest, ascending.

    Args:
        products: float64 [n], in proportion to the cosines but for ``margin`` at most.
    """
    count = len(products)
    if count <= top_k:
        return np.arange(count)
    # So many reach this less the margin, and whoever does has a product of one margin less again.
    threshold = np.partition(products, count - top_k)[count - top_k]
    return np.flatnonzero(products >= threshold - 2 * margin)
