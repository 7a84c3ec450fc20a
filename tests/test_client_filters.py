"""The filter builder and the scope keywords: what they send."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf import text_format

from agentmem.client import Field, Filter, InvalidArgument, MemoryType
from agentmem.client.filters import scoped
from agentmem.v1 import filter_pb2

NOON = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
NOON_TEXT = "time_value { seconds: 1714564800 nanos: 250000000 }"


def parsed(text: str) -> filter_pb2.Filter:
    return text_format.Parse(text, filter_pb2.Filter())


def condition(field: str, operator: str, *values: str) -> str:
    listed = " ".join(f"values {{ {value} }}" for value in values)
    return f'condition {{ field: "{field}" operator: OPERATOR_{operator} {listed} }}'


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (Field("user_id") == "ana", condition("user_id", "EQ", 'string_value: "ana"')),
        (Field("user_id") != "ana", condition("user_id", "NE", 'string_value: "ana"')),
        (Field("importance") > 1, condition("importance", "GT", "number_value: 1")),
        (Field("importance") >= 0.5, condition("importance", "GTE", "number_value: 0.5")),
        (Field("importance") < 0.5, condition("importance", "LT", "number_value: 0.5")),
        (Field("importance") <= 0.5, condition("importance", "LTE", "number_value: 0.5")),
        (Field("metadata.done") == True, condition("metadata.done", "EQ", "bool_value: true")),  # noqa: E712
        (Field("event_time") >= NOON, condition("event_time", "GTE", NOON_TEXT)),
        (
            Field("event_time") >= NOON.astimezone(timezone(timedelta(hours=8))),
            condition("event_time", "GTE", NOON_TEXT),
        ),
        (
            Field("id").is_in(["a", "b"]),
            condition("id", "IN", 'string_value: "a"', 'string_value: "b"'),
        ),
        (
            Field("importance").between(0, 0.5),
            condition("importance", "BETWEEN", "number_value: 0", "number_value: 0.5"),
        ),
        (Field("id").prefix("p-"), condition("id", "PREFIX", 'string_value: "p-"')),
        (Field("tags").contains("x"), condition("tags", "CONTAINS", 'string_value: "x"')),
        (Field("metadata.k").exists(), condition("metadata.k", "EXISTS")),
        (Field("type") == MemoryType.SEMANTIC, condition("type", "EQ", 'string_value: "semantic"')),
    ],
    ids=repr,
)
def test_each_operator(built: Filter, expected: str) -> None:
    assert built.to_proto() == parsed(expected)


A, B, C = (Field("user_id") == name for name in "abc")
A_TEXT, B_TEXT, C_TEXT = (condition("user_id", "EQ", f'string_value: "{name}"') for name in "abc")


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (A & B, f"all_of {{ filters {{ {A_TEXT} }} filters {{ {B_TEXT} }} }}"),
        (A | B, f"any_of {{ filters {{ {A_TEXT} }} filters {{ {B_TEXT} }} }}"),
        (~A, f"negated {{ {A_TEXT} }}"),
        (~~A, A_TEXT),
        (A & B & C, f"all_of {{ filters {{ {A_TEXT} }} filters {{ {B_TEXT} }} filters {{ {C_TEXT} }} }}"),
        (
            (A | B) & C,
            f"all_of {{ filters {{ any_of {{ filters {{ {A_TEXT} }} filters {{ {B_TEXT} }} }} }}"
            f" filters {{ {C_TEXT} }} }}",
        ),
    ],
    ids=repr,
)
def test_joined(built: Filter, expected: str) -> None:
    assert built.to_proto() == parsed(expected)


def test_many_joined_stay_flat_because_the_server_bounds_the_depth() -> None:
    joined = A
    for _ in range(200):
        joined = joined & B
    assert len(joined.to_proto().all_of.filters) == 201


def test_joining_changes_neither_side_and_copies_are_the_callers_own() -> None:
    before = A.to_proto()
    _ = A & B
    A.to_proto().condition.field = "changed"
    assert A.to_proto() == before


def test_filters_compare_by_meaning_and_show_themselves() -> None:
    assert (A & B) == (A & B)
    assert hash(A & B) == hash(A & B)
    assert (A & B) != (A | B)
    assert str(~(A & Field("event_time").between(NOON, NOON))) == (
        'not (user_id = "a" and '
        "event_time between 2024-05-01T12:00:00.250000Z and 2024-05-01T12:00:00.250000Z)"
    )
    assert repr(A) == "Filter.parse('user_id = \"a\"')"


def test_a_filter_from_a_message() -> None:
    assert Filter(parsed(A_TEXT)) == A
    with pytest.raises(InvalidArgument, match="not of str"):
        Filter(A_TEXT)  # type: ignore[arg-type]


def test_a_filter_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="no truth value"):
        _ = A and B
    with pytest.raises(TypeError, match="no truth value"):
        _ = 0.1 < Field("importance") < 0.9
    with pytest.raises(TypeError):
        _ = A & "user_id"  # type: ignore[operator]


@pytest.mark.parametrize(
    ("build", "field", "message"),
    [
        (lambda: Field("x") == None, "x", "cannot be compared with None"),  # noqa: E711
        (lambda: Field("x") == b"raw", "x", "cannot be compared with bytes"),
        (lambda: Field("x") == ["a"], "x", "cannot be compared with list"),
        (lambda: Field("x") > float("nan"), "x", "must be finite"),
        (lambda: Field("x") > 2**60, "x", "would lose digits"),
        (lambda: Field("event_time") > datetime(2024, 5, 1), "event_time", "time zone"),
        (lambda: Field("x").is_in("abc"), "x", "takes several values, not str"),
        (lambda: Field("x").is_in([]), "x", "at least one value"),
        (lambda: Field("x").is_in(["a", None]), "x", "cannot be compared with None"),  # type: ignore[list-item]
        (lambda: Field("x").prefix(1), "x", "must be a string, not int"),  # type: ignore[arg-type]
        (lambda: Field("x") == "\ud800", "x", "not valid Unicode"),
        (lambda: Field(""), "filter field", "must not be empty"),
        (lambda: Field(1), "filter field", "must be a string"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_name_the_field(build: Callable[[], Any], field: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        build()
    assert caught.value.reason == "INVALID_FIELD"
    assert caught.value.metadata == {"field": field}


@pytest.mark.parametrize(
    ("given", "scope", "expected"),
    [
        (None, {}, None),
        (None, {"user_id": None, "tags": (), "since": None}, None),
        (A, {}, A),
        (None, {"user_id": "a"}, A),
        (A, {"user_id": "b"}, A & B),
        ("user_id = 'a'", {}, A),
        ("user_id = 'a' or user_id = 'b'", {"user_id": "c"}, (A | B) & C),
        (A | B, {"user_id": "c"}, (A | B) & C),
        (None, {"tags": ["x", "y"]}, (Field("tags") == "x") & (Field("tags") == "y")),
        (None, {"types": ["working", MemoryType.SEMANTIC]}, Field("type").is_in(["working", "semantic"])),
        (None, {"since": NOON, "until": NOON}, (Field("event_time") >= NOON) & (Field("event_time") <= NOON)),
    ],
    ids=repr,
)
def test_scope(given: Filter | str | None, scope: dict[str, Any], expected: Filter | None) -> None:
    assert scoped(given, scope) == expected


@pytest.mark.parametrize(
    ("given", "scope", "field", "message"),
    [
        (b"user_id = 'ana'", {}, "filter", "must be a Filter or its text, not bytes"),
        (None, {"owner": "ana"}, "owner", "is not a keyword here"),
        (None, {"user_id": ""}, "user_id", "must not be empty"),
        (None, {"agent_id": 7}, "agent_id", "must be a string, not int"),
        (None, {"types": []}, "types", "must not be empty"),
        (None, {"types": ["dream"]}, "types", "must be one of episodic"),
        (None, {"types": "working"}, "types", "sequence of strings"),
        (None, {"tags": "x"}, "tags", "sequence of strings"),
        (None, {"tags": [1]}, "tags", "must be a string, not int"),
        (None, {"since": datetime(2024, 5, 1)}, "since", "time zone"),
        (None, {"until": "2024-05-01"}, "until", "must be a datetime, not str"),
    ],
)
def test_scope_mistakes_name_the_keyword(given: Any, scope: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        scoped(given, scope)
    assert caught.value.metadata == {"field": field}
