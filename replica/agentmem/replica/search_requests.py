"""Search requests of the API: their checks, and what a search makes of them."""

from __future__ import annotations

import math

from agentmem.core.errors import invalid_field
from agentmem.core.filters import MAX_KNOWN_FILTER_BYTES, compile_filter
from agentmem.core.records import FloatVector
from agentmem.core.times import duration_us
from agentmem.core.validation import (
    MAX_TOP_K,
    check_limit,
    check_namespace,
    check_query_text,
    decode_embedding,
)
from agentmem.replica.fuzziness import ANY_FUZZINESS, MAX_EDITS, Fuzziness
from agentmem.replica.ranking import Weights
from agentmem.replica.search import (
    DEFAULT_HALF_LIFE_US,
    WORD_MODES,
    Mode,
    Order,
    ScoredOrdinal,
    SearchQuery,
)
from agentmem.replica.trace import Trace
from agentmem.v1 import reader_pb2

DEFAULT_TOP_K = 10
MAX_WEIGHT = 1000.0
NO_WEIGHTS = Weights()
# 100 years, as of a ttl.
MAX_HALF_LIFE_US = 100 * 365 * 24 * 3600 * 1_000_000
_MODES: dict[int, Mode] = {
    reader_pb2.SEARCH_MODE_UNSPECIFIED: "hybrid",
    reader_pb2.SEARCH_MODE_HYBRID: "hybrid",
    reader_pb2.SEARCH_MODE_SEMANTIC: "semantic",
    reader_pb2.SEARCH_MODE_TEXT: "text",
    reader_pb2.SEARCH_MODE_FUZZY: "fuzzy",
    reader_pb2.SEARCH_MODE_EXACT: "exact",
}
_NUMBERS: dict[str, reader_pb2.SearchMode] = {
    "hybrid": reader_pb2.SEARCH_MODE_HYBRID,
    "semantic": reader_pb2.SEARCH_MODE_SEMANTIC,
    "text": reader_pb2.SEARCH_MODE_TEXT,
    "fuzzy": reader_pb2.SEARCH_MODE_FUZZY,
    "exact": reader_pb2.SEARCH_MODE_EXACT,
}
_ORDERS: dict[int, Order] = {
    reader_pb2.SEARCH_ORDER_UNSPECIFIED: "score",
    reader_pb2.SEARCH_ORDER_SCORE: "score",
    reader_pb2.SEARCH_ORDER_NEWEST_FIRST: "newest",
    reader_pb2.SEARCH_ORDER_OLDEST_FIRST: "oldest",
}


def query_of(request: reader_pb2.SearchMemoriesRequest) -> tuple[SearchQuery, FloatVector | None]:
    """The checked request, without vector and time, and the embedding that came with it.

    Raises:
        InvalidArgument: naming the field.
    """
    check_namespace(request.namespace)
    check_query_text(request.text)
    mode = _MODES.get(request.mode)
    if mode is None:
        raise invalid_field("mode", f"has no meaning for {request.mode}")
    order = _ORDERS.get(request.order)
    if order is None:
        raise invalid_field("order", f"has no meaning for {request.order}")
    given = decode_embedding(request.embedding, "embedding") if request.embedding else None
    text = request.text.strip()
    if not text and mode in WORD_MODES:
        raise invalid_field("text", "must not be empty")
    if not text and given is None and mode == "semantic":
        raise invalid_field("text", "must not be empty, or send an embedding")
    if given is not None and mode in WORD_MODES:
        raise invalid_field("embedding", f"is not compared in mode {mode.upper()}: leave it out")
    if mode != "hybrid":
        for field in ("weights", "recency_half_life", "conversational"):
            if request.HasField(field):
                raise invalid_field(field, "is for mode HYBRID alone")
    encoded = request.filter.SerializeToString()
    query = SearchQuery(
        namespace=request.namespace,
        text=text,
        vector=None,
        mode=mode,
        filter=compile_filter(request.filter, encoded=encoded),
        top_k=check_limit(request.top_k, "top_k", DEFAULT_TOP_K, MAX_TOP_K),
        now_us=0,
        fuzziness=_fuzziness(request, mode),
        min_score=_min_score(request),
        order=order,
        weights=_weights(request, has_question=bool(text) or given is not None)
        if mode == "hybrid"
        else NO_WEIGHTS,
        half_life_us=_half_life_us(request),
        conversational=request.conversational if request.HasField("conversational") else True,
        explain=request.explain,
        scope_key=(request.namespace, encoded) if len(encoded) <= MAX_KNOWN_FILTER_BYTES else None,
    )
    return query, given


def _fuzziness(request: reader_pb2.SearchMemoriesRequest, mode: Mode) -> Fuzziness:
    if not request.HasField("fuzziness"):
        return ANY_FUZZINESS
    if mode != "fuzzy":
        raise invalid_field("fuzziness", "is for mode FUZZY alone")
    given = request.fuzziness
    if given.max_edits > MAX_EDITS:
        raise invalid_field("fuzziness.max_edits", f"must be 0 to {MAX_EDITS}, not {given.max_edits}")
    return Fuzziness(given.max_edits if given.HasField("max_edits") else None, given.prefix)


def _min_score(request: reader_pb2.SearchMemoriesRequest) -> float | None:
    if not request.HasField("min_score"):
        return None
    if math.isnan(request.min_score):
        raise invalid_field("min_score", "must be a number")
    return request.min_score


def _weights(request: reader_pb2.SearchMemoriesRequest, *, has_question: bool) -> Weights:
    given = request.weights
    for field in ("vector", "text", "recency", "importance"):
        if not 0 <= getattr(given, field) <= MAX_WEIGHT:  # NaN, too
            raise invalid_field(
                f"weights.{field}", f"must be 0 to {MAX_WEIGHT:g}, not {getattr(given, field)}"
            )
    weights = Weights(
        vector=given.vector if given.HasField("vector") else 1.0,
        text=given.text if given.HasField("text") else 1.0,
        recency=given.recency if given.HasField("recency") else float(not has_question),
        importance=given.importance,
    )
    of_question = (weights.vector, weights.text) if has_question else ()
    if not any((*of_question, weights.recency, weights.importance)):
        without = "" if has_question else " without a question"
        raise invalid_field("weights", f"must not all be 0{without}")
    return weights


def _half_life_us(request: reader_pb2.SearchMemoriesRequest) -> int:
    if not request.HasField("recency_half_life"):
        return DEFAULT_HALF_LIFE_US
    half_life_us = duration_us(request.recency_half_life)
    if not 0 < half_life_us <= MAX_HALF_LIFE_US:
        raise invalid_field("recency_half_life", "must be above 0, and 100 years at most")
    return half_life_us


def signals_of(hit: ScoredOrdinal) -> reader_pb2.SearchSignals:
    """What a hit's score is made of, as the API has it."""
    return reader_pb2.SearchSignals(**hit.signals)


def explanation_of(trace: Trace, model: str) -> reader_pb2.SearchExplanation:
    """How a search was done, as the API has it.

    Args:
        model: of the question's embedding; "" without one.
    """
    explanation = reader_pb2.SearchExplanation(
        live_memories=trace.live, matching_memories=trace.matching, tokens=trace.tokens, embedding_model=model
    )
    if trace.mode:
        explanation.mode = _NUMBERS[trace.mode]
    for step in trace.steps:
        explanation.steps.add(
            name=step.name, plan=step.described, memories=step.memories, milliseconds=step.milliseconds
        )
    return explanation
