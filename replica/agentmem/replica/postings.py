"""Which memories have a word, in memory: BM25 of the few thousand that a search is about.

tantivy finds the best of very many; it has no cheap way to score given ones, nor to say what each word counts
for in them. This has both: per term a bitmap of ordinals, so that a search among some memories costs one
intersection for each of its words, and how often a memory has it, as a bitmap for each further time. Formula,
constants and rounded lengths are those of tantivy, so scores are the same (but for what is deleted: each of
the two forgets it in its own time).

Bitmaps are only added to and shared by all views. A search cuts them to ordinals that its view has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentmem.replica.columns import Column
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set, places_of

# Of BM25, as tantivy has them.
K1 = 1.2
B = 0.75
# Beyond this a word counts no more: a memory that has it so often has little else.
MAX_FREQUENCY = 255
# What has more dead documents than live ones, and this many, is copied without them.
MIN_COMPACTED_DOCUMENTS = 1024

# Lengths are kept in a byte: up to 40 as they are, then rounded down to four binary digits.
_LENGTHS = [*range(24), *(24 + (((i & 7) | 8) << (i // 8 - 1) if i > 7 else i) for i in range(256 - 24))]

Scores = npt.NDArray[np.float64]
Posting = int | OrdinalSet  # that only one document has a term is kept as a plain number


@dataclass(frozen=True, slots=True)
class WordHits:
    """What some memories have of each of several words, one word behind the other.

    Attributes:
        ordinals: uint64 [n], ascending within a word.
        scores: the word's part of their BM25, float64 [n].
        counts: how many of these each word has.
    """

    ordinals: OrdinalArray
    scores: Scores
    counts: tuple[int, ...]

    @property
    def words(self) -> npt.NDArray[np.intp]:
        """The number of the word of each, [n]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def summed(self) -> tuple[OrdinalArray, Scores]:
        """Each memory once, ascending, with its score for all words."""
        if not len(self.ordinals):
            return self.ordinals, self.scores
        order = np.argsort(self.ordinals, kind="stable")
        ordinals = self.ordinals[order]
        begins = np.empty(len(ordinals), dtype=np.bool_)
        begins[0] = True
        np.not_equal(ordinals[1:], ordinals[:-1], out=begins[1:])
        starts = np.flatnonzero(begins)
        return ordinals[starts], np.add.reduceat(self.scores[order], starts)


NO_WORD_HITS = WordHits(np.empty(0, dtype=np.uint64), np.empty(0), ())


