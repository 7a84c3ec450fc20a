"""Many users at once: a mixed load by the number of callers, and calls that travel together."""

from __future__ import annotations

from agentmem.bench.suite import memory_operations, searching
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.mixed_load import SHARES, MixedLoad
from agentmem.bench.suite.nodes import CLIENT_TIMEOUT_S
from agentmem.bench.suite.workbench import Workbench
from agentmem.client import AsyncClient

REPLICAS = 2
TOGETHER_CALLERS = 64


async def measure(bench: Workbench) -> Section:
    """The section ``concurrency``."""
    scale = bench.scale
    async with bench.running(replicas=REPLICAS) as (nodes, client):
        meter = bench.meter(nodes)
        load = MixedLoad(bench, client, "concurrency")
        await load.load(bench)
        await nodes.settle()
        curve = [
            await meter.measure("mixed", load.call(), callers=callers, is_write=True)
            for callers in scale.concurrency
        ]
        bench.say(f"{scale.users} users, {scale.operations} operations each")
        load.made.clear()
        users = await meter.measure(
            "mixed", load.call(), callers=scale.users, is_write=True, calls_each=scale.operations
        )
        users["operations_of_a_user"] = scale.operations
        users["made"] = dict(load.made)
        await bench.load(client, memory_operations.NAMESPACE, 0, scale.memories)
        await nodes.settle()
        together = []
        for coalesce in (False, True):
            async with AsyncClient(
                *nodes.cluster.endpoints(), timeout_s=CLIENT_TIMEOUT_S, coalesce=coalesce
            ) as other:
                asked = bench.corpus.searchable(200, among=scale.memories)
                calls = {
                    "get": (memory_operations.get(bench, other), False),
                    "search text": (
                        searching.search(
                            other, bench.corpus, asked, "text", namespace=memory_operations.NAMESPACE
                        ),
                        False,
                    ),
                    "add": (memory_operations.add(bench, other), True),
                    "update": (memory_operations.update(bench, other), True),
                }
                for name, (call, is_write) in calls.items():
                    together.append(
                        await meter.measure(name, call, callers=TOGETHER_CALLERS, is_write=is_write)
                        | {"coalesce": coalesce}
                    )
    return {
        "replicas": REPLICAS,
        "shares": SHARES,
        "curve": curve,
        "users": users,
        "together": together,
    }
