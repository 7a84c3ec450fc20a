"""Counters and histograms that the code keeps while it works, cheap enough for every call.

Recording takes some tenths of a microsecond; nothing is sent or aggregated until somebody looks
(``telemetry.py``). What can be read off the state of the process at that moment is not counted here at all.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

# Values of the labels that the metric has in the table, in its order.
Labels: TypeAlias = tuple[str, ...]

# Seconds, as gRPC's proposal A66 has them.
LATENCY_BOUNDS_S = (
    *(0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006),
    *(0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25),
    *(0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
)
SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Counter:
    """Counts by labels. Any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Labels, float] = {}

    def add(self, *labels: str) -> None:
        """Counts one."""
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + 1

    def counts(self) -> dict[Labels, float]:
        """What was counted so far."""
        with self._lock:
            return dict(self._counts)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram has of one set of labels.

    Attributes:
        counts: of the values up to each bound, and of those above the last.
        total: of all values.
    """

    counts: Sequence[int]
    total: float


@dataclass(slots=True)
class Lookups:
    """How often a cache had what was looked for. Counted under the lock of the cache."""

    hits: int = 0
    misses: int = 0

    def count(self, is_hit: bool) -> None:
        if is_hit:
            self.hits += 1
        else:
            self.misses += 1

    def values(self, cache: str) -> dict[Labels, float]:
        """As values of ``agentmem.cache.lookups``."""
        return {(cache, "hit"): self.hits, (cache, "miss"): self.misses}


class _Series:
    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class Histogram:
    """Values by labels, in buckets. Any thread may record.

    Args:
        bounds: ascending; a value belongs to the first bound that it does not exceed.
    """

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_S) -> None:
        self.bounds = bounds
        self._lock = threading.Lock()
        self._series: dict[Labels, _Series] = {}

    def record(self, value: float, *labels: str) -> None:
        """Takes one value in."""
        with self._lock:
            series = self._series.get(labels)
            if series is None:
                series = self._series[labels] = _Series(len(self.bounds) + 1)
            series.counts[bisect_left(self.bounds, value)] += 1
            series.total += value

    def distributions(self) -> Mapping[Labels, Distribution]:
        """What was recorded so far."""
        with self._lock:
            return {
                labels: Distribution(tuple(series.counts), series.total)
                for labels, series in self._series.items()
            }
