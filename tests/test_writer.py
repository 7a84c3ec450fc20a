"""The writer's API over generated stubs: what is written, and what is refused with which reason."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cluster import Cluster, Stubs
from google.rpc import error_details_pb2, status_pb2

from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, writer_pb2

Memory = memory_pb2.Memory


@pytest.fixture(scope="module")
def writer(shared_cluster: Cluster) -> Iterator[Stubs]:
    stubs = Stubs(shared_cluster.writer.address)
    yield stubs
    stubs.channel.close()


@pytest.fixture(scope="module")
def replica(shared_cluster: Cluster) -> Iterator[Stubs]:
    stubs = Stubs(shared_cluster.replicas[0].address)
    yield stubs
    stubs.channel.close()


def error_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, dict[str, str], str]:
    """The code, reason, metadata and message that a call fails with."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    assert details, f"no details: {error}"
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "agentmem"
    assert status.message == error.details()
    return error.code(), info.reason, dict(info.metadata), status.message


def add(stubs: Stubs, namespace: str, *memories: Memory) -> writer_pb2.AddMemoriesResponse:
    return stubs.writer.AddMemories(writer_pb2.AddMemoriesRequest(namespace=namespace, memories=memories))


def get(stubs: Stubs, namespace: str, *ids: str, embedding: bool = False) -> reader_pb2.GetMemoriesResponse:
    return stubs.reader.GetMemories(
        reader_pb2.GetMemoriesRequest(namespace=namespace, ids=ids, include_embedding=embedding)
    )


def update(
    stubs: Stubs, namespace: str, memory: Memory, *paths: str, expected: int | None = None
) -> writer_pb2.UpdateMemoryResponse:
    request = writer_pb2.UpdateMemoryRequest(namespace=namespace, memory=memory, expected_version=expected)
    request.update_mask.paths.extend(paths)
    return stubs.writer.UpdateMemory(request)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


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


def _metadata(value: memory_pb2.MetadataValue) -> Memory:
    return Memory(content="x", metadata={"key": value})


_NESTED = memory_pb2.MetadataValue(
    list_value=memory_pb2.MetadataList(
        values=[memory_pb2.MetadataValue(list_value=memory_pb2.MetadataList())]
    )
)

BAD_MEMORIES = [
    (Memory(content=""), "memories[0].content"),
    (Memory(content=" \n\t "), "memories[0].content"),
    (Memory(content="x" * (256 * 1024 + 1)), "memories[0].content"),
    (Memory(content="x", id="y" * 257), "memories[0].id"),
    (Memory(content="x", id="a\x00b"), "memories[0].id"),
    (Memory(content="x", namespace="another"), "memories[0].namespace"),
    (Memory(content="x", user_id="u" * 257), "memories[0].user_id"),
    (Memory(content="x", type=17), "memories[0].type"),  # type: ignore[arg-type]
    (Memory(content="x", importance=1.01), "memories[0].importance"),
    (Memory(content="x", importance=-0.01), "memories[0].importance"),
    (Memory(content="x", importance=math.nan), "memories[0].importance"),
    (Memory(content="x", tags=["a", "a"]), "memories[0].tags[1]"),
    (Memory(content="x", tags=[""]), "memories[0].tags[0]"),
    (Memory(content="x", tags=[str(number) for number in range(65)]), "memories[0].tags"),
    (Memory(content="x", version=3), "memories[0].version"),
    (Memory(content="x", embedding_model="m"), "memories[0].embedding_model"),
    (Memory(content="x", embedding=b"abc"), "memories[0].embedding"),
    (Memory(content="x", embedding=floats(1, math.nan)), "memories[0].embedding"),
    (Memory(content="x", embedding=floats(1, math.inf)), "memories[0].embedding"),
    (Memory(content="x", embedding=floats(0, 0)), "memories[0].embedding"),
    (Memory(content="x", embedding=floats(*[1.0] * 4097)), "memories[0].embedding"),
    (_metadata(memory_pb2.MetadataValue()), "memories[0].metadata['key']"),
    (_metadata(memory_pb2.MetadataValue(number_value=math.inf)), "memories[0].metadata['key']"),
    (_metadata(_NESTED), "memories[0].metadata['key'][0]"),
    (_metadata(memory_pb2.MetadataValue(string_value="x" * 70_000)), "memories[0].metadata"),
]


