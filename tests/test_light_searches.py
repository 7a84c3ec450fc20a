"""Which searches stay on the event loop: those of which a look at their filter says that they are cheap."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memories import NAMESPACE, Replica, condition, make_memory, unit_vectors
from test_as_of_search import reader_of

from agentmem.core.embedders import WORDLLAMA_MODEL, Embedders, WordLlamaEmbedder
from agentmem.core.filters import compile_filter
from agentmem.replica import searcher, selectivity
from agentmem.replica.search import Mode, search
from agentmem.replica.selectivity import at_most, is_quick
from agentmem.v1 import filter_pb2, reader_pb2

EQ, IN, CONTAINS = filter_pb2.OPERATOR_EQ, filter_pb2.OPERATOR_IN, filter_pb2.OPERATOR_CONTAINS
GTE = filter_pb2.OPERATOR_GTE
COUNT = 12
MODES = {
    "semantic": reader_pb2.SEARCH_MODE_SEMANTIC,
    "text": reader_pb2.SEARCH_MODE_TEXT,
    "hybrid": reader_pb2.SEARCH_MODE_HYBRID,
}
VECTORS = unit_vectors(COUNT)
ANAS, BENS = condition("user_id", EQ, "ana"), condition("user_id", EQ, "ben")
RECENT = condition("importance", GTE, 0.0)


def all_of(*filters: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=filters))


def any_of(*filters: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(any_of=filter_pb2.FilterList(filters=filters))


def negated(node: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(negated=node)


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with Replica(tmp_path_factory.mktemp("light")) as replica:
        memories = [
            make_memory(f"m{number}", content="tea", user_id="ana" if number < 3 else "ben")
            for number in range(COUNT)
        ]
        replica.wait_for_revision(replica.put(memories, VECTORS))
        yield replica


@pytest.mark.parametrize(
    ("node", "most", "quick"),
    [
        (None, COUNT, True),
        (ANAS, 3, True),
        (condition("user_id", IN, "ana", "ben"), COUNT, True),
        (condition("user_id", EQ, "nobody"), 0, True),
        (all_of(BENS, ANAS, RECENT), 3, True),
        (any_of(ANAS, condition("id", EQ, "m7")), 4, True),
        (negated(ANAS), COUNT, True),
        (RECENT, COUNT, True),
        (condition("metadata.none", EQ, "x"), 0, True),
        (condition("user_id", CONTAINS, "an"), COUNT, False),
        (all_of(ANAS, condition("content", CONTAINS, "tea")), 3, False),
        (condition("content", EQ, "tea"), COUNT, False),
    ],
)
def test_what_a_filter_can_match(
    replica: Replica, node: filter_pb2.Filter | None, most: int, quick: bool
) -> None:
    namespace = replica.views[-1].namespaces[NAMESPACE]
    compiled = None if node is None else compile_filter(node)
    assert at_most(namespace, compiled) == most
    assert len(namespace.matching(compiled, 0)) <= most
    assert is_quick(namespace, compiled) is quick


def noted_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the threads in which searches are done from now on."""
    threads: list[str] = []

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name.partition("_")[0])
        return search(*arguments)

    monkeypatch.setattr(searcher, "search", noted)
    return threads


