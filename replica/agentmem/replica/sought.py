"""What a search looks for in the text index, and what each of it counts for.

Weights are inverse document frequencies within the namespace. Of a word that may be misspelt all that is
like it is looked for, and a memory counts with the best of them; what is further off counts less, and never
more than what is nearer, or a rare word would outdo the common one that was meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from agentmem.replica.fuzziness import EDIT_SHARES, FORM_SHARE, run_patterns
from agentmem.replica.stop_words import STOP_WORDS
from agentmem.replica.vocabulary import NearWord

# Lucene's limit, too. What is longer is no word: base64, a URL's token.
MAX_TOKEN_BYTES = 255
# A question of 16 KiB has thousands of words; the rarest of them decide the order. More are looked for when
# these leave the hits too few: so many times as many.
MAX_QUERY_TOKENS = 64
MORE_QUERY_TOKENS = 8


def is_indexed(token: str) -> bool:
    return len(token.encode()) <= MAX_TOKEN_BYTES


@dataclass(frozen=True, slots=True)
class Sought:
    """A word to look for, or several with their positions.

    Attributes:
        field: of the text index.
        terms: positions and terms, as they are in the index.
        weight: what it counts for: its inverse document frequency within the namespace, or a part of that.
        index_weight: what the index takes for that, by its count of the documents of all namespaces.
    """

    field: str
    terms: tuple[tuple[int, str], ...]
    weight: float
    index_weight: float

    def text(self) -> str:
        """The words, with a ? for each that may be any."""
        written = ""
        following = 0
        for position, term in self.terms:
            written += "?" * (position - following) + term.partition("|")[2]
            following = position + 1
        return written


class Seeker:
    """Weighs what is looked for in one namespace.

    Args:
        frequency: in how many documents a field has a term.
        index_frequency: in how many documents of the index; fresh ones are not in it.
        index_documents: how many documents the index has.
        number: of the namespace.
        documents: how many live documents the namespace has.
    """

    def __init__(
        self,
        frequency: Callable[[str, str], int],
        index_frequency: Callable[[str, str], int],
        index_documents: int,
        number: int,
        documents: int,
    ) -> None:
        self._frequency = frequency
        self._index_frequency = index_frequency
        self._index_documents = index_documents
        self._number = number
        self._documents = documents

    def one(self, field: str, tokens: Sequence[tuple[int, str]], share: float = 1.0) -> Sought | None:
        """A word, or some with their positions; None when the namespace does not have all of them.

        Args:
            share: of its weight, what it counts for.
        """
        terms = []
        weight = index_weight = 0.0
        for position, token in tokens:
            term = f"{self._number}|{token}"
            frequency = self._frequency(field, term) if is_indexed(token) else 0
            if not frequency:
                return None
            terms.append((position, term))
            # The index weighs a phrase by the sum of its words' weights.
            weight += idf(self._documents, frequency)
            index_weight += idf(self._index_documents, self._index_frequency(field, term))
        return Sought(field, tuple(terms), weight * share, index_weight) if terms else None

    def tokens(self, tokens: Iterable[str]) -> list[Sought]:
        """Those of the tokens that the namespace has, the rarest first."""
        found = (self.one("body", [(0, token)]) for token in dict.fromkeys(tokens))
        return sorted((one for one in found if one is not None), key=lambda one: (-one.weight, one.terms))

    def rarest_words(self, words: Iterable[str], *, first: str) -> list[str]:
        """The words, the rarest first. What nobody wrote comes before all that somebody did: it is misspelt.

        Args:
            first: comes before all others, if it is one of them.
        """
        known = {
            word: self._frequency("words", f"{self._number}|{word}") for word in words if is_indexed(word)
        }
        return sorted(known, key=lambda word: (word != first, known[word]))

    def like_word(self, word: str, stems: Iterable[str], near: Sequence[NearWord]) -> list[Sought]:
        """The word as it is written, its other forms, and the words near it; the best first."""
        found = []
        ceiling = math.inf
        exact = self.one("words", [(0, word)])
        if exact is not None:
            found.append(exact)
            ceiling = exact.weight
        forms = (self.one("body", [(0, stem)], FORM_SHARE) for stem in stems)
        found += [form for form in forms if form is not None]
        for edits, share in enumerate(EDIT_SHARES):
            alike = []
            for other in near:
                if other.edits == edits and other.word not in STOP_WORDS:
                    one = self.one("words", [(0, other.word)])
                    if one is not None:
                        alike.append((one, share if other.is_whole else share * FORM_SHARE))
            # All count as the commonest of them does, and the common ones come first.
            alike.sort(key=lambda each: (each[0].weight, each[0].terms))
            if alike:
                ceiling = min(ceiling, alike[0][0].weight)
            found += [replace(one, weight=ceiling * share_of) for one, share_of in alike]
        return found

    def like_run(self, run: str, max_edits: int) -> list[Sought]:
        """What a run of CJK characters is where it is misspelt beyond having two neighbours of it."""
        patterns = (
            self.one("words", pattern, EDIT_SHARES[edits]) for pattern, edits in run_patterns(run, max_edits)
        )
        return [one for one in patterns if one is not None]


def idf(documents: int, frequency: int) -> float:
    """The inverse document frequency of BM25 as tantivy computes it."""
    return math.log(1 + (max(documents, frequency) - frequency + 0.5) / (frequency + 0.5))
