"""What a search may ask for beside its question, and what it explains."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from agentmem.client import values
from agentmem.client.errors import invalid_field
from agentmem.v1 import reader_pb2

MAX_WEIGHT = 1000


class SearchOrder(StrEnum):
    """SCORE: best first. NEWEST, OLDEST: by event_time; the modes that look for words (TEXT, FUZZY, EXACT)
    return the newest or oldest of all that they find, the others put their best hits in this order."""

    SCORE = "score"
    NEWEST = "newest"
    OLDEST = "oldest"


_ORDER_TO_PROTO = {
    SearchOrder.SCORE: reader_pb2.SEARCH_ORDER_SCORE,
    SearchOrder.NEWEST: reader_pb2.SEARCH_ORDER_NEWEST_FIRST,
    SearchOrder.OLDEST: reader_pb2.SEARCH_ORDER_OLDEST_FIRST,
}


@dataclass(frozen=True, slots=True)
class SearchWeights:
    """What each signal counts for in the score of a HYBRID search: 0 to 1,000, only proportions matter.

    Args:
        recency: None for 0, or for 1 in a search without a question.
    """

    vector: float = 1.0
    text: float = 1.0
    recency: float | None = None
    importance: float = 0.0

    def to_proto(self) -> reader_pb2.SearchWeights:
        message = reader_pb2.SearchWeights()
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                number = values.number(f"weights.{each.name}", value)
                if not 0 <= number <= MAX_WEIGHT:
                    raise invalid_field(f"weights.{each.name}", f"must be 0 to {MAX_WEIGHT}, not {value}")
                setattr(message, each.name, number)
        return message


@dataclass(frozen=True, slots=True)
class SearchSignals:
    """What a hit's score is made of; None where it does not apply.

    Attributes:
        cosine: -1 to 1.
        bm25: above 0.
        vector, text, recency, importance: as they count in HYBRID, 0 to 1, before the weights.
        session: the part of the score that comes from around it in its session, and from the question naming
            its user_id.
    """

    cosine: float | None = None
    bm25: float | None = None
    vector: float | None = None
    text: float | None = None
    recency: float | None = None
    importance: float | None = None
    session: float | None = None


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One step of a search: what was chosen, how many memories came out of it, and how long it took."""

    name: str
    plan: str
    memories: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class SearchExplanation:
    """How a search was done.

    Attributes:
        mode: that was served: HYBRID without embeddings is "text"; "" where there is no such namespace.
        live_memories, matching_memories: of the namespace, and those of them that match the filter.
        tokens: that were looked for.
        embedding_model: of the question's embedding when the server made it.
    """

    mode: str
    live_memories: int
    matching_memories: int
    tokens: tuple[str, ...]
    embedding_model: str
    steps: tuple[SearchStep, ...]


def order_to_proto(value: object) -> reader_pb2.SearchOrder:
    """An order from itself or its name, as the API has it."""
    return _ORDER_TO_PROTO[values.choice("order", value, SearchOrder)]


def weights_to_proto(value: object) -> reader_pb2.SearchWeights | None:
    """Weights as the API has them; None for None."""
    if value is None:
        return None
    if not isinstance(value, SearchWeights):
        raise invalid_field("weights", f"must be SearchWeights, not {values.kind(value)}")
    return value.to_proto()


def signals_from_proto(message: reader_pb2.SearchSignals) -> SearchSignals:
    """The signals of one hit."""
    return SearchSignals(**{field.name: value for field, value in message.ListFields()})


def explanation_from_proto(message: reader_pb2.SearchExplanation) -> SearchExplanation:
    """How a search was done."""
    name = reader_pb2.SearchMode.Name(message.mode).removeprefix("SEARCH_MODE_").lower()
    return SearchExplanation(
        mode=name if message.mode else "",
        live_memories=message.live_memories,
        matching_memories=message.matching_memories,
        tokens=tuple(message.tokens),
        embedding_model=message.embedding_model,
        steps=tuple(
            SearchStep(step.name, step.plan, step.memories, step.milliseconds) for step in message.steps
        ),
    )
