"""Hybrid searches against a plain loop over all memories, and what is a candidate when not all are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memories import NAMESPACE, Replica, by_user, make_memory, unit_vectors

from agentmem.core.filters import Filter
from agentmem.core.records import FloatVector
from agentmem.replica.hybrid import MAX_RANKED_WHOLE, MIN_CANDIDATES
from agentmem.replica.names import MAX_NAMES, NAMED_GAIN, names_in
from agentmem.replica.ordinals import OrdinalSet, ordinal_array
from agentmem.replica.ranking import Weights
from agentmem.replica.search import Order, SearchQuery, search
from agentmem.replica.sessions import LIKENESS_SHARES, WORD_SHARES
from agentmem.replica.trace import Trace
from agentmem.replica.view import View
from agentmem.replica.words import query_tokens
from agentmem.v1 import memory_pb2

NOW_US = 1_700_000_000_000_000
DAY_US = 24 * 3600 * 1_000_000
WORDS = ("boat", "harbour", "blue", "tea", "garden", "train", "late", "winter")
USERS = ("ana", "ben")
# Words that are in no memory, some of which are a user's name.
NAMES = ("Ana", "ben's", "Clara")
DIMENSION = 8


@dataclass(frozen=True)
class Known:
    """What the plain loop knows of a live memory; the cosine's vector is None for one without."""

    ordinal: int
    memory: memory_pb2.Memory
    vector: FloatVector | None


class Small:
    """A namespace with sessions that take turns, updates, deletions, and memories without a vector."""

    def __init__(self, replica: Replica) -> None:
        random = np.random.default_rng(7)
        self.rows = unit_vectors(160, DIMENSION, seed=3)
        for number in range(120):
            self._put(replica, random, f"m{number}", number, version=1)
        for number in random.choice(120, 25, replace=False).tolist():
            self._put(replica, random, f"m{number}", 120 + number % 40, version=2)
        revision = replica.delete([f"m{number}" for number in random.choice(120, 20, replace=False)])
        self.replica = replica
        self.view = replica.wait_for_revision(revision)
        self.known = self._read()

    def _put(self, replica: Replica, random: np.random.Generator, name: str, row: int, version: int) -> None:
        words = random.choice(WORDS, random.integers(0, 6)).tolist()
        memory = make_memory(
            name,
            " ".join(["note", *words]),
            version=version,
            user_id=USERS[int(random.integers(2))],
            session_id=("", "monday", "tuesday", "wednesday")[int(random.integers(4))],
            importance=float(random.choice([0.0, 0.3, 0.7, 1.0])),
            # Some in the future, some at the same time.
            event_time_us=NOW_US - int(random.integers(-5, 40)) * DAY_US,
        )
        has_vector = random.random() < 0.8
        replica.put([memory], self.rows[row][np.newaxis] if has_vector else None)

    def _read(self) -> list[Known]:
        with self.replica.store.read() as transaction:
            found = []
            space = transaction.namespace(NAMESPACE)
            assert space is not None
            for ordinal in sorted(transaction.live_ordinals()):
                record = transaction.record(ordinal)
                assert record is not None
                found.append(Known(ordinal, record.memory, transaction.vector(space, ordinal)))
        return found

    def bm25(self, text: str) -> dict[int, float]:
        """Of all memories that share a word, whatever the filter."""
        query = SearchQuery(NAMESPACE, text, None, "text", None, 1000, NOW_US)
        return {hit.ordinal: hit.score for hit in search(self.view, query)}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with Replica(tmp_path_factory.mktemp("small")) as replica:
        yield Small(replica)


def neighbours(small: Small, ordinal: int, distance: int) -> list[int]:
    """The ordinals so many places before and behind a memory in its session."""
    session = next(known.memory.session_id for known in small.known if known.ordinal == ordinal)
    if not session:
        return []
    members = [known.ordinal for known in small.known if known.memory.session_id == session]
    place = members.index(ordinal)
    return [members[at] for at in (place - distance, place + distance) if 0 <= at < len(members)]


