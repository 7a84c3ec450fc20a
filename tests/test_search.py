"""Search over views: modes, updates, and consistency while the indexer runs."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from memories import NAMESPACE, Replica, by_user, condition, make_memory, unit_vectors

from agentmem.core.filters import compile_filter
from agentmem.core.store import Change, WriteTransaction
from agentmem.core.times import now_us
from agentmem.replica import ranking, sessions
from agentmem.replica.facets import NO_SESSION, SessionPlaces, compare
from agentmem.replica.ranking import Weights
from agentmem.replica.search import SearchQuery, search
from agentmem.replica.view import View
from agentmem.v1 import filter_pb2

# Three directions: the first two are alike, the third is not.
NEAR, NEARER, FAR = np.array([[0.8, 0.6, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    with Replica(tmp_path) as replica:
        yield replica


def with_three(replica: Replica) -> View:
    """`words` shares the question's words, `meaning` its direction, `both` some of each."""
    memories = [
        make_memory("words", "the blue boat in the harbour", user_id="ana"),
        make_memory("meaning", "a ship at the quay", user_id="ana"),
        make_memory("both", "the boat of a neighbour", user_id="ben"),
    ]
    revision = replica.put(memories, np.stack([FAR, NEARER, NEAR]))
    revision = replica.put([make_memory("no vector", "one more boat", user_id="ben")])
    return replica.wait_for_revision(revision)


def test_modes(replica: Replica) -> None:
    view = with_three(replica)
    question = "where is the blue boat"
    assert replica.search(view, question, NEARER, mode="semantic") == ["meaning", "both", "words"]
    assert replica.search(view, question, NEARER, mode="text")[0] == "words"
    assert set(replica.search(view, question, NEARER, mode="text")) == {"words", "both", "no vector"}
    hybrid = replica.search(view, question, NEARER)
    assert set(hybrid) == {"words", "meaning", "both", "no vector"}
    assert hybrid[0] == "both"
    # What is missing from the question is left to the other signal.
    by_text = replica.search(view, question, mode="text")
    by_meaning = replica.search(view, "", NEARER, mode="semantic")
    # And what has no signal fills up.
    assert replica.search(view, question) == [*by_text, "meaning"]
    assert replica.search(view, "", NEARER) == [*by_meaning[:2], "no vector", "words"]
    assert replica.search(view, "", top_k=2) == ["no vector", "both"]
    assert replica.search(view, "zzz", NEARER)[:2] == ["meaning", "both"]
    assert replica.search(view, question, mode="semantic") == []
    assert replica.search(view, question, NEARER, top_k=1) == ["both"]


def test_scores(replica: Replica) -> None:
    view = with_three(replica)
    (first, second, third) = search(view, SearchQuery(NAMESPACE, "", NEARER, "semantic", None, 10, now_us()))
    assert (first.score, second.score, third.score) == pytest.approx((1.0, 0.8, 0.0), abs=1e-6)
    texts = search(view, SearchQuery(NAMESPACE, "boat", None, "text", None, 10, now_us()))
    assert all(hit.score > 0 for hit in texts)
    both = search(view, SearchQuery(NAMESPACE, "blue boat", NEARER, "hybrid", None, 10, now_us()))
    assert all(0 <= hit.score <= 1 for hit in both)
    assert [hit.score for hit in both] == sorted((hit.score for hit in both), reverse=True)


