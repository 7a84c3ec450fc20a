"""The readable form of filters: what it means, what is refused where, and that it prints as it reads."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from command_line import Cli, failed
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmem.client import Client, Field, Filter, FilterSyntaxError, InvalidArgument, NewMemory
from agentmem.client.filter_parser import MAX_CHARACTERS, MAX_LEVELS
from agentmem.client.filters import filter_of, scoped
from agentmem.client.times import NanosecondDatetime

NOW = datetime(2024, 5, 8, 12, tzinfo=UTC)
user, when, city, rank = Field("user_id"), Field("event_time"), Field("metadata.city"), Field("importance")


def day(number: int, **clock: int) -> datetime:
    return datetime(2023, 5, number, tzinfo=UTC).replace(**clock)  # type: ignore[arg-type]


LATE = day(9, hour=2)
END = {"hour": 23, "minute": 59, "second": 59, "microsecond": 999_999}


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ('user_id = "ana"', user == "ana"),
        ("user_id == 'ana'", user == "ana"),
        ("  user_id='ana'\n", user == "ana"),
        ("user_id != 'ana'", user != "ana"),
        ("user_id <> 'ana'", user != "ana"),
        ("importance > 0.5", rank > 0.5),
        ("importance >= 1", rank >= 1),
        ("importance < -1.5e-3", rank < -0.0015),
        ("importance <= +.5", rank <= 0.5),
        ("version between 2 and 3 and importance > 0", Field("version").between(2, 3) & (rank > 0)),
        ("user_id in ('a', \"b\")", user.is_in(["a", "b"])),
        ("user_id not in ('a')", ~user.is_in(["a"])),
        ("metadata.city starts with 'Li'", city.prefix("Li")),
        ("metadata.city PREFIX 'Li'", city.prefix("Li")),
        ("metadata.city not contains 'ma'", ~city.contains("ma")),
        ("tags contains 'x'", Field("tags").contains("x")),
        ("agent_id exists", Field("agent_id").exists()),
        ("agent_id missing", ~Field("agent_id").exists()),
        ("metadata.done = true", Field("metadata.done") == True),  # noqa: E712
        ("metadata.done = False", Field("metadata.done") == False),  # noqa: E712
        ('metadata."odd key" = 1', Field("metadata.odd key") == 1),
        ("metadata.'a \\'b\\'.c' exists", Field("metadata.a 'b'.c").exists()),
        ("metadata.m.n-o exists", Field("metadata.m.n-o").exists()),
        ("metadata.都市 = '東京'", Field("metadata.都市") == "東京"),
        (r"""user_id = "a\"\\\n\t\u00e9\U0001F600'" """, user == "a\"\\\n\té\U0001f600'"),
        # and binds closer than or, not closest.
        ("user_id='a' or user_id='b' and not importance > 1", (user == "a") | ((user == "b") & ~(rank > 1))),
        ("(user_id = 'a' or user_id = 'b') AND importance > 1", ((user == "a") | (user == "b")) & (rank > 1)),
        ("not (user_id = 'a' or importance > 1)", ~((user == "a") | (rank > 1))),
        ("not not_a_field = 1", ~(Field("not_a_field") == 1)),
        ("between_two = 1 or inside = 2", (Field("between_two") == 1) | (Field("inside") == 2)),
        # Times, in quotes or without.
        ("event_time > '2023-05-08T13:56:00Z'", when > day(8, hour=13, minute=56)),
        ("event_time > 2023-05-08T13:56", when > day(8, hour=13, minute=56)),
        ("event_time > '2023-05-08 15:56:00+02:00'", when > day(8, hour=13, minute=56)),
        ("event_time = 2023-05-08T13:00:00.000000789Z", when == NanosecondDatetime.of(day(8, hour=13), 789)),
        ("event_time in ('2023-05-08T01:00', 2023-05-09T02:00)", when.is_in([day(8, hour=1), LATE])),
        # A date is the whole day.
        ("event_time = '2023-05-08'", when.between(day(8), day(8, **END))),
        ("event_time != 2023-05-08", ~when.between(day(8), day(8, **END))),
        ("event_time >= 2023-05-08", when >= day(8)),
        ("event_time > 2023-05-08", when > day(8, **END)),
        ("event_time < 2023-05-08", when < day(8)),
        ("event_time <= 2023-05-08", when <= day(8, **END)),
        ("event_time between 2023-05-08 and 2023-05-09", when.between(day(8), day(9, **END))),
        ("event_time between 2023-05-08 and 2023-05-09T12:00Z", when.between(day(8), day(9, hour=12))),
        ("event_time not between 2023-05-08 and 2023-05-09", ~when.between(day(8), day(9, **END))),
        ("event_time in (2023-05-08)", when.between(day(8), day(8, **END))),
        (
            "event_time in (2023-05-08, '2023-05-09T12:00Z')",
            when.between(day(8), day(8, **END)) | (when == day(9, hour=12)),
        ),
        ("event_time <= 9999-12-31", when <= datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("expire_time < now", Field("expire_time") < NOW),
        ("event_time > now - 7d", when > NOW - timedelta(days=7)),
        ("event_time > NOW-1.5h", when > NOW - timedelta(minutes=90)),
        ("expire_time < now+2w", Field("expire_time") < NOW + timedelta(weeks=2)),
        ("event_time between now - 1s and now", when.between(NOW - timedelta(seconds=1), NOW)),
        ("event_time < now + 5m", when < NOW + timedelta(minutes=5)),
        # Text that looks like a time is text where texts are.
        ("metadata.city = '2023-05-08'", city == "2023-05-08"),
        ("metadata.city = 'now'", city == "now"),
    ],
)  # fmt: skip
def test_what_a_text_means(text: str, means: Filter) -> None:
    assert Filter.parse(text, now=NOW) == means
    assert Filter.parse(str(means)) == means


def test_a_text_is_read_once_unless_it_means_another_moment_each_time() -> None:
    text = 'user_id = "ana"'
    known = filter_of(text)
    assert scoped(text, {"agent_id": "bot"}) == (user == "ana") & (Field("agent_id") == "bot")
    assert filter_of(text) is known == (user == "ana")
    earlier = filter_of("event_time > NOW")
    assert filter_of("event_time > NOW") != earlier
    for _ in range(2):
        with pytest.raises(FilterSyntaxError):
            filter_of("user_id =")


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "expected a field, such as user_id or metadata.\"a key\", not the end"),
        ("user_id", 7, "expected =, !=, <, <=, >, >=, in, between, starts with, contains, exists or missing"),
        ("user_id ~ 'a'", 8, "exists or missing, not '~'"),
        ("user_id is 'a'", 8, "exists or missing, not 'is'"),
        ("user_id = ", 10, "expected a value (text goes in quotes), not the end"),
        ("user_id = ana", 10, "expected a value (text goes in quotes), not 'ana'"),
        ("user_id = 'ana", 10, "the quotes are not closed"),
        ("user_id = 'ana' and", 19, "expected a field"),
        ("user_id = 'ana' importance > 1", 16, "expected \"and\", \"or\" or the end, not 'importance'"),
        ("user_id = 'ana' && importance > 1", 16, "expected \"and\", \"or\" or the end, not '&'"),
        ("(user_id = 'ana'", 16, "expected \"and\", \"or\" or \")\", not the end"),
        ("user_id = 'ana')", 15, "not ')'"),
        ("and = 1", 0, "expected a field, not 'and'"),
        ("user_id in 'a'", 11, "expected \"(\" before the values"),
        ("user_id in ()", 12, "expected a value"),
        ("user_id in ('a' 'b')", 16, "expected \",\" or \")\""),
        ("importance between 1, 2", 20, "expected \"and\" and the upper end of between"),
        ("user_id starts 'a'", 15, "expected \"with\""),
        ("user_id not = 'a'", 12, "expected in, between, starts with, prefix or contains after not"),
        ("not", 3, "expected a field"),
        ("event_time > 'May 8'", 13, "'May 8' is not a time like"),
        ("event_time > 20230508", 0, ""),
        ("event_time > '20230508'", 13, "'20230508' is not a time like"),
        ("event_time > 2023-05-32", 13, "'2023-05-32' is not a time like"),
        ("event_time > 2023-05-08T25:00", 13, "is not a time like"),
        ("event_time > yesterday", 13, "expected a time (text goes in quotes), not 'yesterday'"),
        ("event_time > now - 7", 17, "not '-'"),
        ("event_time > now - 99999999d", 13, "beyond the years 1 to 9999"),
        ("metadata. = 1", 9, "expected a key behind metadata."),
        ("metadata.'a' 'b'", 13, "exists or missing"),
        ("version = 9007199254740993", 10, "would lose digits"),
        ("version = " + "9" * 5000, 10, "would lose digits"),
        ("version = 1e999", 10, "must be finite"),
        ("version = 12abc", 10, "expected a value"),
        (r"user_id = 'a\q'", 12, r"there is no escape \q"),
        (r"user_id = '\U00110000'", 11, r"\U00110000 is no character"),
        (r"user_id = '\ud800'", 10, "not valid Unicode"),
        ("(" * (MAX_LEVELS + 1), MAX_LEVELS, f"nested deeper than {MAX_LEVELS} levels"),
        ("not " * 100_00 + "x = 1", 4 * MAX_LEVELS, "nested deeper"),
        (" " * (MAX_CHARACTERS + 1), MAX_CHARACTERS, f"has more than {MAX_CHARACTERS} characters"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_at_its_place(text: str, position: int, problem: str) -> None:
    if not problem:  # a number in a field of times is for the server to refuse
        assert Filter.parse(text) == (when > 20230508)
        return
    with pytest.raises(FilterSyntaxError) as caught:
        Filter.parse(text)
    assert isinstance(caught.value, InvalidArgument)
    assert problem in caught.value.problem
    assert (caught.value.position, caught.value.text) == (position, text)
    assert caught.value.reason == "FILTER_SYNTAX"
    assert caught.value.metadata == {"field": "filter", "position": str(position)}


def test_an_error_shows_the_line_and_points_at_the_place() -> None:
    with pytest.raises(FilterSyntaxError) as caught:
        Filter.parse("metadata.x = '東京' and\n\tuser_id ? 'é'")
    assert str(caught.value).splitlines()[1:] == ["   user_id ? 'é'", "           ^"]
    assert str(caught.value).startswith("filter, line 2, column 10: expected =,")
    with pytest.raises(FilterSyntaxError) as caught:
        Filter.parse("metadata.x = '東京' ?")
    assert str(caught.value).splitlines()[1:] == ["  metadata.x = '東京' ?", "                      ^"]
    with pytest.raises(FilterSyntaxError) as caught:
        Filter.parse("x = 1 and " * 1000 + "?")
    _, shown, caret = str(caught.value).splitlines()
    assert (len(shown), shown[caret.index("^")]) == (63, "?")
    for twin in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert (str(twin), twin.position) == (str(caught.value), caught.value.position)


def test_now_needs_a_time_zone_and_a_filter_a_text() -> None:
    with pytest.raises(InvalidArgument, match="now must have a time zone"):
        Filter.parse("event_time < now", now=datetime(2024, 5, 8))
    with pytest.raises(InvalidArgument, match="filter must be a string, not int"):
        Filter.parse(3)  # type: ignore[arg-type]


TEXTS = st.text(max_size=12) | st.sampled_from(
    ["2023-05-08", "now", "true", "1", "a.b", "\\", "\"'", "\x85\u2028"]
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
TIMES = st.datetimes(timezones=st.just(UTC))
KEYS = TEXTS.filter(bool) | st.sampled_from(["in", "not", "x-y", ".", "-", "a b"])


@st.composite
def built(draw: st.DrawFn) -> Filter:
    """A condition as Field makes it."""
    name = draw(
        st.sampled_from(["user_id", "importance", "event_time", "tags", "metadata"] * 2 + ["new_field"])
    )
    scalars: st.SearchStrategy[Any] = st.one_of(TEXTS, NUMBERS, st.booleans(), TIMES)
    if name == "metadata":
        name = f"metadata.{draw(KEYS)}"
    elif name == "event_time":
        scalars = TIMES  # a text there is a time, or for the server to refuse
    field, value = Field(name), draw(scalars)
    operator = draw(
        st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "between", "prefix", "contains", "exists"])
    )
    match operator:
        case "in":
            return field.is_in(draw(st.lists(scalars, min_size=1, max_size=3)))
        case "between":
            return field.between(value, draw(scalars))
        case "prefix":
            return field.prefix(draw(TEXTS))
        case "contains":
            return field.contains(value)
        case "exists":
            return field.exists()
    compared: Filter = {
        "==": field.__eq__,
        "!=": field.__ne__,
        "<": field.__lt__,
        "<=": field.__le__,
        ">": field.__gt__,
        ">=": field.__ge__,
    }[operator](value)
    return compared


FILTERS = st.recursive(
    built(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        inner.map(lambda each: ~each),
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(FILTERS)
def test_a_printed_filter_reads_back_as_the_same(given_filter: Filter) -> None:
    again = Filter.parse(str(given_filter))
    # Bytes, for to protobuf 0 and -0 are equal.
    assert again.to_proto().SerializeToString() == given_filter.to_proto().SerializeToString()
    assert eval(repr(given_filter)) == given_filter


@settings(max_examples=300)
@given(st.text(alphabet="a=1'\"() \n\\-.<>!,", max_size=30) | st.text(max_size=30))
def test_any_text_is_read_or_refused_at_a_place_in_it(text: str) -> None:
    refused: FilterSyntaxError | None = None
    try:
        Filter.parse(text)
    except FilterSyntaxError as error:
        refused = error
    assert refused is None or (0 <= refused.position <= len(text) and str(refused).count("\n") == 2)


def test_calls_take_the_text(client: Client, namespace: str) -> None:
    memories = [
        NewMemory(f"tea {number}", id=f"m{number}", event_time=day(number)) for number in range(1, 10)
    ]
    session = client.session()
    revision = session.add_many(namespace, memories).revision
    with client.watch(namespace, after=revision, filter="event_time < 2023-05-04") as changes:
        for number in (2, 8, 3):
            session.update(namespace, f"m{number}", content="green tea")
        assert [change.memory.id for change in islice(changes, 2) if change.memory] == ["m2", "m3"]
    late = "event_time between 2023-05-04 and 2023-05-06 and not id = 'm5'"
    assert [memory.id for memory in session.list(namespace, filter=late).memories] == ["m4", "m6"]
    listed = session.iterate(namespace, filter="event_time < now - 1s", page_size=2)
    assert len(list(listed)) == 9  # the moment is the same for every page
    found = session.search(namespace, "tea", mode="text", filter=late).hits
    assert {hit.memory.id for hit in found} == {"m4", "m6"}
    assert {version.memory.id for version in session.export(namespace, filter=late)} == {"m4", "m6"}
    assert session.delete_matching(namespace, filter=late).deleted_count == 2
    with pytest.raises(FilterSyntaxError):
        client.list(namespace, filter="")
    with pytest.raises(InvalidArgument, match="no field 'colour'"):
        client.list(namespace, filter="colour = 'red'")


def test_commands_take_the_text(cli: Cli) -> None:
    lines = [json.dumps({"id": f"m{n}", "content": f"tea {n}", "importance": n / 10}) for n in (1, 2, 3)]
    cli("import", "-", stdin="\n".join(lines))
    some = ("--filter", "importance between 0.15 and 0.9")
    listed = cli("list", *some, "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["m2", "m3"]
    failed(
        cli("list", "--where", "importance > high"), 2, "--filter", "column 14", "importance > high\n", " ^"
    )
    deleted = cli("delete", *some, "--yes")
    assert deleted.stdout == "deleted 2 memories\n"
    failed(cli("delete", "m1", *some), 2, "delete what?")
    assert "m1" in cli("list", "--where", "id exists").stdout
