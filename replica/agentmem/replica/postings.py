"""Which memories have a word, in memory: BM25 of the few thousand that a search is about.

tantivy finds the best of very many; it has no cheap way to score given ones, nor to say what each word counts
for in them. This has both: per term a bitmap of ordinals, so that a search among some memories costs one
intersection for each of its words, and how often a memory has it, as a bitmap for each further time. Formula,
constants and rounded lengths are those of tantivy, so scores are the same (but for what is deleted: each of
the two forgets it in its own time).

Bitmaps are only added to and shared by all views. A search cuts them to ordinals that its view has.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agentmem.core.turns import give_turn
from agentmem.replica.columns import Column
from agentmem.replica.ordinals import (
    OrdinalArray,
    OrdinalSet,
    joined_ordinals,
    ordinal_array,
    ordinal_set,
    places_of,
)

# Of BM25, as tantivy has them.
K1 = 1.2
B = 0.75
# Beyond this a word counts no more: a memory that has it so often has little else.
MAX_FREQUENCY = 255
# What has more dead documents than live ones, and this many, is copied without them.
MIN_COMPACTED_DOCUMENTS = 1024

# Between the namespace of a term and its token.
PREFIX_END = "|"
# Together they take less than one by one; beyond so many it hardly matters.
MAX_RECENT_DOCUMENTS = 8192

# Lengths are kept in a byte: up to 40 as they are, then rounded down to four binary digits.
_LENGTHS = [*range(24), *(24 + (((i & 7) | 8) << (i // 8 - 1) if i > 7 else i) for i in range(256 - 24))]
_LENGTHS_OF_BYTES = np.array(_LENGTHS)

Scores = npt.NDArray[np.float64]
Posting = int | OrdinalSet  # that only one document has a term is kept as a plain number


class WordHits(NamedTuple):
    """What some memories have of each of several words, one word behind the other.

    Attributes:
        ordinals: uint64 [n], ascending within a word.
        scores: the word's part of their BM25, float64 [n].
        counts: how many of these each word has.
    """

    ordinals: OrdinalArray
    scores: Scores
    counts: tuple[int, ...]

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

    What it asks for are documents that had been shown by then: others may be there in part.

    A document has some fifty terms, whose bitmaps are far apart in memory. So what is added waits in arrays,
    and goes into the bitmap of a term when somebody asks for that, or with thousands of others.

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
        # Not shown yet: documents with their lengths.
        self._added: list[tuple[int, int]] = []
        self._shown_ordinal = 0
        # Not in the bitmaps yet: by prefix and token who has it, ascending, once for each time; as pyroaring
        # takes them, without a look at each.
        self._recent: dict[str, defaultdict[str, array[int]]] = {}
        self._recent_documents = 0
        self._taking_up = threading.Lock()

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
        postings.tokens = int(np.take(_LENGTHS_OF_BYTES, lengths).sum()) if tokens is None else tokens
        postings._terms = {term: levels[0] for term, levels in terms.items()}
        postings._repeated = {term: [*levels[1:]] for term, levels in terms.items() if len(levels) > 1}
        return postings

    def contents(
        self,
    ) -> tuple[OrdinalArray, npt.NDArray[np.uint8], dict[str, list[Posting]]]:
        """The ordinals of all documents, the bytes of their lengths, and of each term who has it.

        That is who has it at all, at least twice, and so on. For who adds.
        """
        self.settle()
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

    def add(self, ordinal: int, prefix: str, tokens: Sequence[str]) -> None:
        """Adds a document; ``show`` lets others ask for it. Its ordinal is larger than all before.

        Args:
            prefix: with a token it is a term; ends with PREFIX_END, which is nowhere else in it.
        """
        self._added.append((ordinal, len(tokens)))
        recent = self._recent.get(prefix)
        if recent is None:
            recent = self._recent[prefix] = defaultdict(partial(array, "Q"))
        for token in tokens:
            recent[token].append(ordinal)
        self._recent_documents += 1
        if self._recent_documents == MAX_RECENT_DOCUMENTS:
            self.settle()

    def show(self) -> None:
        """Says that from now on others may ask for all that was added."""
        if not self._added:
            return
        lengths = [length for _, length in self._added]
        self._ordinals.extend([ordinal for ordinal, _ in self._added])
        self._lengths.extend([bisect_right(_LENGTHS, length) - 1 for length in lengths])
        self.tokens += sum(lengths)
        self._shown_ordinal = self._added[-1][0]
        self._added = []

    def settle(self) -> None:
        """Puts all that is recent into the bitmaps."""
        self.show()
        for prefix, recent in self._recent.items():
            for token, ordinals in recent.items():
                self._take_up(prefix + token, ordinals)
                give_turn()
        self._recent, self._recent_documents = {}, 0

    def _posting(self, term: str) -> Posting | None:
        """Who has a term; not to be changed."""
        if self._recent:
            end = term.index(PREFIX_END) + 1
            recent = self._recent.get(term[:end])
            if recent is not None and (ordinals := recent.get(term[end:])):
                self._take_up(term, ordinals)
        return self._terms.get(term)

    def _take_up(self, term: str, recent: array[int]) -> None:
        """Puts the recent documents of a term, as far as they are shown, into its bitmaps.

        Who asks does so, and who adds now and then; and another document may be added meanwhile.
        """
        with self._taking_up:
            ordinals = recent[: bisect_right(recent, self._shown_ordinal)]
            if not ordinals:
                return
            known = self._terms.get(term)
            count = _count(known)
            joined = self._terms[term] = _joined(known, ordinals)
            if _count(joined) < count + len(ordinals):
                self._add_repeated(term, ordinals)
            # Behind that: who finds nothing here finds it there.
            del recent[: len(ordinals)]

    def _add_repeated(self, term: str, ordinals: array[int]) -> None:
        levels = self._repeated.setdefault(term, [])
        each = np.frombuffer(ordinals, dtype=np.uint64)
        is_last = np.ones(len(each), dtype=np.bool_)
        np.not_equal(each[1:], each[:-1], out=is_last[:-1])
        distinct, ends = each[is_last], np.flatnonzero(is_last) + 1
        counts = ends.copy()
        counts[1:] -= ends[:-1]
        for level in range(min(int(counts.max()), MAX_FREQUENCY) - 1):
            again = array("Q", distinct[counts > level + 1].tobytes())
            if level == len(levels):
                levels.append(_joined(None, again))
            else:
                levels[level] = _joined(levels[level], again)

    def delete(self, ordinal: int) -> None:
        """Says that nobody will ask for a document any more."""
        self._dead.add(ordinal)

    @property
    def is_worn(self) -> bool:
        """Whether a copy without what was deleted pays."""
        return len(self._dead) >= MIN_COMPACTED_DOCUMENTS and 2 * len(self._dead) > self.documents

    def cut(self) -> Postings:
        """A copy without what was deleted; this one serves older views on. For who adds."""
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
        return _count(self._posting(term))

    def length_costs(self) -> Scores:
        """What the length of a document adds below the fraction of BM25, float64 [256], by its byte."""
        average = self.tokens / self.documents if self.tokens else 1.0
        costs: Scores = K1 * (1 - B + B * _LENGTHS_OF_BYTES / average)
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
        found, counts, weights, repeated = [], [], [], []
        left = max_hits
        for place, (term, weight) in enumerate(weighed):
            both = _common(self._posting(term), among)
            count = len(both)
            if left is not None and (left := left - count) < 0:
                break
            found.append(both)
            counts.append(count)
            weights.append(weight * (K1 + 1))
            for level in self._repeated.get(term, ()) if count else ():
                again = _common(level, both)
                if not again:
                    break
                repeated.append((place, again))
        ordinals = joined_ordinals(found)
        if not len(ordinals):
            return WordHits(ordinals, np.empty(0), tuple(counts))
        scores = np.array(weights).repeat(counts)
        costs = self.costs(ordinals, length_costs)
        if not repeated:
            return WordHits(ordinals, scores / (1.0 + costs), tuple(counts))
        frequencies = np.ones(len(ordinals))
        ends = [*accumulate(counts)]
        for place, again in repeated:
            start, end = ends[place] - counts[place], ends[place]
            frequencies[start + ordinals[start:end].searchsorted(ordinal_array(again))] += 1
        return WordHits(ordinals, scores * frequencies / (frequencies + costs), tuple(counts))

    def costs(self, ordinals: OrdinalArray, length_costs: Scores) -> Scores:
        """What the length of each of some documents adds below the fraction of BM25, float64 [n].

        Args:
            ordinals: uint64 [n], that were added.
            length_costs: from ``length_costs``.
        """
        rows = places_of(ordinals, self.ordinals)
        costs: Scores = length_costs[self._lengths.rows(self.documents)[rows]]
        return costs


def _count(posting: Posting | None) -> int:
    return 0 if posting is None else 1 if isinstance(posting, int) else len(posting)


def _joined(known: Posting | None, ordinals: array[int]) -> Posting:
    """A posting with more documents, ascending, none of which it had; the same bitmap if it is one."""
    if isinstance(known, OrdinalSet):
        known.update(ordinals)
        return known
    if known is None and ordinals[0] == ordinals[-1]:
        return ordinals[0]
    joined = OrdinalSet(ordinals)
    if known is not None:
        joined.add(known)
    return joined


def _cut(posting: Posting, live: OrdinalSet) -> Posting | None:
    if isinstance(posting, int):
        return posting if posting in live else None
    cut = posting & live
    return cut if len(cut) > 1 else cut.min() if cut else None


def _common(posting: Posting | None, among: OrdinalSet) -> OrdinalSet:
    if isinstance(posting, OrdinalSet):
        return posting & among
    return OrdinalSet((posting,)) if posting is not None and posting in among else OrdinalSet()
