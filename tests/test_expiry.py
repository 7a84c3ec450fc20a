"""Memories that end by themselves: gone for every read at once, swept from the store soon."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from calls import add, all_ids, error_of, get, update
from cluster import Cluster, Stubs, wait_until

from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, writer_pb2

Memory = memory_pb2.Memory


def lasting(seconds: float, **fields: object) -> Memory:
    memory = Memory(**fields)  # type: ignore[arg-type]
    memory.ttl.FromTimedelta(timedelta(seconds=seconds))
    return memory


def history(stubs: Stubs, namespace: str, memory_id: str) -> list[memory_pb2.MemoryVersion]:
    request = reader_pb2.GetMemoryHistoryRequest(namespace=namespace, id=memory_id)
    return list(stubs.reader.GetMemoryHistory(request).versions)


def found(stubs: Stubs, namespace: str, text: str, mode: reader_pb2.SearchMode) -> set[str]:
    request = reader_pb2.SearchMemoriesRequest(namespace=namespace, text=text, mode=mode)
    return {hit.memory.id for hit in stubs.reader.SearchMemories(request).hits}


def test_a_ttl_counts_from_the_write(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, lasting(3600, id="a", content="tea"))
    (memory,) = get(writer, namespace, "a").memories
    assert not memory.HasField("ttl")
    difference = memory.expire_time.ToDatetime() - memory.create_time.ToDatetime()
    assert difference == timedelta(hours=1)


def test_an_expired_memory_is_in_no_answer_and_then_swept(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    """From the very moment on, though the sweep comes later: what is seen is judged by its own clock."""
    memories = [lasting(1.5 + number * 0.1, id=f"m{number}", content="green tea") for number in range(5)]
    revision = add(writer, namespace, *memories, Memory(id="kept", content="black tea")).revision
    ids = [memory.id for memory in memories]
    ends = {memory.id: memory.expire_time.ToNanoseconds() for memory in get(writer, namespace, *ids).memories}
    shared_cluster.wait_searchable(revision)
    seen_alive = 0
    swept = False
    while not swept:
        for stubs in (writer, replica):
            before = time.time_ns()
            alive = {memory.id for memory in get(stubs, namespace, *ids).memories}
            assert not {memory_id for memory_id in alive if ends[memory_id] <= before}
            before = time.time_ns()
            listed = all_ids(stubs, namespace) - {"kept"}
            assert not {memory_id for memory_id in listed if ends[memory_id] <= before}
            seen_alive += len(alive)
        for mode in (
            reader_pb2.SEARCH_MODE_HYBRID,
            reader_pb2.SEARCH_MODE_SEMANTIC,
            reader_pb2.SEARCH_MODE_TEXT,
        ):
            before = time.time_ns()
            hits = found(replica, namespace, "tea", mode)
            assert "kept" in hits
            assert not {memory_id for memory_id in hits - {"kept"} if ends[memory_id] <= before}
        swept = all(len(history(writer, namespace, memory_id)) == 2 for memory_id in ids)
        assert time.time_ns() < max(ends.values()) + 30e9, "the sweep did not come"
    assert seen_alive > 0
    for memory_id in ids:
        end, start = history(writer, namespace, memory_id)
        assert (end.kind, start.kind) == (
            memory_pb2.VERSION_KIND_EXPIRED,
            memory_pb2.VERSION_KIND_WRITTEN,
        )
        assert end.memory.expire_time == start.memory.expire_time
        assert end.memory.update_time.ToNanoseconds() >= ends[memory_id]


def test_an_expired_id_is_free_and_its_versions_go_on(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, lasting(0.2, id="a", content="first"))
    wait_until(lambda: not get(writer, namespace, "a").memories, "a is expired")
    for call in (
        lambda: update(writer, namespace, Memory(id="a", content="x"), "content"),
        lambda: update(writer, namespace, Memory(id="a", tags=["x"]), "tags", expected=1),
    ):
        assert error_of(call)[0] == grpc.StatusCode.NOT_FOUND
    deleted = writer.writer.DeleteMemories(writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["a"]))
    assert deleted.missing_ids == ["a"]
    (added,) = add(writer, namespace, Memory(id="a", content="second")).memories
    assert added.version in (2, 3)  # before the sweep or behind it
    assert get(writer, namespace, "a").memories[0].content == "second"


def test_an_update_moves_or_takes_away_the_end(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, lasting(3600, id="a", content="tea"))
    longer = update(writer, namespace, lasting(7200, id="a"), "ttl").memory
    difference = longer.expire_time.ToDatetime() - longer.update_time.ToDatetime()
    assert difference == timedelta(hours=2)
    fixed = Memory(id="a")
    fixed.expire_time.FromDatetime(datetime(2099, 1, 2, tzinfo=UTC))
    assert update(writer, namespace, fixed, "expire_time").memory.expire_time == fixed.expire_time
    assert not update(writer, namespace, Memory(id="a"), "expire_time").memory.HasField("expire_time")


def test_expiry_is_a_field_to_filter_on(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    memories = (lasting(3600, id="soon", content="tea"), Memory(id="never", content="tea"))
    shared_cluster.wait_searchable(add(writer, namespace, *memories).revision)
    exists = filter_pb2.Filter(
        condition=filter_pb2.Condition(field="expire_time", operator=filter_pb2.OPERATOR_EXISTS)
    )
    late = filter_pb2.Filter(
        condition=filter_pb2.Condition(field="expire_time", operator=filter_pb2.OPERATOR_GT)
    )
    late.condition.values.add().time_value.FromDatetime(datetime.now(UTC))
    for node in (exists, late):
        listed = writer.reader.ListMemories(
            reader_pb2.ListMemoriesRequest(namespace=namespace, filter=node)
        ).memories
        hits = replica.reader.SearchMemories(
            reader_pb2.SearchMemoriesRequest(namespace=namespace, text="tea", filter=node)
        ).hits
        assert {memory.id for memory in listed} == {hit.memory.id for hit in hits} == {"soon"}


@pytest.mark.parametrize(
    ("field", "seconds"),
    [("memories[0].ttl", 0), ("memories[0].ttl", -1), ("memories[0].expire_time", -10)],
)
def test_an_end_that_cannot_be_is_refused(writer: Stubs, namespace: str, field: str, seconds: float) -> None:
    memory = lasting(seconds, content="tea")
    if field.endswith("expire_time"):
        memory = Memory(content="tea")
        memory.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    code, _, metadata, _ = error_of(lambda: add(writer, namespace, memory))
    assert (code, metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    both = lasting(10, content="tea")
    both.expire_time.FromDatetime(datetime(2099, 1, 1, tzinfo=UTC))
    assert error_of(lambda: add(writer, namespace, both))[2]["field"] == "memories[0].ttl"
