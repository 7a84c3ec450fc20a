"""The writer's API over generated stubs: what is written, and what stands in its way."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from calls import Memory, add, all_ids, error_of, floats, get, update
from cluster import Cluster, Stubs
from google.rpc import error_details_pb2, status_pb2

from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, writer_pb2


def test_what_is_added_is_read_back(writer: Stubs, namespace: str) -> None:
    memory = Memory(
        content="Ana likes tea",
        type=memory_pb2.MEMORY_TYPE_SEMANTIC,
        user_id="ana",
        agent_id="helper",
        session_id="s1",
        importance=0.75,
        tags=["drink", "taste"],
        metadata={
            "source": memory_pb2.MetadataValue(string_value="chat"),
            "turn": memory_pb2.MetadataValue(number_value=3),
            "sure": memory_pb2.MetadataValue(bool_value=True),
        },
    )
    memory.event_time.FromJsonString("2024-05-08T13:56:00Z")
    added = add(writer, namespace, memory)
    (item,) = added.memories
    assert item.version == 1
    assert len(item.id) == 36
    (stored,) = get(writer, namespace, item.id).memories
    assert stored.create_time == stored.update_time
    assert stored.create_time.seconds > 1_700_000_000
    assert stored.embedding_model.startswith("wordllama")
    assert stored.version == 1
    memory.id, memory.namespace, memory.version = item.id, namespace, 1
    memory.embedding_model = stored.embedding_model
    memory.create_time.CopyFrom(stored.create_time)
    memory.update_time.CopyFrom(stored.update_time)
    assert stored == memory


def test_embeddings_are_made_or_taken_and_of_unit_length(writer: Stubs, namespace: str) -> None:
    made = add(writer, namespace, Memory(content="a text about mountains")).memories[0].id
    (stored,) = get(writer, namespace, made, embedding=True).memories
    vector = np.frombuffer(stored.embedding, dtype="<f4")
    assert vector.shape == (256,)
    assert math.isclose(float(np.linalg.norm(vector)), 1, rel_tol=1e-5)
    assert not get(writer, namespace, made).memories[0].embedding

    own = f"{namespace}-own"
    given = (
        add(writer, own, Memory(content="x", embedding=floats(3, 4), embedding_model="mine")).memories[0].id
    )
    (stored,) = get(writer, own, given, embedding=True).memories
    assert np.allclose(np.frombuffer(stored.embedding, dtype="<f4"), [0.6, 0.8])
    assert stored.embedding_model == "mine"


def test_a_batch_is_written_whole_or_not_at_all(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="b", content="there already"))
    code, reason, metadata, _ = error_of(
        lambda: add(writer, namespace, Memory(id="a", content="new"), Memory(id="b", content="again"))
    )
    assert (code, reason, metadata["id"]) == (grpc.StatusCode.ALREADY_EXISTS, "MEMORY_EXISTS", "b")
    response = get(writer, namespace, "a", "b")
    assert [memory.content for memory in response.memories] == ["there already"]
    assert list(response.missing_ids) == ["a"]


def test_update_changes_what_the_mask_names(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="one", user_id="ana", tags=["x"], importance=0.5))
    before = get(writer, namespace, "a", embedding=True).memories[0]
    answer = update(
        writer, namespace, Memory(id="a", content="two", user_id="not masked", tags=["y"]), "content", "tags"
    )
    after = get(writer, namespace, "a", embedding=True).memories[0]
    assert (after.content, after.user_id, list(after.tags), after.importance) == ("two", "ana", ["y"], 0.5)
    assert after.version == answer.memory.version == 2
    assert after.create_time == before.create_time
    assert after.update_time.ToMicroseconds() >= before.update_time.ToMicroseconds()
    assert after.embedding != before.embedding  # of the new content

    update(writer, namespace, Memory(id="a", importance=0.0), "importance")
    last = get(writer, namespace, "a", embedding=True).memories[0]
    assert (last.importance, last.content, last.version) == (0.0, "two", 3)
    assert last.embedding == after.embedding


def test_expected_version_is_checked(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="one"))
    update(writer, namespace, Memory(id="a", content="two"), "content", expected=1)
    code, reason, metadata, _ = error_of(
        lambda: update(writer, namespace, Memory(id="a", content="three"), "content", expected=1)
    )
    assert (code, reason, metadata["version"]) == (grpc.StatusCode.ABORTED, "VERSION_MISMATCH", "2")
    assert get(writer, namespace, "a").memories[0].content == "two"


def test_of_many_updates_to_one_version_one_wins(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="start"))

    def attempt(number: int) -> bool:
        try:
            update(writer, namespace, Memory(id="a", content=f"by {number}"), "content", expected=1)
        except grpc.RpcError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(16))) == 1
    assert get(writer, namespace, "a").memories[0].version == 2


def test_delete_names_what_it_deleted(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="one"), Memory(id="b", content="two"))
    request = writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["a", "never"])
    answer = writer.writer.DeleteMemories(request)
    assert (list(answer.deleted_ids), list(answer.missing_ids)) == (["a"], ["never"])
    again = writer.writer.DeleteMemories(request)
    assert (list(again.deleted_ids), list(again.missing_ids)) == ([], ["a", "never"])
    assert again.revision >= answer.revision
    assert list(get(writer, namespace, "a", "b").missing_ids) == ["a"]
    # A deleted id may be used again; its versions go on.
    assert add(writer, namespace, Memory(id="a", content="back")).memories[0].version == 3


def test_list_pages_through_everything_once(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, *(Memory(id=f"m{number:03}", content="text") for number in range(57)))
    seen: list[str] = []
    token = ""
    while True:
        request = reader_pb2.ListMemoriesRequest(namespace=namespace, page_size=10, page_token=token)
        page = writer.reader.ListMemories(request)
        assert len(page.memories) <= 10
        seen += [memory.id for memory in page.memories]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"m{number:03}" for number in range(57)]


def test_list_filters(writer: Stubs, namespace: str) -> None:
    for number in range(6):
        memory = Memory(
            id=f"m{number}", content="text", user_id="ana" if number % 2 else "ben", tags=[f"t{number}"]
        )
        memory.event_time.FromJsonString(f"2024-01-0{number + 1}T00:00:00Z")
        add(writer, namespace, memory)
    since = filter_pb2.FilterValue()
    since.time_value.FromJsonString("2024-01-03T00:00:00Z")
    conditions = [
        filter_pb2.Condition(
            field="user_id",
            operator=filter_pb2.OPERATOR_EQ,
            values=[filter_pb2.FilterValue(string_value="ana")],
        ),
        filter_pb2.Condition(field="event_time", operator=filter_pb2.OPERATOR_GTE, values=[since]),
    ]
    both = filter_pb2.Filter(
        all_of=filter_pb2.FilterList(filters=[filter_pb2.Filter(condition=each) for each in conditions])
    )
    page = writer.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace=namespace, filter=both))
    assert [memory.id for memory in page.memories] == ["m3", "m5"]


def test_namespaces_do_not_see_each_other(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="mine"))
    add(writer, f"{namespace}2", Memory(id="a", content="theirs"))
    assert get(writer, namespace, "a").memories[0].content == "mine"
    page = writer.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace=namespace))
    assert [memory.content for memory in page.memories] == ["mine"]


def test_an_overloaded_writer_says_when_to_come_back(tmp_path: Path) -> None:
    with Cluster(
        tmp_path, replicas=0, writer_flags=("--max-queue-commands", "1", "--embedder", "none")
    ) as cluster:
        stubs = Stubs(cluster.writer.address)

        def attempt(number: int) -> str:
            try:
                add(stubs, "ns", Memory(id=str(number), content="x" * 100_000))
            except grpc.RpcError as error:
                details: Any = error
                status = status_pb2.Status.FromString(
                    dict(details.trailing_metadata())["grpc-status-details-bin"]
                )
                retry = error_details_pb2.RetryInfo()
                assert status.details[1].Unpack(retry)
                assert retry.retry_delay.ToMilliseconds() > 0
                return str(details.code())
            return "ok"

        with ThreadPoolExecutor(32) as pool:
            outcomes = list(pool.map(attempt, range(400)))
        assert set(outcomes) == {"ok", "StatusCode.RESOURCE_EXHAUSTED"}
        assert len(all_ids(stubs, "ns")) == outcomes.count("ok")
        stubs.channel.close()