@pytest.mark.parametrize(("memory", "field"), BAD_MEMORIES, ids=[field for _, field in BAD_MEMORIES])
def test_bad_memories_are_refused_by_field(writer: Stubs, namespace: str, memory: Memory, field: str) -> None:
    code, reason, metadata, message = error_of(lambda: add(writer, namespace, memory))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert metadata["field"] == field
    assert field in message
    page = writer.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace=namespace))
    assert not page.memories


def _filter(field: str, operator: int = filter_pb2.OPERATOR_EQ, **value: Any) -> filter_pb2.Filter:
    return filter_pb2.Filter(
        condition=filter_pb2.Condition(
            field=field,
            operator=operator,  # type: ignore[arg-type]
            values=[filter_pb2.FilterValue(**value)],
        )
    )


BAD_CALLS: list[tuple[str, Callable[[Stubs, str], Any], grpc.StatusCode, str, str]] = [
    (
        "add without namespace",
        lambda stubs, _: add(stubs, "", Memory(content="x")),
        grpc.StatusCode.INVALID_ARGUMENT,
        "NAMESPACE_REQUIRED",
        "namespace",
    ),
    (
        "get without namespace",
        lambda stubs, _: get(stubs, "", "a"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "NAMESPACE_REQUIRED",
        "namespace",
    ),
    (
        "long namespace",
        lambda stubs, _: add(stubs, "n" * 129, Memory(content="x")),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "namespace",
    ),
    (
        "no memories",
        lambda stubs, namespace: add(stubs, namespace),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "memories",
    ),
    (
        "too many memories",
        lambda stubs, namespace: add(stubs, namespace, *[Memory(content="x")] * 1001),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "memories",
    ),
    (
        "one id twice",
        lambda stubs, namespace: add(stubs, namespace, *[Memory(id="a", content="x")] * 2),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "memories[1].id",
    ),
    (
        "two dimensions in one batch",
        lambda stubs, namespace: add(
            stubs,
            namespace,
            Memory(content="x", embedding=floats(1, 0)),
            Memory(content="y", embedding=floats(1, 0, 0)),
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
        "DIMENSION_MISMATCH",
        "memories[1].embedding",
    ),
    (
        "two models in one batch",
        lambda stubs, namespace: add(
            stubs,
            namespace,
            Memory(content="x", embedding=floats(1, 0), embedding_model="a"),
            Memory(content="y", embedding=floats(1, 0), embedding_model="b"),
        ),
        grpc.StatusCode.FAILED_PRECONDITION,
        "MODEL_MISMATCH",
        "memories[1].embedding_model",
    ),
    (
        "no ids",
        lambda stubs, namespace: get(stubs, namespace),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "ids",
    ),
    (
        "update without mask",
        lambda stubs, namespace: update(stubs, namespace, Memory(id="a", content="x")),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "update_mask",
    ),
    (
        "update of a field that cannot be",
        lambda stubs, namespace: update(stubs, namespace, Memory(id="a"), "create_time"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "update_mask",
    ),
    (
        "update to nothing",
        lambda stubs, namespace: update(stubs, namespace, Memory(id="a"), "content"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "memory.content",
    ),
    (
        "page size",
        lambda stubs, namespace: stubs.reader.ListMemories(
            reader_pb2.ListMemoriesRequest(namespace=namespace, page_size=1001)
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "page_size",
    ),
    (
        "page token of nobody",
        lambda stubs, namespace: stubs.reader.ListMemories(
            reader_pb2.ListMemoriesRequest(namespace=namespace, page_token="?")
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "page_token",
    ),
    (
        "unknown filter field",
        lambda stubs, namespace: stubs.reader.ListMemories(
            reader_pb2.ListMemoriesRequest(namespace=namespace, filter=_filter("colour", string_value="x"))
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
        "FILTER_UNSUPPORTED",
        "colour",
    ),
    (
        "operator a field does not take",
        lambda stubs, namespace: stubs.reader.ListMemories(
            reader_pb2.ListMemoriesRequest(
                namespace=namespace, filter=_filter("user_id", filter_pb2.OPERATOR_GT, string_value="x")
            )
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
        "FILTER_UNSUPPORTED",
        "user_id",
    ),
]


@pytest.mark.parametrize(
    ("call", "code", "reason", "field"), [case[1:] for case in BAD_CALLS], ids=[case[0] for case in BAD_CALLS]
)
def test_bad_calls_are_refused(
    writer: Stubs,
    namespace: str,
    call: Callable[[Stubs, str], Any],
    code: grpc.StatusCode,
    reason: str,
    field: str,
) -> None:
    found_code, found_reason, metadata, _ = error_of(lambda: call(writer, namespace))
    assert (found_code, found_reason, metadata["field"]) == (code, reason, field)
    page = writer.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace=namespace or "-"))
    assert not page.memories


def test_a_dimension_is_the_namespaces_for_good(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(content="x", embedding=floats(1, 0, 0)))
    code, reason, metadata, _ = error_of(
        lambda: add(writer, namespace, Memory(content="y", embedding=floats(1, 0)))
    )
    assert (code, reason, metadata["dimension"]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "DIMENSION_MISMATCH",
        "3",
    )
    code, reason, metadata, _ = error_of(lambda: add(writer, namespace, Memory(content="to be embedded")))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EMBEDDING_REQUIRED")


def test_updating_or_reading_what_is_not_there(writer: Stubs, namespace: str) -> None:
    code, reason, metadata, _ = error_of(
        lambda: update(writer, namespace, Memory(id="a", content="x"), "content")
    )
    assert (code, reason, metadata["id"]) == (grpc.StatusCode.NOT_FOUND, "MEMORY_NOT_FOUND", "a")
    assert list(get(writer, namespace, "a").missing_ids) == ["a"]


def test_a_page_token_belongs_to_its_list(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, *(Memory(content="text", user_id="ana") for _ in range(3)))
    page = writer.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace=namespace, page_size=1))
    _, reason, metadata, _ = error_of(
        lambda: writer.reader.ListMemories(
            reader_pb2.ListMemoriesRequest(
                namespace=namespace,
                filter=_filter("user_id", string_value="ana"),
                page_token=page.next_page_token,
            )
        )
    )
    assert (reason, metadata["field"]) == ("PAGE_TOKEN_MISMATCH", "page_token")


def test_a_replica_sends_writes_to_the_writer(
    replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    code, reason, metadata, _ = error_of(lambda: add(replica, namespace, Memory(content="x")))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_WRITER")
    assert metadata["writer_address"] == shared_cluster.writer.address
    for call in (
        lambda: update(replica, namespace, Memory(id="a", content="x"), "content"),
        lambda: replica.writer.DeleteMemories(
            writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["a"])
        ),
    ):
        assert error_of(call)[1] == "NOT_WRITER"


def test_the_writer_sends_searches_to_replicas(writer: Stubs, namespace: str) -> None:
    request = reader_pb2.SearchMemoriesRequest(namespace=namespace, text="x")
    code, reason, _, _ = error_of(lambda: writer.reader.SearchMemories(request))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_REPLICA")


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (reader_pb2.SearchMemoriesRequest(text="x"), "NAMESPACE_REQUIRED", "namespace"),
        (reader_pb2.SearchMemoriesRequest(namespace="ns"), "INVALID_FIELD", "text"),
        (reader_pb2.SearchMemoriesRequest(namespace="ns", text=" "), "INVALID_FIELD", "text"),
        (reader_pb2.SearchMemoriesRequest(namespace="ns", text="x" * 20_000), "INVALID_FIELD", "text"),
        (reader_pb2.SearchMemoriesRequest(namespace="ns", text="x", top_k=1001), "INVALID_FIELD", "top_k"),
        (reader_pb2.SearchMemoriesRequest(namespace="ns", text="x", top_k=-1), "INVALID_FIELD", "top_k"),
        (reader_pb2.SearchMemoriesRequest(namespace="ns", text="x", mode=9), "INVALID_FIELD", "mode"),  # type: ignore[arg-type]
        (
            reader_pb2.SearchMemoriesRequest(namespace="ns", embedding=floats(math.nan)),
            "INVALID_FIELD",
            "embedding",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns", embedding=floats(1), mode=reader_pb2.SEARCH_MODE_TEXT
            ),
            "INVALID_FIELD",
            "text",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns", text="x", filter=_filter("colour", string_value="x")
            ),
            "FILTER_UNSUPPORTED",
            "colour",
        ),
    ],
)
def test_bad_searches_are_refused(
    replica: Stubs, request_: reader_pb2.SearchMemoriesRequest, reason: str, field: str
) -> None:
    _, found, metadata, _ = error_of(lambda: replica.reader.SearchMemories(request_))
    assert (found, metadata["field"]) == (reason, field)


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
        listed = 0
        token = ""
        while True:
            request = reader_pb2.ListMemoriesRequest(namespace="ns", page_token=token)
            page = stubs.reader.ListMemories(request)
            listed += len(page.memories)
            token = page.next_page_token
            if not token:
                break
        assert listed == outcomes.count("ok")
        stubs.channel.close()
