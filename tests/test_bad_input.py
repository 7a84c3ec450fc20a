"""Requests that cannot work: each is refused by reason and field, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
from calls import Memory, add, error_of, floats, get, update
from cluster import Cluster, Stubs
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, writer_pb2


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
    (Memory(content="x", create_time=Timestamp(seconds=1)), "memories[0].create_time"),
    (Memory(content="x", update_time=Timestamp(seconds=1)), "memories[0].update_time"),
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


def a_search(**fields: Any) -> reader_pb2.SearchMemoriesRequest:
    return reader_pb2.SearchMemoriesRequest(namespace="ns", text="x", **fields)


TEXT, SearchWeights = reader_pb2.SEARCH_MODE_TEXT, reader_pb2.SearchWeights


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (reader_pb2.SearchMemoriesRequest(text="x"), "NAMESPACE_REQUIRED", "namespace"),
        (
            reader_pb2.SearchMemoriesRequest(namespace="ns", text=" ", mode=reader_pb2.SEARCH_MODE_TEXT),
            "INVALID_FIELD",
            "text",
        ),
        (
            reader_pb2.SearchMemoriesRequest(namespace="ns", mode=reader_pb2.SEARCH_MODE_SEMANTIC),
            "INVALID_FIELD",
            "text",
        ),
        (reader_pb2.SearchMemoriesRequest(namespace="ns", text="x" * 20_000), "INVALID_FIELD", "text"),
        (reader_pb2.SearchMemoriesRequest(namespace="ns", text="x", top_k=1001), "INVALID_FIELD", "top_k"),
        (reader_pb2.SearchMemoriesRequest(namespace="ns", text="x", top_k=-1), "INVALID_FIELD", "top_k"),
        (reader_pb2.SearchMemoriesRequest(namespace="ns", text="x", mode=9), "INVALID_FIELD", "mode"),  # type: ignore[arg-type]
        (
            a_search(min_score=math.nan),
            "INVALID_FIELD",
            "min_score",
        ),
        (
            a_search(order=9),
            "INVALID_FIELD",
            "order",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns", text="x", weights=reader_pb2.SearchWeights(recency=math.nan)
            ),
            "INVALID_FIELD",
            "weights.recency",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns", text="x", weights=reader_pb2.SearchWeights(text=-1)
            ),
            "INVALID_FIELD",
            "weights.text",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns", text="x", weights=reader_pb2.SearchWeights(importance=1001)
            ),
            "INVALID_FIELD",
            "weights.importance",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns", text="x", weights=reader_pb2.SearchWeights(vector=0, text=0)
            ),
            "INVALID_FIELD",
            "weights",
        ),
        (
            a_search(recency_half_life=Duration(seconds=0)),
            "INVALID_FIELD",
            "recency_half_life",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns", text="x", recency_half_life=Duration(seconds=-1)
            ),
            "INVALID_FIELD",
            "recency_half_life",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns",
                text="x",
                mode=reader_pb2.SEARCH_MODE_TEXT,
                weights=reader_pb2.SearchWeights(text=1),
            ),
            "INVALID_FIELD",
            "weights",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns", text="x", mode=reader_pb2.SEARCH_MODE_TEXT, conversational=True
            ),
            "INVALID_FIELD",
            "conversational",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns",
                text="x",
                mode=reader_pb2.SEARCH_MODE_TEXT,
                recency_half_life=Duration(seconds=1),
            ),
            "INVALID_FIELD",
            "recency_half_life",
        ),
        (
            a_search(fuzziness=reader_pb2.Fuzziness()),
            "INVALID_FIELD",
            "fuzziness",
        ),
        (
            reader_pb2.SearchMemoriesRequest(
                namespace="ns", text="x", embedding=floats(1), mode=reader_pb2.SEARCH_MODE_EXACT
            ),
            "INVALID_FIELD",
            "embedding",
        ),
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


def raw_call(stubs: Stubs, method: str, data: bytes) -> bytes:
    """A unary call with these very bytes as its request."""
    call: Any = stubs.channel.unary_unary(method)
    response: bytes = call(data, timeout=10)
    return response


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x02\xc3\x28"], ids=["no protobuf", "bad UTF-8"])
def test_bytes_that_are_no_request_are_refused(writer: Stubs, data: bytes) -> None:
    code, reason, _, _ = error_of(lambda: raw_call(writer, "/agentmem.v1.ReaderService/GetMemories", data))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


def test_fields_of_a_later_release_are_refused_and_not_ignored(writer: Stubs, namespace: str) -> None:
    unknown = bytes([0xFA, 0x3F, 0x01, 0x78])  # field 1023, one byte
    memory = Memory(content="x").SerializeToString() + unknown
    request = writer_pb2.AddMemoriesRequest(namespace=namespace).SerializeToString()
    request += bytes([0x12, len(memory)]) + memory
    _, reason, _, _ = error_of(lambda: raw_call(writer, "/agentmem.v1.WriterService/AddMemories", request))
    assert reason == "UNKNOWN_FIELD"
    assert not writer.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace=namespace)).memories


def test_what_a_caller_sent_is_not_sent_back_at_any_length(writer: Stubs, namespace: str) -> None:
    request = reader_pb2.ListMemoriesRequest(
        namespace=namespace, filter=_filter("f" * 10_000, string_value="x")
    )
    _, reason, metadata, message = error_of(lambda: writer.reader.ListMemories(request))
    assert reason == "FILTER_UNSUPPORTED"
    assert metadata["field"].startswith("fff")
    assert len(metadata["field"]) < 300
    assert len(message) < 300


def test_a_filter_has_a_bound_on_its_values(writer: Stubs, namespace: str) -> None:
    condition = filter_pb2.Condition(
        field="id",
        operator=filter_pb2.OPERATOR_IN,
        values=[filter_pb2.FilterValue(string_value=str(number)) for number in range(1001)],
    )
    request = reader_pb2.ListMemoriesRequest(
        namespace=namespace, filter=filter_pb2.Filter(condition=condition)
    )
    _, reason, metadata, _ = error_of(lambda: writer.reader.ListMemories(request))
    assert (reason, metadata["field"]) == ("INVALID_FIELD", "filter")
    del condition.values[0]
    request.filter.condition.CopyFrom(condition)
    assert not writer.reader.ListMemories(request).memories


def test_an_update_stays_in_its_namespace(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="x"))
    _, reason, metadata, _ = error_of(
        lambda: update(writer, namespace, Memory(id="a", namespace="other", content="y"), "content")
    )
    assert (reason, metadata["field"]) == ("INVALID_FIELD", "memory.namespace")


def test_exactly_control_characters_are_refused_in_keys(writer: Stubs, namespace: str) -> None:
    """Among others that are not printable, too."""
    control = [*range(0x20), 0x7F]
    other = [0x20, 0x7E, 0x80, 0x85, 0xA0, 0xAD, 0x200B, 0x2028, 0xE000, 0xFFFF, 0x10FFFF]
    for code in control:
        memory = Memory(id=f"a{chr(code)}", content="x")
        assert error_of(partial(add, writer, namespace, memory))[1] == "INVALID_FIELD", hex(code)
    ids = [f"a{chr(code)}" for code in other]
    add(writer, namespace, *[Memory(id=each, content="x") for each in ids])
    assert {memory.id for memory in get(writer, namespace, *ids).memories} == set(ids)