def in_session(small: Small, own: Mapping[int, float], shares: Sequence[float], *, adds: bool) -> list[float]:
    """For each memory of ``own`` what its neighbours among them add: all of it, or the most of any."""
    result = []
    for ordinal, value in own.items():
        shared = [
            share * own.get(neighbour, 0.0)
            for distance, share in enumerate(shares, start=1)
            for neighbour in neighbours(small, ordinal, distance)
        ]
        result.append(sum(shared) if adds else max([0.0, *(each - value for each in shared)]))
    return result


def names(query: SearchQuery, user_id: str) -> bool:
    return user_id in query.text.lower().replace("'", " ").split()


def plain_scores(small: Small, query: SearchQuery, matching: Sequence[Known]) -> dict[int, float]:
    """The hybrid score of each matching memory, by the definition."""
    bm25 = small.bm25(query.text) if query.text else {}
    text = {known.ordinal: bm25.get(known.ordinal, 0.0) for known in matching}
    vector = {
        known.ordinal: 0.0
        if query.vector is None or known.vector is None
        else max(0.0, float(known.vector @ query.vector))
        for known in matching
    }
    text_more = dict.fromkeys(text, 0.0)
    vector_more = dict.fromkeys(vector, 0.0)
    if query.conversational:
        for word in set(query.text.split()):
            said = small.bm25(word)
            own = {known.ordinal: said.get(known.ordinal, 0.0) for known in matching}
            for ordinal, more in zip(own, in_session(small, own, WORD_SHARES, adds=False), strict=True):
                text_more[ordinal] += more
        vector_more = dict(zip(vector, in_session(small, vector, LIKENESS_SHARES, adds=True), strict=True))
    weights = replace(
        query.weights,
        vector=query.weights.vector if query.vector is not None else 0.0,
        text=query.weights.text if query.text else 0.0,
    )
    total = weights.vector + weights.text + weights.recency + weights.importance
    named = {known.ordinal for known in matching if names(query, known.memory.user_id)}
    if query.conversational:
        for signal, its_more in ((text, text_more), (vector, vector_more)):
            for each in named:
                its_more[each] += (NAMED_GAIN - 1) * (signal[each] + its_more[each])
    highest_text = max(text[each] + text_more[each] for each in text) or 1.0
    highest_vector = max(vector[each] + vector_more[each] for each in vector) or 1.0
    scores = {}
    for known in matching:
        age_us = max(0, NOW_US - known.memory.event_time.ToMicroseconds())
        score = (
            weights.vector * (vector[known.ordinal] + vector_more[known.ordinal]) / highest_vector
            + weights.text * (text[known.ordinal] + text_more[known.ordinal]) / highest_text
            + weights.recency * 0.5 ** (age_us / query.half_life_us)
            + weights.importance * known.memory.importance
        )
        scores[known.ordinal] = score / total if total else 0.0
    return scores


WEIGHT = st.sampled_from([0.0, 0.2, 1.0, 3.0])
OFTEN_NO_WEIGHT = st.sampled_from([0.0, 0.0, 1.0, 3.0])


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    words=st.lists(st.sampled_from([*WORDS, *NAMES]), max_size=4, unique=True),
    row=st.one_of(st.none(), st.integers(0, 159)),
    weights=st.builds(Weights, WEIGHT, WEIGHT, OFTEN_NO_WEIGHT, OFTEN_NO_WEIGHT),
    half_life_days=st.sampled_from([1, 10, 400]),
    user=st.sampled_from([None, None, None, *USERS]),
    top_k=st.sampled_from([1, 10, 200, 200]),
    min_score=st.sampled_from([None, None, 0.3]),
    order=st.sampled_from(["score", "newest", "oldest"]),
    conversational=st.sampled_from([True, True, False]),
)
def test_hits_are_those_of_a_plain_loop(
    small: Small,
    words: list[str],
    row: int | None,
    weights: Weights,
    half_life_days: int,
    user: str | None,
    top_k: int,
    min_score: float | None,
    order: Order,
    conversational: bool,
) -> None:
    node: Filter | None = None if user is None else by_user(user)
    query = SearchQuery(
        NAMESPACE,
        " ".join(words),
        None if row is None else small.rows[row],
        "hybrid",
        node,
        top_k,
        NOW_US,
        min_score=min_score,
        order=order,
        weights=weights,
        half_life_us=half_life_days * DAY_US,
        conversational=conversational,
    )
    matching = [known for known in small.known if user is None or known.memory.user_id == user]
    scores = plain_scores(small, query, matching)
    hits = search(small.view, query)

    # Their scores, and no better one was left out.
    assert [hit.score for hit in hits] == pytest.approx([scores[hit.ordinal] for hit in hits], abs=1e-5)
    best = sorted(scores.values(), reverse=True)[:top_k]
    wanted = [score for score in best if min_score is None or score >= min_score]
    if min_score is None or all(abs(score - min_score) > 1e-5 for score in best):
        assert sorted((hit.score for hit in hits), reverse=True) == pytest.approx(wanted, abs=1e-5)
    assert len({hit.ordinal for hit in hits}) == len(hits)
    assert all(0 <= hit.score <= 1 + 1e-9 for hit in hits)

    times = {known.ordinal: known.memory.event_time.ToMicroseconds() for known in matching}
    for earlier, later in itertools.pairwise(hits):
        newer = (times[earlier.ordinal], earlier.ordinal) > (times[later.ordinal], later.ordinal)
        if order == "score":
            assert earlier.score > later.score or (earlier.score == later.score and newer)
        else:
            assert newer == (order == "newest")