def test_relevance_is_scaled_by_the_highest_of_each_signal() -> None:
    cosines = ranking.positive(np.array([0.8, 0.4, np.nan, -0.2]))
    np.testing.assert_array_equal(cosines, [0.8, 0.4, 0.0, 0.0])
    bm25 = np.array([0.0, 5.0, 10.0, 0.0])
    weights = Weights().in_proportion()
    vector, text, session = ranking.relevance(weights, cosines, bm25, cosines, bm25)
    np.testing.assert_allclose(vector, [1.0, 0.5, 0.0, 0.0])
    np.testing.assert_allclose(text, [0.0, 0.5, 1.0, 0.0])
    np.testing.assert_allclose(session, np.zeros(4))
    # What the session adds counts for the highest, too, so that no score is above 1.
    more = cosines + np.array([0.0, 0.4, 0.2, 0.0])
    vector, text, session = ranking.relevance(weights, cosines, bm25, more, bm25)
    np.testing.assert_allclose(vector, [1.0, 0.5, 0.0, 0.0])
    np.testing.assert_allclose(session, [0.0, 0.25, 0.125, 0.0])
    np.testing.assert_allclose(ranking.fused(weights, more, bm25), 0.5 * vector + 0.5 * text + session)
    nothing = np.zeros(1)
    assert ranking.fused(weights, nothing, nothing).tolist() == [0.0]
    found = ranking.relevance(weights, nothing, nothing, nothing, nothing)
    assert [each.tolist() for each in found] == [[0.0]] * 3


def test_recency_and_importance_count_by_their_weights() -> None:
    weights = Weights(vector=1, text=1, recency=2, importance=4).in_proportion()
    one, half = np.ones(1), np.full(1, 0.5)
    assert ranking.fused(weights, one, one, half, half).tolist() == [0.625]
    assert ranking.fused(weights, one, one, one, half).tolist() == [0.75]


