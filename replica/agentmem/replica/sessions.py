"""What a memory has from those around it in its session.

What answers a question often stands beside the turn that has its words, and the words of a question are
often spread over some turns. So a candidate has, besides what it says itself,

- of each word of the question that its neighbours say more of, a share of what they have for the word; a
  word counts once, however many say it;
- a share of the likeness of its neighbours.

The shares were chosen on five LoCoMo conversations, each of which gains. It matters little what they are
exactly: DESIGN.md has the figures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agentmem.replica.facets import NO_SESSION, SessionPlaces
from agentmem.replica.ranking import Scores

# Of what a neighbour has for a word, and of its likeness, by its distance in turns.
WORD_SHARES = (0.6, 0.35)
LIKENESS_SHARES = (0.2, 0.1)
MAX_DISTANCE = max(len(WORD_SHARES), len(LIKENESS_SHARES))
# By the distance, 0 for who is too far.
_WORD_SHARES, _LIKENESS_SHARES = np.array((0.0, *WORD_SHARES)), np.array((0.0, *LIKENESS_SHARES))

# Places within a session are below this.
_SESSION_ROWS = 1 << 40
# Far from all places, so that nothing is beside it.
_NOWHERE = -(1 << 62)

Keys = npt.NDArray[np.int64]


def keys(places: SessionPlaces) -> Keys:
    """A number for each place, int64 [n]: neighbours in a session are one apart, and nobody else is."""
    return np.where(places.codes == NO_SESSION, _NOWHERE, places.codes * _SESSION_ROWS + places.ranks)


class Neighbours:
    """Who stands beside whom among some memories.

    Args:
        places: of n memories, from ``keys``.
    """

    def __init__(self, places: Keys) -> None:
        self._order = np.argsort(places)
        ordered = places[self._order]
        self._where = np.empty_like(self._order)
        self._where[self._order] = np.arange(len(places))
        # What each has from the one so many behind it in this order, and that one from it.
        self._word_shares: list[Scores] = []
        self._likeness_shares: list[Scores] = []
        for gap in range(1, MAX_DISTANCE + 1):
            steps = ordered[gap:] - ordered[:-gap]
            if len(steps):
                distances = np.where(steps <= MAX_DISTANCE, steps, 0)
                self._likeness_shares.append(_LIKENESS_SHARES[distances])
                shares = np.zeros(len(places) + gap)
                shares[gap:-gap] = _WORD_SHARES[distances]
                self._word_shares.append(shares)

    def with_likeness(self, cosines: Scores) -> Scores:
        """The positive cosines with a share of their neighbours', float64 [n].

        Args:
            cosines: not negative, float64 [n].
        """
        own = cosines[self._order]
        total = own.copy()
        for gap, shares in enumerate(self._likeness_shares, start=1):
            total[gap:] += shares * own[:-gap]
            total[:-gap] += shares * own[gap:]
        return total[self._where]

    def more_words(
        self, words: npt.NDArray[np.intp], memories: npt.NDArray[np.intp], scores: Scores
    ) -> Scores:
        """The BM25 that each memory has from the words of its neighbours, float64 [n].

        Args:
            words, memories: the numbers of a word and of a memory that has it, [hits] each; no pair twice.
            scores: the word's part of the memory's BM25, float64 [hits].
        """
        count = len(self._order)
        if not len(words) or not self._word_shares:
            return np.zeros(count)
        places = self._where[memories]
        # A row for each word; shares that would leave a row are 0.
        width = count + MAX_DISTANCE
        cells = words * width + places + MAX_DISTANCE
        own = np.zeros((int(words.max()) + 1) * width + MAX_DISTANCE)
        own[cells] = scores
        highest = own.copy()
        for gap, shares in enumerate(self._word_shares, start=1):
            for target, shared in ((cells + gap, shares[places + gap]), (cells - gap, shares[places])):
                highest[target] = np.maximum(highest[target], shared * scores)
        highest -= own
        more: Scores = highest[MAX_DISTANCE:].reshape(-1, width)[:, :count].sum(axis=0)[self._where]
        return more
