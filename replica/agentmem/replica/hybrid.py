"""Hybrid search: words, meaning, recency and importance in one score."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agentmem.core.filters import Condition, Kind
from agentmem.core.records import FloatVector
from agentmem.replica import ranking, sessions
from agentmem.replica.names import NAMED_GAIN, names_in
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set
from agentmem.replica.postings import NO_WORD_HITS, WordHits
from agentmem.replica.ranking import Scores, Weights
from agentmem.replica.retrieval import NO_VECTOR_HITS, Hits, by_text, by_vector
from agentmem.replica.scopes import Scope, neighbours_of
from agentmem.replica.search_query import SearchQuery
from agentmem.replica.text_hits import NO_HITS, SCORED_PLAN, TextHits
from agentmem.replica.trace import Trace
from agentmem.replica.vectors import VectorHits
from agentmem.replica.view import NamespaceView, View
from agentmem.replica.words import query_tokens
from agentmem.v1 import filter_pb2

# Hybrid ranks all that match against each other when they are so few, and else the best of each signal: this
# many of each, and more for a large top_k.
MAX_RANKED_WHOLE = 4000
MIN_CANDIDATES = 200
CANDIDATES_PER_HIT = 2
# Of the best by words and by meaning, so many bring their neighbours in the session with them.
MAX_LEADERS = 16
# Of what so many have in common too much would be read: hits of single words, the rarest words first.
MAX_WORD_HITS = 6000


class _Compared(NamedTuple):
    """What is to be ranked.

    Attributes:
        candidates: uint64 [n], ascending.
        bm25: float64 [n].
        cosines: float32 [n]; NaN for those without an embedding.
        words: what each word counts for in the candidates, or in others besides.
        placed: the candidates and these others, uint64 [m], ascending.
        places: which of ``placed`` each hit of a word is.
    """

    candidates: OrdinalArray
    bm25: Scores
    cosines: FloatVector
    words: WordHits
    placed: OrdinalArray
    places: npt.NDArray[np.intp]


def hybrid(view: View, namespace: NamespaceView, query: SearchQuery, scope: Scope, trace: Trace) -> Hits:
    """The best ``top_k`` of the memories of a scope, of which there are some, as DESIGN.md has it."""
    has_vector = query.vector is not None and namespace.vectors is not None
    weights = Weights(
        query.weights.vector if has_vector else 0.0,
        query.weights.text if query.text else 0.0,
        query.weights.recency,
        query.weights.importance,
    ).in_proportion()
    conversational = query.conversational and bool(weights.text or weights.vector)
    in_sessions = conversational and namespace.facets.has_sessions()
    # Recency and importance are known for all, so without a question the best can be told exactly.
    is_whole = scope.count <= MAX_RANKED_WHOLE or not (weights.text or weights.vector)
    compared = (
        _all_compared(view, namespace, query, weights, scope, trace)
        if is_whole
        else _best_compared(view, namespace, query, weights, scope, trace, in_sessions=in_sessions)
    )
    candidates = compared.candidates
    with trace.step("rank") as step:
        plans = []
        cosines = ranking.positive(compared.cosines)
        cosines_with, bm25_with = cosines, compared.bm25
        if in_sessions:
            neighbours = (
                scope.neighbours(namespace) if is_whole else neighbours_of(namespace, compared.placed)
            )
            more_words, cosines_with = _of_sessions(neighbours, compared, cosines)
            bm25_with = compared.bm25 + more_words
            plans.append("with shares of the neighbours in the session")
        if conversational:
            named = _named(namespace, query, scope.allowed if is_whole else ordinal_set(candidates))
            if named:
                gains = np.ones(len(candidates))
                gains[np.searchsorted(candidates, ordinal_array(named))] = NAMED_GAIN
                cosines_with, bm25_with = cosines_with * gains, bm25_with * gains
                plans.append("more for whom the question names")
        step.plan = ", ".join(plans)
        times_us = scope.times_us(namespace) if is_whole else _values(namespace, "event_time", candidates)
        recency = importance = None
        if weights.recency:
            recency = ranking.recency(times_us, query.now_us, query.half_life_us)
        if weights.importance:
            importance = _values(namespace, "importance", candidates)
        scores = ranking.fused(weights, cosines_with, bm25_with, recency, importance)
        places = ranking.best(candidates, scores, query.top_k, times_us)
        step.memories = len(places)
    explained: dict[str, npt.NDArray[np.floating]] = {}
    if query.explain:
        signals = ranking.relevance(weights, cosines, compared.bm25, cosines_with, bm25_with)
        explained = _explained(weights, compared, signals, recency, importance, conversational=bool(plans))
    return Hits(
        candidates[places], scores[places], {name: values[places] for name, values in explained.items()}
    )


def _all_compared(
    view: View,
    namespace: NamespaceView,
    query: SearchQuery,
    weights: Weights,
    scope: Scope,
    trace: Trace,
) -> _Compared:
    """All that match."""
    candidates = scope.ordinals
    if weights.text and view.text is not None:
        with trace.step("text") as step:
            trace.tokens = query_tokens(query.text)
            weighed = view.text.words.weighed(namespace.state.number, len(namespace.live), trace.tokens)
            words, places, bm25 = view.text.words.scored(weighed, scope.allowed, candidates)
            step.plan, step.memories = SCORED_PLAN, int(np.count_nonzero(bm25))
    else:
        words, places, bm25 = NO_WORD_HITS, np.empty(0, dtype=np.intp), np.zeros(len(candidates))
    if weights.vector and namespace.vectors is not None and query.vector is not None:
        with trace.step("vectors") as step:
            cosines = namespace.vectors.cosines_among(query.vector, scope.among)
            step.plan = "exact scan of the matching rows"
            step.memories = len(cosines) - int(np.count_nonzero(np.isnan(cosines)))
    else:
        cosines = np.full(len(candidates), np.nan, dtype=np.float32)
    with trace.step("candidates") as step:
        step.plan, step.memories = "all that match", len(candidates)
    return _Compared(candidates, bm25, cosines, words, candidates, places)


def _best_compared(
    view: View,
    namespace: NamespaceView,
    query: SearchQuery,
    weights: Weights,
    scope: Scope,
    trace: Trace,
    *,
    in_sessions: bool,
) -> _Compared:
    """The best of each signal; the words in all that match, as far as they are not in too many."""
    depth = max(MIN_CANDIDATES, CANDIDATES_PER_HIT * query.top_k)
    texts, nearest = NO_HITS, NO_VECTOR_HITS
    if weights.text:
        texts = by_text(view, namespace, query, scope.allowed, depth, trace)
    if weights.vector:
        nearest = by_vector(namespace, query, scope.among, depth, trace)
    with trace.step("candidates") as step:
        candidates, step.plan = _candidates(
            namespace, query, weights, scope.allowed, texts, nearest, depth, in_sessions=in_sessions
        )
        words, bm25, placed = NO_WORD_HITS, np.zeros(len(candidates)), candidates
        if weights.text and view.text is not None:
            weighed = view.text.words.weighed(namespace.state.number, len(namespace.live), trace.tokens)
            _, _, bm25 = view.text.words.scored(weighed, ordinal_set(candidates), candidates)
            # Of a long question what was found may share more words than are looked for in the others.
            bm25[np.searchsorted(candidates, texts.ordinals)] = texts.scores
            if in_sessions:
                words = view.text.words.hits(weighed, scope.allowed, MAX_WORD_HITS)
                placed = ordinal_array(ordinal_set(words.ordinals) | ordinal_set(candidates))
        step.memories = len(candidates)
    cosines = _all_cosines(namespace, query, candidates, nearest)
    return _Compared(candidates, bm25, cosines, words, placed, np.searchsorted(placed, words.ordinals))


def _candidates(
    namespace: NamespaceView,
    query: SearchQuery,
    weights: Weights,
    allowed: OrdinalSet,
    texts: TextHits,
    nearest: VectorHits,
    depth: int,
    *,
    in_sessions: bool,
) -> tuple[OrdinalArray, str]:
    """Which of many are to be ranked, uint64 [n], ascending, and where they come from, in words."""
    found = ordinal_set(texts.ordinals) | ordinal_set(nearest.ordinals)
    sources = ["the best by text" if weights.text else "", "the nearest" if weights.vector else ""]
    if in_sessions:
        leaders = np.concatenate((texts.ordinals[:MAX_LEADERS], nearest.ordinals[:MAX_LEADERS]))
        found |= namespace.facets.beside(
            np.unique(leaders), sessions.MAX_DISTANCE, allowed, namespace.live, namespace.facet_rows
        )
        sources.append("their neighbours in the session")
    if len(found) < len(allowed):
        if weights.recency:
            found |= _highest(namespace, "event_time", allowed, depth)
            sources.append("the newest")
        if weights.importance:
            found |= _highest(namespace, "importance", allowed, depth)
            sources.append("the most important")
        if len(found) < query.top_k:
            found |= _highest(namespace, "event_time", allowed, query.top_k)
            sources.append("the newest to fill up")
    return ordinal_array(found), ", ".join(filter(None, sources))


def _highest(namespace: NamespaceView, column: str, allowed: OrdinalSet, count: int) -> OrdinalSet:
    """The allowed memories with the highest numbers or times."""
    ordinals = ordinal_array(allowed)
    values = _values(namespace, column, ordinals)
    return ordinal_set(ordinals[ranking.best(ordinals, values, count)])


def _values(namespace: NamespaceView, column: str, ordinals: OrdinalArray) -> npt.NDArray[Any]:
    """A number or time of each of some memories, uint64 [n]."""
    rows = namespace.facets.rows_of(ordinals, namespace.facet_rows)
    return namespace.facets.values(column, rows)


def _named(namespace: NamespaceView, query: SearchQuery, among: OrdinalSet) -> OrdinalSet:
    """Those whose user_id is in the question."""
    names = names_in(query.text)
    if not namespace.facets.has_any("user_id", names):
        return OrdinalSet()
    theirs = Condition("user_id", Kind.TEXT, filter_pb2.OPERATOR_IN, tuple(names))
    return namespace.facets.matching(theirs, among, namespace.facet_rows, namespace.memories)


def _all_cosines(
    namespace: NamespaceView, query: SearchQuery, candidates: OrdinalArray, nearest: VectorHits
) -> FloatVector:
    """The cosine of each candidate, float32 [n]; NaN for one without an embedding."""
    cosines = np.full(len(candidates), np.nan, dtype=np.float32)
    if not len(nearest.ordinals):
        return cosines
    cosines[np.searchsorted(candidates, nearest.ordinals)] = nearest.cosines
    unknown = np.isnan(cosines)
    if unknown.any() and namespace.vectors is not None and query.vector is not None:
        cosines[unknown] = namespace.vectors.cosines(query.vector, candidates[unknown])
    return cosines


def _of_sessions(
    neighbours: sessions.Neighbours, compared: _Compared, cosines: Scores
) -> tuple[Scores, Scores]:
    """The BM25 that the candidates have from their sessions, and their cosines with what these add.

    Args:
        neighbours: of all that are placed.
        cosines: not negative, float64 [n].
    """
    placed, words = compared.placed, compared.words
    more_words = neighbours.more_words(words.counts, compared.places, words.scores)
    if placed is compared.candidates:
        return more_words, neighbours.with_likeness(cosines)
    own = np.searchsorted(placed, compared.candidates)
    likeness = np.zeros(len(placed))
    likeness[own] = cosines
    return more_words[own], neighbours.with_likeness(likeness)[own]


def _explained(
    weights: Weights,
    compared: _Compared,
    signals: tuple[Scores, Scores, Scores],
    recency: Scores | None,
    importance: Scores | None,
    *,
    conversational: bool,
) -> dict[str, npt.NDArray[np.floating]]:
    """The signals that the scores were made of, by the names that they have in the API."""
    vector, text, session = signals
    explained: dict[str, npt.NDArray[np.floating]] = {}
    if weights.vector:
        explained["cosine"] = compared.cosines
        explained["vector"] = np.where(np.isnan(compared.cosines), np.nan, vector)
    if weights.text:
        explained["bm25"] = np.where(compared.bm25 > 0, compared.bm25, np.nan)
        explained["text"] = text
    if recency is not None:
        explained["recency"] = recency
    if importance is not None:
        explained["importance"] = importance
    if conversational:
        explained["session"] = session
    return explained
