"""Figures with their noise: each is measured several times, and says how far the runs are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TypedDict

from agentmem.bench.load.histograms import rank

# Those whose values a latency keeps. The last is the slowest call.
PERCENTILES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 97.5, 99, 99.5, 99.9, 100)
# A percentile is of so many calls beyond it at least, lest it is one chance call.
_MIN_CALLS_BEYOND = 1
_SIGNIFICANT_DIGITS = 5


class Figure(TypedDict):
    """One figure.

    median, low, high: of the runs. spread: (high - low) / median, as a share; 0 when the median is 0.
    """

    median: float
    low: float
    high: float
    spread: float
    runs: list[float]


def figure(values: Sequence[float]) -> Figure:
    """The figure of some runs. Raises ValueError when there is none, or one is not a finite number."""
    if not values:
        raise ValueError("a figure needs at least one run")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"the runs of a figure must be finite numbers, not {list(values)}")
    middle, low, high = median(values), min(values), max(values)
    return Figure(
        median=rounded(middle),
        low=rounded(low),
        high=rounded(high),
        spread=rounded((high - low) / abs(middle)) if middle else 0.0,
        runs=[rounded(value) for value in values],
    )


def rounded(value: float) -> float:
    """With as many digits as a measurement may have."""
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest value that at least so many percent are not above.

    Args:
        ordered: ascending.

    Raises ValueError when there are no values, or for a percent that is not above 0 and at most 100.
    """
    if not ordered:
        raise ValueError("there is no percentile of nothing")
    if not 0 < percent <= 100:
        raise ValueError(f"percent must be above 0 and at most 100, not {percent}")
    return ordered[rank(percent, len(ordered)) - 1]


def can_tell(calls: int, percent: float) -> bool:
    """Whether so many calls are enough for the percentile to be more than the slowest call."""
    return round(calls * (1 - percent / 100), 6) >= _MIN_CALLS_BEYOND


def latency_curve(latencies_s: Sequence[float]) -> dict[str, float]:
    """Milliseconds by percentile, for a plot; those that so many calls can tell, and the slowest."""
    ordered = sorted(latencies_s)
    return {
        f"{percent:g}": rounded(percentile(ordered, percent) * 1e3)
        for percent in PERCENTILES
        if percent == 100 or can_tell(len(ordered), percent)
    }


def by_name(runs: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    """A figure of each name that every run has."""
    names = [name for name in runs[0] if all(name in run for run in runs)] if runs else []
    return {name: figure([run[name] for run in runs]) for name in names}


def slope_per_hour(times_s: Sequence[float], values: Sequence[float]) -> float:
    """How much a value grows in an hour, by least squares. Raises ValueError for fewer than two moments."""
    if len(times_s) < 2 or len(times_s) != len(values):
        raise ValueError("a slope needs at least two moments, with a value each")
    mean_time, mean_value = sum(times_s) / len(times_s), sum(values) / len(values)
    square = sum((time - mean_time) ** 2 for time in times_s)
    if not square:
        raise ValueError("a slope needs two different moments")
    product = sum(
        (time - mean_time) * (value - mean_value) for time, value in zip(times_s, values, strict=True)
    )
    return product / square * 3600
