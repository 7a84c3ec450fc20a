"""A long mixed load, and what the nodes hold meanwhile: memory, files, threads; and the lag of replicas.

Growth is the slope of a line through the second half of the samples: the first half is when caches fill.
The store grows with what is added; so does what an index holds of it in memory.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from agentmem.bench.suite import figures
from agentmem.bench.suite.callers import Call, Calls
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.mixed_load import MixedLoad
from agentmem.bench.suite.nodes import Nodes
from agentmem.bench.suite.workbench import Workbench

REPLICAS = 2
CALLERS = 16
# A day at the default pace; then every second sample goes, and the pace is half of that.
MAX_SAMPLES = 43_200
# Where others keep the machine busy a sample takes longer than the pace, and a slope needs two in a half.
MIN_SAMPLES = 4


async def measure(bench: Workbench) -> Section:
    """The section ``soak``."""
    scale = bench.scale
    async with bench.running(replicas=REPLICAS) as (nodes, client):
        load = MixedLoad(bench, client, "soak")
        await load.load(bench)
        await nodes.settle()
        bench.say(f"{CALLERS} callers for {scale.soak_s:g} s")
        soak = _Soak(nodes, load.call())
        samples = await soak.run(scale.soak_s, scale.soak_interval_s)
        began_s = time.perf_counter()
        await nodes.settle()
        return {
            "seconds_of_load": scale.soak_s,
            "callers": CALLERS,
            "calls": soak.attempts,
            "errors": soak.errors,
            "made": dict(load.made),
            "level_after_s": figures.rounded(time.perf_counter() - began_s),
            "samples": samples,
            "growth": _growth(samples),
        }


@dataclass(slots=True)
class _Soak:
    nodes: Nodes
    call: Call
    attempts: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    _calls: Calls = field(default_factory=Calls)
    _is_over: bool = False

    async def run(self, seconds: float, interval_s: float) -> list[Section]:
        samples: list[Section] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._caller())
            try:
                await self._sample(samples, seconds, interval_s)
            finally:
                self._is_over = True
        return samples

    async def _caller(self) -> None:
        while not self._is_over:
            await self._calls.made(self.call, 0)

    async def _sample(self, samples: list[Section], seconds: float, interval_s: float) -> None:
        began_s = last_s = time.perf_counter()
        while last_s - began_s < seconds or len(samples) < MIN_SAMPLES:
            await asyncio.sleep(interval_s)  # the pace of the samples
            now_s = time.perf_counter()
            done, self._calls = self._calls, Calls()
            samples.append(
                {
                    "at_s": figures.rounded(now_s - began_s),
                    **self._load(done, now_s - last_s),
                    "lag_revisions": await self._lag(),
                    "nodes": self._nodes_now(),
                }
            )
            last_s = now_s
            if len(samples) > MAX_SAMPLES:
                del samples[::2]
                interval_s *= 2

    def _load(self, done: Calls, elapsed_s: float) -> dict[str, float]:
        self.attempts += done.attempts
        for name, count in done.errors.items():
            self.errors[name] = self.errors.get(name, 0) + count
        ordered = sorted(done.latencies_s)
        found = {"per_s": len(ordered) / elapsed_s, "errors": float(done.errors.total())}
        if ordered:
            found["p50_ms"] = figures.percentile(ordered, 50) * 1e3
            found["p95_ms"] = figures.percentile(ordered, 95) * 1e3
        return {name: figures.rounded(value) for name, value in found.items()}

    async def _lag(self) -> int:
        """Of the replica that is furthest behind, asked before the writer is: an upper bound."""
        positions = [
            (await self.nodes.node(process.address)).node.searchable_revision
            for process in self.nodes.replicas().values()
        ]
        head = (await self.nodes.node(self.nodes.cluster.writer_address())).position.revision
        return max(0, head - min(positions))

    def _nodes_now(self) -> dict[str, dict[str, float]]:
        return {
            name: {
                "cpu_s": used.cpu_s,
                "rss_mb": used.rss_bytes / 1e6,
                "anonymous_mb": used.anonymous_bytes / 1e6,
                "open_files": used.open_files,
                "threads": used.threads,
            }
            for name, used in self.nodes.usage().items()
        }


def _growth(samples: list[Section]) -> dict[str, dict[str, float]]:
    """Of each node what grew, by the hour; and at the first and the last sample."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        half = samples
    times_s = [sample["at_s"] for sample in half]
    found: dict[str, dict[str, float]] = {}
    for node in samples[-1]["nodes"]:
        found[node] = {}
        for name in ("anonymous_mb", "rss_mb", "open_files", "threads"):
            values = [sample["nodes"][node][name] for sample in half]
            found[node] |= {
                f"{name}_first": figures.rounded(samples[0]["nodes"][node][name]),
                f"{name}_last": figures.rounded(values[-1]),
                f"{name}_per_hour": figures.rounded(figures.slope_per_hour(times_s, values)),
            }
    return found
