"""BM25 of a search's words as of one view: of the best of some memories, or of each of them, word by word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from agentmem.replica.ordinals import OrdinalArray, OrdinalSet
from agentmem.replica.planner import scores_all
from agentmem.replica.postings import Postings, Scores, WordHits
from agentmem.replica.ranking import best
from agentmem.replica.sought import MAX_QUERY_TOKENS, MORE_QUERY_TOKENS, idf

# A term of the index with what it counts for.
Weighed = tuple[str, float]


class WordScores:
    """Any thread may ask.

    Args:
        postings: those of later views come to it meanwhile.
    """

    def __init__(self, postings: Postings) -> None:
        self._postings = postings
        self._length_costs = postings.length_costs()

    def weighed(self, namespace_number: int, documents: int, tokens: Iterable[str]) -> list[Weighed]:
        """Those of the tokens that the namespace has, the rarest first.

        Args:
            documents: how many live documents the namespace has.
        """
        frequency = self._postings.frequency
        found = [
            (term, idf(documents, count))
            for token in tokens
            if (count := frequency(term := f"{namespace_number}|{token}"))
        ]
        found.sort(key=lambda each: (-each[1], each[0]))
        return found

    def frequency(self, term: str) -> int:
        """How many documents have the term, those that were deleted lately included."""
        return self._postings.frequency(term)

    def costs(self, documents: OrdinalArray) -> Scores:
        """What the length of each of some documents adds below the fraction of BM25, float64 [n]."""
        return self._postings.costs(documents, self._length_costs)

    def pays(self, weighed: Sequence[Weighed], documents: int, allowed: int, fetch_hits: int) -> bool:
        """Whether scoring all that share a word is cheaper than having the index find so many of the best."""
        having = sum(self._postings.frequency(term) for term, _ in weighed)
        return scores_all(having * allowed // max(1, documents), fetch_hits)

    def scored(
        self, weighed: Sequence[Weighed], among: OrdinalSet, documents: OrdinalArray
    ) -> tuple[WordHits, npt.NDArray[np.intp], Scores]:
        """What documents have of the rarest words, and their scores.

        The scores are by the same words, and by more while these leave documents without any.

        Args:
            among, documents: these documents, the same twice.

        Returns:
            The hits; which of the documents each is of; the score of each document, float64 [n].
        """
        hits = self._hits(weighed, MAX_QUERY_TOKENS, among)
        places = documents.searchsorted(hits.ordinals)
        scores: Scores = np.bincount(places, hits.scores, len(documents)).astype(np.float64, copy=False)
        most = MAX_QUERY_TOKENS
        while most < len(weighed) and not scores.all():
            most *= MORE_QUERY_TOKENS
            more = self._hits(weighed, most, among)
            scores[:] = np.bincount(np.searchsorted(documents, more.ordinals), more.scores, len(documents))
        return hits, places, scores

    def best(
        self, weighed: Sequence[Weighed], top_k: int, allowed: OrdinalSet
    ) -> tuple[OrdinalArray, Scores]:
        """The best ``top_k`` of the allowed documents by the rarest words, and by more if these find too few.

        Returns:
            Ordinals, uint64 [n], and their scores, float64 [n], best first.
        """
        wanted = min(top_k, len(allowed))
        most = MAX_QUERY_TOKENS
        ordinals, scores = self._hits(weighed, most, allowed).summed()
        while most < len(weighed) and len(ordinals) < wanted:
            most *= MORE_QUERY_TOKENS
            ordinals, scores = self._hits(weighed, most, allowed).summed()
        places = best(ordinals, scores, top_k)
        return ordinals[places], scores[places]

    def _hits(self, weighed: Sequence[Weighed], most: int, among: OrdinalSet) -> WordHits:
        return self._postings.hits(weighed[:most], among, self._length_costs)

    def hits(self, weighed: Sequence[Weighed], among: OrdinalSet, max_hits: int) -> WordHits:
        """What documents have of the rarest words; of these as many as have ``max_hits`` in all."""
        return self._postings.hits(weighed[:MAX_QUERY_TOKENS], among, self._length_costs, max_hits)