class Large:
    """A namespace with more memories than are ranked whole, most of which share words with any question."""

    def __init__(self, replica: Replica, count: int) -> None:
        random = np.random.default_rng(5)
        self.rows = unit_vectors(count, DIMENSION, seed=9)
        memories = [
            make_memory(
                f"m{number}",
                " ".join(random.choice(WORDS, 4).tolist()),
                session_id=f"s{number // 20}",
                user_id=("ana", "ben")[number % 2],
                importance=round(float(random.random()) * 0.9, 6),
                event_time_us=NOW_US - (10 + int(random.integers(0, 1000))) * DAY_US,
            )
            for number in range(count)
        ]
        revision = replica.put(memories, self.rows)
        # They share no word with anything, and the question's vector is far from theirs.
        others = [
            make_memory("newest", "hm", event_time_us=NOW_US),
            make_memory("important", "hm", importance=1.0),
        ]
        revision = replica.put(others, np.stack([-self.rows[0], -self.rows[0]]))
        self.replica = replica
        self.view: View = replica.wait_for_revision(revision)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    """All of it is in the text index, whose scores are compared: an orderly end commits it."""
    folder = tmp_path_factory.mktemp("large")
    with Replica(folder) as replica:
        large = Large(replica, MAX_RANKED_WHOLE + 500)
    with Replica(folder) as replica:
        large.replica, large.view = replica, replica.wait_for_revision(large.view.revision)
        yield large


def test_the_newest_and_the_most_important_are_candidates_when_these_weigh(large: Large) -> None:
    query = SearchQuery(NAMESPACE, "blue boat", large.rows[0], "hybrid", None, 1, NOW_US)
    for name, weights in (("newest", Weights(recency=9)), ("important", Weights(importance=90))):
        (hit,) = search(large.view, replace(query, weights=weights, half_life_us=DAY_US))
        assert large.replica.ids([hit.ordinal]) == [name]
    (hit,) = search(large.view, query)
    assert large.replica.ids([hit.ordinal])[0] not in ("newest", "important")


@pytest.mark.parametrize("conversational", [True, False])
def test_a_hit_that_words_did_not_find_has_its_own_bm25(large: Large, conversational: bool) -> None:
    """The nearest share words, too, though not the rarest of the question."""
    texts = SearchQuery(NAMESPACE, "tea garden train", None, "text", None, 5000, NOW_US)
    bm25 = {hit.ordinal: hit.score for hit in search(large.view, texts)}
    below = 0
    for row in range(20):
        query = replace(texts, mode="hybrid", vector=large.rows[row], top_k=30, explain=True)
        query = replace(query, weights=Weights(vector=3), conversational=conversational)
        lowest_found = search(large.view, replace(texts, top_k=200))[-1].score
        for hit in search(large.view, query):
            assert hit.signals.get("bm25", 0.0) == pytest.approx(bm25.get(hit.ordinal, 0.0))
            below += 0 < bm25.get(hit.ordinal, 0.0) < lowest_found
    assert below > 100


