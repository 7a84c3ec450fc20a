"""What a search by words has found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TextHits:
    """Ordinals, uint64 [n], and their BM25 scores, float64 [n], best first; how they were found, in words."""

    ordinals: OrdinalArray
    scores: Scores
    plan: str = ""

    def cut_to(self, allowed: OrdinalSet) -> TextHits:
        """Those that are among some ordinals."""
        found = ordinal_array(ordinal_set(self.ordinals) & allowed)
        if len(found) == len(self.ordinals):
            return self
        mask = np.isin(self.ordinals, found)
        return TextHits(self.ordinals[mask], self.scores[mask])


NO_HITS = TextHits(np.empty(0, dtype=np.uint64), np.empty(0))
# Of what is found by scoring all of it.
SCORED_PLAN = "all that match and share a word"
