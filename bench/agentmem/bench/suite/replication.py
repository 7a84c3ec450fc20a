"""How far replicas are behind under load, how fast they catch up, and what more of them bring."""

from __future__ import annotations

import asyncio
import bisect
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import mean

from agentmem.bench.suite import figures, searching
from agentmem.bench.suite.callers import run_callers
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.nodes import CLIENT_TIMEOUT_S, Nodes
from agentmem.bench.suite.workbench import Workbench
from agentmem.cli import processes
from agentmem.client import AsyncClient

WRITERS = 16
SEARCHERS = 32
SEARCHED = 5_000
# Of a replica's position under load.
SAMPLE_INTERVAL_S = 0.02
_POLL_S = 0.005
_CATCH_UP_TIMEOUT_S = 600.0
_NAMESPACE = "replicated"


async def measure(bench: Workbench) -> Section:
    """The section ``replication``."""
    async with bench.running(replicas=2) as (nodes, client):
        lag = await _lag(bench, nodes, client)
        catch_up = await _catch_up(bench, nodes, client)
        snapshot = await _snapshot(bench, client)
    scaling = [await _scaled(bench, replicas) for replicas in bench.scale.replicas]
    return {"lag": lag, "catch_up": catch_up, "snapshot": snapshot, "scaling": scaling}


class _Acknowledged:
    """When each revision was acknowledged: ascending in both."""

    def __init__(self) -> None:
        self._revisions: list[int] = []
        self._times_s: list[float] = []

    def saw(self, revision: int) -> None:
        if not self._revisions or revision > self._revisions[-1]:
            self._revisions.append(revision)
            self._times_s.append(time.perf_counter())

    def lag(self, revision: int, now_s: float) -> tuple[int, float]:
        """How many acknowledged revisions, and for how many seconds, a replica at this one is behind."""
        if not self._revisions or self._revisions[-1] <= revision:
            return 0, 0.0
        first = bisect.bisect_right(self._revisions, revision)
        return self._revisions[-1] - revision, now_s - self._times_s[first]


async def _lag(bench: Workbench, nodes: Nodes, client: AsyncClient) -> Section:
    """Samples each replica while many callers add one memory after the other."""
    bench.say(f"lag while {WRITERS} callers add")
    runs, writes = [], 0
    for round in range(bench.scale.rounds):
        await nodes.settle()
        seen = _Acknowledged()
        samples: list[tuple[int, float, float]] = []

        async def add(number: int, seen: _Acknowledged = seen, round: int = round) -> None:
            text = bench.corpus.text(number + round * 100_000)
            seen.saw((await client.add(_NAMESPACE, text)).revision)

        sampling = asyncio.create_task(_sample(nodes, seen, samples))
        done = await run_callers(add, WRITERS, seconds=max(2 * bench.scale.seconds, 10 * SAMPLE_INTERVAL_S))
        sampling.cancel()
        await asyncio.wait([sampling])
        if not sampling.cancelled():
            sampling.result()
        writes += done.attempts
        revisions = sorted(float(sample[0]) for sample in samples)
        stored, searchable = (sorted(sample[at] * 1e3 for sample in samples) for at in (1, 2))
        runs.append(
            {
                "adds_per_s": len(done.latencies_s) / done.elapsed_s,
                "revisions_mean": mean(revisions),
                "revisions_max": revisions[-1],
                "stored_p50_ms": figures.percentile(stored, 50),
                "stored_max_ms": stored[-1],
                "searchable_p50_ms": figures.percentile(searchable, 50),
                "searchable_p95_ms": figures.percentile(searchable, 95),
                "searchable_max_ms": searchable[-1],
            }
        )
    return {"callers": WRITERS, "writes": writes, "figures": figures.by_name(runs)}