def test_all_that_match_are_ranked_when_they_are_not_many(large: Large) -> None:
    """What is neither among the best by words nor among the nearest may be the best of all."""
    question = SearchQuery(NAMESPACE, "tea garden", large.rows[3], "text", by_user("ana"), 5000, NOW_US)
    text = {hit.ordinal: hit.score for hit in search(large.view, replace(question, vector=None))}
    semantic = search(large.view, replace(question, mode="semantic"))
    assert MIN_CANDIDATES < len(semantic) <= MAX_RANKED_WHOLE
    vector = {hit.ordinal: max(0.0, hit.score) for hit in semantic}
    most = (max(vector.values()), max(text.values()))
    plain = {each: (vector[each] / most[0] + text.get(each, 0.0) / most[1]) / 2 for each in vector}
    hybrid = replace(question, mode="hybrid", conversational=False)
    found = {hit.ordinal: hit.score for hit in search(large.view, hybrid)}
    assert found == pytest.approx(plain, abs=1e-5)
    trace = Trace()
    search(large.view, replace(hybrid, top_k=10), trace)
    assert {step.name: step.memories for step in trace.steps}["candidates"] == len(plain)


def test_what_words_count_for_is_that_of_the_text_search(large: Large) -> None:
    """In all or in few, in sum, and within the bound on what is read."""
    namespace = large.view.namespaces[NAMESPACE]
    text = large.view.text
    assert text is not None
    question = (namespace.state.number, len(namespace.live))
    weighed = text.words.weighed(*question, query_tokens("tea garden boat"))
    few = OrdinalSet(sorted(namespace.live)[100:150])
    ordinals = ordinal_array(namespace.live)
    words, places, scores = text.words.scored(weighed, namespace.live, ordinals)
    some, few_places, few_scores = text.words.scored(weighed, few, ordinal_array(few))
    assert len(words.counts) == len(some.counts) == 3
    assert all(count > 0 for count in some.counts)
    np.testing.assert_array_equal(ordinals[places], words.ordinals)
    np.testing.assert_array_equal(ordinal_array(few)[few_places], some.ordinals)
    np.testing.assert_array_equal(few_scores, scores[100:150])

    # As the index has them, which finds the best of all.
    limit = 64
    by_index = text.search(*question, "tea garden boat", 1, namespace.live)
    assert by_index.plan == f"the best {limit}"
    score_of = dict(zip(ordinals.tolist(), scores.tolist(), strict=True))
    assert by_index.scores[0] == pytest.approx(score_of[int(by_index.ordinals[0])])
    assert by_index.scores[0] == pytest.approx(max(scores))

    most = sum(words.counts[:2])
    assert text.words.hits(weighed, namespace.live, most).counts == words.counts[:2]
    assert text.words.hits(weighed, namespace.live, most - 1).counts == words.counts[:1]


def test_text_in_the_order_of_time_is_of_all_that_are_found(large: Large) -> None:
    query = SearchQuery(NAMESPACE, "boat", None, "text", None, 5000, NOW_US)
    with large.replica.store.read() as transaction:
        times = {}
        for hit in search(large.view, query):
            record = transaction.record(hit.ordinal)
            assert record is not None
            times[hit.ordinal] = record.memory.event_time.ToMicroseconds()
    for order, is_reversed in (("newest", True), ("oldest", False)):
        expected = sorted(times, key=lambda ordinal: (times[ordinal], ordinal), reverse=is_reversed)[:5]
        hits = search(large.view, replace(query, top_k=5, order=order))  # type: ignore[arg-type]
        assert [hit.ordinal for hit in hits] == expected


def test_names_in_a_question() -> None:
    assert names_in("") == []
    assert names_in("What will Ana Silva say?") == [
        *("Ana", "ana", "Silva", "silva", "say"),
        *(
            "What will",
            "what will",
            "will Ana",
            "will ana",
            "Ana Silva",
            "ana silva",
            "Silva say",
            "silva say",
        ),
    ]
    assert {"caroline", "Caroline"} <= set(names_in("Caroline's cat"))
    assert {"小雨", "雨昨", "小雨昨"} <= set(names_in("小雨昨天"))
    assert len(names_in(" ".join(f"word{number}" for number in range(2000)))) == MAX_NAMES
