"""Adding, reading and changing memories: one at a time, many callers at once, and in batches."""

from __future__ import annotations

from agentmem.bench.suite.callers import Call
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.workbench import Workbench, WrongAnswer
from agentmem.client import AsyncClient

NAMESPACE, ADDED = "operations", "operations-added"
BATCH = 100
CALLERS = (1, 16)
BATCH_CALLERS = 2


async def measure(bench: Workbench) -> Section:
    """The section ``memory_operations``."""
    async with bench.running(replicas=1) as (nodes, client):
        await bench.load(client, NAMESPACE, 0, bench.scale.memories)
        meter = bench.meter(nodes)
        cases = []
        for callers in CALLERS:
            cases += [
                await meter.measure("add", add(bench, client), callers=callers, is_write=True),
                await meter.measure("get", get(bench, client), callers=callers),
                await meter.measure("update", update(bench, client), callers=callers, is_write=True),
            ]
        cases += [
            await meter.measure(
                f"add {BATCH} in a call",
                add_batch(bench, client),
                callers=BATCH_CALLERS,
                is_write=True,
                items=BATCH,
            ),
            await meter.measure(
                f"get {BATCH} in a call", get_batch(bench, client), callers=BATCH_CALLERS, items=BATCH
            ),
        ]
        return {"cases": cases, "batch": BATCH}


def add(bench: Workbench, client: AsyncClient) -> Call:
    """Adds one memory, which the server embeds."""

    async def call(number: int) -> None:
        await client.add(
            ADDED, bench.corpus.text(bench.scale.memories + number), user_id=f"user-{number % 100}"
        )

    return call


def get(bench: Workbench, client: AsyncClient) -> Call:
    """Reads one memory."""

    async def call(number: int) -> None:
        id = f"m{number * 37 % bench.scale.memories}"
        found = await client.get(NAMESPACE, id)
        if found is None or found.id != id:
            raise WrongAnswer(f"asked for {id}, got {found}")

    return call


def update(bench: Workbench, client: AsyncClient) -> Call:
    """Gives a memory new content, which the server embeds."""

    async def call(number: int) -> None:
        await client.update(
            NAMESPACE,
            f"m{number * 37 % bench.scale.memories}",
            content=bench.corpus.text(bench.scale.memories + number),
        )

    return call


def add_batch(bench: Workbench, client: AsyncClient) -> Call:
    """Adds many memories in one commit."""

    async def call(number: int) -> None:
        first = bench.scale.memories + number * BATCH
        await client.add_many(ADDED, [bench.corpus.text(first + each) for each in range(BATCH)])

    return call


def get_batch(bench: Workbench, client: AsyncClient) -> Call:
    """Reads many memories."""

    async def call(number: int) -> None:
        ids = [f"m{(number * BATCH + each) % bench.scale.memories}" for each in range(BATCH)]
        found = await client.get_many(NAMESPACE, ids)
        if [memory.id for memory in found.memories] != ids:
            raise WrongAnswer(f"asked for {len(ids)} memories, got {len(found.memories)}")

    return call