@pytest.mark.parametrize(("mode", "has_vector"), [("semantic", True), ("text", False), ("hybrid", True)])
def test_light_searches_stay_on_the_event_loop_and_others_do_not(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, mode: Mode, has_vector: bool
) -> None:
    threads = noted_threads(monkeypatch)
    monkeypatch.setitem(searcher.MAX_LIGHT_MEMORIES, mode, 3)
    reader, unused = reader_of(replica), None

    def requests(top_k: int) -> list[reader_pb2.SearchMemoriesRequest]:
        return [
            reader_pb2.SearchMemoriesRequest(
                namespace=NAMESPACE,
                text="" if mode == "semantic" else "tea",
                embedding=VECTORS[0].tobytes() if has_vector else b"",
                mode=MODES[mode],
                filter=node,
                top_k=top_k,
            )
            for node in (ANAS, BENS)
        ]

    for each in requests(10):
        asyncio.run(reader.SearchMemories(each, unused))  # type: ignore[arg-type]
    assert threads == ["MainThread", "searches"]
    threads.clear()
    batch = reader_pb2.BatchSearchMemoriesRequest(requests=requests(9))
    answer = asyncio.run(reader.BatchSearchMemories(batch, unused))  # type: ignore[arg-type]
    results = reader_pb2.BatchSearchMemoriesResponse.FromString(answer).results
    assert [len(each.response.hits) for each in results] == [3, 9]
    assert sorted(threads) == ["MainThread", "searches"]
    monkeypatch.setattr(selectivity, "MAX_QUICKLY_COMPARED", 1)
    assert not is_quick(replica.views[-1].namespaces[NAMESPACE], compile_filter(RECENT))
    reader.close()


def test_a_question_is_embedded_on_the_event_loop_when_that_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, embedders, unused = noted_threads(monkeypatch), Embedders(["wordllama"]), None
    (vector,) = WordLlamaEmbedder().embed(["tea"])
    assert vector is not None
    with Replica(tmp_path) as replica:
        memory = make_memory("a", content="tea")
        memory.embedding_model = WORDLLAMA_MODEL
        replica.wait_for_revision(replica.put([memory], vector[np.newaxis]))
        reader = reader_of(replica, embedders)
        for text in ("milk", "water"):  # the first one loads the embedder, which is not quick
            request = reader_pb2.SearchMemoriesRequest(namespace=NAMESPACE, text=text)
            answer = asyncio.run(reader.SearchMemories(request, unused))  # type: ignore[arg-type]
            assert len(reader_pb2.SearchMemoriesResponse.FromString(answer).hits) == 1
        reader.close()
    assert threads == ["searches", "MainThread"]
    assert not Embedders(["openai"]).is_quick("openai")


def test_a_search_of_a_whole_namespace_stays_there_when_it_is_thought_to_be_cheap(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, reader, unused = noted_threads(monkeypatch), reader_of(replica), None
    request = reader_pb2.SearchMemoriesRequest(
        namespace=NAMESPACE, embedding=VECTORS[0].tobytes(), mode=MODES["semantic"]
    )
    for top_k, most_ns in ((1, searcher.MAX_LIGHT_NS), (2, 0)):
        monkeypatch.setattr(searcher, "MAX_LIGHT_NS", most_ns)
        request.top_k = top_k
        asyncio.run(reader.SearchMemories(request, unused))  # type: ignore[arg-type]
    reader.close()
    assert threads == ["MainThread", "searches"]


def test_several_that_indexes_answer_share_the_threads(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, reader, unused = noted_threads(monkeypatch), reader_of(replica), None

    def found(count: int) -> list[int]:
        batch = reader_pb2.BatchSearchMemoriesRequest()
        for number in range(count):
            batch.requests.add(
                namespace=NAMESPACE,
                embedding=VECTORS[number].tobytes(),
                mode=MODES["semantic"],
                top_k=len(threads) + 1,  # so that no answer is kept from before
            )
        answer = asyncio.run(reader.BatchSearchMemories(batch, unused))  # type: ignore[arg-type]
        results = reader_pb2.BatchSearchMemoriesResponse.FromString(answer).results
        return [len(each.response.hits) for each in results]

    assert found(2) == [1, 1]
    assert threads == ["MainThread"] * 2  # a scan of a few rows
    monkeypatch.setattr(searcher, "MAX_LIGHT_TOGETHER_NS", 0)
    assert found(1) == [3]
    assert found(4) == [4] * 4
    reader.close()
    assert threads == ["MainThread"] * 3 + ["searches"] * 4
