"""How long a call takes."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

ROUNDS = 5

T = TypeVar("T")


def best_us(call: Callable[[T], object], items: Sequence[T]) -> float:
    """Microseconds per call, in the best of some rounds over the items."""
    rounds_s = []
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        for item in items:
            call(item)
        rounds_s.append(time.perf_counter() - start_s)
    return min(rounds_s) / len(items) * 1e6
