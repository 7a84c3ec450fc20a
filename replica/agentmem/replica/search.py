"""Search over one view: by words, by meaning, by both, or by none of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from agentmem.replica.hybrid import hybrid
from agentmem.replica.retrieval import Hits, by_text, by_vector
from agentmem.replica.scopes import Scope, Scopes
from agentmem.replica.search_query import DEFAULT_HALF_LIFE_US, WORD_MODES, Mode, Order, SearchQuery
from agentmem.replica.trace import Trace
from agentmem.replica.view import NamespaceView, View

__all__ = [
    "DEFAULT_HALF_LIFE_US",
    "WORD_MODES",
    "Mode",
    "Order",
    "ScoredOrdinal",
    "SearchQuery",
    "search",
]


NO_SIGNALS: Mapping[str, float] = MappingProxyType({})


class ScoredOrdinal(NamedTuple):
    """A hit. The score is a cosine (semantic), BM25 (text), or for hybrid the weighted mean of the signals.

    Attributes:
        signals: what the score is made of by name, as in ``SearchSignals``; empty unless it was asked for.
    """

    ordinal: int
    score: float
    signals: Mapping[str, float] = NO_SIGNALS


def search(
    view: View, query: SearchQuery, trace: Trace | None = None, scopes: Scopes | None = None
) -> list[ScoredOrdinal]:
    """The best live memories that match the filter, in the order that was asked for.

    Hybrid returns ``top_k`` while that many match; semantic while that many of them have vectors; text and
    fuzzy return those that share a word, exact those that have the phrase. A namespace that the view does not
    know has no memories.

    Args:
        trace: where to write down how it was done.
        scopes: what is known from before of what filters leave of newest views.
    """
    trace = Trace() if trace is None else trace
    namespace = view.namespaces.get(query.namespace)
    if namespace is None:
        return []
    trace.live = len(namespace.live)
    with trace.step("filter") as step:
        scope = _scope(namespace, query, scopes)
        step.plan = "every memory" if query.filter is None else "the filter's memories"
        step.memories = trace.matching = scope.count
    trace.mode = _served_mode(namespace, query)
    if not scope.count:
        return []
    if query.mode in WORD_MODES:
        # In the order of time it is the newest of all that are found, not of the best.
        depth = query.top_k if query.order == "score" else scope.count
        texts = by_text(view, namespace, query, scope.allowed, depth, trace)
        hits = Hits(texts.ordinals, texts.scores, {"bm25": texts.scores})
    elif query.mode == "semantic":
        nearest = by_vector(namespace, query, scope.among, query.top_k, trace)
        hits = Hits(nearest.ordinals, nearest.cosines, {"cosine": nearest.cosines})
    else:
        hits = hybrid(view, namespace, query, scope, trace)
    return _chosen(namespace, query, hits)


def _scope(namespace: NamespaceView, query: SearchQuery, scopes: Scopes | None) -> Scope:
    """The memories that are searched."""
    if scopes is not None and not query.excluded:
        return scopes.scope(query.scope_key, query.filter, namespace, query.now_us)
    allowed = namespace.matching(query.filter, query.now_us)
    return Scope(allowed - query.excluded if query.excluded else allowed)


def _served_mode(namespace: NamespaceView, query: SearchQuery) -> Mode:
    """Hybrid is text where there is nothing to compare a vector with, and semantic without words."""
    if query.mode != "hybrid":
        return query.mode
    has_vector = query.vector is not None and namespace.vectors is not None
    if has_vector == bool(query.text):
        return "hybrid"
    return "semantic" if has_vector else "text"


def _chosen(namespace: NamespaceView, query: SearchQuery, hits: Hits) -> list[ScoredOrdinal]:
    """What of the hits is returned, in its order."""
    if query.min_score is None and query.order == "score" and not query.explain:
        ordinals, scores = hits.ordinals[: query.top_k], hits.scores[: query.top_k]
        return list(map(ScoredOrdinal, ordinals.tolist(), scores.tolist()))
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
