"""Searches among more and more memories: every mode, filtered too, what it costs, and whether it is right.

The memories of the second size come on top of those of the first, and so on, so that what is resident and on
the disk can be told for each size.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentmem.bench.suite import accuracy, freshness
from agentmem.bench.suite.callers import Call
from agentmem.bench.suite.corpus import USERS, Corpus
from agentmem.bench.suite.measurement import Meter, Section
from agentmem.bench.suite.nodes import Nodes
from agentmem.bench.suite.questions import question
from agentmem.bench.suite.workbench import Workbench
from agentmem.client import AsyncClient

NAMESPACE = "searches"
CALLERS = 4
# From so many vectors on, a replica has segments unless it is told otherwise.
SEGMENT_ROWS = 20_000
FILTERS = ("half", "tenth", "hundredth")
_DIFFERENT_QUESTIONS = 200


async def measure(bench: Workbench) -> Section:
    """The section ``search``."""
    async with bench.running(replicas=1) as (nodes, client):
        meter = bench.meter(nodes)
        asked = bench.corpus.searchable(_DIFFERENT_QUESTIONS, among=bench.scale.sizes[0])
        await accuracy.store_questions(client, bench)
        sizes, there = [], 0
        for size in bench.scale.sizes:
            await bench.load(client, NAMESPACE, there, size)
            there = size
            await nodes.settle()
            if size >= SEGMENT_ROWS:
                bench.say("waiting for segments")
                await nodes.wait_sealed()
            sizes.append(
                {
                    "memories": size,
                    "cases": await _cases(meter, client, bench.corpus, asked),
                    "accuracy": await accuracy.measure(bench, nodes, client, NAMESPACE, size),
                    "footprint": _footprint(nodes, size),
                }
            )
        fresh = await freshness.measure(bench, nodes, client)
        return {"sizes": sizes, "freshness": fresh, "corpus": bench.corpus.name}


async def _cases(meter: Meter, client: AsyncClient, corpus: Corpus, asked: Sequence[int]) -> list[Section]:
    cases = [
        await meter.measure(mode, search(client, corpus, asked, mode), callers=CALLERS)
        for mode in ("exact", "fuzzy", "text", "semantic", "hybrid")
    ]
    calls = {
        f"semantic, filter: {tag}": search(client, corpus, asked, "semantic", f'tags = "{tag}"')
        for tag in FILTERS
    } | {"hybrid, one user": search(client, corpus, asked, "hybrid", by_user=True)}
    return cases + [await meter.measure(name, call, callers=CALLERS) for name, call in calls.items()]


def search(
    client: AsyncClient,
    corpus: Corpus,
    asked: Sequence[int],
    mode: str,
    filter: str | None = None,
    *,
    by_user: bool = False,
    namespace: str = NAMESPACE,
) -> Call:
    """Asks for ten hits, each time for another memory."""
    texts = [question(corpus, number, mode) for number in asked]

    async def call(number: int) -> None:
        user_id = f"user-{number % USERS}" if by_user else None
        await client.search(namespace, texts[number % len(texts)], mode=mode, filter=filter, user_id=user_id)

    return call


def _footprint(nodes: Nodes, size: int) -> Section:
    """What the nodes hold. Of every memory that was added once: none was changed."""
    stored, used = nodes.stored_bytes(), nodes.usage()
    return {
        "memories": size,
        "stored_bytes": stored,
        "stored_bytes_per_memory": {node: round(count / size) for node, count in stored.items()},
        "anonymous_bytes": {node: each.anonymous_bytes for node, each in used.items()},
        "rss_bytes": {node: each.rss_bytes for node, each in used.items()},
    }
