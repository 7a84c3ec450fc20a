"""Search over one view: by words, by meaning, by both, or by none of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from agentmem.core.filters import Condition, Filter, Kind
from agentmem.core.records import FloatVector
from agentmem.replica import ranking, sessions
from agentmem.replica.fuzziness import ANY_FUZZINESS, Fuzziness
from agentmem.replica.names import NAMED_GAIN, names_in
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set
from agentmem.replica.postings import NO_WORD_HITS, WordHits
from agentmem.replica.ranking import Scores, Weights
from agentmem.replica.text import phrase_tokens, query_tokens
from agentmem.replica.text_hits import NO_HITS, SCORED_PLAN, TextHits
from agentmem.replica.trace import Trace
from agentmem.replica.vectors import VectorHits
from agentmem.replica.view import NamespaceView, View
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
DEFAULT_HALF_LIFE_US = 30 * 24 * 3600 * 1_000_000

Mode = Literal["hybrid", "semantic", "text", "fuzzy", "exact"]
# Modes that look at words alone, and need some.
WORD_MODES: frozenset[Mode] = frozenset({"text", "fuzzy", "exact"})
Order = Literal["score", "newest", "oldest"]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A checked search request.

    Attributes:
        text: empty for a search by vector alone, and for a hybrid one by recency and importance alone.
        vector: float32 [the namespace's dimension], unit length; None when there is none.
        filter: None for all memories.
        top_k: at least 1.
        now_us: what has expired by then is not found; recency counts from then.
        excluded: ordinals that are not to be found.
        fuzziness: of fuzzy alone.
        min_score: what has a lower score is left out.
        order: of the hits. The modes of words find the newest or oldest of all that they can find, the others
            put the best in that order.
        weights, half_life_us, conversational: for hybrid alone.
        explain: whether hits have their signals.
    """

    namespace: str
    text: str
    vector: FloatVector | None
    mode: Mode
    filter: Filter | None
    top_k: int
    now_us: int
    excluded: OrdinalSet = field(default_factory=OrdinalSet)
    fuzziness: Fuzziness = ANY_FUZZINESS
    min_score: float | None = None
    order: Order = "score"
    weights: Weights = field(default_factory=Weights)
    half_life_us: int = DEFAULT_HALF_LIFE_US
    conversational: bool = True
    explain: bool = False


@dataclass(frozen=True, slots=True)
class ScoredOrdinal:
    """A hit. The score is a cosine (semantic), BM25 (text), or for hybrid the weighted mean of the signals.

    Attributes:
        signals: what the score is made of by name, as in ``SearchSignals``; empty unless it was asked for.
    """

    ordinal: int
    score: float
    signals: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Hits:
    """Found, best first: uint64 [n], float [n], and each signal, float [n]; NaN where there is none."""

    ordinals: OrdinalArray
    scores: npt.NDArray[np.floating]
    signals: dict[str, npt.NDArray[np.floating]]


_NO_VECTOR_HITS = VectorHits(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.float32))


def search(view: View, query: SearchQuery, trace: Trace | None = None) -> list[ScoredOrdinal]:
    """The best live memories that match the filter, in the order that was asked for.

    Hybrid returns ``top_k`` while that many match; semantic while that many of them have vectors; text and
    fuzzy return those that share a word, exact those that have the phrase. A namespace that the view does not
    know has no memories.

    Args:
        trace: where to write down how it was done.
    """
    trace = Trace() if trace is None else trace
    namespace = view.namespaces.get(query.namespace)
    if namespace is None:
        return []
    trace.live = len(namespace.live)
    with trace.step("filter") as step:
        allowed = namespace.matching(query.filter, query.now_us)
        if query.excluded:
            allowed = allowed - query.excluded
        step.plan = "every memory" if query.filter is None else "the filter's memories"
        step.memories = trace.matching = len(allowed)
    trace.mode = _served_mode(namespace, query)
    if not allowed:
        return []
    if query.mode in WORD_MODES:
        # In the order of time it is the newest of all that are found, not of the best.
        depth = query.top_k if query.order == "score" else len(allowed)
        texts = _by_text(view, namespace, query, allowed, depth, trace)
        hits = _Hits(texts.ordinals, texts.scores, {"bm25": texts.scores})
    elif query.mode == "semantic":
        nearest = _by_vector(namespace, query, allowed, query.top_k, trace)
        hits = _Hits(nearest.ordinals, nearest.cosines, {"cosine": nearest.cosines})
    else:
        hits = _hybrid(view, namespace, query, allowed, trace)
    return _chosen(namespace, query, hits)


