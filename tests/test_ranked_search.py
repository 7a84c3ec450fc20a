"""Hybrid searches: weights, recency, importance, order and explanations, against a plain loop."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
from cluster import Cluster, Stubs

from agentmem.client import Client, InvalidArgument, NewMemory, SearchWeights, applied
from agentmem.v1 import reader_pb2

NOW = datetime.now(UTC)
# Id, content, days old, importance, embedding.
MEMORIES = [
    ("old", "green tea in the garden", 60, 0.9, [1.0, 0.0]),
    ("new", "green tea at the office", 0, 0.1, [0.8, 0.6]),
    ("other", "the train was late", 1, 1.0, [0.0, 1.0]),
    ("word", "tea", 30, 0.0, [-1.0, 0.0]),
]


@pytest.fixture
def connected(shared_cluster: Cluster, namespace: str) -> Client:
    client = Client(shared_cluster.writer.address, timeout_s=30)
    memories = [
        NewMemory(
            content,
            id=name,
            event_time=NOW - timedelta(days=days),
            importance=importance,
            embedding=embedding,
            embedding_model="drawn",
        )
        for name, content, days, importance, embedding in MEMORIES
    ]
    client.add_many(namespace, memories, acknowledgement=applied(len(shared_cluster.replicas)))
    return client


def ids(result: object) -> list[str]:
    return [hit.memory.id for hit in result.hits]  # type: ignore[attr-defined]


def test_each_weight_decides_alone(connected: Client, namespace: str) -> None:
    def order(**weights: float) -> list[str]:
        given = SearchWeights(**({"vector": 0.0, "text": 0.0} | weights))
        return ids(connected.search(namespace, "green tea", embedding=[1, 0], weights=given))

    assert order(vector=1)[:2] == ["old", "new"]
    # What is not like it fills up, the newest first.
    assert order(vector=1)[2:] == ["other", "word"]
    assert set(order(text=1)[:3]) == {"old", "new", "word"}
    assert order(text=1)[3] == "other"
    assert order(recency=1) == ["new", "other", "word", "old"]
    assert order(importance=1) == ["other", "old", "new", "word"]


def test_scores_are_the_weighted_mean_of_the_signals(connected: Client, namespace: str) -> None:
    weights = SearchWeights(vector=3, text=2, recency=4, importance=1)
    found = connected.search(
        namespace,
        "green tea",
        embedding=[1, 0],
        weights=weights,
        recency_half_life=timedelta(days=30),
        explain=True,
    )
    assert len(found.hits) == len(MEMORIES)
    by_id = {name: (days, importance, vector) for name, _, days, importance, vector in MEMORIES}
    most = max(hit.signals.bm25 or 0.0 for hit in found.hits if hit.signals)
    for hit in found.hits:
        days, importance, vector = by_id[hit.memory.id]
        signals = hit.signals
        assert signals is not None
        assert signals.cosine == pytest.approx(vector[0], abs=1e-6)
        assert signals.vector is not None
        assert signals.text is not None
        assert signals.recency is not None
        assert signals.vector == pytest.approx(max(vector[0], 0.0), abs=1e-6)
        assert signals.text == pytest.approx((signals.bm25 or 0.0) / most)
        assert signals.recency == pytest.approx(0.5 ** (days / 30), abs=1e-3)
        assert signals.importance == importance
        assert not signals.session
        expected = 3 * signals.vector + 2 * signals.text + 4 * signals.recency + importance
        assert hit.score == pytest.approx(expected / 10)
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    explanation = found.explanation
    assert explanation is not None
    assert (explanation.mode, explanation.live_memories, explanation.matching_memories) == ("hybrid", 4, 4)
    assert set(explanation.tokens) == {"green", "tea"}
    assert [step.name for step in explanation.steps] == [
        *("filter", "text", "vectors", "candidates", "rank", "read")
    ]
    assert all(step.plan for step in explanation.steps if step.name in ("filter", "text", "vectors"))


def test_without_a_question_the_newest_come_first(connected: Client, namespace: str) -> None:
    assert ids(connected.search(namespace)) == ["new", "other", "word", "old"]
    assert ids(connected.search(namespace, top_k=1, order="oldest")) == ["new"]
    important = SearchWeights(recency=0, importance=1)
    assert ids(connected.search(namespace, weights=important, top_k=2)) == ["other", "old"]
    assert ids(connected.search(namespace, filter="importance < 0.5")) == ["new", "word"]


def test_a_bound_on_the_score_and_an_order_by_time(connected: Client, namespace: str) -> None:
    near = connected.search(namespace, embedding=[1, 0], mode="semantic", min_score=0.5)
    assert ids(near) == ["old", "new"]
    assert ids(connected.search(namespace, embedding=[1, 0], mode="semantic", min_score=1.5)) == []
    by_time = connected.search(namespace, embedding=[1, 0], mode="semantic", top_k=2, order="newest")
    assert ids(by_time) == ["new", "old"]
    # Of all that have the word the newest, though others fit better.
    assert ids(connected.search(namespace, "tea", mode="text", top_k=1)) == ["word"]
    assert ids(connected.search(namespace, "tea", mode="text", top_k=1, order="newest")) == ["new"]
    assert ids(connected.search(namespace, "tea", mode="exact", top_k=2, order="oldest")) == ["old", "word"]


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "text", "fuzzy", "exact"])
def test_an_order_by_time_holds_in_every_mode(
    shared_cluster: Cluster, client: Client, namespace: str, mode: str
) -> None:
    """Ties go by the order of writing, and without an event time a memory is as old as its first version."""
    then = NOW - timedelta(days=3)
    given = [("a", then), ("b", None), ("c", NOW - timedelta(days=9)), ("d", then), ("e", NOW), ("f", then)]
    for name, time in given:
        tags = ["left out"] if name == "e" else []
        memory = {"id": name, "event_time": time, "tags": tags, "embedding_model": "drawn"}
        # What is newer is less like the question, by words and by meaning.
        worse = {"a": 1, "b": 5, "c": 0, "d": 2, "e": 6, "f": 3}[name]
        client.add_many(
            namespace,
            [NewMemory("tea" + " hm" * worse, embedding=[1.0, worse / 10], **memory)],  # type: ignore[arg-type]
            acknowledgement=applied(len(shared_cluster.replicas)),
        )
    by_time = {"newest": ["b", "f", "d", "a", "c"], "oldest": ["c", "a", "d", "f", "b"]}
    embedding = [1.0, 0.0] if mode in ("hybrid", "semantic") else None

    def found(top_k: int, order: str, min_score: float | None = None) -> list[tuple[str, float]]:
        result = client.search(
            namespace,
            "tea",
            embedding=embedding,
            mode=mode,
            top_k=top_k,
            order=order,
            min_score=min_score,
            filter='not tags contains "left out"',
        )
        return [(hit.memory.id, hit.score) for hit in result.hits]

    scores = dict(found(10, "score"))
    assert list(scores) == ["c", "a", "d", "f", "b"]
    for order, expected in by_time.items():
        assert [name for name, _ in found(10, order)] == expected
        # The average length of all texts counts for words, and forgets in its own time what others delete.
        assert dict(found(10, order)) == pytest.approx(scores, rel=0.01)
        # Hybrid and semantic put the best in order, the others find the first of all in order.
        best = set(list(scores)[:3]) if embedding else set(expected[:3])
        assert [name for name, _ in found(3, order)] == [name for name in expected if name in best]
        bound = (scores["d"] + scores["f"]) / 2
        above = [name for name in expected if scores[name] >= bound]
        assert set(above) == {"c", "a", "d"}
        assert [name for name, _ in found(10, order, bound)] == above
        if not embedding:
            assert [name for name, _ in found(2, order, bound)] == above[:2]


@pytest.mark.parametrize(
    ("mode", "signals", "steps"),
    [
        ("semantic", {"cosine"}, ["filter", "vectors", "read"]),
        ("text", {"bm25"}, ["filter", "text", "read"]),
        ("fuzzy", {"bm25"}, ["filter", "text", "read"]),
        ("exact", {"bm25"}, ["filter", "text", "read"]),
    ],
)
def test_the_other_modes_are_explained(
    connected: Client, namespace: str, mode: str, signals: set[str], steps: list[str]
) -> None:
    embedding = [1.0, 0.0] if mode == "semantic" else None
    options = {"mode": mode, "embedding": embedding, "explain": True, "filter": "importance > 0"}
    found = connected.search(namespace, "green tea", **options)  # type: ignore[arg-type]
    for hit in found.hits:
        assert hit.signals is not None
        given = {name: value for name, value in asdict(hit.signals).items() if value is not None}
        assert set(given) == signals
        assert given[next(iter(signals))] == pytest.approx(hit.score)
    explanation = found.explanation
    assert explanation is not None
    assert (explanation.mode, explanation.live_memories, explanation.matching_memories) == (mode, 4, 3)
    assert [step.name for step in explanation.steps] == steps
    assert all(step.plan for step in explanation.steps[:-1])
    # What each step says it found is what there was.
    assert [step.memories for step in explanation.steps] == [3, len(found.hits), len(found.hits)]
    assert bool(explanation.tokens) == (mode != "semantic")


def test_a_search_of_the_past_says_where_its_index_came_from(
    shared_cluster: Cluster, connected: Client, replica: Stubs, namespace: str
) -> None:
    first = connected.list(namespace).applied_revision
    later = connected.add_many(
        namespace,
        [NewMemory("white tea", id="later", embedding=[0, 1], embedding_model="drawn")],
        acknowledgement=applied(len(shared_cluster.replicas)),
    ).revision

    def past(revision: int, where: str = namespace) -> tuple[str, int, int]:
        # Always the same replica, for each has its own indexes.
        request = reader_pb2.SearchMemoriesRequest(
            namespace=where, text="tea", mode=reader_pb2.SEARCH_MODE_TEXT, explain=True
        )
        request.as_of.revision = revision
        found = replica.reader.SearchMemories(request)
        steps = found.explanation.steps
        assert [step.name for step in steps] in (["past", "filter", "text", "read"], ["past"])
        return steps[0].plan, steps[0].memories, len(found.hits)

    assert past(first) == ("an index of that moment, built for this search", 4, 3)
    assert past(first) == ("an index of that moment, kept", 4, 3)
    assert past(later) == ("the present: nothing has changed since", 5, 4)
    assert past(later, f"{namespace}/nowhere") == ("a namespace that was never written to", 0, 0)
    now = connected.search(f"{namespace}/nowhere", "tea", explain=True)
    assert now.explanation is not None
    assert (now.explanation.live_memories, now.explanation.steps) == (0, ())


def test_options_of_hybrid_are_refused_elsewhere(connected: Client, namespace: str) -> None:
    for options in (
        {"weights": SearchWeights(text=2)},
        {"recency_half_life": 5},
        {"conversational": False},
    ):
        with pytest.raises(InvalidArgument) as refused:
            connected.search(namespace, "tea", mode="text", **options)
        assert refused.value.metadata["field"] in options


def test_the_session_part_can_be_left_out(shared_cluster: Cluster, connected: Client, namespace: str) -> None:
    turns = ["where did you put the green tea?", "on the top shelf", "thanks"]
    connected.add_many(
        namespace,
        [
            NewMemory(
                turn, id=f"turn{number}", session_id="monday", embedding=[0, 1], embedding_model="drawn"
            )
            for number, turn in enumerate(turns)
        ],
        acknowledgement=applied(len(shared_cluster.replicas)),
    )

    def session_parts(conversational: bool) -> dict[str, float]:
        found = connected.search(
            namespace, "green tea", embedding=[1, 0], conversational=conversational, explain=True, top_k=20
        )
        return {
            hit.memory.id: hit.signals.session
            for hit in found.hits
            if hit.signals is not None and hit.signals.session
        }

    assert set(session_parts(True)) == {"turn1", "turn2"}
    assert session_parts(False) == {}
