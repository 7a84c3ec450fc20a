"""Search over one view: by words, by meaning, or by both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from agentmem.core.filters import Filter
from agentmem.core.records import FloatVector
from agentmem.replica import ranking
from agentmem.replica.fuzziness import ANY_FUZZINESS, Fuzziness
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set
from agentmem.replica.text import NO_HITS, TextHits
from agentmem.replica.vectors import VectorHits
from agentmem.replica.view import NamespaceView, View

# Hybrid ranks the best of each signal against each other: this many of each, and more for a large top_k.
MIN_CANDIDATES = 200
CANDIDATES_PER_HIT = 2

Mode = Literal["hybrid", "semantic", "text", "fuzzy", "exact"]
# Modes that look at words alone, and need some.
WORD_MODES: frozenset[Mode] = frozenset({"text", "fuzzy", "exact"})


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A checked search request.

    Attributes:
        text: empty for a search by vector alone.
        vector: float32 [the namespace's dimension], unit length; None when there is none.
        filter: None for all memories.
        top_k: at least 1.
        now_us: what has expired by then is not found.
        excluded: ordinals that are not to be found.
        fuzziness: of fuzzy alone.
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


@dataclass(frozen=True, slots=True)
class ScoredOrdinal:
    """A hit. The score is a cosine (semantic), BM25 (text), or for hybrid the mean of both, each scaled to 0
    to 1, with a share of its neighbours' scores."""

    ordinal: int
    score: float


_NO_VECTOR_HITS = VectorHits(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.float32))


def search(view: View, query: SearchQuery) -> list[ScoredOrdinal]:
    """The best live memories that match the filter, best first.

    Semantic and hybrid return ``top_k`` while that many of them have vectors; text returns those that share
    a word. Hybrid is text alone without a vector, and semantic alone without a text. A namespace that the
    view does not know has no memories.
    """
    namespace = view.namespaces.get(query.namespace)
    if namespace is None:
        return []
    allowed = namespace.matching(query.filter, query.now_us)
    if query.excluded:
        allowed = allowed - query.excluded
    if not allowed:
        return []
    if query.mode in WORD_MODES or (query.mode == "hybrid" and query.vector is None):
        texts = _by_text(view, namespace, query, allowed, query.top_k)
        return _scored(texts.ordinals, texts.scores)
    if query.mode == "semantic" or not query.text:
        nearest = _by_vector(namespace, query.vector, allowed, query.top_k)
        return _scored(nearest.ordinals, nearest.cosines)
    return _by_both(view, namespace, query, allowed)


def _by_text(
    view: View, namespace: NamespaceView, query: SearchQuery, allowed: OrdinalSet, top_k: int
) -> TextHits:
    if view.text is None or not query.text:
        return NO_HITS
    if query.mode == "exact":
        return view.text.search_phrase(
            namespace.state.number, len(namespace.live), query.text, top_k, allowed
        )
    if query.mode == "fuzzy":
        return view.text.search_fuzzy(
            namespace.state.number, len(namespace.live), query.text, top_k, allowed, query.fuzziness
        )
    return view.text.search(namespace.state.number, len(namespace.live), query.text, top_k, allowed)


def _by_vector(
    namespace: NamespaceView, vector: FloatVector | None, allowed: OrdinalSet, top_k: int
) -> VectorHits:
    if namespace.vectors is None or vector is None:
        return _NO_VECTOR_HITS
    return namespace.vectors.search(vector, top_k, allowed, namespace.live)


def _by_both(
    view: View, namespace: NamespaceView, query: SearchQuery, allowed: OrdinalSet
) -> list[ScoredOrdinal]:
    depth = max(MIN_CANDIDATES, CANDIDATES_PER_HIT * query.top_k)
    texts = _by_text(view, namespace, query, allowed, depth)
    nearest = _by_vector(namespace, query.vector, allowed, depth)
    if not len(nearest.ordinals):
        return _scored(texts.ordinals[: query.top_k], texts.scores[: query.top_k])
    candidates = ordinal_array(ordinal_set(texts.ordinals) | ordinal_set(nearest.ordinals))
    bm25 = np.zeros(len(candidates))
    bm25[np.searchsorted(candidates, texts.ordinals)] = texts.scores
    cosines = np.full(len(candidates), np.nan, dtype=np.float32)
    cosines[np.searchsorted(candidates, nearest.ordinals)] = nearest.cosines
    unknown = np.isnan(cosines)
    if unknown.any() and namespace.vectors is not None and query.vector is not None:
        cosines[unknown] = namespace.vectors.cosines(query.vector, candidates[unknown])
    scores = ranking.fuse(cosines, bm25)
    places_in_sessions = namespace.facets.session_places(candidates, namespace.live, namespace.facet_rows)
    scores = ranking.with_neighbours(scores, places_in_sessions)
    places = ranking.best(candidates, scores, query.top_k)
    return _scored(candidates[places], scores[places])


def _scored(
    ordinals: OrdinalArray, scores: np.ndarray[tuple[int], np.dtype[np.floating]]
) -> list[ScoredOrdinal]:
    return [
        ScoredOrdinal(ordinal, score)
        for ordinal, score in zip(ordinals.tolist(), scores.tolist(), strict=True)
    ]
