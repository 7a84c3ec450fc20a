"""The filter language: what is refused, and what a filter means for one memory."""

from __future__ import annotations

import pytest
from memories import condition, make_memory

from agentmem.core.errors import InvalidArgument
from agentmem.core.filters import MAX_CONDITIONS, MAX_DEPTH, compile_filter
from agentmem.v1 import filter_pb2
from agentmem.v1.filter_pb2 import (
    OPERATOR_BETWEEN,
    OPERATOR_CONTAINS,
    OPERATOR_EQ,
    OPERATOR_EXISTS,
    OPERATOR_GT,
    OPERATOR_GTE,
    OPERATOR_IN,
    OPERATOR_LT,
    OPERATOR_LTE,
    OPERATOR_NE,
    OPERATOR_PREFIX,
    OPERATOR_UNSPECIFIED,
)

MAY_8_US = 1_683_504_000_000_000
MEMORY = make_memory(
    "turn-7",
    user_id="ana",
    version=3,
    tags=["travel", "porto"],
    importance=0.5,
    metadata={
        "city": "Porto",
        "year": 2023,
        "zero": 0,
        "done": True,
        "people": ["Ben", "Cleo", 3, False],
        "empty": "",
        "none": [],
    },
    event_time_us=MAY_8_US,
)
MEMORY.embedding_model = "wordllama"


def all_of(*parts: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=parts))


