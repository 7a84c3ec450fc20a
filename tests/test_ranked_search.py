"""Hybrid searches: weights, recency, importance, order and explanations, against a plain loop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cluster import Cluster

from agentmem.client import Client, InvalidArgument, NewMemory, SearchWeights, applied

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
