"""The BM25 scores of a hybrid search's candidates, of which words have found only the best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agentmem.replica.ordinals import OrdinalArray
from agentmem.replica.ranking import Scores
from agentmem.replica.text import TextHits


class Bm25:
    """The scores of n candidates as far as they are known, and where to learn the others.

    Attributes:
        scores: float64 [n]; 0 for one that shares no word, or is not known yet.

    Args:
        candidates: uint64 [n], ascending.
        texts: the best by words, all of them candidates.
        look_up: the scores of some ordinals, ascending; None when words found no more than ``texts``.
    """

    def __init__(
        self, candidates: OrdinalArray, texts: TextHits, look_up: Callable[[OrdinalArray], Scores] | None
    ) -> None:
        self._candidates = candidates
        self._look_up = look_up
        self._lowest = float(texts.scores[-1]) if len(texts.ordinals) else 0.0
        self.scores = np.zeros(len(candidates))
        self.scores[np.searchsorted(candidates, texts.ordinals)] = texts.scores
        self._unknown = self.scores == 0

    def learn(self, scores: Scores, worst: float, weight: float, more_words: Scores, gains: Scores) -> bool:
        """Looks up what may change the hits, and says whether there was any.

        What words did not find has no higher BM25 than the last that they found. So of the others only those
        count that would be hits with so much more, or to which all scores would be scaled.

        Args:
            scores: of the candidates so far, float64 [n].
            worst: the score of the last hit so far.
            weight: of words.
            more_words: BM25 that the sessions add, float64 [n].
            gains: what the sum of both is multiplied with, float64 [n].
        """
        if self._look_up is None or not self._unknown.any():
            return False
        in_all = (self.scores + more_words) * gains
        highest = float(in_all.max())
        unseen = self._lowest * gains
        may_change = scores + weight * unseen / highest >= worst
        may_change |= in_all + unseen > highest
        wanted = np.flatnonzero(self._unknown & may_change)
        if not len(wanted):
            return False
        self._unknown[wanted] = False
        self.scores[wanted] = self._look_up(self._candidates[wanted])
        return True
