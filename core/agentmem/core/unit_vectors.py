"""Rows of a model's output to unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentmem.core.records import FloatVector


def unit_vectors(rows: np.typing.NDArray[Any]) -> list[FloatVector | None]:
    """Each row at unit length, float32; None for one without a direction."""
    lengths = np.linalg.norm(rows, axis=1)
    return [
        np.asarray(row / length, dtype=np.float32) if np.isfinite(length) and length > 0 else None
        for row, length in zip(rows, lengths, strict=True)
    ]