def any_of(*parts: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(any_of=filter_pb2.FilterList(filters=parts))


def negated(part: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(negated=part)


ANA = condition("user_id", OPERATOR_EQ, "ana")
BEN = condition("user_id", OPERATOR_EQ, "ben")


@pytest.mark.parametrize(
    ("message", "matches"),
    [
        (ANA, True),
        (BEN, False),
        (condition("id", OPERATOR_IN, "turn-6", "turn-7"), True),
        (condition("id", OPERATOR_PREFIX, "turn-"), True),
        (condition("user_id", OPERATOR_NE, "ben"), True),
        (condition("user_id", OPERATOR_NE, "ana"), False),
        # A missing field satisfies NE and nothing else.
        (condition("agent_id", OPERATOR_NE, "ana"), True),
        (condition("agent_id", OPERATOR_EXISTS), False),
        (condition("agent_id", OPERATOR_PREFIX, "a"), False),
        (condition("user_id", OPERATOR_EXISTS), True),
        (condition("type", OPERATOR_EQ, "episodic"), True),
        (condition("type", OPERATOR_IN, "semantic", "working"), False),
        # One of several values is enough, for NE none may be equal.
        (condition("tags", OPERATOR_EQ, "porto"), True),
        (condition("tags", OPERATOR_NE, "porto"), False),
        (condition("tags", OPERATOR_CONTAINS, "rave"), True),
        (condition("tags", OPERATOR_EQ, "port"), False),
        (condition("importance", OPERATOR_GTE, 0.5), True),
        (condition("importance", OPERATOR_GT, 0.5), False),
        (condition("importance", OPERATOR_BETWEEN, 0.1, 0.5), True),
        (condition("importance", OPERATOR_IN, 0.1, 0.2), False),
        (condition("event_time", OPERATOR_LTE, times_us=[MAY_8_US]), True),
        (condition("event_time", OPERATOR_LT, times_us=[MAY_8_US]), False),
        (condition("event_time", OPERATOR_BETWEEN, times_us=[MAY_8_US - 1, MAY_8_US + 1]), True),
        (condition("event_time", OPERATOR_EQ, times_us=[MAY_8_US + 1]), False),
        (condition("content", OPERATOR_CONTAINS, "of note"), True),
        (condition("content", OPERATOR_CONTAINS, "Of note"), False),
        (condition("content", OPERATOR_PREFIX, "nothing"), True),
        (condition("content", OPERATOR_EQ, "nothing"), False),
        (condition("content", OPERATOR_NE, "nothing"), True),
        (condition("content", OPERATOR_EXISTS), True),
        (condition("version", OPERATOR_EQ, 3), True),
        (condition("version", OPERATOR_BETWEEN, 1, 2.5), False),
        (condition("version", OPERATOR_GT, 2.5), True),
        (condition("embedding_model", OPERATOR_IN, "wordllama", "other"), True),
        (condition("embedding_model", OPERATOR_PREFIX, "llama"), False),
        (condition("metadata.city", OPERATOR_EQ, "Porto"), True),
        (condition("metadata.city", OPERATOR_EQ, "porto"), False),
        (condition("metadata.city", OPERATOR_CONTAINS, "ort"), True),
        (condition("metadata.city", OPERATOR_GT, "Oporto"), True),
        (condition("metadata.year", OPERATOR_GT, 2022), True),
        (condition("metadata.year", OPERATOR_EQ, "2023"), False),
        (condition("metadata.year", OPERATOR_GT, "2022"), False),
        # true and 1, false and 0 are different values.
        (condition("metadata.done", OPERATOR_EQ, True), True),
        (condition("metadata.done", OPERATOR_EQ, 1), False),
        (condition("metadata.zero", OPERATOR_EQ, False), False),
        (condition("metadata.zero", OPERATOR_LTE, 0), True),
        (condition("metadata.done", OPERATOR_GTE, 1), False),
        (condition("metadata.people", OPERATOR_EQ, "Cleo"), True),
        (condition("metadata.people", OPERATOR_IN, "Dora", 3), True),
        (condition("metadata.people", OPERATOR_EQ, False), True),
        (condition("metadata.people", OPERATOR_EQ, 0), False),
        (condition("metadata.people", OPERATOR_PREFIX, "Be"), True),
        (condition("metadata.people", OPERATOR_BETWEEN, 2, 4), True),
        (condition("metadata.none", OPERATOR_EXISTS), False),
        (condition("metadata.empty", OPERATOR_EXISTS), False),
        (condition("metadata.unknown", OPERATOR_NE, "x"), True),
        (all_of(ANA, condition("tags", OPERATOR_EQ, "porto")), True),
        (all_of(ANA, BEN), False),
        (any_of(BEN, ANA), True),
        (any_of(BEN, BEN), False),
        (negated(BEN), True),
        (negated(all_of(ANA, negated(BEN))), False),
    ],
    ids=lambda value: " ".join(str(value).split()) if isinstance(value, filter_pb2.Filter) else str(value),
)
def test_meaning(message: filter_pb2.Filter, matches: bool) -> None:
    node = compile_filter(message)
    assert node is not None
    assert node.matches(MEMORY) is matches


def test_an_unset_filter_is_none() -> None:
    assert compile_filter(filter_pb2.Filter()) is None


def no_time(*, seconds: int = 0, nanos: int = 0) -> filter_pb2.Filter:
    """A comparison with what only a hand-made request can have for a time."""
    message = condition("event_time", OPERATOR_LT, times_us=[0])
    message.condition.values[0].time_value.seconds = seconds
    message.condition.values[0].time_value.nanos = nanos
    return message


def nested(depth: int) -> filter_pb2.Filter:
    message = ANA
    for _ in range(depth - 1):
        message = negated(message)
    return message


@pytest.mark.parametrize(
    ("message", "reason", "named"),
    [
        (condition("colour", OPERATOR_EQ, "red"), "FILTER_UNSUPPORTED", "colour"),
        (condition("metadata.", OPERATOR_EQ, "red"), "FILTER_UNSUPPORTED", "metadata."),
        (condition("namespace", OPERATOR_EQ, "x"), "FILTER_UNSUPPORTED", "namespace"),
        (condition("user_id", OPERATOR_GT, "a"), "FILTER_UNSUPPORTED", "user_id"),
        (condition("importance", OPERATOR_PREFIX, "a"), "FILTER_UNSUPPORTED", "importance"),
        (condition("event_time", OPERATOR_CONTAINS, "a"), "FILTER_UNSUPPORTED", "event_time"),
        (condition("content", OPERATOR_LT, "a"), "FILTER_UNSUPPORTED", "content"),
        (condition("version", OPERATOR_CONTAINS, "1"), "FILTER_UNSUPPORTED", "version"),
        (condition("embedding_model", OPERATOR_BETWEEN, "a", "b"), "FILTER_UNSUPPORTED", "embedding_model"),
        (condition("type", OPERATOR_GTE, "episodic"), "FILTER_UNSUPPORTED", "type"),
        (condition("tags", OPERATOR_UNSPECIFIED, "a"), "FILTER_UNSUPPORTED", "tags"),
        (condition("tags", 77, "a"), "FILTER_UNSUPPORTED", "tags"),
        (condition("user_id", OPERATOR_EQ), "INVALID_FIELD", "filter.condition.values"),
        (condition("user_id", OPERATOR_EQ, "a", "b"), "INVALID_FIELD", "filter.condition.values"),
        (condition("user_id", OPERATOR_IN), "INVALID_FIELD", "filter.condition.values"),
        (condition("user_id", OPERATOR_EXISTS, "a"), "INVALID_FIELD", "filter.condition.values"),
        (condition("user_id", OPERATOR_EQ, 1), "INVALID_FIELD", "filter.condition.values"),
        (condition("user_id", OPERATOR_EQ, ""), "INVALID_FIELD", "filter.condition.values"),
        (condition("type", OPERATOR_EQ, "dream"), "INVALID_FIELD", "filter.condition.values"),
        (condition("importance", OPERATOR_EQ, "high"), "INVALID_FIELD", "filter.condition.values"),
        (condition("importance", OPERATOR_EQ, float("nan")), "INVALID_FIELD", "filter.condition.values"),
        (condition("importance", OPERATOR_BETWEEN, 0.1), "INVALID_FIELD", "filter.condition.values"),
        (condition("event_time", OPERATOR_GT, "2023"), "INVALID_FIELD", "filter.condition.values"),
        (condition("metadata.k", OPERATOR_GT, True), "INVALID_FIELD", "filter.condition.values"),
        (condition("content", OPERATOR_EQ, ""), "INVALID_FIELD", "filter.condition.values"),
        (condition("version", OPERATOR_EQ, "3"), "INVALID_FIELD", "filter.condition.values"),
        (condition("embedding_model", OPERATOR_EQ, 3), "INVALID_FIELD", "filter.condition.values"),
        (condition("metadata.k", OPERATOR_CONTAINS, 3), "INVALID_FIELD", "filter.condition.values"),
        (condition("metadata.k", OPERATOR_PREFIX, 3), "INVALID_FIELD", "filter.condition.values"),
        (condition("metadata.k", OPERATOR_BETWEEN, "a", 3), "INVALID_FIELD", "filter.condition.values"),
        (condition("metadata.k", OPERATOR_EQ, times_us=[1]), "INVALID_FIELD", "filter.condition.values"),
        (no_time(seconds=2**62), "INVALID_FIELD", "filter.condition.values"),
        (no_time(nanos=-1), "INVALID_FIELD", "filter.condition.values"),
        (
            filter_pb2.Filter(
                condition=filter_pb2.Condition(
                    field="id", operator=OPERATOR_EQ, values=[filter_pb2.FilterValue()]
                )
            ),
            "INVALID_FIELD",
            "filter.condition.values",
        ),
        (all_of(), "INVALID_FIELD", "filter.all_of"),
        (any_of(ANA, filter_pb2.Filter()), "INVALID_FIELD", "filter.any_of[1]"),
        (negated(any_of(condition("id", OPERATOR_IN))), "INVALID_FIELD", "filter.negated.any_of[0]"),
        (nested(MAX_DEPTH + 1), "INVALID_FIELD", "filter.negated"),
        (any_of(*[ANA] * (MAX_CONDITIONS + 1)), "INVALID_FIELD", "filter"),
    ],
    ids=lambda value: " ".join(str(value).split())[:60],
)
def test_refusal(message: filter_pb2.Filter, reason: str, named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        compile_filter(message)
    assert caught.value.reason == reason
    assert caught.value.metadata["field"].startswith(named)


def test_the_limits_themselves_are_allowed() -> None:
    assert compile_filter(nested(MAX_DEPTH)) is not None
    assert compile_filter(any_of(*[ANA] * MAX_CONDITIONS)) is not None


def test_an_unsupported_operator_is_named() -> None:
    with pytest.raises(InvalidArgument) as caught:
        compile_filter(condition("user_id", OPERATOR_GT, "a"))
    assert caught.value.metadata["operator"] == "GT"
