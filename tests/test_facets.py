"""The one promise of facets: a filter finds what ``Filter.matches`` says of each live memory."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from memories import Scalar, condition, make_memory

from agentmem.core.errors import InvalidArgument
from agentmem.core.filters import Filter, compile_filter
from agentmem.replica.facets import Facets
from agentmem.replica.ordinals import OrdinalSet
from agentmem.v1 import filter_pb2, memory_pb2

TEXTS = st.sampled_from(["", "a", "ab", "abc", "b", "é", "1", "true", "日本"])
NUMBERS = st.sampled_from([-1.5, 0.0, -0.0, 0.25, 0.5, 1.0, 2.0, 1e300])
SCALARS: st.SearchStrategy[Scalar] = st.one_of(TEXTS, NUMBERS, st.booleans())
TIMES_US = st.sampled_from([-1, 0, 1, 1_000_000, 1_683_554_160_000_001, 253_402_300_799_999_999])
OWNERS = ("user_id", "agent_id", "session_id")


@st.composite
def memories(draw: st.DrawFn) -> memory_pb2.Memory:
    memory = make_memory(
        draw(TEXTS.filter(bool)),
        importance=draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        tags=draw(st.lists(TEXTS.filter(bool), max_size=3, unique=True)),
        metadata=draw(
            st.dictionaries(
                st.sampled_from(["k", "m.n"]), SCALARS | st.lists(SCALARS, max_size=3), max_size=2
            )
        ),
        event_time_us=draw(TIMES_US),
    )
    for owner in OWNERS:
        setattr(memory, owner, draw(TEXTS))
    memory.MergeFromString(bytes([4 << 3, draw(st.sampled_from([1, 2, 3, 4, 99]))]))  # type; 99 is none yet
    memory.create_time.FromMicroseconds(draw(TIMES_US))
    memory.update_time.FromMicroseconds(draw(TIMES_US))
    return memory


@st.composite
def conditions(draw: st.DrawFn) -> filter_pb2.Filter:
    operator = draw(st.sampled_from(filter_pb2.Operator.values()[1:]))
    count = 1
    if operator == filter_pb2.OPERATOR_IN:
        count = draw(st.integers(1, 3))
    elif operator == filter_pb2.OPERATOR_BETWEEN:
        count = 2
    elif operator == filter_pb2.OPERATOR_EXISTS:
        count = 0

    def values(strategy: st.SearchStrategy[Scalar]) -> list[Scalar]:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    field = draw(
        st.sampled_from(
            ["id", *OWNERS, "tags", "type", "importance", "event_time", "create_time", "update_time"]
            + ["metadata.k", "metadata.m.n", "metadata.unknown"] * 2
        )
    )
    if field.endswith("_time"):
        times_us = draw(st.lists(TIMES_US, min_size=count, max_size=count))
        return condition(field, operator, times_us=times_us)
    if field == "importance":
        return condition(field, operator, *values(NUMBERS))
    if field == "type":
        return condition(field, operator, *values(st.sampled_from(["episodic", "semantic", "working"])))
    if field.startswith("metadata."):
        return condition(field, operator, *values(SCALARS))
    return condition(field, operator, *values(TEXTS))


def combined(inner: st.SearchStrategy[filter_pb2.Filter]) -> st.SearchStrategy[filter_pb2.Filter]:
    lists = st.lists(inner, min_size=1, max_size=3).map(lambda parts: filter_pb2.FilterList(filters=parts))
    return st.one_of(
        lists.map(lambda parts: filter_pb2.Filter(all_of=parts)),
        lists.map(lambda parts: filter_pb2.Filter(any_of=parts)),
        inner.map(lambda part: filter_pb2.Filter(negated=part)),
    )


FILTERS = st.recursive(conditions(), combined, max_leaves=6)


def compiled(message: filter_pb2.Filter) -> Filter:
    """The compiled filter; what is not served is not a case."""
    try:
        node = compile_filter(message)
    except InvalidArgument:
        assume(False)
        raise
    assert node is not None
    return node


def expected(stored: dict[int, memory_pb2.Memory], live: OrdinalSet, node: Filter) -> list[int]:
    return [ordinal for ordinal in sorted(live) if node.matches(stored[ordinal])]


@settings(max_examples=200, deadline=None)
@given(st.lists(memories(), max_size=12), FILTERS, st.data())
def test_a_filter_finds_what_it_matches(
    given_memories: list[memory_pb2.Memory], message: filter_pb2.Filter, data: st.DataObject
) -> None:
    node = compiled(message)
    facets = Facets()
    stored: dict[int, memory_pb2.Memory] = {}
    for index, memory in enumerate(given_memories):
        stored[3 * index + 1] = memory
        facets.add(3 * index + 1, memory)
    live = OrdinalSet(ordinal for ordinal in stored if data.draw(st.booleans()))

    assert list(facets.matching(node, live, facets.rows)) == expected(stored, live, node)
    assert list(facets.cut_to(live).matching(node, live, len(live))) == expected(stored, live, node)


@settings(max_examples=50, deadline=None)
@given(st.lists(memories(), min_size=1, max_size=8), st.lists(memories(), max_size=8), FILTERS)
def test_an_older_view_does_not_see_what_came_later(
    before: list[memory_pb2.Memory], after: list[memory_pb2.Memory], message: filter_pb2.Filter
) -> None:
    node = compiled(message)
    facets = Facets()
    stored = dict(enumerate(before, start=1))
    for ordinal, memory in stored.items():
        facets.add(ordinal, memory)
    live, rows = OrdinalSet(stored), facets.rows
    for ordinal, memory in enumerate(after, start=len(before) + 1):
        facets.add(ordinal, memory)

    assert list(facets.matching(node, live, rows)) == expected(stored, live, node)
