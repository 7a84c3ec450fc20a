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
        # How far in the session, from each to the one so many behind it in this order; 0 is too far.
        self._distances = [
            np.where(steps <= MAX_DISTANCE, steps, 0)
            for gap in range(1, MAX_DISTANCE + 1)
            if len(steps := ordered[gap:] - ordered[:-gap])
        ]

    def with_likeness(self, cosines: Scores) -> Scores:
        """The positive cosines with a share of their neighbours', float64 [n].

        Args:
            cosines: not negative, float64 [n].
        """
        own = cosines[self._order]
        total = own.copy()
        for gap, distances in enumerate(self._distances, start=1):
            shares = _LIKENESS_SHARES[distances]
            total[gap:] += shares * own[:-gap]
            total[:-gap] += shares * own[gap:]
        return self._as_given(total)

    def more_words(
        self, words: npt.NDArray[np.intp], memories: npt.NDArray[np.intp], scores: Scores
    ) -> Scores:
        """The BM25 that each memory has from the words of its neighbours, float64 [n].

        Args:
            words, memories: the numbers of a word and of a memory that has it, [hits] each; no pair twice.
            scores: the word's part of the memory's BM25, float64 [hits].
        """
        count = len(self._order)
        if not len(words) or not self._distances:
            return np.zeros(count)
        where = np.empty(count, dtype=np.intp)
        where[self._order] = np.arange(count)
        places = where[memories]
        # A row for each word; shares that would leave a row are 0.
        width = count + MAX_DISTANCE
        cells = words * width + places + MAX_DISTANCE
        own = np.zeros((int(words.max()) + 1) * width + MAX_DISTANCE)
        own[cells] = scores
        highest = own.copy()
        for gap, distances in enumerate(self._distances, start=1):
            shares = np.zeros(count + gap)
            shares[gap:-gap] = _WORD_SHARES[distances]
            for target, shared in ((cells + gap, shares[places + gap]), (cells - gap, shares[places])):
                highest[target] = np.maximum(highest[target], shared * scores)
        more = (highest - own)[MAX_DISTANCE:].reshape(-1, width)[:, :count].sum(axis=0)
        return self._as_given(more)

    def _as_given(self, ordered: Scores) -> Scores:
        given = np.empty_like(ordered)
        given[self._order] = ordered
        return given