async def _sample(nodes: Nodes, seen: _Acknowledged, samples: list[tuple[int, float, float]]) -> None:
    addresses = [process.address for process in nodes.replicas().values()]
    while True:
        for address in addresses:
            answer = await nodes.node(address)
            # An upper bound: what was acknowledged while the answer was on its way counts as lag, too.
            now_s = time.perf_counter()
            revisions, stored_s = seen.lag(answer.position.revision, now_s)
            _, searchable_s = seen.lag(answer.node.searchable_revision, now_s)
            samples.append((revisions, stored_s, searchable_s))
        await asyncio.sleep(SAMPLE_INTERVAL_S)  # the pace of the samples


async def _catch_up(bench: Workbench, nodes: Nodes, client: AsyncClient) -> Section:
    """Stops a replica, writes what it misses, and starts it again: with so many memories, and with none.

    The difference is what catching up takes: the start of a process is in both.
    """
    missed = bench.scale.missed
    runs, first = [], 1_000_000
    for _ in range(bench.scale.rounds):
        with_none_s = await _back_s(nodes, lambda: asyncio.sleep(0))

        async def write(first: int = first) -> None:
            await bench.load(client, _NAMESPACE, first, first + missed)

        with_all_s = await _back_s(nodes, write)
        first += missed
        run = {"start_s": with_none_s, "start_and_catch_up_s": with_all_s}
        if with_all_s > with_none_s:
            run["memories_per_s"] = missed / (with_all_s - with_none_s)
        runs.append(run)
    return {"missed": missed, "figures": figures.by_name(runs)}


async def _back_s(nodes: Nodes, meanwhile: Callable[[], Awaitable[None]]) -> float:
    """From the start of a replica that was away meanwhile until its searches show everything."""
    folder = nodes.cluster.replicas()[-1]
    processes.stop_folders([folder])
    await meanwhile()
    head = (await nodes.node(nodes.cluster.writer_address())).position.revision
    began_s = time.perf_counter()
    address = (await asyncio.to_thread(nodes.start_replica, folder)).address
    while (await nodes.node(address)).node.searchable_revision < head:
        if time.perf_counter() > began_s + _CATCH_UP_TIMEOUT_S:
            raise TimeoutError(f"{folder.name} is not level after {_CATCH_UP_TIMEOUT_S:.0f} s")
        await asyncio.sleep(_POLL_S)
    return time.perf_counter() - began_s


async def _snapshot(bench: Workbench, client: AsyncClient) -> Section:
    """Copies the writer's whole store, as a backup and as a new replica do."""
    bench.say("snapshot of the writer's store")
    runs, size_bytes = [], 0
    for _ in range(bench.scale.rounds):
        with tempfile.TemporaryDirectory(prefix="agentmem-bench-") as parent:
            folder = Path(parent) / "backup"
            began_s = time.perf_counter()
            await client.backup(folder)
            took_s = time.perf_counter() - began_s
            size_bytes = (folder / "data.mdb").stat().st_size
            runs.append({"seconds": took_s, "mb_per_s": size_bytes / 1e6 / took_s})
    return {"bytes": size_bytes, "figures": figures.by_name(runs)}


async def _scaled(bench: Workbench, replicas: int) -> Section:
    """Searches by so many replicas. Each call goes alone, lest batches hide what a node can take."""
    async with bench.running(replicas=replicas) as (nodes, client):
        size = min(SEARCHED, bench.scale.sizes[-1])
        await bench.load(client, searching.NAMESPACE, 0, size)
        await nodes.settle()
        asked = bench.corpus.searchable(200, among=size)
        async with AsyncClient(
            *nodes.cluster.endpoints(), timeout_s=CLIENT_TIMEOUT_S, coalesce=False
        ) as alone:
            call = searching.search(alone, bench.corpus, asked, "hybrid")
            case = await bench.meter(nodes).measure(
                f"hybrid search, {replicas} replica{'s' * (replicas != 1)}", call, callers=SEARCHERS
            )
        return {"replicas": replicas, "memories": size, **case}