def _served_mode(namespace: NamespaceView, query: SearchQuery) -> Mode:
    """Hybrid is text where there is nothing to compare a vector with, and semantic without words."""
    if query.mode != "hybrid":
        return query.mode
    has_vector = query.vector is not None and namespace.vectors is not None
    if has_vector == bool(query.text):
        return "hybrid"
    return "semantic" if has_vector else "text"


def _chosen(namespace: NamespaceView, query: SearchQuery, hits: _Hits) -> list[ScoredOrdinal]:
    """What of the hits is returned, in its order."""
    places = np.arange(len(hits.ordinals))
    if query.min_score is not None:
        places = places[hits.scores >= query.min_score]
    if query.order != "score":
        ordinals = hits.ordinals[places]
        rows = namespace.facets.rows_of(ordinals, namespace.facet_rows)
        times = namespace.facets.values("event_time", rows)
        in_order = np.lexsort((ordinals, times))
        places = places[in_order if query.order == "oldest" else in_order[::-1]]
    places = places[: query.top_k]
    signals: list[dict[str, float]] = [{} for _ in places]
    if query.explain:
        for name, values in hits.signals.items():
            for explained, value in zip(signals, values[places].tolist(), strict=True):
                if not np.isnan(value):
                    explained[name] = value
    return [
        ScoredOrdinal(ordinal, score, explained)
        for ordinal, score, explained in zip(
            hits.ordinals[places].tolist(), hits.scores[places].tolist(), signals, strict=True
        )
    ]


def _by_text(
    view: View, namespace: NamespaceView, query: SearchQuery, allowed: OrdinalSet, top_k: int, trace: Trace
) -> TextHits:
    if view.text is None or not query.text:
        return NO_HITS
    number, documents = namespace.state.number, len(namespace.live)
    with trace.step("text") as step:
        if query.mode == "exact":
            trace.tokens = [token for _, token in phrase_tokens(query.text)]
            hits = view.text.search_phrase(number, documents, query.text, top_k, allowed)
        elif query.mode == "fuzzy":
            if query.explain:
                trace.tokens = view.text.near_tokens(number, documents, query.text, query.fuzziness)
            hits = view.text.search_fuzzy(number, documents, query.text, top_k, allowed, query.fuzziness)
        else:
            trace.tokens = query_tokens(query.text)
            hits = view.text.search(number, documents, query.text, top_k, allowed)
        step.plan, step.memories = hits.plan, len(hits.ordinals)
    return hits


def _by_vector(
    namespace: NamespaceView, query: SearchQuery, allowed: OrdinalSet, top_k: int, trace: Trace
) -> VectorHits:
    if namespace.vectors is None or query.vector is None:
        return _NO_VECTOR_HITS
    with trace.step("vectors") as step:
        hits = namespace.vectors.search(query.vector, top_k, allowed, namespace.live)
        step.plan, step.memories = hits.plan, len(hits.ordinals)
    return hits