def test_recency_halves_with_each_half_life() -> None:
    times_us = np.array([1_000, 900, 800, 2_000])
    np.testing.assert_allclose(ranking.recency(times_us, 1_000, 100), [1.0, 0.5, 0.25, 1.0])


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 79, 80, 83, 740, 4001])
@pytest.mark.parametrize("order", ["drawn", "rising", "falling"])
def test_the_best_are_those_of_sorting_all(count: int, order: str) -> None:
    """With many equals, of which the newest come first, and of these the ones written last."""
    random = np.random.default_rng(count)
    scores = random.integers(0, max(1, count // 6), count) / 7
    if order != "drawn":
        scores = np.sort(scores)[:: 1 if order == "rising" else -1]
    ordinals = np.sort(random.choice(10_000, count, replace=False)).astype(np.uint64)
    times_us = random.integers(0, 3, count)
    expected = sorted(range(count), key=lambda place: (scores[place], times_us[place], place), reverse=True)
    for top_k in (1, 10, 200):
        assert ranking.best(ordinals, scores, top_k, times_us).tolist() == expected[:top_k]


def test_weights_are_proportions() -> None:
    assert Weights(2, 1, 1, 0).in_proportion() == Weights(0.5, 0.25, 0.25, 0)
    assert Weights(0, 0, 0, 0).in_proportion() == Weights(0, 0, 0, 0)


def keys(*codes_and_ranks: tuple[int, int]) -> npt.NDArray[np.int64]:
    codes, ranks = np.array(codes_and_ranks, dtype=np.int64).reshape(-1, 2).T
    return sessions.keys(SessionPlaces(codes, ranks))


@pytest.mark.parametrize(
    ("cosines", "where", "expected"),
    [
        pytest.param([], (), [], id="nothing"),
        pytest.param([1.0], ((0, 5),), [1.0], id="one alone"),
        pytest.param([1.0, 0.0], ((0, 1), (0, 2)), [1.0, 0.2], id="side by side"),
        pytest.param([0.0, 1.0], ((0, 7), (0, 6)), [0.2, 1.0], id="in any order"),
        pytest.param([1.0, 0.0], ((0, 1), (0, 3)), [1.0, 0.1], id="one between"),
        pytest.param([1.0, 0.0], ((0, 1), (0, 4)), [1.0, 0.0], id="two between"),
        pytest.param([1.0, 0.0], ((0, 1), (1, 2)), [1.0, 0.0], id="another session"),
        pytest.param([1.0, 0.0], ((NO_SESSION, 0), (NO_SESSION, 1)), [1.0, 0.0], id="no session"),
        pytest.param([1.0, 0.5, 0.0], ((0, 1), (0, 2), (0, 3)), [1.1, 0.7, 0.2], id="three"),
    ],
)
def test_neighbours_share_their_likeness(
    cosines: list[float], where: tuple[tuple[int, int], ...], expected: list[float]
) -> None:
    neighbours = sessions.Neighbours(keys(*where))
    np.testing.assert_allclose(neighbours.with_likeness(np.array(cosines)), expected)


def test_a_word_of_the_neighbours_counts_once_and_where_it_counts_most() -> None:
    neighbours = sessions.Neighbours(keys((0, 1), (NO_SESSION, 0), (0, 3), (0, 2), (1, 4)))
    # The first word is in the first and the third memory, the second in the one without a session alone.
    more = neighbours.more_words((2, 1), np.array([0, 2, 1]), np.array([2.0, 4.0, 7.0]))
    # 0.6 of the nearest neighbour's 4 for the one between; the others have more themselves.
    np.testing.assert_allclose(more, [0.0, 0.0, 0.0, 2.4, 0.0])
    nothing = np.array([], dtype=np.intp)
    np.testing.assert_allclose(neighbours.more_words((), nothing, np.array([])), np.zeros(5))


def test_what_stands_beside_a_hit_in_its_session_is_found_before_what_does_not(replica: Replica) -> None:
    replica.put(
        [
            make_memory("hit", "the blue boat", session_id="monday"),
            make_memory("between", "hm", session_id="monday"),
            make_memory("beside", "it is in the harbour", session_id="monday"),
            make_memory("elsewhere", "it is in the garage", session_id="tuesday"),
            make_memory("no session", "it is in the attic"),
        ],
        np.stack([NEARER, FAR, FAR, FAR, FAR]),
    )
    view = replica.wait_for_revision(replica.delete(["between"]))
    query = SearchQuery(NAMESPACE, "blue boat", NEARER, "hybrid", None, 10, now_us())
    scores = dict(
        zip(
            replica.search(view, "blue boat", NEARER),
            [hit.score for hit in search(view, query)],
            strict=True,
        )
    )
    assert scores == pytest.approx({"hit": 1.0, "beside": 0.4, "elsewhere": 0.0, "no session": 0.0})


def test_filters_apply_to_every_mode(replica: Replica) -> None:
    view = with_three(replica)
    for mode in ("semantic", "text", "hybrid"):
        assert set(replica.search(view, "blue boat", NEARER, mode=mode, node=by_user("ben"))) <= {
            "both",
            "no vector",
        }
        assert replica.search(view, "blue boat", NEARER, mode=mode, node=by_user("nobody")) == []
    only = compile_filter(condition("id", filter_pb2.OPERATOR_EQ, "meaning"))
    assert replica.search(view, "boat", NEARER, node=only) == ["meaning"]


def test_a_namespace_is_on_its_own(replica: Replica) -> None:
    with_three(replica)
    revision = replica.put(
        [make_memory("x", "a blue boat", namespace="other")], np.array([[1, 0]], np.float32)
    )
    view = replica.wait_for_revision(revision)
    assert replica.search(view, "boat", namespace="other") == ["x"]
    assert replica.search(view, "boat", np.array([0, 1], np.float32), namespace="other") == ["x"]
    assert "x" not in replica.search(view, "boat", NEARER)
    assert replica.search(view, "boat", namespace="unknown") == []


def test_an_old_version_is_never_returned(replica: Replica) -> None:
    view = with_three(replica)
    revision = replica.put([make_memory("words", "a green bicycle", version=2)], NEARER[np.newaxis])
    updated = replica.wait_for_revision(revision)
    assert "words" not in replica.search(updated, "blue harbour", mode="text")
    assert replica.search(updated, "bicycle", mode="text") == ["words"]
    assert replica.search(updated, "", NEARER, mode="semantic")[:2] == ["words", "meaning"]
    assert replica.search(updated, "", NEARER, node=by_user("ana")) == ["meaning"]  # the update has no user
    # An older view still answers for its own revision.
    assert replica.search(view, "bicycle", mode="text") == []
    assert set(replica.search(view, "", NEARER, node=by_user("ana"))) == {"words", "meaning"}

    deleted = replica.wait_for_revision(replica.delete(["words"]))
    for mode in ("semantic", "text", "hybrid"):
        assert "words" not in replica.search(deleted, "green bicycle blue boat", NEARER, mode=mode)
    revision = replica.put([make_memory("words", "a red kite", version=4)], FAR[np.newaxis])
    assert replica.search(replica.wait_for_revision(revision), "kite", mode="text") == ["words"]


def test_every_revision_is_published_whole(replica: Replica) -> None:
    """Each commit replaces all memories; each view has one generation of them, in every mode."""
    count, generations = 20, 30
    rows = unit_vectors(count, 8)
    wrong: list[str] = []
    is_done = threading.Event()

    def ask() -> None:
        while not is_done.is_set():
            view = replica.indexer.view
            if NAMESPACE not in view.namespaces:
                continue
            for mode in ("semantic", "text", "hybrid"):
                hits = search(
                    view, SearchQuery(NAMESPACE, "generation", rows[0], mode, None, 2 * count, now_us())
                )
                with replica.store.read() as transaction:
                    records = [transaction.record(hit.ordinal) for hit in hits]
                found = {record.revision for record in records if record is not None}
                if len(hits) != count or found != {view.revision}:
                    wrong.append(f"{mode} at {view.revision}: {len(hits)} hits of {found}")

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for generation in range(1, generations + 1):
            revision = replica.put(
                [make_memory(str(n), f"generation {generation}", version=generation) for n in range(count)],
                rows,
            )
            if generation % 3:  # sometimes several commits in one view
                replica.wait_for_revision(revision)
        replica.wait_for_revision(revision)
    finally:
        is_done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    # The same one again when tantivy has committed meanwhile.
    revisions = [view.revision for view in replica.views]
    assert revisions == sorted(revisions)


def test_in_with_many_values_takes_no_memory_for_each() -> None:
    rows, wanted = 20_000, 1_000
    column = np.random.default_rng(1).permutation(np.arange(rows, dtype=np.int64)) * 10**12
    tracemalloc.start()
    try:
        mask = compare(column, filter_pb2.OPERATOR_IN, [value * 10**12 for value in range(-5, wanted)])
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(mask, column < wanted * 10**12)
    assert peak_bytes < rows * wanted // 4


def test_many_updates_do_not_pile_up(replica: Replica) -> None:
    """Facets and tail are copied without their dead rows once these are the most."""
    rows = unit_vectors(100, 8)
    for version in range(1, 61):
        revision = replica.put(
            [
                make_memory(str(n), f"version {version}", version=version, user_id=str(n % 5))
                for n in range(100)
            ],
            rows,
        )
    view = replica.wait_for_revision(revision)
    namespace = view.namespaces[NAMESPACE]
    assert namespace.facet_rows < 2200
    assert namespace.vectors is not None
    assert len(namespace.vectors.tail.rows) < 2200
    assert len(replica.search(view, "version", rows[0], top_k=1000)) == 100
    assert len(replica.search(view, "", rows[0], node=by_user("3"), top_k=1000)) == 20


def test_what_was_written_before_the_start_and_after_a_restart_is_found(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.put([make_memory("a", "first boat")], NEAR[np.newaxis])
    with replica:
        assert replica.search(replica.views[0], "boat", NEARER) == ["a"]
        replica.wait_for_revision(replica.put([make_memory("b", "second boat")], NEARER[np.newaxis]))
    with Replica(tmp_path) as replica:
        assert replica.views[0].revision == 2
        assert replica.search(replica.views[0], "boat", NEARER) == ["b", "a"]


def test_a_damaged_store_ends_the_indexer(replica: Replica) -> None:
    def write(transaction: WriteTransaction) -> None:
        transaction.append([Change(make_memory("a"))], 1)
        transaction._transaction.put(b"docs", (1).to_bytes(8, "big"), b"something else")

    replica.store.commit(write)
    replica.indexer.notify()
    assert "record at ordinal 1 fails its checksum" in str(replica.wait_for_failure())
