"""Agents that ask for their own memories: a store of many owners, of whom each has some tens to thousands.

The embeddings come with the memories and with the questions, so none of the server's time goes into a model.
They are made of the texts, by the embedder that ships with the server. The goals are in ``goals.py``.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from agentmem.bench.suite import figures, upkeep
from agentmem.bench.suite.callers import Call, run_callers
from agentmem.bench.suite.corpus import FIRST_EVENT, SEED, SPAN
from agentmem.bench.suite.measurement import Meter, Section
from agentmem.bench.suite.nodes import CLIENT_TIMEOUT_S, Nodes
from agentmem.bench.suite.questions import question
from agentmem.bench.suite.searching import SEGMENT_ROWS
from agentmem.bench.suite.workbench import Workbench, WrongAnswer
from agentmem.client import AddResult, AsyncClient, NewMemory
from agentmem.core.embedders import WordLlamaEmbedder

NAMESPACE = "owners"
MEMORIES_OF_AN_OWNER = 100
FEWEST, MOST = 20, 2_000
CALLERS, WRITERS = 64, 32
TOP_K = 10
# Of each type; the other memories are episodic.
SEMANTIC_SHARE = 0.4
WRITES_PER_S = 500
ADD_SHARE = 0.05
_IMPORT_BATCH = 1_000
_IMPORTERS = 4
_QUESTIONS = 200
_RECALLED = 200
_PREPARED = 2_000
_POLL_S = 0.002
_TOLERANCE = 1e-3

Rows = npt.NDArray[np.float32]


@dataclass
class Owned:
    """The memories, in the order in which they are added, and the questions.

    Attributes:
        owners: the owner of each memory.
        vectors: of each, float32 [n, dimension], unit length.
        questions: texts, with their vectors, float32 [n, dimension].
    """

    bench: Workbench
    owners: npt.NDArray[np.int64]
    vectors: Rows
    questions: Sequence[str]
    asked: Rows
    embedder: WordLlamaEmbedder
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count())

    @classmethod
    def made(cls, bench: Workbench, memories: int) -> Owned:
        bench.say(f"embedding {memories} memories")
        owners = _owners(memories)
        embedder = WordLlamaEmbedder()
        vectors = _embedded(embedder, [bench.corpus.text(number) for number in range(memories)])
        asked = bench.corpus.searchable(_QUESTIONS, among=memories)
        questions = [question(bench.corpus, number, "text") for number in asked]
        return cls(bench, owners, vectors, questions, _embedded(embedder, questions), embedder)

    def memory(self, number: int) -> NewMemory:
        draw = random.Random(f"{SEED} owned {number}")
        owner = int(self.owners[number % len(self.owners)])
        return NewMemory(
            self.bench.corpus.text(number),
            id=f"m{number}",
            user_id=f"owner-{owner}",
            session_id=f"session-{owner}-{draw.randrange(20)}",
            type="semantic" if draw.random() < SEMANTIC_SHARE else "episodic",
            event_time=FIRST_EVENT + draw.random() * SPAN,
            embedding=self.vectors[number % len(self.vectors)].tolist(),
            embedding_model=self.embedder.model,
        )

    def owner(self, number: int) -> int:
        """The owner of some memory, so that who has more is asked for more often."""
        return int(self.owners[number * 7_919 % len(self.owners)])

    @property
    def since(self) -> datetime:
        """About half of the memories are of a later time."""
        return FIRST_EVENT + SPAN / 2


def _owners(memories: int) -> npt.NDArray[np.int64]:
    """Owners from FEWEST to MOST memories each, most of them with few; in an order by a seed."""
    count = max(1, memories // MEMORIES_OF_AN_OWNER)
    places = (np.arange(count) + 0.5) / count
    low, high = 0.01, 100.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        sizes = np.round(FEWEST * (MOST / FEWEST) ** (places**middle))
        low, high = (middle, high) if sizes.sum() > memories else (low, middle)
    owners = np.resize(np.repeat(np.arange(count), sizes.astype(np.int64)), memories)
    np.random.default_rng(SEED).shuffle(owners)
    return owners


def _embedded(embedder: WordLlamaEmbedder, texts: Sequence[str]) -> Rows:
    """Unit vectors. What the embedder does not know is given that of another text."""
    found: list[npt.NDArray[np.float32] | None] = []
    for start in range(0, len(texts), 1_000):
        found += embedder.embed(texts[start : start + 1_000])
    known = next(vector for vector in found if vector is not None)
    return np.stack([known if vector is None else vector for vector in found])


async def measure(bench: Workbench) -> Section:
    """The section ``owners``."""
    sizes = bench.scale.owned
    owned = Owned.made(bench, sizes[-1])
    async with (
        bench.running(replicas=1) as (nodes, client),
        AsyncClient(*nodes.cluster.endpoints(), timeout_s=CLIENT_TIMEOUT_S, coalesce=False) as alone,
    ):
        meter = bench.meter(nodes)
        by_size, imports, there = [], [], 0
        held: dict[int, int] = {}
        loop = upkeep.LoopWatch(nodes)
        await loop.begin()
        for size in sizes:
            imports.append(await _import(owned, nodes, client, there, size))
            there = size
            if size >= SEGMENT_ROWS:
                await nodes.wait_sealed()
            held[size] = upkeep.own_bytes(nodes)
            by_size.append(
                {"memories": size}
                | await meter.measure(
                    f"semantic search in a scope of {size} memories",
                    _semantic(owned, alone, of_owner=True),
                    callers=WRITERS,
                )
            )
        section: Section = {"memories": there, "by_size": by_size, "imports": imports}
        section["loop"] = {"importing": await loop.end()}
        section["own_bytes"] = upkeep.growth(held)
        section["alone"] = [
            await meter.measure("get", _get(owned, alone), callers=WRITERS),
            await meter.measure(
                "semantic search in a scope", _semantic(owned, alone, of_owner=True), callers=WRITERS
            ),
        ]
        section["recall"] = await _recalls(owned, client)
        await loop.begin()
        section["together"] = await _together(owned, meter, client)
        section["freshness"] = await _freshness(owned, nodes, client)
        section["loop"]["calls"] = await loop.end()
        if there >= SEGMENT_ROWS:
            section["builds"] = await upkeep.beside_builds(
                bench, nodes, _semantic(owned, client, of_owner=True), _adding_batch(owned, client)
            )
        section["restarts"] = await upkeep.restarts(bench, nodes)
        return section


async def _together(owned: Owned, meter: Meter, client: AsyncClient) -> list[Section]:
    calls: dict[str, Call] = {
        "get": _get(owned, client),
        "semantic search in a scope": _semantic(owned, client, of_owner=True),
        "semantic search in a scope by time and type": _semantic(
            owned, client, of_owner=True, is_narrow=True
        ),
        "semantic search in the namespace": _semantic(owned, client),
        "text search in a scope": _worded(owned, client, "text"),
        "hybrid search in a scope": _worded(owned, client, "hybrid"),
    }
    found = [await meter.measure(name, call, callers=CALLERS) for name, call in calls.items()]
    add = _add(owned, client)
    found.append(await meter.measure("add", add, callers=WRITERS, is_write=True))
    search = _semantic(owned, client, of_owner=True)

    async def mixed(number: int) -> None:
        await (add if number % round(1 / ADD_SHARE) == 0 else search)(number)

    found.append(await meter.measure("95 searches in a scope, 5 adds", mixed, callers=CALLERS, is_write=True))
    return found


def _get(owned: Owned, client: AsyncClient) -> Call:
    count = len(owned.owners)

    async def call(number: int) -> None:
        await client.get(NAMESPACE, f"m{number * 7_919 % count}")

    return call


def _semantic(owned: Owned, client: AsyncClient, *, of_owner: bool = False, is_narrow: bool = False) -> Call:
    vectors = [vector.tolist() for vector in owned.asked]
    filter = f'type = "semantic" and event_time >= "{owned.since.isoformat()}"' if is_narrow else None

    async def call(number: int) -> None:
        await client.search(
            NAMESPACE,
            embedding=vectors[number % len(vectors)],
            mode="semantic",
            top_k=TOP_K,
            filter=filter,
            user_id=f"owner-{owned.owner(number)}" if of_owner else None,
        )

    return call


def _worded(owned: Owned, client: AsyncClient, mode: str) -> Call:
    vectors = [vector.tolist() for vector in owned.asked]

    async def call(number: int) -> None:
        at = number % len(vectors)
        await client.search(
            NAMESPACE,
            owned.questions[at],
            embedding=vectors[at] if mode == "hybrid" else None,
            mode=mode,
            top_k=TOP_K,
            user_id=f"owner-{owned.owner(number)}",
        )

    return call


def _adding(owned: Owned, client: AsyncClient) -> Callable[[], Awaitable[AddResult]]:
    """Adds a memory, of some that were made before, under an id of its own."""
    prepared = [owned.memory(number) for number in range(len(owned.owners), len(owned.owners) + _PREPARED)]

    async def add() -> AddResult:
        number = next(owned.numbers)
        memory = prepared[number % len(prepared)]
        return await client.add(
            NAMESPACE,
            memory.content,
            id=f"a{number}",
            user_id=memory.user_id,
            session_id=memory.session_id,
            embedding=memory.embedding,
            embedding_model=memory.embedding_model,
        )

    return add


def _adding_batch(owned: Owned, client: AsyncClient) -> Callable[[], Awaitable[object]]:
    """Adds a batch of memories that are not there yet."""
    first = itertools.count(2 * len(owned.owners), _IMPORT_BATCH)

    async def add() -> object:
        start = next(first)
        return await client.add_many(
            NAMESPACE, [owned.memory(number) for number in range(start, start + _IMPORT_BATCH)]
        )

    return add


def _add(owned: Owned, client: AsyncClient) -> Call:
    adding = _adding(owned, client)

    async def call(_: int) -> None:
        await adding()

    return call


async def _import(owned: Owned, nodes: Nodes, client: AsyncClient, first: int, end: int) -> Section:
    """Adds memories in batches, with their vectors, until searches show the last of them."""
    owned.bench.say(f"importing memories {first} to {end - 1} with their vectors")
    batches = [
        [owned.memory(number) for number in range(start, min(start + _IMPORT_BATCH, end))]
        for start in range(first, end, _IMPORT_BATCH)
    ]
    began_s = time.perf_counter()
    waiting = iter(batches)

    async def importer() -> None:
        for batch in waiting:
            await client.add_many(NAMESPACE, batch)

    async with asyncio.TaskGroup() as group:
        for _ in range(_IMPORTERS):
            group.create_task(importer())
    acknowledged_s = time.perf_counter() - began_s
    await nodes.settle()
    searchable_s = time.perf_counter() - began_s
    count = end - first
    return {
        "memories": count,
        "acknowledged_per_s": round(count / acknowledged_s),
        "searchable_per_s": round(count / searchable_s),
    }


async def _recalls(owned: Owned, client: AsyncClient) -> Section:
    """The share of the ten nearest memories that are found, against scoring all of them in NumPy."""
    owned.bench.say("recall")
    count = len(owned.owners)
    drawn = [random.Random(f"{SEED} owned {number}") for number in range(count)]
    for draw in drawn:
        draw.randrange(20)
    is_semantic = np.array([draw.random() < SEMANTIC_SHARE for draw in drawn])
    is_late = np.array([FIRST_EVENT + draw.random() * SPAN >= owned.since for draw in drawn])
    filter = f'type = "semantic" and event_time >= "{owned.since.isoformat()}"'
    found = {}
    for name, of_owner, is_narrow in (
        ("scope", True, False),
        ("scope by time and type", True, True),
        ("namespace", False, False),
    ):
        hits = wanted = 0
        for number in range(_RECALLED):
            owner, vector = owned.owner(number), owned.asked[number % len(owned.asked)]
            mask = owned.owners == owner if of_owner else np.ones(count, dtype=np.bool_)
            if is_narrow:
                mask = mask & is_semantic & is_late
            best = np.sort((owned.vectors @ vector)[mask])[::-1][:TOP_K]
            result = await client.search(
                NAMESPACE,
                embedding=vector.tolist(),
                mode="semantic",
                top_k=TOP_K,
                filter=filter if is_narrow else None,
                user_id=f"owner-{owner}" if of_owner else None,
            )
            if len(result.hits) < len(best):
                raise WrongAnswer(f"{len(result.hits)} hits where {len(best)} memories match")
            wanted += len(best)
            hits += sum(hit.score >= float(best[-1]) - _TOLERANCE for hit in result.hits[: len(best)])
        found[name] = figures.rounded(hits / wanted)
    return found


async def _freshness(owned: Owned, nodes: Nodes, client: AsyncClient) -> Section:
    """From the acknowledgement of a write until every index shows it, while so many a second are made."""
    owned.bench.say(f"freshness at {WRITES_PER_S} writes a second")
    add = _adding(owned, client)
    runs = [await _fresh_run(owned, nodes, add) for _ in range(owned.bench.scale.rounds)]
    return {"wanted_per_s": WRITES_PER_S, "figures": figures.by_name(runs)}


async def _fresh_run(owned: Owned, nodes: Nodes, add: Callable[[], Awaitable[AddResult]]) -> dict[str, float]:
    await nodes.settle()
    address = next(iter(nodes.replicas().values())).address
    acknowledged: list[tuple[int, float]] = []
    shown_s: list[float] = []
    is_over = False

    async def watch() -> None:
        while acknowledged or not is_over:
            revision = (await nodes.node(address)).node.searchable_revision
            now_s = time.perf_counter()
            shown_s.extend(now_s - at_s for each, at_s in acknowledged if each <= revision)
            acknowledged[:] = [each for each in acknowledged if each[0] > revision]
            await asyncio.sleep(_POLL_S)  # the pace of the looks

    async def write(number: int) -> None:
        await asyncio.sleep(max(0.0, began_s + number / WRITES_PER_S - time.perf_counter()))
        added = await add()
        acknowledged.append((added.revision, time.perf_counter()))

    watching = asyncio.create_task(watch())
    began_s = time.perf_counter()
    done = await run_callers(write, CALLERS, seconds=2 * owned.bench.scale.seconds)
    is_over = True
    await watching
    ordered = sorted(shown_s)
    return {
        "writes_per_s": len(done.latencies_s) / done.elapsed_s,
        "p50_ms": figures.percentile(ordered, 50) * 1e3,
        "p99_ms": figures.percentile(ordered, 99) * 1e3,
    }
