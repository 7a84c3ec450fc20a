"""HDR histograms of nanoseconds, and percentiles."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

# A value is told from one that differs in the third digit, so a percentile is at most 0.1 % too high.
SIGNIFICANT_FIGURES = 3
# So many leading bits it looks at: three figures need ten, and its buckets begin at powers of two.
DISTINCT_BITS = 13
# Longer is counted as this long.
MAX_LATENCY_NS = 3_600 * 10**9


class Histogram:
    """Latencies, in the format of HdrHistogram: encoded, other tools read it."""

    def __init__(self) -> None:
        self._histogram: Any = HdrHistogram(1, MAX_LATENCY_NS, SIGNIFICANT_FIGURES)

    # It goes from the processes to the one that reports.
    def __getstate__(self) -> str:
        return self.encoded()

    def __setstate__(self, encoded: str) -> None:
        self.__init__()  # type: ignore[misc]
        self._histogram.decode_and_add(encoded)

    def record(self, value_ns: int) -> None:
        self._histogram.record_value(min(max(value_ns, 1), MAX_LATENCY_NS))

    def record_all(self, values_ns: npt.NDArray[np.int64]) -> None:
        """Records many at once: equal ones, of those that the histogram does not tell apart, together."""
        values_ns = np.clip(values_ns, 1, MAX_LATENCY_NS)
        shifts = np.maximum(np.frexp(values_ns.astype(np.float64))[1] - DISTINCT_BITS, 0)
        different, counts = np.unique(values_ns >> shifts << shifts, return_counts=True)
        for value_ns, count in zip(different.tolist(), counts.tolist(), strict=True):
            self._histogram.record_value(value_ns, count)

    def add(self, other: "Histogram") -> None:
        self._histogram.add(other._histogram)

    def encoded(self) -> str:
        """Compressed and in base64."""
        text: bytes = self._histogram.encode()
        return text.decode("ascii")

    def percentile(self, percentage: float) -> int:
        """The nearest rank's value in ns, at most 0.1 % too high; 0 when nothing is recorded."""
        # HdrHistogram's own rounds the rank, so that of few values it may be the one before.
        wanted, passed = rank(percentage, self.count), 0
        for value, count in self.recorded():
            passed += count
            if passed >= wanted:
                return value
        return 0

    def recorded(self) -> Iterator[tuple[int, int]]:
        """The values in ns that are recorded, in order, with how many of each; at most 0.1 % too high."""
        for item in self._histogram.get_recorded_iterator():
            yield (
                self._histogram.get_highest_equivalent_value(item.value_iterated_to),
                item.count_added_in_this_iter_step,
            )

    @property
    def count(self) -> int:
        count: int = self._histogram.get_total_count()
        return count


def nearest_rank(ordered: Sequence[int] | npt.NDArray[np.int64], percentage: float) -> int:
    """The smallest value that at least that share of the (ordered, not empty) values do not exceed."""
    return int(ordered[rank(percentage, len(ordered)) - 1])


def rank(percentage: float, count: int) -> int:
    """Of the nearest-rank percentile, from 1. 99.9 % of 1000 is 999, whatever binary fractions make of it."""
    return max(math.ceil(Fraction(str(percentage)) * count / 100), 1)
