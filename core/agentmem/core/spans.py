"""Spans of traces: which calls are recorded, and what is said of them when they have ended.

A span is made when it has ended, from the times that were taken in any case, so a call that is not recorded
costs nothing but the look at its metadata. Its id is drawn when it begins, for those that come behind it.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agentmem.core.trace_context import TraceContext

# Of writes that were committed and not shipped yet.
MAX_SHIPPED_TRACES = 256


@dataclass(frozen=True, slots=True)
class FinishedSpan:
    """A span that has ended. Times are of the performance counter.

    Attributes:
        context: its own.
        parent_span_id: of the same trace; empty where the trace begins.
        stages: become its children: name, begin, end.
    """

    name: str
    context: TraceContext
    parent_span_id: str
    began_s: float
    ended_s: float
    attributes: Mapping[str, str | int]
    stages: Sequence[tuple[str, float, float]] = ()
    is_server: bool = False
    is_failed: bool = False


class SpanSink(ABC):
    """Where spans go."""

    @abstractmethod
    def record(self, span: FinishedSpan) -> None:
        """Takes a span. Any thread may call it; it does not wait."""

    @abstractmethod
    def close(self) -> None:
        """Sends what there is."""


@dataclass(slots=True)
class Sampling:
    """Decides which calls are recorded: those whose caller records them, and a share of the others.

    Attributes:
        sink: None when nothing is recorded.
        ratio: of calls that bring no trace, 0 to 1.
    """

    sink: SpanSink | None = None
    ratio: float = 0.0
    _random: random.Random = field(default_factory=random.Random)

    def own_context(self, parent: TraceContext | None) -> TraceContext | None:
        """The context of a span of this node; None when there is none."""
        if self.sink is None:
            return None
        if parent is not None:
            return self.child_of(parent) if parent.is_sampled else None
        if not self.ratio or self._random.random() >= self.ratio:
            return None
        return TraceContext(f"{self._random.getrandbits(128) | 1:032x}", self._span_id(), True)

    def child_of(self, parent: TraceContext) -> TraceContext:
        """A new span of the same trace."""
        return TraceContext(parent.trace_id, self._span_id(), True)

    def record_each(self, name: str, traces: Iterable[tuple[int, TraceContext]], began_s: float) -> None:
        """A span that ends now, in the trace of each write, as a child of what it did."""
        if self.sink is None:
            return
        ended_s = time.perf_counter()
        for revision, parent in traces:
            attributes = {"agentmem.revision": revision}
            context = self.child_of(parent)
            self.sink.record(FinishedSpan(name, context, parent.span_id, began_s, ended_s, attributes))

    def _span_id(self) -> str:
        return f"{self._random.getrandbits(64) | 1:016x}"


class ShippedTraces:
    """The traces of the newest writes by their revisions. Belongs to one event loop."""

    def __init__(self) -> None:
        self._traces: deque[tuple[int, TraceContext]] = deque(maxlen=MAX_SHIPPED_TRACES)

    def add(self, revision: int, trace: TraceContext) -> None:
        self._traces.append((revision, trace))

    def between(self, after_revision: int, up_to_revision: int) -> Iterable[tuple[int, TraceContext]]:
        """Those of some revisions."""
        if not self._traces or self._traces[-1][0] <= after_revision:
            return ()  # as for most commits
        return [each for each in self._traces if after_revision < each[0] <= up_to_revision]
