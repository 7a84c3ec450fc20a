"""What a replica takes beside the time of its answers, with all memories of the largest store in it.

How much memory of its own it has, how long somebody holds up its event loop, how long it takes to serve again
after a restart, and how much longer calls wait while it builds a segment.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agentmem.bench.suite import figures, process_trees
from agentmem.bench.suite.callers import Call, run_callers
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.nodes import Nodes
from agentmem.bench.suite.workbench import Workbench
from agentmem.cli import processes
from agentmem.v1 import cluster_pb2

LOOP_HELD_S = 0.005
CALLERS = 4
_SLICE_S = 0.1
# Batches after which a segment has to be begun: a replica seals ten thousand rows.
_MAX_BATCHES = 30


class LoopWatch:
    """How late a timer of a replica's event loop is, between two moments."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._before: Sequence[int] = ()

    async def begin(self) -> None:
        self._before = (await self._report()).event_loop_lag_counts

    async def end(self) -> Section:
        """What came since ``begin``; ``longest_ms`` is the bound of the bucket that it is in."""
        report = await self._report()
        counts = [now - then for now, then in zip(report.event_loop_lag_counts, self._before, strict=True)]
        bounds_s = report.latency_bounds_s
        longest = max((at for at, count in enumerate(counts) if count), default=0)
        return {
            "looks": sum(counts),
            "held": sum(counts[bisect_left(bounds_s, LOOP_HELD_S) + 1 :]),
            "longest_ms": figures.rounded(bounds_s[min(longest, len(bounds_s) - 1)] * 1e3),
        }

    async def _report(self) -> cluster_pb2.GetNodeReportResponse:
        return await self._nodes.report(next(iter(self._nodes.replicas().values())).address)


def own_bytes(nodes: Nodes) -> int:
    """What a replica holds itself: neither files that it has mapped nor its children's."""
    return process_trees.own_bytes(next(iter(nodes.replicas().values())).pid)


def growth(held: Mapping[int, int]) -> Section:
    """What a replica holds among the most memories, and what it takes for each that came since the fewest.

    Args:
        held: its own memory, by memories in the store.
    """
    (few, before), (many, after) = min(held.items()), max(held.items())
    found: Section = {"memories": many, "bytes": after}
    return found | ({"per_memory": round((after - before) / (many - few))} if many > few else {})


async def restarts(bench: Workbench, nodes: Nodes) -> Section:
    """From the start of a replica's process until it serves, on the store and the indexes that it has."""
    bench.say("restarts of a replica")
    runs = []
    for _ in range(bench.scale.rounds):
        await nodes.settle()
        folder = nodes.cluster.replicas()[-1]
        await asyncio.to_thread(processes.stop_folders, [folder])
        began_s = time.perf_counter()
        await asyncio.to_thread(nodes.start_replica, folder)
        runs.append({"serving_s": time.perf_counter() - began_s})
    return {"figures": figures.by_name(runs)}


async def beside_builds(
    bench: Workbench, nodes: Nodes, call: Call, add_batch: Callable[[], Awaitable[object]]
) -> Section:
    """The waits of a few callers while a segment is built, and before."""
    bench.say("calls while a segment is built")
    runs = [await _beside_build(bench, nodes, call, add_batch) for _ in range(bench.scale.rounds)]
    return {"callers": CALLERS, "figures": figures.by_name(runs)}


async def _beside_build(
    bench: Workbench, nodes: Nodes, call: Call, add_batch: Callable[[], Awaitable[object]]
) -> dict[str, float]:
    """Raises RuntimeError when so much that is added makes no replica build anything."""
    await nodes.wait_sealed()
    quiet = await run_callers(call, CALLERS, seconds=2 * bench.scale.seconds)
    for _ in range(_MAX_BATCHES):
        await add_batch()
        await nodes.settle()
        if nodes.is_building():
            break
    else:
        raise RuntimeError(f"no segment was begun after {_MAX_BATCHES} batches")
    beside: list[float] = []
    began_s = time.perf_counter()
    while nodes.is_building():
        beside += (await run_callers(call, CALLERS, seconds=_SLICE_S)).latencies_s
    built_s = time.perf_counter() - began_s
    quiet_s, beside_s = (figures.percentile(sorted(each), 99) for each in (quiet.latencies_s, beside))
    return {
        "quiet_p99_ms": quiet_s * 1e3,
        "building_p99_ms": beside_s * 1e3,
        "times": beside_s / quiet_s,
        "built_s": built_s,
    }
