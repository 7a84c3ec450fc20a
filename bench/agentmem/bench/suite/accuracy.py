"""Whether searches find what they should, beside how long they take.

semantic    recall@10 against scoring every memory in NumPy: a hit counts when it scores no less than the
            tenth best
exact       of ten hits, or as many as there are, those that have the phrase, by a look at every memory
text, fuzzy, hybrid
            the share of questions, made of one memory's words, that have this memory among the ten hits
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentmem.bench.suite import figures
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.nodes import Nodes
from agentmem.bench.suite.questions import as_phrases, has_phrase, question
from agentmem.bench.suite.workbench import Workbench, WrongAnswer
from agentmem.client import AsyncClient, NewMemory, SearchResult
from agentmem.v1 import reader_pb2

QUESTIONS = "search-questions"
TOP_K = 10
FILTERS = ("", "half", "tenth", "hundredth")
_TOLERANCE = 1e-6
_PAGE = 1_000
_CALL_TIMEOUT_S = 60.0

Rows = npt.NDArray[np.float32]


async def store_questions(client: AsyncClient, bench: Workbench) -> None:
    """Adds the questions as memories, so that the server's embeddings of them can be read."""
    await client.add_many(
        QUESTIONS, [NewMemory(text, id=f"q{at:06}") for at, text in enumerate(_texts(bench))]
    )


def _texts(bench: Workbench) -> list[str]:
    """The dataset's questions, and when these are too few, words of memories."""
    wanted = bench.scale.questions
    corpus = bench.corpus
    made = (question(corpus, number, "semantic") for number in _asked(bench))
    return [*dict.fromkeys([*corpus.questions[: wanted // 2], *made])][:wanted]


def _asked(bench: Workbench) -> Sequence[int]:
    return bench.corpus.searchable(bench.scale.questions, among=bench.scale.sizes[0])


@dataclass(frozen=True)
class _Stored:
    """What the replica has: of each memory its vector and its tags."""

    rows: Rows
    tags: list[frozenset[str]]

    @classmethod
    async def of(cls, nodes: Nodes, namespace: str) -> _Stored:
        replica = next(iter(nodes.replicas().values()))
        reader = nodes.reader(replica.address)
        rows: list[Rows] = []
        tags: list[frozenset[str]] = []
        token = ""
        while True:
            page = await reader.ListMemories(
                reader_pb2.ListMemoriesRequest(
                    namespace=namespace, page_size=_PAGE, page_token=token, include_embedding=True
                ),
                timeout=_CALL_TIMEOUT_S,
            )
            for memory in page.memories:
                rows.append(np.frombuffer(memory.embedding, dtype="<f4"))
                tags.append(frozenset(memory.tags))
            token = page.next_page_token
            if not token:
                return cls(np.stack(rows), tags)


async def measure(
    bench: Workbench, nodes: Nodes, client: AsyncClient, namespace: str, size: int
) -> list[Section]:
    """One row for each mode and filter: accuracy, and the wait of a caller who is alone."""
    bench.say(f"accuracy among {size} memories")
    stored = await _Stored.of(nodes, namespace)
    if len(stored.rows) != size:
        raise WrongAnswer(f"there are {len(stored.rows)} memories, not {size}")
    asked = (await _Stored.of(nodes, QUESTIONS)).rows
    rows = [await _semantic(bench, client, namespace, stored, asked, tag) for tag in FILTERS]
    rows.append(await _exact(bench, client, namespace, size))
    rows += [await _known_item(bench, client, namespace, mode) for mode in ("text", "fuzzy", "hybrid")]
    return rows


async def _semantic(
    bench: Workbench, client: AsyncClient, namespace: str, stored: _Stored, asked: Rows, tag: str
) -> Section:
    mask = np.array([not tag or tag in tags for tags in stored.tags])
    found, wanted, waits_s = 0, 0, []
    for text, vector in zip(_texts(bench), asked, strict=True):
        best = np.sort((stored.rows @ vector)[mask])[::-1][:TOP_K]
        result, took_s = await _timed(
            client, namespace, text, "semantic", filter=f'tags = "{tag}"' if tag else None
        )
        if len(result.hits) != len(best):
            raise WrongAnswer(f"{len(result.hits)} hits where {len(best)} memories match {tag!r}")
        wanted += len(best)
        found += sum(hit.score >= float(best[-1]) - _TOLERANCE for hit in result.hits)
        waits_s.append(took_s)
    row = _row("semantic", tag, "recall@10 against exact", found, wanted, waits_s)
    return row | {"matching": int(mask.sum()), "plan": await _plan(bench, client, namespace, tag)}


async def _plan(bench: Workbench, client: AsyncClient, namespace: str, tag: str) -> str:
    """How the first question is searched for among the vectors."""
    filter = f'tags = "{tag}"' if tag else None
    result = await client.search(
        namespace, _texts(bench)[0], mode="semantic", top_k=TOP_K, filter=filter, explain=True
    )
    steps = result.explanation.steps if result.explanation else ()
    return ", ".join(step.plan for step in steps if step.name == "vectors")


async def _exact(bench: Workbench, client: AsyncClient, namespace: str, size: int) -> Section:
    texts = [as_phrases(bench.corpus.text(number)) for number in range(size)]
    found, wanted, waits_s = 0, 0, []
    for number in _asked(bench):
        wanted_phrase = question(bench.corpus, number, "exact")
        result, took_s = await _timed(client, namespace, wanted_phrase, "exact")
        wanted += min(TOP_K, sum(f" {wanted_phrase} " in text for text in texts))
        found += sum(has_phrase(hit.memory.content, wanted_phrase) for hit in result.hits)
        waits_s.append(took_s)
    return _row("exact", "", "hits with the phrase, of those that can be", found, wanted, waits_s)


async def _known_item(bench: Workbench, client: AsyncClient, namespace: str, mode: str) -> Section:
    found, waits_s = 0, []
    asked = _asked(bench)
    for number in asked:
        result, took_s = await _timed(client, namespace, question(bench.corpus, number, mode), mode)
        found += any(hit.memory.id == f"m{number}" for hit in result.hits)
        waits_s.append(took_s)
    return _row(mode, "", "the memory asked for is among ten hits", found, len(asked), waits_s)


async def _timed(
    client: AsyncClient, namespace: str, text: str, mode: str, *, filter: str | None = None
) -> tuple[SearchResult, float]:
    began_s = time.perf_counter()
    result = await client.search(namespace, text, mode=mode, top_k=TOP_K, filter=filter)
    return result, time.perf_counter() - began_s


def _row(mode: str, tag: str, measure: str, found: int, wanted: int, waits_s: list[float]) -> Section:
    ordered = sorted(waits_s)
    return {
        "mode": mode,
        "filter": tag,
        "measure": measure,
        "found": int(found),
        "wanted": wanted,
        "accuracy": figures.rounded(found / wanted) if wanted else 1.0,
        "p50_ms": figures.rounded(figures.percentile(ordered, 50) * 1e3),
        "p95_ms": figures.rounded(figures.percentile(ordered, 95) * 1e3),
    }
