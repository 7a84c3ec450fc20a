"""Putting scores in order, and several signals into one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agentmem.replica.ordinals import OrdinalArray

# To find the best of many scores, the highest of each of so many stretches are compared first.
STRETCHES_PER_HIT = 4

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Weights:
    """What each signal counts for, 0 or more each; only their proportions matter."""

    vector: float = 1.0
    text: float = 1.0
    recency: float = 0.0
    importance: float = 0.0

    def in_proportion(self) -> Weights:
        """The same with a sum of 1; as they are when all are 0."""
        total = self.vector + self.text + self.recency + self.importance
        if not total:
            return self
        return Weights(self.vector / total, self.text / total, self.recency / total, self.importance / total)


def best(
    ordinals: OrdinalArray,
    scores: npt.NDArray[Any],
    top_k: int,
    times_us: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.intp]:
    """The places of the ``top_k`` highest scores, best first; of equals, the newest first.

    Args:
        ordinals: uint64 [n].
        scores: numbers [n], without NaN.
        times_us: what newest means; without it, the one written last.
    """
    count = len(scores)
    if count > top_k:
        # So many are as high as the highest of some stretches. All that equal the last of them are kept, or
        # chance would decide which of them is returned.
        stretch = max(1, count // (STRETCHES_PER_HIT * top_k))
        highest = np.maximum.reduceat(scores, np.arange(0, count, stretch))
        kth = len(highest) - top_k
        highest.partition(kth)
        (places,) = (scores >= highest[kth]).nonzero()
    else:
        places = np.arange(count)
    ranked = (ordinals[places], scores[places])
    order = np.lexsort(ranked if times_us is None else (ranked[0], times_us[places], ranked[1]))
    chosen: npt.NDArray[np.intp] = places[order[::-1]][:top_k]
    return chosen


def fused(
    weights: Weights,
    cosines: Scores,
    bm25: Scores,
    recency: Scores | None = None,
    importance: Scores | None = None,
) -> Scores:
    """The weighted mean of the signals, float64 [n], 0 to 1.

    Words and meaning are scaled by their highest values, from 0: what shares no word, or has no likeness,
    has 0 whichever the other candidates are. This is the convex combination of Bruch, Gai and Ingber, "An
    Analysis of Fusion Functions for Hybrid Retrieval" (2022), with the infimum of each signal as its lower
    bound; they show it to be better than fusing ranks.

    Args:
        weights: with a sum of 1.
        cosines: of each candidate, with what session and names add, float64 [n]; 0 without an embedding.
        bm25: the same of words; 0 for one that shares none.
        recency, importance: 0 to 1, float64 [n]; None when they have no weight.
    """
    scores: Scores = cosines * _scale(weights.vector, cosines)
    scores += bm25 * _scale(weights.text, bm25)
    if recency is not None:
        scores += weights.recency * recency
    if importance is not None:
        scores += weights.importance * importance
    return scores


def relevance(
    weights: Weights, cosines: Scores, bm25: Scores, cosines_with_session: Scores, bm25_with_session: Scores
) -> tuple[Scores, Scores, Scores]:
    """What fused scores are made of: vector, text, and the sessions' part, float64 [n] each, 0 to 1.

    Args:
        weights, cosines_with_session, bm25_with_session: as given to ``fused``.
        cosines, bm25: the same without what session and names add.
    """
    vector_scale, text_scale = _scale(1.0, cosines_with_session), _scale(1.0, bm25_with_session)
    session = weights.vector * vector_scale * (cosines_with_session - cosines)
    session += weights.text * text_scale * (bm25_with_session - bm25)
    return vector_scale * cosines, text_scale * bm25, session


def recency(times_us: npt.NDArray[np.int64], now_us: int, half_life_us: int) -> Scores:
    """How new memories are, float64 [n]: 1 for now and later, half of that for each half-life before."""
    ages_us = np.maximum(now_us - times_us.astype(np.float64), 0.0)
    return np.exp2(-ages_us / half_life_us)


def positive(cosines: npt.NDArray[np.floating]) -> Scores:
    """The cosines, float64 [n]; 0 instead of what is negative or NaN."""
    bounded: Scores = np.fmax(cosines, 0.0, dtype=np.float64)
    return bounded


def _scale(weight: float, signal: Scores) -> float:
    """By what a signal is multiplied so that its highest value is the weight."""
    highest = float(signal.max(initial=0.0))
    return weight / highest if highest > 0 else 0.0
