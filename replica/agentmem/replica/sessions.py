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
from agentmem.replica.text import TextHits

# Of what a neighbour has for a word, and of its likeness, by its distance in turns.
WORD_SHARES = (0.6, 0.35)
LIKENESS_SHARES = (0.2, 0.1)
MAX_DISTANCE = max(len(WORD_SHARES), len(LIKENESS_SHARES))

# Places within a session are below this.
_SESSION_ROWS = 1 << 40
# Far from all places, so that nothing is beside it.
_NOWHERE = -(1 << 62)

_Keys = npt.NDArray[np.int64]


def keys(places: SessionPlaces) -> _Keys:
    """A number for each place, int64 [n]: neighbours in a session are one apart, and nobody else is."""
    return np.where(places.codes == NO_SESSION, _NOWHERE, places.codes * _SESSION_ROWS + places.ranks)


def with_likeness(cosines: Scores, candidates: _Keys) -> Scores:
    """The positive cosines with a share of their neighbours', float64 [n].

    Args:
        cosines: not negative, float64 [n].
        candidates: the places of these, from ``keys``.
    """
    order = np.argsort(candidates, kind="stable")
    rows = _Rows(candidates[order], cosines[order][np.newaxis])
    total = cosines.copy()
    for distance, share in enumerate(LIKENESS_SHARES, start=1):
        for place in (candidates - distance, candidates + distance):
            total += share * rows.at(place)[0]
    return total


def more_words(candidates: _Keys, words: Sequence[TextHits], spoken: Sequence[_Keys]) -> Scores:
    """The BM25 that each candidate has from the words of its neighbours, float64 [n].

    Args:
        candidates: the places of n memories, from ``keys``.
        words: for each word of the question the memories that have it, with its part of their scores.
        spoken: the places of these.
    """
    if not words:
        return np.zeros(len(candidates))
    known, columns = np.unique(np.concatenate(spoken), return_inverse=True)
    table = np.zeros((len(words), len(known)))
    start = 0
    for row, hits in enumerate(words):
        table[row, columns[start : start + len(hits.scores)]] = hits.scores
        start += len(hits.scores)
    rows = _Rows(known, table)
    own = rows.at(candidates)
    highest = own.copy()
    for distance, share in enumerate(WORD_SHARES, start=1):
        for place in (candidates - distance, candidates + distance):
            np.maximum(highest, share * rows.at(place), out=highest)
    more: Scores = (highest - own).sum(axis=0)
    return np.where(candidates == _NOWHERE, 0.0, more)


class _Rows:
    """Values by place: 0 where there is nothing.

    Args:
        known: places, ascending.
        values: float64 [rows, len(known)].
    """

    def __init__(self, known: _Keys, values: Scores) -> None:
        self._known = known
        self._values = values

    def at(self, places: _Keys) -> Scores:
        """The values at each of n places, float64 [rows, n]."""
        if not len(self._known):
            return np.zeros((len(self._values), len(places)))
        found = np.minimum(np.searchsorted(self._known, places), len(self._known) - 1)
        return np.where(self._known[found] == places, self._values[:, found], 0.0)
