"""GetStats with a breakdown, compared with a plain count; and the indexes' sizes and freshness."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
from calls import add, error_of, floats
from cluster import Cluster, Stubs, wait_until
from memories import NAMESPACE, Replica, make_memory, segment_rows, unit_vectors
from test_history import delete

from agentmem.replica.index_stats import index_stats
from agentmem.v1 import memory_pb2, reader_pb2

Memory = memory_pb2.Memory
TYPES = (
    memory_pb2.MEMORY_TYPE_EPISODIC,
    memory_pb2.MEMORY_TYPE_SEMANTIC,
    memory_pb2.MEMORY_TYPE_WORKING,
)


def stats(stubs: Stubs, namespace: str, revision: int = 0) -> reader_pb2.GetStatsResponse:
    request = reader_pb2.GetStatsRequest(namespace=namespace, breakdown=True)
    request.consistency.min_revision = revision
    return stubs.reader.GetStats(request)


def test_a_breakdown_is_a_plain_count(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    draw = random.Random(1)
    memories = []
    for number in range(200):
        memory = Memory(
            id=str(number),
            content="tea",
            embedding=floats(1.0, number),
            type=draw.choice(TYPES),
            user_id=draw.choice(("", "ana", "ben", "日本")),
            # Of many, and of many that have as many.
            session_id=f"s{int(draw.random() ** 2 * 60)}",
        )
        # The first and the last are deleted.
        event_us = {0: 0, 7: 10**15}.get(number, draw.randrange(1, 10**15))
        memory.event_time.FromMicroseconds(event_us)
        memories.append(memory)
    add(writer, namespace, *memories)
    for number in range(0, 200, 7):
        revision = delete(writer, namespace, str(number))
    left = [memory for memory in memories if int(memory.id) % 7]
    answer = stats(replica, namespace, revision)
    counted = answer.breakdown
    assert counted.searchable_revision >= revision
    assert counted.memories == len(left) == answer.namespace.memories
    assert {each.type: each.memories for each in counted.types} == Counter(each.type for each in left)
    for counts, field in ((counted.users, "user_id"), (counted.agents, "agent_id")):
        expected = Counter(name for each in left if (name := getattr(each, field)))
        assert {each.name: each.memories for each in counts.largest} == expected
        assert counts.distinct == len(expected)
    sessions = Counter(each.session_id for each in left)
    largest = sorted(sessions.items(), key=lambda each: (-each[1], each[0]))[:20]
    assert [(each.name, each.memories) for each in counted.sessions.largest] == largest
    assert counted.sessions.distinct == len(sessions) > 20
    times_us = [each.event_time.ToMicroseconds() for each in left]
    assert counted.oldest_event_time.ToMicroseconds() == min(times_us)
    assert counted.newest_event_time.ToMicroseconds() == max(times_us)
    assert (answer.indexes.facet_rows, answer.indexes.tail_rows) == (200, 200)
    assert answer.indexes.dead_facet_rows == answer.indexes.dead_tail_rows == 200 - len(left)


def test_a_namespace_without_memories_has_a_breakdown_of_zeros(replica: Stubs, namespace: str) -> None:
    answer = stats(replica, namespace)
    assert answer.breakdown == reader_pb2.NamespaceBreakdown(
        searchable_revision=answer.breakdown.searchable_revision
    )
    assert answer.indexes.facet_rows == answer.indexes.tail_rows == 0


def test_the_writer_sends_who_asks_for_a_breakdown_to_a_replica(writer: Stubs, namespace: str) -> None:
    refused = error_of(lambda: stats(writer, namespace))
    assert refused[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_REPLICA")
    assert refused[2]["field"] == "breakdown"


def test_indexes_tell_how_fresh_they_are(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    revision = add(writer, namespace, Memory(content="tea")).revision
    indexes = stats(replica, namespace, revision).indexes
    assert min(indexes.applied_revision, indexes.searchable_revision) >= revision
    assert indexes.text_documents >= 1
    assert indexes.text_bytes > 0
    wait_until(
        lambda: stats(replica, namespace).indexes.HasField("search_staleness"), "the writer has answered"
    )
    # It reports each second, and knows after each report.
    indexes = stats(replica, namespace).indexes
    stalenesses = (indexes.store_staleness, indexes.search_staleness)
    store_us, search_us = (each.ToMicroseconds() for each in stalenesses)
    assert 0 <= store_us <= search_us


def test_rows_of_tail_and_segments_are_told_with_the_dead_ones(tmp_path: Path) -> None:
    rows = unit_vectors(60, 8)
    with Replica(tmp_path, seal_rows=50) as replica:
        replica.put([make_memory(str(number)) for number in range(60)], rows)
        replica.wait_for(lambda view: segment_rows(view) == [60])
        replica.put([make_memory(f"new {number}") for number in range(5)], rows[:5])
        view = replica.wait_for_revision(replica.delete(["1", "2", "new 3"]))
        found = index_stats(view, NAMESPACE, replica.index_path)
        assert (found.segments, found.segment_rows, found.dead_segment_rows) == (1, 60, 2)
        assert (found.tail_rows, found.dead_tail_rows, found.tail_bytes) == (5, 1, 5 * (8 * 4 + 8))
        assert (found.facet_rows, found.dead_facet_rows) == (65, 3)
        assert found.text_documents == 62
        files = list((replica.index_path / "segments").rglob("*"))
        assert found.segment_bytes == sum(path.stat().st_size for path in files if path.is_file())
        assert found.segment_bytes > 60 * 8 * np.dtype(np.float32).itemsize
