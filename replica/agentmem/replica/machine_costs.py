"""What scoring rows takes on this machine, measured when a process starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from agentmem.replica.planner import Costs
from agentmem.replica.row_codes import Question, RowCodes

# More than the caches hold, as the codes of a large namespace are; 32 MiB.
ROWS, DIMENSION = 131_072, 256
SCANNED_ROWS, GATHERED_ROWS = 8192, 2048
ROUNDS = 5


@cache
def measured_costs() -> Costs:
    """The CPU time of scoring rows by their codes, measured once in about 50 ms."""
    codes = RowCodes(np.ones((ROWS, DIMENSION), dtype=np.int8), np.ones(ROWS, dtype=np.float32), 0.0)
    question = Question(np.ones(DIMENSION, dtype=np.float32))
    # Each round reads others.
    starts = iter(range(0, ROWS, SCANNED_ROWS))
    gathered = iter(np.sort(np.random.default_rng(0).integers(0, ROWS, (ROUNDS, GATHERED_ROWS))))
    scan_ns = _fastest_ns(lambda: question.products(codes[(start := next(starts)) : start + SCANNED_ROWS]))
    gather_ns = _fastest_ns(lambda: question.products(codes[next(gathered)]))
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
