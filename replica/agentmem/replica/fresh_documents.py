"""Documents that are on their way into the text index, in memory.

A commit of the text index takes tens of milliseconds of work, however little is new. So it is made for
thousands of documents, and until then a search finds them here: their plain words in the postings, which have
them at once, phrases and words as they are written in these texts.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from agentmem.replica.ordinals import OrdinalSet

# Takes a position, and is not indexed.
GAP = "-"

Positions = Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class FreshDocument:
    """A document as the index takes it: the tokens of each field, in one text."""

    ordinal: int
    body: str
    words: str


class FreshDocuments:
    """What came since a commit began. One thread adds, any thread asks.

    Attributes:
        ordinals: not to be changed.
        documents: in the order in which they came; not to be changed.
    """

    def __init__(self) -> None:
        self.ordinals = OrdinalSet()
        self.documents: list[FreshDocument] = []
        self._words: dict[int, str] = {}
        # Who has a term among its words, as far as so many documents go; made when somebody asks.
        self._having: defaultdict[str, list[int]] = defaultdict(list)
        self._looked_through = 0
        self._looking = threading.Lock()

    def __len__(self) -> int:
        return len(self.documents)

    def add(self, document: FreshDocument) -> None:
        """Adds a document; a search finds it when it is among the ordinals that it may return."""
        self.documents.append(document)
        self._words[document.ordinal] = document.words
        self.ordinals.add(document.ordinal)

    def frequency(self, term: str) -> int:
        """How many documents have the term among their words."""
        return len(self._having_words().get(term, ()))

    def _having_words(self) -> dict[str, list[int]]:
        if self._looked_through < len(self.documents):
            with self._looking:
                for document in self.documents[self._looked_through :]:
                    for term in set(document.words.split(" ")):
                        self._having[term].append(document.ordinal)
                    self._looked_through += 1
        return self._having

    def counts(self, terms: Positions, among: OrdinalSet) -> dict[int, int]:
        """How often documents have the terms, each at its position behind the first, by ordinal.

        Args:
            terms: positions, ascending, and terms.
            among: ordinals that may be found.
        """
        having = self._having_words()
        rarest = min((having.get(term, []) for _, term in terms), key=len)
        candidates = [ordinal for ordinal in list(rarest) if ordinal in among]
        if not candidates:
            return {}
        if len(terms) == 1:
            term = terms[0][1]
            return {ordinal: self._words[ordinal].split(" ").count(term) for ordinal in candidates}
        find = _pattern(terms).findall
        return {ordinal: count for ordinal in candidates if (count := len(find(self._words[ordinal])))}


def in_one_text(prefix: str, tokens: list[str]) -> str:
    """The tokens as terms; empty ones keep their position and are no terms."""
    if not tokens:
        return ""
    text = prefix + f" {prefix}".join(tokens)
    return f"{text} ".replace(f"{prefix} ", f"{GAP} ")[:-1] if "" in tokens else text


def _pattern(terms: Positions) -> re.Pattern[str]:
    """Finds where the terms begin, with any other tokens at the positions between them."""
    first, written = terms[0]
    pattern = re.escape(written)
    for position, term in terms[1:]:
        pattern += r" \S+" * (position - first - 1) + " " + re.escape(term)
        first = position
    # Ahead of where it begins, so that one may begin within another.
    return re.compile(rf"(?<!\S)(?={pattern}(?!\S))")
