"""What filters leave of a namespace, kept from one search to the next: it is what is found without that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memories import NAMESPACE, Replica, condition, make_memory, segment_rows, unit_vectors

from agentmem.core.filters import Filter, compile_filter
from agentmem.core.layout import NamespaceState
from agentmem.core.records import FloatVector
from agentmem.replica import scopes as scopes_module
from agentmem.replica.among import Among
from agentmem.replica.namespace_index import NamespaceIndex
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.scopes import Scopes, neighbours_of
from agentmem.replica.search import SearchQuery, search
from agentmem.replica.search_query import Mode
from agentmem.replica.vectors import SAME_ESTIMATE_ROWS
from agentmem.replica.view import NamespaceView, View
from agentmem.v1 import filter_pb2

EQ, IN, GTE = filter_pb2.OPERATOR_EQ, filter_pb2.OPERATOR_IN, filter_pb2.OPERATOR_GTE
DIMENSION = 8
ROWS = unit_vectors(400, DIMENSION)
ANA = condition("user_id", EQ, "ana")
WEIGHTY = condition("importance", GTE, 0.5)
MESSAGES = (
    filter_pb2.Filter(),
    ANA,
    condition("user_id", IN, "ana", "ben"),
    condition("importance", EQ, 1.0),
    WEIGHTY,
    filter_pb2.Filter(negated=ANA),
    filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=[WEIGHTY, ANA])),
    filter_pb2.Filter(any_of=filter_pb2.FilterList(filters=[WEIGHTY, ANA])),
)
CASES = tuple((message.SerializeToString(), compile_filter(message)) for message in MESSAGES)


def searched(
    view: NamespaceView,
    mode: Mode,
    vector: FloatVector,
    case: tuple[bytes, Filter | None],
    scopes: Scopes | None,
) -> list[tuple[int, float]]:
    key, node = case
    query = SearchQuery(NAMESPACE, "", vector, mode, node, 5, 1, scope_key=(NAMESPACE, key))
    hits = search(View(1, 1, {NAMESPACE: view}), query, None, scopes)
    return [(hit.ordinal, round(hit.score, 5)) for hit in hits]


STEPS = st.tuples(
    # Who writes, whether it is of weight, and whether it has a vector.
    st.lists(
        st.tuples(st.sampled_from(["ana", "ben", "eve"]), st.booleans(), st.booleans()),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([[], [], [], [1], [3], [6]]),
    st.sampled_from([True, True, False]),
    # The newest view is asked, or an older one.
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from(["semantic", "hybrid"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=4, max_size=10))
def test_a_kept_scope_is_what_the_filter_leaves_of_the_view(steps: list[tuple[Any, ...]]) -> None:
    namespace = NamespaceIndex(NAMESPACE, NamespaceState(number=1, dimension=DIMENSION), lambda ordinals: [])
    scopes, views, ordinal = Scopes(), [namespace.view()], 0
    for written, dropped, is_published, back, mode in steps:
        for user_id, is_weighty, has_vector in written:
            ordinal += 1
            session_id, importance = f"s{ordinal % 3}", float(is_weighty)
            memory = make_memory(str(ordinal), user_id=user_id, session_id=session_id, importance=importance)
            namespace.put(ordinal, memory, ROWS[ordinal] if has_vector else None)
        for each in dropped:
            namespace.drop(each)
        if is_published:
            views.append(namespace.view())
        view = views[max(0, len(views) - 1 - back)]
        for key, node in CASES:
            scope = scopes.scope((NAMESPACE, key), node, view, 1)
            assert scope.allowed == view.matching(node, 1)
            likeness = np.arange(1.0, scope.count + 1)
            fresh = neighbours_of(view, scope.ordinals).with_likeness(likeness)
            assert scope.neighbours(view).with_likeness(likeness).tolist() == fresh.tolist()
            asked = (view, mode, ROWS[0], (key, node))
            assert searched(*asked, scopes) == searched(*asked, None)


def test_a_vector_that_comes_later_is_found() -> None:
    namespace = NamespaceIndex(NAMESPACE, NamespaceState(number=1), lambda ordinals: [])
    scopes = Scopes()
    namespace.put(1, make_memory("1", user_id="ana"), ROWS[1])
    namespace.put(2, make_memory("2", user_id="ana"), None)
    namespace.put(3, make_memory("3", user_id="ben"), None)
    assert len(searched(namespace.view(), "semantic", ROWS[0], CASES[1], scopes)) == 1
    namespace.add_vector(2, ROWS[2])
    assert len(searched(namespace.view(), "semantic", ROWS[0], CASES[1], scopes)) == 2
    assert scopes.lookups.hits == 1


def test_a_scope_outlives_the_views_that_change_nothing_of_it() -> None:
    namespace = NamespaceIndex(NAMESPACE, NamespaceState(number=1), lambda ordinals: [])
    scopes = Scopes()
    kept: list[bool] = []

    def ask(view: NamespaceView) -> None:
        hits = scopes.lookups.hits
        scopes.scope((NAMESPACE, CASES[6][0]), CASES[6][1], view, 1)
        kept.append(scopes.lookups.hits > hits)

    namespace.put(1, make_memory("1", user_id="ana", importance=1.0), None)
    namespace.put(2, make_memory("2", user_id="ben", importance=1.0), None)
    ask(namespace.view())
    ask(namespace.view())
    namespace.put(3, make_memory("3", user_id="ben", importance=1.0), None)
    ask(namespace.view())
    namespace.put(4, make_memory("4", user_id="ana", importance=0.0), None)
    ask(namespace.view())
    namespace.put(5, make_memory("5", user_id="ana", importance=1.0), None)
    ask(namespace.view())
    namespace.drop(2)
    ask(namespace.view())
    namespace.drop(1)
    ask(namespace.view())
    assert kept == [False, True, True, True, False, True, False]


def test_those_around_a_memory_that_ended_stand_closer_together() -> None:
    namespace = NamespaceIndex(NAMESPACE, NamespaceState(number=1), lambda ordinals: [])
    for ordinal, user_id in enumerate(("ana", "ben", "ana"), start=1):
        namespace.put(ordinal, make_memory(str(ordinal), user_id=user_id, session_id="s"), None)
    scopes, likeness, found = Scopes(), np.ones(2), []
    views = [namespace.view()]
    namespace.drop(2)
    views.append(namespace.view())
    for view in views:
        scope = scopes.scope((NAMESPACE, CASES[1][0]), CASES[1][1], view, 1)
        found.append(scope.neighbours(view).with_likeness(likeness)[0])
        assert found[-1] == neighbours_of(view, scope.ordinals).with_likeness(likeness)[0]
    assert found[1] > found[0]
    assert scopes.lookups.hits == 1


def test_an_estimate_holds_until_the_namespace_has_grown() -> None:
    namespace = NamespaceIndex(NAMESPACE, NamespaceState(number=1), lambda ordinals: [])
    among = Among(OrdinalSet([1]))
    estimates = []
    for ordinal in range(1, SAME_ESTIMATE_ROWS + 2):
        namespace.put(ordinal, make_memory(str(ordinal)), ROWS[0])
        view = namespace.view()
        assert view.vectors is not None
        estimates.append(view.vectors.search(ROWS[1], 1, among, view.live).estimated)
    # The first is of the whole namespace.
    assert len({id(estimated) for estimated in estimates[1:-2]}) == 1
    assert estimates[-2] not in estimates[:-2]


def test_what_expires_and_what_is_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes_module, "_BYTES_PER_MEMORY", 1)
    monkeypatch.setattr(scopes_module, "_ENTRY_BYTES", 10)
    namespace = NamespaceIndex(NAMESPACE, NamespaceState(number=1), lambda ordinals: [])
    for ordinal in range(1, 31):
        namespace.put(ordinal, make_memory(str(ordinal), user_id=f"user {ordinal}"), None)
    view = namespace.view()
    scopes = Scopes(16 * 11)
    for number in range(40):
        node = compile_filter(condition("user_id", EQ, f"user {number % 20 + 1}"))
        assert scopes.scope((NAMESPACE, bytes([number])), node, view, 1).count == 1
        assert scopes.size_bytes == 11 * min(16, number + 1)
    assert scopes.known((NAMESPACE, bytes([23])), view) is None
    assert scopes.known((NAMESPACE, bytes([24])), view) is not None
    assert scopes.scope((NAMESPACE, b""), None, view, 1).count == 30
    assert scopes.known((NAMESPACE, b""), view) is None

    expiring = make_memory("expiring", user_id="ana")
    expiring.expire_time.FromMicroseconds(100)
    namespace.put(31, expiring, None)
    later = namespace.view()
    case = (NAMESPACE, CASES[1][0])
    assert scopes.scope(case, CASES[1][1], later, 99).count == 1
    assert scopes.scope(case, CASES[1][1], later, 100).count == 0


def test_rows_that_moved_to_a_segment_are_found_there(tmp_path: Path) -> None:
    with Replica(tmp_path, seal_rows=50) as replica:
        scopes = Scopes()

        def check(view: View) -> None:
            namespace = view.namespaces[NAMESPACE]
            for vector in ROWS[:10]:
                found = searched(namespace, "semantic", vector, CASES[1], scopes)
                assert found == searched(namespace, "semantic", vector, CASES[1], None)
                ordinals = list(namespace.matching(CASES[1][1], 1))
                rows = ROWS[[int(name[1:]) for name in replica.ids(ordinals)]]
                nearest = np.argsort(-(rows @ vector), kind="stable")[:5]
                assert [ordinal for ordinal, _ in found] == [ordinals[place] for place in nearest]

        def put(count: int, start: int) -> None:
            numbers = range(start, start + count)
            users = [make_memory(f"m{n}", user_id="ana" if n % 2 else "ben") for n in numbers]
            revision = replica.put(users, ROWS[start : start + count])
            replica.wait_for_revision(revision)
            # Of that revision the first, before anything of it was sealed.
            check(next(view for view in replica.views if view.revision >= revision))

        put(40, 0)
        put(160, 40)
        check(replica.wait_for(lambda view: sum(segment_rows(view)) >= 150))
        replica.wait_for_revision(replica.delete([f"m{n}" for n in range(1, 30, 4)]))
        check(replica.views[-1])
        put(200, 200)
        check(replica.wait_for(lambda view: sum(segment_rows(view)) >= 350))
        assert scopes.lookups.hits >= 9 * scopes.lookups.misses
