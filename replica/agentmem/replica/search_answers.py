"""Answers to searches, serialized: memories go into them as the store has them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from agentmem.core import wire
from agentmem.replica.view import View
from agentmem.v1 import failure_pb2, reader_pb2

_HIT, _ANSWER, _RESULT = (
    reader_pb2.SearchHit,
    reader_pb2.SearchMemoriesResponse,
    reader_pb2.BatchSearchResult,
)
_MEMORY, _SCORE, _SIGNALS = _HIT.MEMORY_FIELD_NUMBER, _HIT.SCORE_FIELD_NUMBER, _HIT.SIGNALS_FIELD_NUMBER
_HITS, _EXPLANATION = _ANSWER.HITS_FIELD_NUMBER, _ANSWER.EXPLANATION_FIELD_NUMBER
_APPLIED_REVISION, _EPOCH = _ANSWER.APPLIED_REVISION_FIELD_NUMBER, _ANSWER.EPOCH_FIELD_NUMBER
_RESPONSE, _FAILURE = _RESULT.RESPONSE_FIELD_NUMBER, _RESULT.FAILURE_FIELD_NUMBER
MAX_KNOWN_HEADS = 4_096
_RESULTS = reader_pb2.BatchSearchMemoriesResponse.RESULTS_FIELD_NUMBER


# Most memories are of much the same size.
@lru_cache(MAX_KNOWN_HEADS)
def _hit_head(size_bytes: int) -> bytes:
    """What stands before a memory of this size and its score."""
    before = wire.head(_MEMORY, size_bytes)
    return wire.head(_HITS, len(before) + size_bytes + len(wire.double(_SCORE, 0.0))) + before


def hit_bytes(memory: bytes, score: float, signals: reader_pb2.SearchSignals | None) -> bytes:
    """A hit, as a field of its answer."""
    if signals is None:
        return _hit_head(len(memory)) + memory + wire.double(_SCORE, score)
    scored = wire.double(_SCORE, score) + wire.delimited(_SIGNALS, signals.SerializeToString())
    return wire.delimited(_HITS, b"".join((wire.head(_MEMORY, len(memory)), memory, scored)))


def answer_bytes(
    hits: Iterable[bytes], view: View, explanation: reader_pb2.SearchExplanation | None
) -> bytes:
    """A SearchMemoriesResponse of what ``hit_bytes`` made, from this view."""
    explained = b"" if explanation is None else wire.delimited(_EXPLANATION, explanation.SerializeToString())
    shown = wire.number(_APPLIED_REVISION, view.revision) + wire.number(_EPOCH, view.epoch)
    return b"".join((*hits, shown, explained))


def outcome_bytes(outcome: bytes | failure_pb2.Failure) -> bytes:
    """The answer to one search of a batch, or why there is none, as a field of the answer to all."""
    if isinstance(outcome, bytes):
        result = wire.delimited(_RESPONSE, outcome)
    else:
        result = wire.delimited(_FAILURE, outcome.SerializeToString())
    return wire.delimited(_RESULTS, result)
