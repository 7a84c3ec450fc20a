"""Putting scores in order, and several signals into one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agentmem.replica.ordinals import OrdinalArray

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


@dataclass(frozen=True, slots=True)
class Signals:
    """What the scores of n memories are made of: float64 [n] each, 0 to 1, before the weights.

    Attributes:
        session: the part of the score that comes from the session, and from whom the question names.
    """

    vector: Scores
    text: Scores
    recency: Scores
    importance: Scores
    session: Scores

    def scores(self, weights: Weights) -> Scores:
        """The weighted mean and the sessions' part, float64 [n], 0 to 1.

        Args:
            weights: with a sum of 1.
        """
        return (
            weights.vector * self.vector
            + weights.text * self.text
            + weights.recency * self.recency
            + weights.importance * self.importance
            + self.session
        )


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
    places = np.arange(len(scores))
    if len(scores) > top_k:
        # All that equal the last one are kept, or chance would decide which of them is returned.
        worst = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
        places = np.flatnonzero(scores >= worst)
    ranked = (ordinals[places], scores[places])
    order = np.lexsort(ranked if times_us is None else (ranked[0], times_us[places], ranked[1]))
    return places[order[::-1]][:top_k]


def relevance(
    weights: Weights,
    cosines: npt.NDArray[np.floating],
    bm25: Scores,
    cosines_with_session: Scores,
    bm25_with_session: Scores,
) -> tuple[Scores, Scores, Scores]:
    """The signals of vector and text, and the sessions' part of the score, float64 [n] each, 0 to 1.

    A signal is scaled by its highest value, from 0: what shares no word, or has no likeness, has 0 in both
    signals whichever the other candidates are. This is the convex combination of Bruch, Gai and Ingber, "An
    Analysis of Fusion Functions for Hybrid Retrieval" (2022), with the infimum of each signal as its lower
    bound; they show it to be better than fusing ranks. The highest value is that with the session, so that no
    score is above 1.

    Args:
        weights: with a sum of 1.
        cosines: of each candidate, float [n]; NaN for one without an embedding, which has 0.
        bm25: of each candidate, float64 [n]; 0 for one that shares no word.
        cosines_with_session, bm25_with_session: the same with what session and names add, not less.
    """
    vector, likeness = _scaled(positive(cosines), cosines_with_session)
    text, wording = _scaled(bm25, bm25_with_session)
    session = weights.vector * (likeness - vector) + weights.text * (wording - text)
    return vector, text, session


def recency(times_us: npt.NDArray[np.int64], now_us: int, half_life_us: int) -> Scores:
    """How new memories are, float64 [n]: 1 for now and later, half of that for each half-life before."""
    ages_us = np.maximum(now_us - times_us.astype(np.float64), 0.0)
    return np.exp2(-ages_us / half_life_us)


def positive(cosines: npt.NDArray[np.floating]) -> Scores:
    """The cosines, float64 [n]; 0 instead of what is negative or NaN."""
    return np.maximum(np.nan_to_num(cosines.astype(np.float64), nan=0.0), 0.0)


def _scaled(signal: Scores, with_session: Scores) -> tuple[Scores, Scores]:
    highest = float(with_session.max(initial=0.0))
    if highest <= 0:
        return np.zeros(len(signal)), np.zeros(len(signal))
    return signal / highest, with_session / highest