class Postings:
    """The terms of documents, of all namespaces. One thread adds, any thread asks.

    What it asks for are documents that had been added by then: others may be there in part.

    Attributes:
        tokens: how many there are in all documents, the deleted ones included.
    """

    def __init__(self) -> None:
        self._terms: dict[str, Posting] = {}
        # Of what is in a document n + 2 times, at n.
        self._repeated: dict[str, list[Posting]] = {}
        self._ordinals = Column(np.uint64)
        self._lengths = Column(np.uint8)
        self._dead = OrdinalSet()
        self.tokens = 0

    @classmethod
    def of(
        cls,
        ordinals: OrdinalArray,
        lengths: npt.NDArray[np.uint8],
        terms: Mapping[str, Sequence[Posting]],
        tokens: int | None = None,
    ) -> Postings:
        """What ``contents`` has given.

        Args:
            tokens: how many there are in all documents; without it, as the rounded lengths say.
        """
        postings = cls()
        postings._ordinals, postings._lengths = Column.of(ordinals), Column.of(lengths)
        postings.tokens = int(np.take(_LENGTHS, lengths).sum()) if tokens is None else tokens
        postings._terms = {term: levels[0] for term, levels in terms.items()}
        postings._repeated = {term: [*levels[1:]] for term, levels in terms.items() if len(levels) > 1}
        return postings

    def contents(
        self,
    ) -> tuple[OrdinalArray, npt.NDArray[np.uint8], dict[str, list[Posting]]]:
        """The ordinals of all documents, the bytes of their lengths, and of each term who has it.

        That is who has it at all, at least twice, and so on.
        """
        terms = {term: [posting, *self._repeated.get(term, ())] for term, posting in self._terms.items()}
        return self.ordinals, self._lengths.rows(self.documents), terms

    @property
    def ordinals(self) -> OrdinalArray:
        """Of all documents, the deleted ones included, uint64 [n], ascending."""
        return self._ordinals.rows(self.documents)

    @property
    def documents(self) -> int:
        """How many there are, the deleted ones included."""
        return self._lengths.count

    def add(self, ordinal: int, terms: Sequence[str]) -> None:
        """Adds a document. Its ordinal is larger than all before."""
        self._ordinals.append(ordinal)
        self._lengths.append(_length_byte(len(terms)))
        self.tokens += len(terms)
        counts = Counter(terms)
        known_terms = self._terms
        for term in counts:
            known = known_terms.get(term)
            if known is None:
                known_terms[term] = ordinal
            elif isinstance(known, OrdinalSet):
                known.add(ordinal)
            else:
                known_terms[term] = OrdinalSet((known, ordinal))
        if len(counts) < len(terms):
            for term, count in counts.items():
                if count > 1:
                    self._add_repeated(term, ordinal, min(count, MAX_FREQUENCY))

    def _add_repeated(self, term: str, ordinal: int, count: int) -> None:
        levels = self._repeated.setdefault(term, [])
        for level in range(count - 1):
            if level == len(levels):
                levels.append(ordinal)
            elif isinstance(known := levels[level], OrdinalSet):
                known.add(ordinal)
            else:
                levels[level] = OrdinalSet((known, ordinal))

    def delete(self, ordinal: int) -> None:
        """Says that nobody will ask for a document any more."""
        self._dead.add(ordinal)

    @property
    def is_worn(self) -> bool:
        """Whether a copy without what was deleted pays."""
        return len(self._dead) >= MIN_COMPACTED_DOCUMENTS and 2 * len(self._dead) > self.documents

    def cut(self) -> Postings:
        """A copy without what was deleted; this one serves older views on."""
        ordinals, lengths, terms = self.contents()
        live = ordinal_set(ordinals) - self._dead
        mask = np.isin(ordinals, ordinal_array(live), assume_unique=True)
        cut = {
            term: [kept for level in levels if (kept := _cut(level, live)) is not None]
            for term, levels in terms.items()
        }
        return Postings.of(
            ordinals[mask], lengths[mask], {term: levels for term, levels in cut.items() if levels}
        )

    def frequency(self, term: str) -> int:
        """How many documents have the term, those that were deleted lately included."""
        posting = self._terms.get(term)
        return 0 if posting is None else 1 if isinstance(posting, int) else len(posting)

    def length_costs(self) -> Scores:
        """What the length of a document adds below the fraction of BM25, float64 [256], by its byte."""
        average = self.tokens / self.documents if self.tokens else 1.0
        costs: Scores = K1 * (1 - B + B * np.array(_LENGTHS) / average)
        return costs

    def hits(
        self,
        weighed: Sequence[tuple[str, float]],
        among: OrdinalSet,
        length_costs: Scores,
        max_hits: int | None = None,
    ) -> WordHits:
        """What some memories have of terms.

        Args:
            weighed: each term with what it counts for.
            among: ordinals that were added.
            length_costs: from ``length_costs``.
            max_hits: terms are left out from the one on with which there would be more.
        """
        found, weights, repeated = [], [], []
        left = max_hits
        for place, (term, weight) in enumerate(weighed):
            both = _common(self._terms.get(term), among)
            if left is not None and (left := left - len(both)) < 0:
                break
            found.append(ordinal_array(both))
            weights.append(weight * (K1 + 1))
            for level in self._repeated.get(term, ()) if both else ():
                again = _common(level, both)
                if not again:
                    break
                repeated.append((place, ordinal_array(again)))
        counts = tuple(map(len, found))
        if not any(counts):
            return WordHits(np.empty(0, dtype=np.uint64), np.empty(0), counts)
        ordinals = np.concatenate(found)
        frequencies = np.ones(len(ordinals))
        ends = np.cumsum(counts)
        for place, again_ordinals in repeated:
            first = ends[place] - counts[place]
            frequencies[first + np.searchsorted(found[place], again_ordinals)] += 1
        costs = self.costs(ordinals, length_costs)
        return WordHits(ordinals, np.repeat(weights, counts) * frequencies / (frequencies + costs), counts)

    def costs(self, ordinals: OrdinalArray, length_costs: Scores) -> Scores:
        """What the length of each of some documents adds below the fraction of BM25, float64 [n].

        Args:
            ordinals: uint64 [n], that were added.
            length_costs: from ``length_costs``.
        """
        rows = places_of(ordinals, self.ordinals)
        costs: Scores = length_costs[self._lengths.rows(self.documents)[rows]]
        return costs


def _length_byte(tokens: int) -> int:
    return bisect_right(_LENGTHS, tokens) - 1


def _cut(posting: Posting, live: OrdinalSet) -> Posting | None:
    if isinstance(posting, int):
        return posting if posting in live else None
    cut = posting & live
    return cut if len(cut) > 1 else cut.min() if cut else None


def _common(posting: Posting | None, among: OrdinalSet) -> OrdinalSet:
    if isinstance(posting, OrdinalSet):
        return posting & among
    return OrdinalSet((posting,)) if posting is not None and posting in among else OrdinalSet()
