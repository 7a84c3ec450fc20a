"""What is counted of each call, by the interceptor of ``serving.py``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from agentmem.core.deadlines import ANSWER_MARGIN_S
from agentmem.core.measurements import Counter, Histogram, Labels

# How a client says that it sends a call once more.
ATTEMPT_KEY = "agentmem-attempt"
ATTEMPTS = frozenset({"retry", "hedge"})
# Of the table: rpc.system.name.
SYSTEM = "grpc"
UNARY: Labels = ("unary",)
STREAM: Labels = ("stream",)
CANCELLED = "CANCELLED"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"


class CallMetrics:
    """Calls by method, status, reason of their failure and attempt. Belongs to one event loop.

    Args:
        slow_s: from which on a call is slow. Streams are not: most of their time is their reader's.
    """

    def __init__(self, slow_s: float) -> None:
        self._slow_s = slow_s
        self.durations = Histogram()
        self.failures = Counter()
        self.again = Counter()
        self.slow = Counter()
        self._active: dict[Labels, float] = {UNARY: 0, STREAM: 0}

    def begin(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]], *, is_stream: bool
    ) -> ObservedCall:
        """A call has come.

        Args:
            method: "/service/method".
        """
        for key, value in metadata:
            if key == ATTEMPT_KEY and value in ATTEMPTS:
                self.again.add(str(value))
        kind = STREAM if is_stream else UNARY
        self._active[kind] += 1
        return ObservedCall(self, method[1:], kind)

    def active(self) -> Mapping[Labels, float]:
        """Calls that are being answered."""
        return dict(self._active)

    def ended(self, call: ObservedCall) -> None:
        """A call was answered, or has ended otherwise."""
        self._active[call.kind] -= 1
        seconds = time.perf_counter() - call.began_s
        self.durations.record(seconds, SYSTEM, call.method, call.status)
        if seconds >= self._slow_s and call.kind is UNARY:
            self.slow.add(call.method)
        if call.reason:
            self.failures.add(call.reason)


class ObservedCall:
    """A call that is being answered.

    Attributes:
        status: how it ended; one that nobody set has no answer, for its caller has gone.
        reason: of the error that it ended with.
    """

    __slots__ = ("_metrics", "began_s", "kind", "method", "reason", "status")

    def __init__(self, metrics: CallMetrics, method: str, kind: Labels) -> None:
        self._metrics = metrics
        self.method = method
        self.kind = kind
        self.status = CANCELLED
        self.reason = ""
        self.began_s = time.perf_counter()

    def end(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Counts it, once."""
        if self.status is CANCELLED:
            remaining_s = context.time_remaining()
            # The caller's clock may strike first, and what it sends then looks like any other cancellation.
            if remaining_s is not None and remaining_s <= ANSWER_MARGIN_S:
                self.status = DEADLINE_EXCEEDED
        self._metrics.ended(self)
