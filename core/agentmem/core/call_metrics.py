"""What is measured of each call, by what ``serving.py`` puts around its method."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf.message import Message

from agentmem.core.deadlines import ANSWER_MARGIN_S
from agentmem.core.measurements import Counter, Histogram, Labels
from agentmem.core.slow_calls import MAX_PARTS, SlowCallLog, request_shape
from agentmem.core.spans import FinishedSpan, Sampling
from agentmem.core.trace_context import TRACE_KEY, TraceContext, parse_traceparent

# How a client says that it sends a call once more.
ATTEMPT_KEY = "agentmem-attempt"
ATTEMPTS = frozenset({"retry", "hedge"})
# Of the table: rpc.system.name.
SYSTEM = "grpc"
UNARY: Labels = ("unary",)
STREAM: Labels = ("stream",)
CANCELLED = "CANCELLED"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
# Of one call; a batch of a hundred searches has less.
MAX_STAGES = 1024

_current: ContextVar[ObservedCall | None] = ContextVar("call", default=None)


def current_call() -> ObservedCall | None:
    """The call in whose context this runs. In threads there is none."""
    return _current.get()


def current_trace() -> tuple[str, str] | None:
    """The ids of trace and span of that call, in hexadecimal, when it belongs to a trace."""
    call = _current.get()
    return None if call is None or call.trace is None else (call.trace.trace_id, call.trace.span_id)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Times a part of the current call."""
    call = _current.get()
    began_s = time.perf_counter()
    try:
        yield
    finally:
        if call is not None:
            call.add_stage(name, began_s, time.perf_counter())


class CallMetrics:
    """Calls by method, status, reason of their failure and attempt. Belongs to one event loop.

    Args:
        slow_s: from which on a call is slow. Streams are not: most of their time is their reader's.

    Attributes:
        sampling: says which calls are recorded in traces, and where they go. Set before the first call.
    """

    def __init__(self, slow_s: float) -> None:
        self.sampling = Sampling()
        self.durations = Histogram()
        self.stages = Histogram()
        self.failures = Counter()
        self.again = Counter()
        self.slow = Counter()
        self._slow_log = SlowCallLog(slow_s)
        self._active: dict[Labels, float] = {UNARY: 0, STREAM: 0}

    def begin(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]], *, is_stream: bool
    ) -> ObservedCall:
        """A call has come, and is the current one from now on.

        Args:
            method: "/service/method".
        """
        trace = None
        for key, value in metadata:
            if key == ATTEMPT_KEY and value in ATTEMPTS:
                self.again.add(str(value))
            elif key == TRACE_KEY:
                trace = parse_traceparent(value)
        kind = STREAM if is_stream else UNARY
        self._active[kind] += 1
        call = ObservedCall(self, method[1:], kind, trace, self.sampling.own_context(trace))
        _current.set(call)
        return call

    def active(self) -> Mapping[Labels, float]:
        """Calls that are being answered."""
        return dict(self._active)

    def ended(self, call: ObservedCall) -> None:
        """A call was answered, or has ended otherwise."""
        seconds = time.perf_counter() - call.began_s
        self._active[call.kind] -= 1
        self.durations.record(seconds, SYSTEM, call.method, call.status)
        for name, began_s, ended_s in call.stages:
            self.stages.record(ended_s - began_s, call.method, name)
        if call.reason:
            self.failures.add(call.reason)
        if call.span is not None and self.sampling.sink is not None:
            self.sampling.sink.record(call.finished(seconds))
        if seconds >= self._slow_log.slow_s and call.kind is UNARY:
            self.slow.add(call.method)
            self._slow_log.write(call.method, call.status, seconds, call.described())


class ObservedCall:
    """A call that is being answered.

    Attributes:
        status: how it ended; one that nobody set has no answer, for its caller has gone.
        reason: of the error that it ended with.
        parent: the span of the caller.
        span: its own, when it is recorded.
        request: once it was parsed.
        stages: name, begin and end, on the performance counter. Any thread may add some.
        parts: say how searches of it were done, with their seconds.
    """

    __slots__ = (
        *("_metrics", "began_s", "kind", "method", "parent", "parts"),
        *("reason", "request", "span", "stages", "status"),
    )

    def __init__(
        self,
        metrics: CallMetrics,
        method: str,
        kind: Labels,
        trace: TraceContext | None,
        span: TraceContext | None,
    ) -> None:
        self._metrics = metrics
        self.method = method
        self.kind = kind
        self.parent = trace
        self.span = span
        self.status = CANCELLED
        self.reason = ""
        self.request: Message | None = None
        self.stages: list[tuple[str, float, float]] = []
        self.parts: list[tuple[float, Callable[[], dict[str, Any]]]] = []
        self.began_s = time.perf_counter()

    def add_stage(self, name: str, began_s: float, ended_s: float) -> None:
        """A part of its time; of the performance counter."""
        if len(self.stages) < MAX_STAGES:
            self.stages.append((name, began_s, ended_s))

    @property
    def trace(self) -> TraceContext | None:
        """Where it stands in its trace, if it has one."""
        return self.span or self.parent

    def finished(self, seconds: float) -> FinishedSpan:
        """Its span. It has one."""
        assert self.span is not None
        attributes: dict[str, str | int] = {
            "rpc.system.name": SYSTEM,
            "rpc.method": self.method,
            "rpc.response.status_code": self.status,
        }
        if self.reason:
            attributes["error.type"] = self.reason
        return FinishedSpan(
            self.method,
            self.span,
            self.parent.span_id if self.parent else "",
            self.began_s,
            self.began_s + seconds,
            attributes,
            self.stages,
            is_server=True,
            is_failed=self.status != "OK",
        )

    def described(self) -> dict[str, Any]:
        """How it was asked and done, without what it was about."""
        details: dict[str, Any] = {}
        if self.reason:
            details["reason"] = self.reason
        if self.request is not None:
            details["request"] = request_shape(self.request)
        times_ms: dict[str, float] = defaultdict(float)
        for name, began_s, ended_s in self.stages:
            times_ms[name] += (ended_s - began_s) * 1000
        details["stages_ms"] = {name: round(milliseconds, 3) for name, milliseconds in times_ms.items()}
        slowest = sorted(self.parts, key=lambda part: -part[0])[:MAX_PARTS]
        if slowest:
            details["searches"] = [describe() for _, describe in slowest]
        return details

    def end(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Counts it, once."""
        if self.status is CANCELLED:
            remaining_s = context.time_remaining()
            # The caller's clock may strike first, and what it sends then looks like any other cancellation.
            if remaining_s is not None and remaining_s <= ANSWER_MARGIN_S:
                self.status = DEADLINE_EXCEEDED
        self._metrics.ended(self)
