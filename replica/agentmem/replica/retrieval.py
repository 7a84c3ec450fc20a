"""What is found by one signal: by words, or by meaning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agentmem.replica.among import Among
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet
from agentmem.replica.search_query import SearchQuery
from agentmem.replica.text_hits import NO_HITS, TextHits
from agentmem.replica.trace import Trace
from agentmem.replica.vectors import VectorHits
from agentmem.replica.view import NamespaceView, View
from agentmem.replica.words import phrase_tokens, query_tokens


class Hits(NamedTuple):
    """Found, best first: uint64 [n], float [n], and each signal, float [n]; NaN where there is none."""

    ordinals: OrdinalArray
    scores: npt.NDArray[np.floating]
    signals: dict[str, npt.NDArray[np.floating]]


NO_VECTOR_HITS = VectorHits(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.float32))


def by_text(
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
            hits = view.text.search_tokens(number, documents, trace.tokens, top_k, allowed)
        step.plan, step.memories = hits.plan, len(hits.ordinals)
    return hits


def by_vector(
    namespace: NamespaceView, query: SearchQuery, allowed: OrdinalSet | Among, top_k: int, trace: Trace
) -> VectorHits:
    if namespace.vectors is None or query.vector is None:
        return NO_VECTOR_HITS
    with trace.step("vectors") as step:
        hits = namespace.vectors.search(query.vector, top_k, allowed, namespace.live)
        step.plan, step.estimated, step.memories = hits.how, hits.estimated, len(hits.ordinals)
    return hits
