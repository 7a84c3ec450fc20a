"""Python values to messages and back, and the mistakes that are found before anything is sent."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmem.client import (
    AsyncClient,
    Client,
    ClientClosed,
    Filter,
    Fuzziness,
    InvalidArgument,
    Memory,
    MemoryType,
    NewMemory,
    ServerError,
    Unavailable,
    answers,
    models,
    values,
)
from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, writer_pb2

NOON = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def test_a_new_memory_with_every_field() -> None:
    message = models.new_memory_to_proto(
        NewMemory(
            "Ana moved to Lisbon",
            id="m1",
            type="semantic",
            user_id="ana",
            agent_id="a",
            session_id="s",
            importance=1,
            tags=["move", "city"],
            metadata={"city": "Lisbon", "year": 2024, "sure": True, "mixed": ["a", 1, False], "none": []},
            embedding=[1, 0.5],
            embedding_model="mine",
            event_time=NOON.astimezone(timezone(timedelta(hours=-3))),
        )
    )
    expected = memory_pb2.Memory(
        id="m1",
        content="Ana moved to Lisbon",
        type=memory_pb2.MEMORY_TYPE_SEMANTIC,
        user_id="ana",
        agent_id="a",
        session_id="s",
        importance=1.0,
        tags=["move", "city"],
        embedding=struct.pack("<2f", 1, 0.5),
        embedding_model="mine",
    )
    expected.event_time.FromDatetime(NOON)
    expected.metadata["city"].string_value = "Lisbon"
    expected.metadata["year"].number_value = 2024
    expected.metadata["sure"].bool_value = True
    expected.metadata["mixed"].list_value.values.add(string_value="a")
    expected.metadata["mixed"].list_value.values.add(number_value=1)
    expected.metadata["mixed"].list_value.values.add(bool_value=False)
    expected.metadata["none"].list_value.SetInParent()
    assert message == expected


def test_a_new_memory_with_its_content_alone() -> None:
    message = models.new_memory_to_proto(models.new_memory("hi", {}))
    assert message == memory_pb2.Memory(content="hi", type=memory_pb2.MEMORY_TYPE_EPISODIC)


def test_keywords_go_before_the_fields_of_a_new_memory() -> None:
    base = NewMemory("hi", user_id="ana", tags=("a",))
    assert models.new_memory(base, {"tags": ["b"]}) == NewMemory("hi", user_id="ana", tags=["b"])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"type": "semantic", "tags": ["a"], "metadata": {"k": 1}, "ttl": 5.0},
        {"id": "", "tags": (), "metadata": {}, "embedding": None, "event_time": None, "importance": 0.0},
    ],
)
def test_keywords_say_what_a_new_memory_with_them_says(given: dict[str, Any]) -> None:
    assert models.added_to_proto("hi", given) == models.new_memory_to_proto(NewMemory("hi", **given))
    with pytest.raises(InvalidArgument, match="is not a field of a new memory"):
        models.added_to_proto("hi", {**given, "colour": "red"})


def test_a_memory_from_its_message() -> None:
    message = memory_pb2.Memory(
        id="m1",
        namespace="n",
        content="hi",
        type=memory_pb2.MEMORY_TYPE_WORKING,
        user_id="ana",
        importance=0.5,
        tags=["a", "b"],
        embedding=struct.pack("<2f", 0.5, 0.25),
        embedding_model="mine",
        event_time=NOON,
        create_time=NOON + timedelta(seconds=1),
        update_time=NOON + timedelta(seconds=2),
        version=3,
    )
    message.metadata["k"].list_value.values.add(number_value=1)
    message.metadata["b"].bool_value = False
    assert models.memory_from_proto(message) == Memory(
        id="m1",
        namespace="n",
        content="hi",
        type=MemoryType.WORKING,
        user_id="ana",
        agent_id="",
        session_id="",
        importance=0.5,
        tags=("a", "b"),
        metadata={"k": [1.0], "b": False},
        embedding=(0.5, 0.25),
        embedding_model="mine",
        event_time=NOON,
        create_time=NOON + timedelta(seconds=1),
        update_time=NOON + timedelta(seconds=2),
        version=3,
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"type": 99}, "type 99"),
        ({"type": memory_pb2.MEMORY_TYPE_UNSPECIFIED}, "type 0"),
        ({"embedding": b"12345"}, "5 bytes"),
        ({"metadata": {"k": memory_pb2.MetadataValue()}}, "metadata value of a kind"),
    ],
)
def test_an_answer_that_this_client_does_not_understand(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ServerError, match=problem):
        models.memory_from_proto(memory_pb2.Memory(**{"type": memory_pb2.MEMORY_TYPE_WORKING, **change}))


def test_answers() -> None:
    added = writer_pb2.AddMemoriesResponse(
        memories=[writer_pb2.AddedMemory(id="m", version=1, outcome=writer_pb2.ADD_OUTCOME_ADDED)], revision=9
    )
    assert answers.add_result_from_proto(added) == answers.AddResult(
        (answers.AddedMemory("m", 1, answers.AddOutcome.ADDED),), 9
    )
    found = reader_pb2.SearchMemoriesResponse(
        hits=[
            reader_pb2.SearchHit(
                memory=memory_pb2.Memory(id="m", type=memory_pb2.MEMORY_TYPE_WORKING), score=0.5
            )
        ],
        applied_revision=9,
    )
    result = answers.search_result_from_proto(found)
    assert [(hit.memory.id, hit.score) for hit in result.hits] == [("m", 0.5)]
    assert result.applied_revision == 9


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_embeddings_come_back_as_sent(numbers: list[float]) -> None:
    assert values.to_embedding(values.embedding("embedding", numbers)) == tuple(numbers)


@given(st.datetimes(timezones=st.timezones()))
def test_times_come_back_as_sent_in_utc(time: datetime) -> None:
    if not datetime(1, 1, 2, tzinfo=UTC) < time < datetime(9999, 12, 30, tzinfo=UTC):
        return
    back = values.to_datetime(values.timestamp("event_time", time))
    assert back == time.astimezone(UTC)
    assert back.tzinfo is UTC


SCALARS = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), SCALARS | st.lists(SCALARS)))
def test_metadata_comes_back_as_sent(metadata: dict[str, Any]) -> None:
    message = models.fields_to_proto({"metadata": metadata})
    assert values.to_metadata(message.metadata) == metadata


@pytest.mark.parametrize(
    ("field", "value", "named", "problem"),
    [
        ("content", None, "content", "must be a string, not None"),
        ("content", b"raw", "content", "must be a string, not bytes"),
        ("content", "\ud800", "content", "not valid Unicode"),
        ("user_id", 7, "user_id", "must be a string, not int"),
        ("type", "dream", "type", "must be one of episodic, semantic, procedural, working"),
        ("type", None, "type", "must be one of"),
        ("type", [], "type", "must be one of"),
        ("importance", "high", "importance", "must be a number, not str"),
        ("importance", True, "importance", "must be a number, not bool"),
        ("importance", math.nan, "importance", "must be finite"),
        ("tags", "a", "tags", "must be a sequence of strings, not str"),
        ("tags", [1], "tags", "must be a string, not int"),
        ("tags", None, "tags", "must be a sequence of strings, not None"),
        ("metadata", [("a", 1)], "metadata", "must be a mapping, not list"),
        ("metadata", {1: "a"}, "metadata key", "must be a string, not int"),
        (
            "metadata",
            {"k": None},
            "metadata.k",
            "must be a string, number, bool or a list of these, not None",
        ),
        ("metadata", {"k": {"a": 1}}, "metadata.k", "not dict"),
        ("metadata", {"k": b"raw"}, "metadata.k", "not bytes"),
        ("metadata", {"k": [["a"]]}, "metadata.k", "may hold strings, numbers and booleans, not list"),
        ("metadata", {"k": math.inf}, "metadata.k", "must be finite"),
        ("metadata", {"k": 2**53 + 1}, "metadata.k", "would lose digits"),
        ("metadata", {"k": -(10**400)}, "metadata.k", "would lose digits"),
        ("embedding", "1,2", "embedding", "must be a sequence of numbers, not str"),
        ("embedding", [], "embedding", "must not be empty"),
        ("embedding", ["1"], "embedding", "32-bit float"),
        ("embedding", [1e300], "embedding", "32-bit float"),
        ("embedding", [math.inf], "embedding", "must be finite"),
        ("event_time", datetime(2024, 5, 1), "event_time", "must have a time zone"),
        ("event_time", "2024-05-01", "event_time", "must be a datetime, not str"),
        (
            "event_time",
            datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
            "event_time",
            "cannot be sent",
        ),
        ("expire_time", datetime(2024, 5, 1), "expire_time", "must have a time zone"),
        ("ttl", "1h", "ttl", "must be a timedelta or a number of seconds, not str"),
        ("version", 3, "version", "is not a field that can be written"),
        ("colour", "red", "colour", "is not a field that can be written"),
    ],
)
def test_mistakes_in_a_field_name_it(field: str, value: Any, named: str, problem: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        models.fields_to_proto({field: value})
    assert problem in caught.value.message
    assert caught.value.message.startswith(named)
    assert caught.value.metadata == {"field": named}
    assert caught.value.reason == "INVALID_FIELD"


Call = Callable[[AsyncClient], Awaitable[Any]]


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda client: client.add(None, "hi"), "namespace"),
        (lambda client: client.add("n", 7), "content"),
        (lambda client: client.add("n", "hi", colour="red"), "colour"),
        (lambda client: client.add("n", "hi", timeout_s=0), "timeout_s"),
        (lambda client: client.add("n", "hi", timeout_s="1"), "timeout_s"),
        (lambda client: client.add("n", "hi", ttl=0), "ttl"),
        (lambda client: client.add("n", "hi", ttl=60, expire_time=NOON), "ttl"),
        (lambda client: client.add("n", "hi", on_duplicate="replace"), "on_duplicate"),
        (lambda client: client.add("n", "hi", request_id=""), "request_id"),
        (lambda client: client.add("n", "hi", request_id=7), "request_id"),
        (lambda client: client.add_many("n", "hi"), "memories"),
        (lambda client: client.add_many("n", [NewMemory("a"), NewMemory("b", tags="x")]), "tags"),
        (lambda client: client.update("n", "m"), "fields"),
        (lambda client: client.update("n", "m", colour="red"), "colour"),
        (lambda client: client.update("n", None, content="x"), "id"),
        (lambda client: client.update("n", "m", embedding=None), "embedding"),
        (lambda client: client.update("n", "m", content="x", embedding=None), "embedding"),
        (lambda client: client.update("n", "m", content="x", expected_version="1"), "expected_version"),
        (lambda client: client.update("n", "m", content="x", expected_version=0), "expected_version"),
        (lambda client: client.update("n", "m", ttl=None), "ttl"),
        (lambda client: client.update("n", "m", ttl=60, expire_time=None), "ttl"),
        (lambda client: client.delete("n", ["a", "b"], expected_version=1), "expected_version"),
        (lambda client: client.delete("n", "a", expected_version=0), "expected_version"),
        (lambda client: client.delete("n", "a", purge=1), "purge"),
        (lambda client: client.delete_matching("n"), "filter"),
        (lambda client: client.delete_matching("n", user_id=None), "filter"),
        (lambda client: client.delete_matching("n", user_id=""), "user_id"),
        (lambda client: client.delete_matching("n", filter=Filter(filter_pb2.Filter())), "filter"),
        (lambda client: client.delete_matching("n", everything=True, user_id="ana"), "everything"),
        (lambda client: client.delete_matching("n", everything=1), "everything"),
        (lambda client: client.purge_receipt("n", 0), "revision"),
        (lambda client: client.update_namespace("n"), "settings"),
        (lambda client: client.update_namespace("n", max_versions=True), "max_versions"),
        (lambda client: client.get("n", "m", as_of="now"), "as_of"),
        (lambda client: client.list("n", as_of=-1), "as_of"),
        (lambda client: client.search("n", "tea", as_of=1.5), "as_of"),
        (lambda client: client.history("n", None), "id"),
        (lambda client: client.history("n", "m", page_size=0), "page_size"),
        (lambda client: client.stats(None), "namespace"),
        (lambda client: client.stats("n", breakdown=1), "breakdown"),
        (lambda client: anext(client.export("n", newest_only=1)), "newest_only"),
        (lambda client: anext(client.export("n", owner="x")), "owner"),
        (lambda client: client.import_versions("n", [], on_conflict="merge"), "on_conflict"),
        (lambda client: client.import_versions("n", None), "versions"),
        (lambda client: client.import_versions(None, []), "namespace"),
        (lambda client: client.backup(None), "folder"),
        (lambda client: client.backup(__file__), "folder"),
        (lambda client: client.delete("n", None), "ids"),
        (lambda client: client.delete("n", [1]), "ids"),
        (lambda client: client.get("n", 1), "id"),
        (lambda client: client.get_many("n", "m"), "ids"),
        (lambda client: client.get_many("n", ["m"], include_embedding=1), "include_embedding"),
        (lambda client: client.list("n", page_size=0), "page_size"),
        (lambda client: client.list("n", page_token=None), "page_token"),
        (lambda client: client.list("n", filter=5), "filter"),
        (lambda client: client.list("n", owner="x"), "owner"),
        (lambda client: anext(client.iterate("n", owner="x")), "owner"),
        (lambda client: client.search("n", None), "text"),
        (lambda client: client.search("n", "q", mode="vague"), "mode"),
        (lambda client: client.search("n", "q", fuzziness=1), "fuzziness"),
        (lambda client: client.search("n", "q", fuzziness=Fuzziness(max_edits=3)), "fuzziness.max_edits"),
        (lambda client: client.search("n", "q", fuzziness=Fuzziness(prefix=1)), "fuzziness.prefix"),  # type: ignore[arg-type]
        (lambda client: client.search("n", "q", top_k=2.5), "top_k"),
        (lambda client: client.search("n", "q", top_k=True), "top_k"),
        (lambda client: client.search("n", embedding=[]), "embedding"),
        (lambda client: client.search("n", "q", since=datetime(2024, 5, 1)), "since"),
    ],
)
def test_mistakes_in_a_call_are_found_before_anything_is_sent(call: Call, field: str) -> None:
    async def scenario() -> None:
        # Nothing listens there: a call that were sent would end as Unavailable.
        async with AsyncClient("127.0.0.1:1", timeout_s=0.2) as client:
            with pytest.raises(InvalidArgument) as caught:
                await call(client)
            assert caught.value.metadata == {"field": field}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "endpoint",
    ["", "localhost", "localhost:", ":7600", "localhost:http", "localhost:0", "localhost:65536", 7600],
)
def test_an_endpoint_is_host_and_port(endpoint: Any) -> None:
    with pytest.raises(InvalidArgument, match="endpoints"):
        AsyncClient("127.0.0.1:7600", endpoint)


def test_at_least_one_endpoint() -> None:
    with pytest.raises(InvalidArgument, match="at least one node"):
        Client()


def test_a_closed_client_says_so() -> None:
    before = threading.enumerate()
    client = Client("127.0.0.1:1")
    assert repr(client) == "Client('127.0.0.1:1')"
    assert [thread.name for thread in threading.enumerate() if thread not in before] == ["agentmem client"]
    client.close()
    client.close()
    assert set(threading.enumerate()) <= set(before)
    with pytest.raises(ClientClosed, match="the client is closed"):
        client.get("n", "m")
    with pytest.raises(ClientClosed, match="the client is closed"):
        next(client.iterate("n"))
    assert repr(client) == "Client('127.0.0.1:1', closed)"


def test_a_client_belongs_to_one_loop() -> None:
    client = AsyncClient("127.0.0.1:1")

    async def ask() -> None:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            await client.get("n", "m", timeout_s=0.1)

    asyncio.run(ask())
    with pytest.raises(RuntimeError, match="belongs to the event loop of its first call"):
        asyncio.run(ask())


def test_a_memory_that_was_not_looked_at_is_like_any_other() -> None:
    message = memory_pb2.Memory(id="a", namespace="ns", content="tea", type=memory_pb2.MEMORY_TYPE_SEMANTIC)
    message.event_time.FromSeconds(5)

    def fresh() -> Memory:
        return models.memory_from_proto(message)

    known = fresh()
    assert (known.content, known.expire_time, known.version) == ("tea", None, 0)
    assert fresh() == known == Memory(**{each.name: getattr(fresh(), each.name) for each in fields(Memory)})
    assert repr(fresh()) == repr(known)
    assert replace(fresh(), version=2).version == 2
    assert asdict(fresh()) == asdict(known)
    assert pickle.loads(pickle.dumps(fresh())) == copy.copy(fresh()) == known
    assert not hasattr(fresh(), "nothing")
    # A field is decoded once, and what was sent is not kept beside all of them.
    assert known.metadata is known.metadata
    assert not vars(known).keys() - {each.name for each in fields(Memory)}
    with pytest.raises(FrozenInstanceError):
        fresh().content = "milk"  # type: ignore[misc]
