"""How long after its acknowledgement a write shows: in the replica's store, its word index, its vectors.

One memory after the other is added, and the replica asked again and again until it shows, so a figure has the
time of about one such question in it.
"""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Awaitable, Callable

from agentmem.bench.suite import figures
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.nodes import Nodes
from agentmem.bench.suite.workbench import Workbench
from agentmem.client import AsyncClient
from agentmem.v1 import reader_pb2

_TIMEOUT_S = 30.0
_NAMESPACE = "freshness"
# Each memory has a corner of a cube of its own as its vector.
_DIMENSION = 16


async def measure(bench: Workbench, nodes: Nodes, client: AsyncClient) -> list[Section]:
    """A row for each index."""
    replica = next(iter(nodes.replicas().values()))
    reader = nodes.reader(replica.address)

    async def in_store(name: str, _: list[float]) -> bool:
        request = reader_pb2.GetMemoriesRequest(namespace=_NAMESPACE, ids=[name])
        return bool((await reader.GetMemories(request, timeout=_TIMEOUT_S)).memories)

    async def by_words(name: str, _: list[float]) -> bool:
        request = reader_pb2.SearchMemoriesRequest(
            namespace=_NAMESPACE, text=name, mode=reader_pb2.SEARCH_MODE_TEXT, top_k=1
        )
        return _is_first(await reader.SearchMemories(request, timeout=_TIMEOUT_S), name)

    async def by_vector(name: str, vector: list[float]) -> bool:
        request = reader_pb2.SearchMemoriesRequest(
            namespace=_NAMESPACE,
            embedding=_packed(vector),
            mode=reader_pb2.SEARCH_MODE_SEMANTIC,
            top_k=1,
        )
        return _is_first(await reader.SearchMemories(request, timeout=_TIMEOUT_S), name)

    looks = {"store (get)": in_store, "words (text search)": by_words, "vectors (semantic search)": by_vector}
    numbers = itertools.count(1)
    return [await _one_index(bench, client, name, look, numbers) for name, look in looks.items()]


Look = Callable[[str, list[float]], Awaitable[bool]]


async def _one_index(
    bench: Workbench, client: AsyncClient, index: str, shows: Look, numbers: itertools.count[int]
) -> Section:
    bench.say(f"freshness: {index}")
    runs = []
    for _ in range(bench.scale.rounds):
        waits_s = []
        for _ in range(bench.scale.freshness):
            number = next(numbers)
            waits_s.append(await _wait(client, f"fresh{number}", number, shows))
        ordered = sorted(waits_s)
        run = {"p50_ms": figures.percentile(ordered, 50) * 1e3, "max_ms": ordered[-1] * 1e3}
        if figures.can_tell(len(ordered), 95):
            run["p95_ms"] = figures.percentile(ordered, 95) * 1e3
        runs.append(run)
    return {
        "index": index,
        "writes": bench.scale.rounds * bench.scale.freshness,
        "figures": figures.by_name(runs),
    }


async def _wait(client: AsyncClient, name: str, number: int, shows: Look) -> float:
    vector = [float((number >> bit) & 1) * 2 - 1 for bit in range(_DIMENSION)]
    await client.add(_NAMESPACE, name, id=name, embedding=vector, embedding_model="bench")
    began_s = time.perf_counter()
    while not await shows(name, vector):
        if time.perf_counter() > began_s + _TIMEOUT_S:
            raise TimeoutError(f"{name} does not show after {_TIMEOUT_S:.0f} s")
    return time.perf_counter() - began_s


def _packed(vector: list[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


def _is_first(response: reader_pb2.SearchMemoriesResponse, name: str) -> bool:
    return bool(response.hits) and response.hits[0].memory.id == name