def _hybrid(
    view: View, namespace: NamespaceView, query: SearchQuery, allowed: OrdinalSet, trace: Trace
) -> _Hits:
    has_vector = query.vector is not None and namespace.vectors is not None
    weights = Weights(
        query.weights.vector if has_vector else 0.0,
        query.weights.text if query.text else 0.0,
        query.weights.recency,
        query.weights.importance,
    ).in_proportion()
    conversational = query.conversational and bool(weights.text or weights.vector)
    in_sessions = conversational and namespace.facets.has_sessions()
    compared = (
        _all_compared(view, namespace, query, weights, allowed, trace)
        # Recency and importance are known for all, so without a question the best can be told exactly.
        if len(allowed) <= MAX_RANKED_WHOLE or not (weights.text or weights.vector)
        else _best_compared(view, namespace, query, weights, allowed, trace, in_sessions=in_sessions)
    )
    candidates, bm25, cosines = compared.candidates, compared.bm25, compared.cosines
    with trace.step("rank") as step:
        plans = []
        facets = namespace.facets
        cosines_with, bm25_with = ranking.positive(cosines), bm25
        if in_sessions:
            more_words, cosines_with = _of_sessions(namespace, candidates, compared.words, cosines_with)
            bm25_with = bm25 + more_words
            plans.append("with shares of the neighbours in the session")
        if conversational and (named := _named(namespace, query, candidates)):
            gains = np.ones(len(candidates))
            gains[np.searchsorted(candidates, ordinal_array(named))] = NAMED_GAIN
            cosines_with, bm25_with = cosines_with * gains, bm25_with * gains
            plans.append("more for whom the question names")
        step.plan = ", ".join(plans)
        rows = facets.rows_of(candidates, namespace.facet_rows)
        times_us = facets.values("event_time", rows)
        nothing = np.zeros(len(candidates))
        vector, text, session = ranking.relevance(weights, cosines, bm25, cosines_with, bm25_with)
        signals = ranking.Signals(
            vector,
            text,
            ranking.recency(times_us, query.now_us, query.half_life_us) if weights.recency else nothing,
            facets.values("importance", rows) if weights.importance else nothing,
            session,
        )
        scores = signals.scores(weights)
        places = ranking.best(candidates, scores, query.top_k, times_us)
        step.memories = len(places)
    explained: dict[str, npt.NDArray[np.floating]] = {}
    if query.explain:
        explained = _explained(weights, signals, cosines, bm25, conversational=bool(plans))
    return _Hits(
        candidates[places], scores[places], {name: values[places] for name, values in explained.items()}
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    """What is to be ranked, uint64 [n], ascending, its BM25, float64 [n], and its cosines, float32 [n].

    Attributes:
        words: what each word counts for in them, and maybe in others beside them.
    """

    candidates: OrdinalArray
    bm25: Scores
    cosines: FloatVector
    words: WordHits


def _all_compared(
    view: View,
    namespace: NamespaceView,
    query: SearchQuery,
    weights: Weights,
    allowed: OrdinalSet,
    trace: Trace,
) -> _Compared:
    """All that match."""
    candidates = ordinal_array(allowed)
    words, bm25 = NO_WORD_HITS, np.zeros(len(candidates))
    if weights.text and view.text is not None:
        with trace.step("text") as step:
            trace.tokens = query_tokens(query.text)
            weighed = view.text.words.weighed(namespace.state.number, len(namespace.live), trace.tokens)
            words, ordinals, scores = view.text.words.scored(weighed, allowed)
            bm25[np.searchsorted(candidates, ordinals)] = scores
            step.plan, step.memories = SCORED_PLAN, len(ordinals)
    cosines = np.full(len(candidates), np.nan, dtype=np.float32)
    if weights.vector and namespace.vectors is not None and query.vector is not None:
        with trace.step("vectors") as step:
            cosines = namespace.vectors.cosines(query.vector, candidates)
            step.plan = "exact scan of the matching rows"
            step.memories = len(cosines) - int(np.count_nonzero(np.isnan(cosines)))
    with trace.step("candidates") as step:
        step.plan, step.memories = "all that match", len(candidates)
    return _Compared(candidates, bm25, cosines, words)


def _best_compared(
    view: View,
    namespace: NamespaceView,
    query: SearchQuery,
    weights: Weights,
    allowed: OrdinalSet,
    trace: Trace,
    *,
    in_sessions: bool,
) -> _Compared:
    """The best of each signal; the words in all that match, as far as they are not in too many."""
    depth = max(MIN_CANDIDATES, CANDIDATES_PER_HIT * query.top_k)
    texts, nearest = NO_HITS, _NO_VECTOR_HITS
    if weights.text:
        texts = _by_text(view, namespace, query, allowed, depth, trace)
    if weights.vector:
        nearest = _by_vector(namespace, query, allowed, depth, trace)
    with trace.step("candidates") as step:
        candidates, step.plan = _candidates(
            namespace, query, weights, allowed, texts, nearest, depth, in_sessions=in_sessions
        )
        words, bm25 = NO_WORD_HITS, np.zeros(len(candidates))
        if weights.text and view.text is not None:
            weighed = view.text.words.weighed(namespace.state.number, len(namespace.live), trace.tokens)
            _, ordinals, scores = view.text.words.scored(weighed, ordinal_set(candidates))
            bm25[np.searchsorted(candidates, ordinals)] = scores
            # Of a long question what was found may share more words than are looked for in the others.
            bm25[np.searchsorted(candidates, texts.ordinals)] = texts.scores
            if in_sessions:
                words = view.text.words.hits(weighed, allowed, MAX_WORD_HITS)
        step.memories = len(candidates)
    cosines = _all_cosines(namespace, query, candidates, nearest)
    return _Compared(candidates, bm25, cosines, words)


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
    rows = namespace.facets.rows_of(ordinals, namespace.facet_rows)
    values = namespace.facets.values(column, rows)
    return ordinal_set(ordinals[ranking.best(ordinals, values, count)])


def _named(namespace: NamespaceView, query: SearchQuery, candidates: OrdinalArray) -> OrdinalSet:
    """The candidates whose user_id is in the question."""
    names = names_in(query.text)
    if not names:
        return OrdinalSet()
    theirs = Condition("user_id", Kind.TEXT, filter_pb2.OPERATOR_IN, tuple(names))
    among = ordinal_set(candidates)
    return namespace.facets.matching(theirs, among, namespace.facet_rows, namespace.memories) & among


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
    namespace: NamespaceView, candidates: OrdinalArray, words: WordHits, cosines: Scores
) -> tuple[Scores, Scores]:
    """The BM25 that the candidates have from their sessions, and their cosines with what these add.

    Args:
        words: of the candidates, or of more memories.
        cosines: not negative, float64 [n].
    """
    facets, rows = namespace.facets, namespace.facet_rows
    placed = candidates
    own: npt.NDArray[np.intp] | slice = slice(None)
    if len(words.ordinals):
        missing = ordinal_set(words.ordinals) - ordinal_set(candidates)
        if missing:
            placed = ordinal_array(missing | ordinal_set(candidates))
            own = np.searchsorted(placed, candidates)
    found = facets.rows_of(placed, rows)
    places = sessions.keys(facets.session_places(placed, found, namespace.live, rows))
    neighbours = sessions.Neighbours(places)
    more_words = neighbours.more_words(words.words, np.searchsorted(placed, words.ordinals), words.scores)
    likeness = np.zeros(len(placed))
    likeness[own] = cosines
    return more_words[own], neighbours.with_likeness(likeness)[own]


def _explained(
    weights: Weights, signals: ranking.Signals, cosines: FloatVector, bm25: Scores, *, conversational: bool
) -> dict[str, npt.NDArray[np.floating]]:
    """The signals that the scores were made of, by the names that they have in the API."""
    explained: dict[str, npt.NDArray[np.floating]] = {}
    if weights.vector:
        explained["cosine"] = cosines
        explained["vector"] = np.where(np.isnan(cosines), np.nan, signals.vector)
    if weights.text:
        explained["bm25"] = np.where(bm25 > 0, bm25, np.nan)
        explained["text"] = signals.text
    if weights.recency:
        explained["recency"] = signals.recency
    if weights.importance:
        explained["importance"] = signals.importance
    if conversational:
        explained["session"] = signals.session
    return explained
