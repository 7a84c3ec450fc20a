"""What scoring rows takes on this machine, measured when a process starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from agentmem.replica.planner import Costs

# More than the caches hold, as the rows of a namespace are; 64 MiB.
ROWS, DIMENSION = 65_536, 256
SCANNED_ROWS, GATHERED_ROWS = 8192, 1024
ROUNDS = 5


@cache
def measured_costs() -> Costs:
    """The CPU time of scoring rows, measured once in about 50 ms."""
    rows = np.ones((ROWS, DIMENSION), dtype=np.float32)
    query = rows[0].copy()
    # Each round reads others.
    starts = iter(range(0, ROWS, SCANNED_ROWS))
    gathered = iter(np.sort(np.random.default_rng(0).permutation(ROWS).reshape(-1, GATHERED_ROWS)))
    scan_ns = _fastest_ns(lambda: rows[(start := next(starts)) : start + SCANNED_ROWS] @ query)
    gather_ns = _fastest_ns(lambda: np.take(rows, next(gathered), axis=0) @ query)
    scan = scan_ns / (SCANNED_ROWS * DIMENSION)
    # Gathering reads the same rows and copies them, whatever the clock says.
    return Costs(scan=scan, gather=max(scan, gather_ns / (GATHERED_ROWS * DIMENSION)))


def _fastest_ns(work: Callable[[], Any]) -> int:
    """The CPU time of the fastest of some rounds, nanoseconds, at least 1."""
    took_ns = []
    for _ in range(ROUNDS):
        began_ns = time.thread_time_ns()
        work()
        took_ns.append(time.thread_time_ns() - began_ns)
    return max(1, min(took_ns))
