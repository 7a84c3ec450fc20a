"""Answers to searches that are given again: when, and when not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memories import NAMESPACE, Replica, make_memory
from test_as_of_search import reader_of

from agentmem.replica.answer_cache import _ENTRY_BYTES, MAX_AGE_S, AnswerCache
from agentmem.replica.reader_service import ReplicaReader
from agentmem.v1 import consistency_pb2, reader_pb2

Request = reader_pb2.SearchMemoriesRequest
SEMANTIC, TEXT = reader_pb2.SEARCH_MODE_SEMANTIC, reader_pb2.SEARCH_MODE_TEXT
VECTORS = np.eye(4, dtype=np.float32)
NOW = (1, 7)


def test_an_answer_is_for_its_generation_and_its_time() -> None:
    cache = AnswerCache(100_000)
    cache.keep(b"tea", NOW, b"hits", 10.0)
    assert cache.find(b"tea", NOW, 10.0 + MAX_AGE_S) == b"hits"
    assert cache.find(b"milk", NOW, 10.0) is None
    assert cache.find(b"tea", (1, 8), 10.0) is None
    assert cache.find(b"tea", NOW, 10.0) is None  # dropped
    cache.keep(b"tea", NOW, b"hits", 10.0)
    assert cache.find(b"tea", NOW, 10.1 + MAX_AGE_S) is None
    assert (cache.lookups.hits, cache.lookups.misses) == (1, 4)
    assert cache.size_bytes == 0


def test_the_longest_unused_answers_make_room() -> None:
    hits = bytes(600 - _ENTRY_BYTES)
    cache = AnswerCache(64 * 601)
    for number in range(64):
        cache.keep(bytes([number]), NOW, hits, 0.0)
    assert cache.size_bytes == 64 * 601
    assert cache.find(bytes([0]), NOW, 0.0) == hits
    cache.keep(b"z!", NOW, hits[1:], 0.0)
    assert cache.size_bytes == 64 * 601
    assert cache.find(bytes([0]), NOW, 0.0) == hits
    assert cache.find(bytes([1]), NOW, 0.0) is None
    cache.keep(b"large", NOW, bytes(601), 0.0)
    assert cache.find(b"large", NOW, 0.0) is None


class Asking:
    """Searches of a store in this process."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.reader: ReplicaReader = reader_of(replica)

    def put(self, *ids: str, namespace: str = NAMESPACE, **fields: Any) -> None:
        memories = [make_memory(id, namespace=namespace, content=f"tea {id}", **fields) for id in ids]
        self.replica.wait_for_revision(self.replica.put(memories, VECTORS[: len(ids)]))

    def search(self, **fields: Any) -> tuple[list[str], bool]:
        """The ids found, and whether they were known."""
        unused: Any = None
        before = self.reader.answer_lookups.hits
        request = Request(namespace=NAMESPACE, **fields)
        answer = reader_pb2.SearchMemoriesResponse.FromString(
            asyncio.run(self.reader.SearchMemories(request, unused))
        )
        assert answer.applied_revision == self.replica.indexer.view.revision
        return sorted(hit.memory.id for hit in answer.hits), self.reader.answer_lookups.hits > before

    def semantic(self, **fields: Any) -> tuple[list[str], bool]:
        return self.search(embedding=VECTORS[0].tobytes(), mode=SEMANTIC, **fields)


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    with Replica(tmp_path) as replica:
        asking = Asking(replica)
        asking.put("a", "b")
        yield asking
        asking.reader.close()


def test_a_search_that_is_asked_again_is_known_until_its_namespace_changes(asking: Asking) -> None:
    assert asking.semantic() == (["a", "b"], False)
    assert asking.semantic() == (["a", "b"], True)
    assert asking.semantic(top_k=1) == (["a"], False)
    asking.put("elsewhere", namespace="other")
    assert asking.semantic() == (["a", "b"], True)
    asking.put("c")
    assert asking.semantic() == (["a", "b", "c"], False)
    asking.replica.wait_for_revision(asking.replica.delete(["a"]))
    assert asking.semantic() == (["b", "c"], False)


def test_words_are_known_until_anything_changes(asking: Asking) -> None:
    assert asking.search(text="tea", mode=TEXT) == (["a", "b"], False)
    assert asking.search(text="tea", mode=TEXT) == (["a", "b"], True)
    asking.put("elsewhere", namespace="other")
    assert asking.search(text="tea", mode=TEXT) == (["a", "b"], False)


def test_what_the_view_does_not_show_yet_makes_answers_unknown(asking: Asking) -> None:
    assert asking.semantic() == (["a", "b"], False)
    asking.replica.write([make_memory("c", namespace="other")])  # the indexer hears nothing of it
    assert asking.semantic() == (["a", "b"], False)
    assert asking.semantic() == (["a", "b"], False)  # nor was that kept
    asking.replica.indexer.notify()
    asking.replica.wait_for_revision(asking.replica.store.position().revision)
    assert asking.semantic() == (["a", "b"], True)  # it was kept before


def test_what_depends_on_the_time_is_not_kept(asking: Asking) -> None:
    for fields in (
        {"explain": True},
        {"as_of": reader_pb2.AsOf(revision=1)},
    ):
        for _ in range(2):
            assert asking.semantic(**fields) == (["a", "b"], False)
    for _ in range(2):
        assert asking.search() == (["a", "b"], False)  # by recency
    memory = make_memory("mortal")
    memory.expire_time.FromSeconds(2**33)
    asking.replica.wait_for_revision(asking.replica.put([memory]))
    for _ in range(2):
        assert asking.semantic() == (["a", "b"], False)


def test_how_new_an_answer_must_be_is_no_part_of_the_question(asking: Asking) -> None:
    assert asking.semantic(consistency=consistency_pb2.Consistency()) == (["a", "b"], False)
    assert asking.semantic() == (["a", "b"], True)
