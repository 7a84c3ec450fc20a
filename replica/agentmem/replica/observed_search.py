"""What a search tells of itself to the call that it answers, for metrics, traces and the slow-query log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from agentmem.core.call_metrics import ObservedCall
from agentmem.core.slow_calls import request_shape
from agentmem.replica.trace import Trace
from agentmem.v1 import reader_pb2


class ObservedSearch:
    """One search, from when it was handed to the threads.

    Args:
        call: that it answers, alone or with others.
    """

    def __init__(self, call: ObservedCall | None) -> None:
        self._call = call
        self._handed_over_s = time.perf_counter()

    def began(self) -> None:
        """A thread has it."""
        if self._call is not None:
            self._call.add_stage("queue", self._handed_over_s, time.perf_counter())

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Times the embedding of its question."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            if self._call is not None:
                self._call.add_stage("embed", began_s, time.perf_counter())

    def ended(self, request: reader_pb2.SearchMemoriesRequest, trace: Trace) -> None:
        """It has its answer."""
        if self._call is None:
            return
        for step in trace.steps:
            self._call.add_stage(step.name, step.began_s, step.ended_s)
        seconds = time.perf_counter() - self._handed_over_s
        self._call.parts.append((seconds, partial(_described, request, trace, seconds)))


def _described(request: reader_pb2.SearchMemoriesRequest, trace: Trace, seconds: float) -> dict[str, Any]:
    """How it was asked and done, without what it was about."""
    return {
        "milliseconds": round(seconds * 1000, 3),
        "request": request_shape(request),
        "mode": trace.mode,
        "live": trace.live,
        "matching": trace.matching,
        "tokens": len(trace.tokens),
        "steps": [
            {
                "name": step.name,
                "plan": step.described,
                "ms": round(step.milliseconds, 3),
                "memories": step.memories,
            }
            for step in trace.steps
        ],
    }
