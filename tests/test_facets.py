"""The one promise of facets: a filter finds what ``Filter.matches`` says of each live memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from drawn_filters import (
    FILTERS,
    NUMBER_VALUES,
    TEXT_VALUES,
    TIME_FIELDS,
    TIME_VALUES_US,
    VERSION_VALUES,
    compiled,
    holds,
    is_served,
    memories,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from memories import Scalar, condition, make_memory, metadata_value

from agentmem.replica.facets import Facets, Memories
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet
from agentmem.v1 import filter_pb2, memory_pb2


def expected(stored: dict[int, memory_pb2.Memory], live: OrdinalSet, message: filter_pb2.Filter) -> list[int]:
    return [ordinal for ordinal in sorted(live) if holds(message, stored[ordinal])]


def reader(stored: dict[int, memory_pb2.Memory], asked: list[int] | None = None) -> Memories:
    """Reads the records, and notes for which ordinals."""

    def read(ordinals: OrdinalArray) -> Iterator[tuple[int, memory_pb2.Memory]]:
        for ordinal in ordinals.tolist():
            if asked is not None:
                asked.append(ordinal)
            if ordinal in stored:
                yield ordinal, stored[ordinal]

    return read


@given(FILTERS, memories())
def test_a_filter_means_what_the_api_says(message: filter_pb2.Filter, memory: memory_pb2.Memory) -> None:
    assert compiled(message).matches(memory) is holds(message, memory)


ALL_SCALARS: tuple[Scalar, ...] = (*TEXT_VALUES, *NUMBER_VALUES, True, False)


def with_each_value(field: str) -> list[memory_pb2.Memory]:
    """A memory for each value of the field, one with none, and of metadata some with two."""
    changed: list[memory_pb2.Memory] = []
    for value in VALUES_OF[field]:
        memory = make_memory(f"m{len(changed)}", "")
        if field in TIME_FIELDS:
            assert isinstance(value, int)
            getattr(memory, field).FromMicroseconds(value)
        elif field == "tags":
            memory.tags.append(str(value))
        elif field == "metadata.k":
            memory.metadata["k"].CopyFrom(metadata_value(value))
        else:
            setattr(memory, field, value)
        changed.append(memory)
    if field == "metadata.k":
        for pair in product(ALL_SCALARS, repeat=2):
            changed.append(make_memory(f"m{len(changed)}", metadata={"k": list(pair)}))
    return [*changed, make_memory("none", "")]


VALUES_OF: dict[str, tuple[Any, ...]] = {
    "user_id": TEXT_VALUES,
    "content": TEXT_VALUES,
    "tags": TEXT_VALUES,
    "importance": NUMBER_VALUES,
    "version": VERSION_VALUES,
    "event_time": TIME_VALUES_US,
    "metadata.k": ALL_SCALARS,
}


@pytest.mark.parametrize("field", VALUES_OF)
def test_each_operator_with_each_pair_of_values(field: str) -> None:
    stored = dict(enumerate(with_each_value(field), start=1))
    facets = Facets()
    for ordinal, memory in stored.items():
        facets.add(ordinal, memory)
    live = OrdinalSet(stored)
    compared = 0
    for operator, first, second in product(
        filter_pb2.Operator.values()[1:], VALUES_OF[field], [*VALUES_OF[field], None]
    ):
        operands = [
            float(each) if field == "version" else each for each in (first, second) if each is not None
        ]
        if field in TIME_FIELDS:
            message = condition(field, operator, times_us=[int(each) for each in operands])
        else:
            message = condition(field, operator, *operands)
        if not is_served(message):  # two values for an operator that takes one, say
            continue
        compared += 1
        meant = [ordinal for ordinal in stored if holds(message, stored[ordinal])]
        assert [ordinal for ordinal in stored if compiled(message).matches(stored[ordinal])] == meant, message
        assert list(facets.matching(compiled(message), live, facets.rows, reader(stored))) == meant, message
    assert compared >= 5 * (len(VALUES_OF[field]) - 1)


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

    assert list(facets.matching(node, live, facets.rows, reader(stored))) == expected(stored, live, message)
    assert list(facets.cut_to(live).matching(node, live, len(live), reader(stored))) == expected(
        stored, live, message
    )


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

    assert list(facets.matching(node, live, rows, reader(stored))) == expected(stored, live, message)


def test_contents_are_read_of_no_more_memories_than_the_rest_of_the_filter_leaves() -> None:
    facets = Facets()
    stored = {
        ordinal: make_memory(f"m{ordinal}", f"tea {ordinal}", user_id="ana" if ordinal % 10 == 0 else "ben")
        for ordinal in range(1, 101)
    }
    for ordinal, memory in stored.items():
        facets.add(ordinal, memory)
    live = OrdinalSet(stored)
    ana = condition("user_id", filter_pb2.OPERATOR_EQ, "ana")
    nobody = condition("user_id", filter_pb2.OPERATOR_EQ, "nobody")
    tea_5 = condition("content", filter_pb2.OPERATOR_CONTAINS, "tea 5")
    both = filter_pb2.FilterList(filters=[tea_5, ana])

    def found(message: filter_pb2.Filter) -> tuple[list[int], list[int]]:
        asked: list[int] = []
        matching = facets.matching(compiled(message), live, facets.rows, reader(stored, asked))
        return list(matching), asked

    tens = list(range(10, 101, 10))
    assert found(filter_pb2.Filter(all_of=both)) == ([50], tens)
    others = [ordinal for ordinal in stored if ordinal % 10]
    assert found(filter_pb2.Filter(any_of=both)) == (sorted([*tens, 5, *range(51, 60)]), others)
    none = filter_pb2.FilterList(filters=[tea_5, nobody])
    assert found(filter_pb2.Filter(all_of=none)) == ([], [])
    everything = filter_pb2.Filter(negated=filter_pb2.Filter(all_of=none))
    assert found(everything) == (list(stored), [])

    # What the store has no more does not match, not a negation either.
    del stored[55]
    assert found(filter_pb2.Filter(negated=tea_5))[0] == [
        each for each in stored if "tea 5" not in f"tea {each}"
    ]
    assert 55 not in found(tea_5)[0]
