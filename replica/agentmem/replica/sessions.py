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

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agentmem.replica.facets import NO_SESSION, SessionPlaces
from agentmem.replica.ranking import Scores

# Of what a neighbour has for a word, and of its likeness, by its distance in turns.
WORD_SHARES = (0.6, 0.35)
LIKENESS_SHARES = (0.2, 0.1)
MAX_DISTANCE = max(len(WORD_SHARES), len(LIKENESS_SHARES))
# Where neighbours stand from a memory, and what each of these has of its words; of likeness, of all in a row.
_OFFSETS = np.array([[side * gap] for gap in range(1, len(WORD_SHARES) + 1) for side in (-1, 1)])
_WORD_SHARES = np.repeat(WORD_SHARES, 2)[:, np.newaxis]
_LIKENESS_SHARES = np.array((*reversed(LIKENESS_SHARES), 1.0, *LIKENESS_SHARES))

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

    Each memory has a slot. Those of a session are as many slots apart as places, and all others so many that
    no share reaches from one to the other: what memories have of their neighbours is a convolution.

    Args:
        places: of n memories, from ``keys``.
    """

    def __init__(self, places: Keys) -> None:
        order = np.argsort(places)
        steps = np.diff(places[order])
        steps[(steps < 1) | (steps > MAX_DISTANCE)] = MAX_DISTANCE + 1
        self._slots = np.empty_like(order)
        self._slots[order[:1]] = MAX_DISTANCE
        self._slots[order[1:]] = MAX_DISTANCE + np.cumsum(steps)
        # On both sides the shares may leave the memories.
        self._width = int(steps.sum()) + 2 * MAX_DISTANCE + 1

    def with_likeness(self, cosines: Scores) -> Scores:
        """The positive cosines with a share of their neighbours', float64 [n].

        Args:
            cosines: not negative, float64 [n].
        """
        own = np.zeros(self._width)
        own[self._slots] = cosines
        total: Scores = np.correlate(own, _LIKENESS_SHARES, "same")[self._slots]
        return total

    def more_words(self, counts: Sequence[int], memories: npt.NDArray[np.intp], scores: Scores) -> Scores:
        """The BM25 that each memory has from the words of its neighbours, float64 [n].

        Args:
            counts: how many memories have each word.
            memories: the numbers of these, one word behind the other, [hits]; none twice for a word.
            scores: the word's part of the memory's BM25, float64 [hits].
        """
        if not len(memories):
            return np.zeros(len(self._slots))
        width = self._width
        slots = self._slots[memories]
        # A row for each word.
        cells = slots + np.arange(0, len(counts) * width, width).repeat(counts)
        highest = np.zeros(len(counts) * width)
        highest[cells] = scores
        np.maximum.at(highest, (cells + _OFFSETS).ravel(), (_WORD_SHARES * scores).ravel())
        more = highest.reshape(-1, width).sum(axis=0)
        more -= np.bincount(slots, scores, width)
        found: Scores = more[self._slots]
        return found
