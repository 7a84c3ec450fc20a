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
        self._order = np.argsort(places, kind="stable")
        ordered = places[self._order]
        # Of neighbours in this order: how far apart they are here, how far in the session, and which are.
        self._beside: list[tuple[int, int, npt.NDArray[np.bool_]]] = []
        for gap in range(1, MAX_DISTANCE + 1):
            steps = ordered[gap:] - ordered[:-gap]
            for distance in range(gap, MAX_DISTANCE + 1):
                is_so_far = steps == distance
                if is_so_far.any():
                    self._beside.append((gap, distance, is_so_far))

    def with_likeness(self, cosines: Scores) -> Scores:
        """The positive cosines with a share of their neighbours', float64 [n].

        Args:
            cosines: not negative, float64 [n].
        """
        own = cosines[self._order]
        total = own.copy()
        for gap, distance, is_beside in self._beside:
            shares = is_beside * LIKENESS_SHARES[distance - 1]
            total[gap:] += shares * own[:-gap]
            total[:-gap] += shares * own[gap:]
        return self._as_given(total)

    def more_words(
        self, words: npt.NDArray[np.intp], memories: npt.NDArray[np.intp], scores: Scores
    ) -> Scores:
        """The BM25 that each memory has from the words of its neighbours, float64 [n].

        Args:
            words, memories: the numbers of a word and a memory that has it, [hits] each.
            scores: the word's part of the memory's BM25, float64 [hits].
        """
        if not len(words) or not self._beside:
            return np.zeros(len(self._order))
        where = np.empty(len(self._order), dtype=np.intp)
        where[self._order] = np.arange(len(self._order))
        own = np.zeros((int(words[-1]) + 1, len(self._order)))
        own[words, where[memories]] = scores
        highest = own.copy()
        for gap, distance, is_beside in self._beside:
            shares = is_beside * WORD_SHARES[distance - 1]
            np.maximum(highest[:, gap:], shares * own[:, :-gap], out=highest[:, gap:])
            np.maximum(highest[:, :-gap], shares * own[:, gap:], out=highest[:, :-gap])
        return self._as_given((highest - own).sum(axis=0))

    def _as_given(self, ordered: Scores) -> Scores:
        given = np.empty_like(ordered)
        given[self._order] = ordered
        return given
