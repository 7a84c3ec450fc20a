"""Rows to unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from agentmem.core.records import FloatVector


def unit_vectors(rows: npt.NDArray[Any]) -> list[FloatVector | None]:
    """Each row of a model's output at unit length, float32; None for one without a direction."""
    lengths = np.linalg.norm(rows, axis=1)
    return [
        np.asarray(row / length, dtype=np.float32) if np.isfinite(length) and length > 0 else None
        for row, length in zip(rows, lengths, strict=True)
    ]


def unit_rows(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Stored vectors, [n, dimension], as ``unit_vector`` does one; in their place."""
    lengths = np.sqrt(np.add.reduce(rows * rows, axis=1))
    off = (np.abs(lengths - 1) >= 1e-6) & (lengths > 0)
    if off.any():
        rows[off] /= lengths[off, np.newaxis]
    return rows
