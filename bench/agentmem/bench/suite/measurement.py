"""One measurement: several runs of one kind of call, each beside a run of empty calls.

In each round the empty calls come first, at the same concurrency, so what else the machine does falls on
both. A figure is the median of the rounds with its lowest and highest. The CPU of the servers is that of all
nodes with their children; after writes it is taken when every replica's searches show them, for to apply and
index them is a part of their price.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

from agentmem.bench.suite import figures, process_trees
from agentmem.bench.suite.callers import Call, Calls, run_callers
from agentmem.bench.suite.empty_server import EmptyClient, EmptyServer
from agentmem.bench.suite.nodes import Nodes
from agentmem.bench.suite.scale import Scale

Say = Callable[[str], None]
# Of a part of the document.
Section = dict[str, Any]

_WARM_UP_S = 0.5


class Meter:
    """Measures calls on the nodes of one cluster."""

    def __init__(self, empty: EmptyServer, nodes: Nodes, scale: Scale, say: Say) -> None:
        self._empty, self._nodes, self._scale, self._say = empty, nodes, scale, say

    async def measure(
        self,
        name: str,
        call: Call,
        *,
        callers: int,
        is_write: bool = False,
        items: int = 1,
        seconds: float | None = None,
        calls_each: int | None = None,
        rounds: int | None = None,
    ) -> Section:
        """Measures one kind of call.

        Args:
            items: memories in each call, such as of a batch.
            calls_each: of each caller in each round, instead of a time.
        """
        self._say(f"{name}, {callers} caller{'s' * (callers != 1)}")
        seconds = self._scale.seconds if seconds is None else seconds
        numbers = itertools.count()
        runs: list[dict[str, float]] = []
        latencies: array[float] = array("d")
        errors: Counter[str] = Counter()
        attempts = 0
        empty = EmptyClient(self._empty.address)
        try:
            await run_callers(call, callers, seconds=min(_WARM_UP_S, seconds), numbers=numbers)
            await run_callers(empty.call, callers, seconds=min(_WARM_UP_S, seconds))
            for _ in range(self._scale.rounds if rounds is None else rounds):
                if is_write:
                    await self._nodes.settle()
                compared = await self._empty_run(empty, callers, seconds / 2)
                before = self._nodes.usage()
                done = await run_callers(
                    call,
                    callers,
                    seconds=None if calls_each else seconds,
                    calls_each=calls_each,
                    numbers=numbers,
                )
                if is_write:
                    await self._nodes.settle()
                after = self._nodes.usage()
                cpu_s = {node: after[node].cpu_s - before[node].cpu_s for node in after}
                runs.append(_figures_of(done, cpu_s, compared, items))
                latencies.extend(done.latencies_s)
                errors += done.errors
                attempts += done.attempts
        finally:
            await empty.close()
        return {
            "name": name,
            "callers": callers,
            "items": items,
            "calls": attempts,
            "errors": dict(errors),
            "error_rate": figures.rounded(errors.total() / attempts),
            "figures": figures.by_name(runs),
            "latency_ms": figures.latency_curve(latencies),
        }

    async def _empty_run(self, empty: EmptyClient, callers: int, seconds: float) -> dict[str, float]:
        before = process_trees.usage(self._empty.pid).cpu_s
        done = await run_callers(empty.call, callers, seconds=seconds)
        cpu_s = process_trees.usage(self._empty.pid).cpu_s - before
        return {
            "empty_per_s": done.attempts / done.elapsed_s,
            "empty_p50_ms": figures.percentile(sorted(done.latencies_s), 50) * 1e3,
            "empty_server_cpu_ms": cpu_s / done.attempts * 1e3,
            "empty_client_cpu_ms": done.client_cpu_s / done.attempts * 1e3,
        }


def _figures_of(
    done: Calls, cpu_s: dict[str, float], empty: dict[str, float], items: int
) -> dict[str, float]:
    """The figures of one run. Raises RuntimeError when no call was answered."""
    if not done.latencies_s:
        raise RuntimeError(f"no call was answered: {dict(done.errors)}")
    ordered = sorted(done.latencies_s)
    server_cpu_s = sum(cpu_s.values())
    found = {
        "per_s": len(ordered) / done.elapsed_s,
        "items_per_s": len(ordered) * items / done.elapsed_s,
        "mean_ms": sum(ordered) / len(ordered) * 1e3,
    }
    for percent in (50, 95, 99, 99.9):
        if percent == 50 or figures.can_tell(len(ordered), percent):
            found[f"p{percent:g}_ms".replace(".", "")] = figures.percentile(ordered, percent) * 1e3
    found |= {
        "server_cpu_ms": server_cpu_s / done.attempts * 1e3,
        "server_cpu_ms_per_item": server_cpu_s / done.attempts / items * 1e3,
        "writer_cpu_ms": cpu_s.get("writer", 0.0) / done.attempts * 1e3,
        "client_cpu_ms": done.client_cpu_s / done.attempts * 1e3,
        "client_cpu_share": done.client_cpu_s / done.elapsed_s,
        **empty,
        "throughput_ratio": len(ordered) / done.elapsed_s / empty["empty_per_s"],
    }
    # Clocks that count hundredths say nothing of a run that is too short.
    if empty["empty_server_cpu_ms"] > 0:
        found["cpu_ratio"] = found["server_cpu_ms"] / empty["empty_server_cpu_ms"]
    return found
