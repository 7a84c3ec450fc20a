"""Whether calls have become dearer: ratios compared with those of a baseline.

A ratio is the CPU of a call divided by that of an empty gRPC call measured beside it, each in the lowest of
its runs, so it says little of the machine and much of the code. Each has a band: how far apart it was when
the baseline was recorded several times on one machine, doubled, and no less than a fifth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from agentmem.bench.suite.figures import rounded

SCHEMA = 1
MIN_BAND = 0.2
MIN_RECORDINGS = 3
_BAND_OF_DEVIATION = 2.0


class BaselineError(Exception):
    """A baseline that cannot be compared with; the message says why."""


class Verdict(StrEnum):
    """Of one ratio. BEYOND is dearer than the band allows, BETTER cheaper than it."""

    SAME = "same"
    BETTER = "better"
    BEYOND = "beyond"


@dataclass(frozen=True)
class Comparison:
    """One ratio and what it was. ``factor``: how many times the baseline it is."""

    name: str
    ratio: float
    was: float
    band: float

    @property
    def factor(self) -> float:
        return self.ratio / self.was

    @property
    def verdict(self) -> Verdict:
        if self.factor > 1 + self.band:
            return Verdict.BEYOND
        return Verdict.BETTER if self.factor < 1 / (1 + self.band) else Verdict.SAME


def recorded(recordings: Sequence[Mapping[str, float]], **about: Any) -> dict[str, Any]:
    """A baseline of several measurements; ``about`` is kept with it. Raises ValueError for too few."""
    if len(recordings) < MIN_RECORDINGS:
        raise ValueError(f"a baseline needs {MIN_RECORDINGS} measurements, or its bands would be chance")
    ratios = {}
    for name in recordings[0]:
        values = [each[name] for each in recordings]
        middle = median(values)
        deviation = max(abs(value - middle) for value in values) / middle
        ratios[name] = {
            "ratio": rounded(middle),
            "band": rounded(max(MIN_BAND, _BAND_OF_DEVIATION * deviation)),
            "measured": [rounded(value) for value in values],
        }
    return {"schema": SCHEMA, **about, "ratios": ratios}


def load(path: Path) -> dict[str, Any]:
    """Reads a baseline. Raises BaselineError."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaselineError(f"{path} cannot be read: {error}") from error
    if not isinstance(read, dict) or read.get("schema") != SCHEMA or not read.get("ratios"):
        raise BaselineError(f"{path} is not a baseline of schema {SCHEMA}")
    return read


def compare(baseline: Mapping[str, Any], ratios: Mapping[str, float]) -> list[Comparison]:
    """Each ratio with its baseline. Raises BaselineError unless both have the same ones."""
    known: dict[str, Any] = baseline["ratios"]
    if known.keys() != ratios.keys():
        differing = ", ".join(sorted(known.keys() ^ ratios.keys()))
        raise BaselineError(f"the baseline and the measurement differ in {differing}: record a new baseline")
    return [
        Comparison(name, ratio, known[name]["ratio"], known[name]["band"]) for name, ratio in ratios.items()
    ]


def exit_code(comparisons: Sequence[Comparison], tolerated: float | None = None) -> int:
    """1 when a ratio is beyond its band.

    Args:
        tolerated: 1 only when a ratio is also more than so many times the baseline.
    """
    beyond = [each for each in comparisons if each.verdict is Verdict.BEYOND]
    return int(any(tolerated is None or each.factor > tolerated for each in beyond))
