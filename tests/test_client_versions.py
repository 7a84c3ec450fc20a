"""Versions, settings and exact times to messages and back, and how versions are put into messages."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmem.client import (
    InvalidArgument,
    Memory,
    MemoryType,
    MemoryVersion,
    NamespaceSettings,
    NanosecondDatetime,
    ServerError,
    VectorPrecision,
    VersionKind,
    namespaces,
    values,
    versions,
)
from agentmem.client.importing import MAX_MESSAGE_BYTES, MAX_MESSAGE_VERSIONS, MessageBuilder
from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2

NOON = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
EXACT = NanosecondDatetime.of(NOON, 789)


def memory(id: str = "m1", version: int = 1, content: str = "text", **fields: Any) -> Memory:
    return Memory(
        **{
            "id": id,
            "namespace": "old",
            "content": content,
            "type": MemoryType.SEMANTIC,
            "user_id": "ana",
            "agent_id": "a",
            "session_id": "s",
            "importance": 0.5,
            "tags": ("x", "y"),
            "metadata": {"n": 1e300, "list": ["a", 1.5, True], "none": []},
            "embedding": (0.6, 0.8),
            "embedding_model": "mine",
            "event_time": EXACT,
            "create_time": NOON,
            "update_time": NOON + timedelta(seconds=version),
            "version": version,
            "expire_time": NOON + timedelta(days=1),
            **fields,
        }
    )


def test_a_version_comes_back_as_it_was() -> None:
    version = MemoryVersion(memory(embedding=(0.25, -0.5)))
    message = versions.version_to_proto(version)
    assert message.memory.namespace == ""
    assert message.memory.event_time.nanos == 250_000_789
    back = versions.version_from_proto(message)
    assert back == MemoryVersion(memory(embedding=(0.25, -0.5), namespace=""))
    assert versions.version_to_proto(back) == message


@pytest.mark.parametrize("kind", [VersionKind.DELETED, VersionKind.EXPIRED])
def test_the_end_of_a_memory_comes_back_as_it_was(kind: VersionKind) -> None:
    expire_time = NOON if kind is VersionKind.EXPIRED else None
    version = MemoryVersion(versions.ended_memory("m1", 3, EXACT, expire_time), kind)
    message = versions.version_to_proto(version)
    assert {field.name for field, _ in message.memory.ListFields()} == {"id", "version", "update_time"} | (
        {"expire_time"} if expire_time else set()
    )
    assert versions.version_from_proto(message) == version


@pytest.mark.parametrize("kind", [memory_pb2.VERSION_KIND_UNSPECIFIED, 99])
def test_a_kind_of_version_that_this_client_does_not_know(kind: Any) -> None:
    with pytest.raises(ServerError, match="version 2 of memory 'm'"):
        versions.version_from_proto(
            memory_pb2.MemoryVersion(memory=memory_pb2.Memory(id="m", version=2), kind=kind)
        )


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ("text", "versions"),
        (MemoryVersion(memory(), "lost"), "versions.kind"),  # type: ignore[arg-type]
        (MemoryVersion(memory(version=0)), "version"),
        (MemoryVersion(memory(content=None)), "content"),  # type: ignore[arg-type]
        (MemoryVersion(memory(event_time="noon")), "event_time"),
        (MemoryVersion(memory(create_time=datetime(2024, 5, 1))), "create_time"),
        (MemoryVersion(memory(expire_time=None), VersionKind.EXPIRED), "expire_time"),
    ],
)
def test_a_version_that_cannot_be_sent_names_the_field(version: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        versions.version_to_proto(version)
    assert caught.value.metadata == {"field": field}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (0, reader_pb2.AsOf(revision=0)),
        (2**64 - 1, reader_pb2.AsOf(revision=2**64 - 1)),
        (NOON, reader_pb2.AsOf(time=NOON)),
    ],
)
def test_as_of(given: Any, expected: reader_pb2.AsOf | None) -> None:
    assert versions.as_of_to_proto(given) == expected


@pytest.mark.parametrize("given", [-1, 2**64, True, "now", 1.5, datetime(2024, 5, 1)])
def test_as_of_that_is_no_point(given: Any) -> None:
    with pytest.raises(InvalidArgument, match="as_of") as caught:
        versions.as_of_to_proto(given)
    assert caught.value.metadata == {"field": "as_of"}


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(0, 999))
def test_times_come_back_to_the_nanosecond(moment: datetime, nanosecond: int) -> None:
    exact = NanosecondDatetime.of(moment.replace(tzinfo=UTC), nanosecond)
    for same in (exact, copy.deepcopy(exact), pickle.loads(pickle.dumps(exact))):
        back = values.to_datetime(values.timestamp("event_time", same))
        assert back == exact
        assert getattr(back, "nanosecond", 0) == nanosecond


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, "above 0"),
        (timedelta(0), "above 0"),
        (-1.5, "above 0"),
        (timedelta(seconds=-1), "above 0"),
        ("1h", "timedelta or a number of seconds, not str"),
        (True, "not bool"),
        (1e30, "too long"),
        (float("nan"), "finite"),
    ],
)
def test_a_length_of_time_that_is_none(value: Any, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem) as caught:
        values.duration("ttl", value)
    assert caught.value.metadata == {"field": "ttl"}


@pytest.mark.parametrize("value", [timedelta(days=36500), timedelta(microseconds=1), 1, 0.5])
def test_lengths_of_time(value: timedelta | float) -> None:
    expected = value if isinstance(value, timedelta) else timedelta(seconds=value)
    assert values.to_timedelta(values.duration("ttl", value)) == expected


def test_settings() -> None:
    message = namespaces.settings_to_proto(
        {"max_versions": 3, "max_version_age": 1.5, "vector_precision": "float16"}
    )
    expected = NamespaceSettings(3, timedelta(seconds=1.5), VectorPrecision.FLOAT16)
    assert namespaces.settings_from_proto(message) == expected
    cleared = namespaces.settings_to_proto({"max_version_age": None})
    assert cleared == writer_pb2.NamespaceSettings()
    assert namespaces.settings_from_proto(cleared) == NamespaceSettings(0, None, VectorPrecision.FLOAT32)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "settings"),
        ({"max_versions": -1}, "max_versions"),
        ({"max_versions": None}, "max_versions"),
        ({"max_version_age": 0}, "max_version_age"),
        ({"vector_precision": "float8"}, "vector_precision"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        namespaces.settings_to_proto(given)
    assert caught.value.metadata == {"field": field}


def messages(found: list[MemoryVersion]) -> list[writer_pb2.ImportMemoriesRequest]:
    builder = MessageBuilder("ns", "skip")
    made = [message for version in found if (message := builder.add(version)) is not None]
    last = builder.last()
    assert builder.last() is None
    return [*made, last] if last is not None else made


def test_an_import_of_nothing_names_its_namespace() -> None:
    (message,) = messages([])
    assert message == writer_pb2.ImportMemoriesRequest(
        namespace="ns", on_conflict=writer_pb2.IMPORT_CONFLICT_SKIP
    )


def test_messages_have_a_bounded_number_of_versions_and_do_not_part_memories() -> None:
    found = [MemoryVersion(memory(f"m{number // 3:04}", number % 3 + 1)) for number in range(2500)]
    made = messages(found)
    assert [len(message.versions) for message in made] == [999, 999, 502]
    assert [each.memory.id for message in made for each in message.versions] == [
        each.memory.id for each in found
    ]
    # One memory with more versions than a message has is parted, for there is no other way.
    long = [MemoryVersion(memory("m", number + 1)) for number in range(MAX_MESSAGE_VERSIONS + 1)]
    made = messages([MemoryVersion(memory("a")), *long])
    assert [len(message.versions) for message in made] == [1, 1000, 1]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3_000)), max_size=30))
def test_messages_have_a_bounded_size(shape: list[tuple[int, int]]) -> None:
    found = [
        MemoryVersion(memory(f"m{number:02}", version, "x" * kilobytes * 1000))
        for number, (count, kilobytes) in enumerate(shape)
        for version in range(1, count + 1)
    ]
    made = messages(found)
    for message in made:
        assert message.ByteSize() <= MAX_MESSAGE_BYTES or len(message.versions) == 1
        assert (message.namespace, message.on_conflict) == ("ns", writer_pb2.IMPORT_CONFLICT_SKIP)
    sent = [(each.memory.id, each.memory.version) for message in made for each in message.versions]
    assert sent == [(each.memory.id, each.memory.version) for each in found]
