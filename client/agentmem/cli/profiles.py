"""Where the time of calls goes, from the reports of nodes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agentmem.client import NodeReport
from agentmem.client.node_report import calls_between, quantile

CALL = "(call)"


@dataclass(slots=True)
class _Times:
    """Of one method's calls, or one of their stages: seconds, and counts by the bucket's bound."""

    total_s: float = 0.0
    counts: Counter[float] = field(default_factory=Counter)

    def add(self, bounds_s: Sequence[float], counts: Sequence[int], total_s: float) -> None:
        self.total_s += total_s
        self.counts.update(dict(zip((*bounds_s, math.inf), counts, strict=True)))

    def p95_s(self) -> float:
        # Nodes of another release may have other buckets; those of all are taken together.
        *bounds, last = sorted(self.counts)
        return quantile(bounds, [self.counts[bound] for bound in (*bounds, last)], 0.95) or 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """What a report says of a stage. ``share`` is of the time of the method's calls; stages may overlap."""

    method: str
    stage: str
    count: int
    total_s: float
    mean_ms: float
    p95_ms: float
    share: float


def report(checkpoints: Iterable[tuple[NodeReport | None, NodeReport]]) -> list[Row]:
    """What the calls of some nodes took, methods and stages that took longest first.

    Args:
        checkpoints: of each node an earlier report, or None for all since it was started, and a later one. Of
            a node that was started again in between it is what it has counted since.
    """
    rows = []
    found = _summed(checkpoints)
    for method, parts in sorted(found.items(), key=lambda item: (-item[1][CALL].total_s, item[0])):
        # The calls first, before their stages.
        for stage, times in sorted(parts.items(), key=lambda item: (item[0] != CALL, -item[1].total_s)):
            count, all_s = times.counts.total(), parts[CALL].total_s
            if count:
                share = times.total_s / all_s if all_s else 0.0
                mean_ms = times.total_s / count * 1000
                rows.append(Row(method, stage, count, times.total_s, mean_ms, times.p95_s() * 1000, share))
    return rows


def _summed(checkpoints: Iterable[tuple[NodeReport | None, NodeReport]]) -> dict[str, dict[str, _Times]]:
    """By method and stage, with CALL for the calls themselves."""
    found: dict[str, dict[str, _Times]] = defaultdict(lambda: defaultdict(_Times))
    for before, after in checkpoints:
        between = after.methods if before is None else calls_between(before, after)
        for method, calls in (after.methods if between is None else between).items():
            found[method][CALL].add(after.latency_bounds_s, calls.latency_counts, calls.total_s)
            for stage, times in calls.stages.items():
                found[method][stage].add(after.latency_bounds_s, times.latency_counts, times.total_s)
    return found


def as_documents(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """For programs."""
    return [asdict(row) for row in rows]
