"""The text index: BM25 over stemmed English words and CJK bigrams, phrases, and words that may be misspelt.

A token is ``<namespace number>|<word>``, so a search cannot leave its namespace and the document frequency
of a word is that within the namespace.

What plain words find among few memories, and what each word counts for in them, comes from postings in memory
(postings.py). The best of many, and phrases, come from an index on disk (indexed_text.py). That is committed
now and then; what it does not have yet is looked through beside it (fresh_documents.py), so a search finds at
once what was added.

The index is never the only copy of anything: a folder that cannot be read is built again from the store.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from agentmem.core.turns import Turns
from agentmem.replica.fresh_documents import FreshDocument, FreshDocuments, in_one_text
from agentmem.replica.fuzziness import Fuzziness
from agentmem.replica.indexed_text import IndexFolder, IndexSearcher, fetched_first
from agentmem.replica.kept_postings import KeptPostings
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set
from agentmem.replica.postings import K1
from agentmem.replica.ranking import best
from agentmem.replica.scripts import is_cjk
from agentmem.replica.sought import (
    MAX_QUERY_TOKENS,
    MORE_QUERY_TOKENS,
    Seeker,
    Sought,
)
from agentmem.replica.text_hits import NO_HITS, SCORED_PLAN, TextHits
from agentmem.replica.vocabulary import Vocabularies
from agentmem.replica.word_scores import WordScores
from agentmem.replica.words import DocumentTokens, cjk_tokens, fuzzy_parts, phrase_tokens, query_tokens, stems

# A commit takes tens of milliseconds, merges included, so it is made when this much is new. With half of it
# an import has twice as many segments to merge: 18 to 19 us of CPU for a document instead of 14 to 15.
MAX_FRESH_DOCUMENTS = 8192
MAX_FRESH_S = 2.0
# Words like one of the question: this many of the nearest, and more when they leave the hits too few.
MAX_NEAR_WORDS = 64
MORE_NEAR_WORDS = 8


class TextSearcher:
    """The text index as of one commit, with the documents that came since. Any thread may search.

    Attributes:
        words: what each word counts for in given documents.
    """

    def __init__(
        self,
        index: IndexSearcher,
        fresh: Sequence[FreshDocuments],
        vocabularies: Vocabularies,
        words: WordScores,
        deleted: int,
    ) -> None:
        """
        Args:
            fresh: documents that the index does not have.
            deleted: how many of all are deleted, though no commit says so yet.
        """
        self._deleted = deleted
        self._index = index
        self._fresh = fresh
        self._vocabularies = vocabularies
        self.words = words
        self.vocabulary_lookups = vocabularies.lookups

    def search(
        self, namespace_number: int, documents: int, text: str, top_k: int, allowed: OrdinalSet
    ) -> TextHits:
        """The best ``top_k`` of the allowed documents that share a token with the text.

        Args:
            documents: how many live documents the namespace has.
            allowed: the live ordinals that match the filter.
        """
        return self.search_tokens(namespace_number, documents, query_tokens(text), top_k, allowed)

    def search_tokens(
        self, namespace_number: int, documents: int, tokens: Sequence[str], top_k: int, allowed: OrdinalSet
    ) -> TextHits:
        """The same for the tokens of a text, from ``query_tokens``."""
        if not allowed:
            return NO_HITS
        weighed = self.words.weighed(namespace_number, documents, tokens)
        fetched = fetched_first(min(top_k, len(allowed)), len(allowed), documents)
        if self.words.pays(weighed[:MAX_QUERY_TOKENS], documents, len(allowed), fetched):
            return TextHits(*self.words.best(weighed, top_k, allowed), SCORED_PLAN)
        found = [[one] for one in self._seeker(namespace_number, documents).tokens(tokens)]
        return self._best_by_rarest(found, documents, top_k, allowed)

    def search_phrase(
        self, namespace_number: int, documents: int, text: str, top_k: int, allowed: OrdinalSet
    ) -> TextHits:
        """The best ``top_k`` of the allowed documents that have the text's words one behind the other.

        Args: as of ``search``.
        """
        phrase = self._seeker(namespace_number, documents).one("words", phrase_tokens(text))
        return self._best([] if phrase is None else [[phrase]], documents, top_k, allowed)

    def search_fuzzy(
        self,
        namespace_number: int,
        documents: int,
        text: str,
        top_k: int,
        allowed: OrdinalSet,
        fuzziness: Fuzziness,
    ) -> TextHits:
        """The best ``top_k`` of the allowed documents that have a word like one of the text.

        Args: as of ``search``.
        """
        wanted = min(top_k, len(allowed))
        sought = self._like(namespace_number, documents, text, fuzziness)
        longest = max(map(len, sought), default=0)
        max_near = MAX_NEAR_WORDS
        while True:
            hits = self._best([alternatives[:max_near] for alternatives in sought], documents, top_k, allowed)
            if len(hits.ordinals) >= wanted:
                return hits
            if longest <= max_near:
                break
            max_near *= MORE_NEAR_WORDS
        others = self._as_written(namespace_number, documents, text, fuzziness)
        return (
            self._best_by_rarest([*sought, *others], documents, top_k, allowed, len(sought))
            if others
            else hits
        )

    def near_tokens(
        self, namespace_number: int, documents: int, text: str, fuzziness: Fuzziness
    ) -> list[str]:
        """What ``search_fuzzy`` looks for: the words and those like them, as far as the namespace has them.

        Of a misspelt run of CJK characters, a ``?`` is a character, whichever.
        """
        sought = self._like(namespace_number, documents, text, fuzziness)
        return list(dict.fromkeys(one.text() for alike in sought for one in alike[:MAX_NEAR_WORDS]))

    def _best_by_rarest(
        self,
        sought: Sequence[Sequence[Sought]],
        documents: int,
        top_k: int,
        allowed: OrdinalSet,
        most: int = MAX_QUERY_TOKENS,
    ) -> TextHits:
        """The best by the first of what is sought, and by more of it while that finds too few."""
        wanted = min(top_k, len(allowed))
        while True:
            hits = self._best(sought[:most], documents, top_k, allowed)
            if len(hits.ordinals) >= wanted or len(sought) <= most:
                return hits
            most *= MORE_QUERY_TOKENS

    def _best(
        self, sought: Sequence[Sequence[Sought]], documents: int, top_k: int, allowed: OrdinalSet
    ) -> TextHits:
        """The best by the sum, over all groups, of the best score in the group."""
        found = self._index.best(sought, documents, top_k, allowed)
        fresh = self._among_fresh(sought, allowed)
        if not fresh:
            return found
        ordinals = np.concatenate([found.ordinals, np.fromiter(fresh.keys(), np.uint64, len(fresh))])
        scores = np.concatenate([found.scores, np.fromiter(fresh.values(), np.float64, len(fresh))])
        places = best(ordinals, scores, top_k)
        return TextHits(ordinals[places], scores[places], found.plan)

    def _among_fresh(self, sought: Sequence[Sequence[Sought]], allowed: OrdinalSet) -> dict[int, float]:
        """The fresh documents that have something of what is sought, with their scores."""
        sums: defaultdict[int, float] = defaultdict(float)
        for fresh in self._fresh:
            among = fresh.ordinals & allowed
            if not among:
                continue
            for alternatives in sought:
                highest: dict[int, float] = {}
                for one in alternatives:
                    for ordinal, score in self._scores_in(fresh, one, among):
                        highest[ordinal] = max(score, highest.get(ordinal, 0.0))
                for ordinal, score in highest.items():
                    sums[ordinal] += score
        return sums

    def _scores_in(
        self, fresh: FreshDocuments, sought: Sought, among: OrdinalSet
    ) -> Iterable[tuple[int, float]]:
        if sought.field == "body":
            hits = self.words.hits([(sought.terms[0][1], sought.weight)], among, len(among))
            return zip(hits.ordinals.tolist(), hits.scores.tolist(), strict=True)
        counts = fresh.counts(sought.terms, among)
        ordinals = np.fromiter(counts.keys(), np.uint64, len(counts))
        costs = self.words.costs(ordinals).tolist()
        weight = sought.weight * (K1 + 1)
        return [
            (ordinal, weight * count / (count + cost))
            for (ordinal, count), cost in zip(counts.items(), costs, strict=True)
        ]

    @property
    def documents(self) -> int:
        """How many documents there are, of all namespaces."""
        return self._index.documents + self.fresh_documents - self._deleted

    @property
    def fresh_documents(self) -> int:
        """How many of them no commit has yet."""
        return sum(map(len, self._fresh))

    def ordinals(self) -> OrdinalArray:
        """The ordinals of all documents, uint64 [n], ascending."""
        indexed = ordinal_set(self._index.ordinals())
        return ordinal_array(indexed.union(*(each.ordinals for each in self._fresh)))

    def _frequency(self, field: str, term: str) -> int:
        if field == "body":
            return self.words.frequency(term)
        return self._index.frequency(field, term) + sum(each.frequency(term) for each in self._fresh)

    def _seeker(self, namespace_number: int, documents: int) -> Seeker:
        return Seeker(
            self._frequency, self._index.frequency, self._index.documents, namespace_number, documents
        )

    def _like(
        self, namespace_number: int, documents: int, text: str, fuzziness: Fuzziness
    ) -> list[list[Sought]]:
        """For each word of the text, and each run of CJK characters, what is like it, the best first."""
        seeker = self._seeker(namespace_number, documents)
        words, pieces, begun = fuzzy_parts(text, fuzziness)
        sought = []
        for word in seeker.rarest_words(words, first=begun)[:MAX_QUERY_TOKENS]:
            near = self._vocabularies.of(namespace_number).near(
                word, fuzziness.word_edits(word), prefix=word == begun
            )
            sought.append(seeker.like_word(word, stems(word), near))
        sought += [[one] for one in seeker.tokens(cjk_tokens(pieces))[:MAX_QUERY_TOKENS]]
        sought += [
            seeker.like_run(piece.run, fuzziness.run_edits(piece.run)) for piece in pieces[:MAX_QUERY_TOKENS]
        ]
        return sought

    def _as_written(
        self, namespace_number: int, documents: int, text: str, fuzziness: Fuzziness
    ) -> list[list[Sought]]:
        """What of a long text ``_like`` leaves out, without what is like it, the rarest first."""
        seeker = self._seeker(namespace_number, documents)
        words, pieces, begun = fuzzy_parts(text, fuzziness)
        left_out = seeker.rarest_words(words, first=begun)[MAX_QUERY_TOKENS:]
        written = (seeker.one("words", [(0, word)]) for word in left_out)
        tokens = seeker.tokens(cjk_tokens(pieces))[MAX_QUERY_TOKENS:]
        return [[one] for one in (*written, *tokens) if one is not None]


class TextIndex:
    """The writing side. One thread uses it, and one process at a time has the folder open.

    What is added is searchable with the next ``searcher``, from memory until a commit has it.

    Attributes:
        is_changed: whether something is not committed, nor on its way.
        has_committed: a commit was made since the last ``searcher``.
    """

    def __init__(
        self,
        folder: Path | None,
        on_committed: Callable[[], None] = lambda: None,
        turns: Turns | None = None,
    ) -> None:
        """Opens the index in the folder, or an empty one when there is none that can be read.

        Without a folder it is in memory and empty.

        Args:
            on_committed: called in another thread when ``take_up`` has something to do.
            turns: that the thread which commits gives to the event loop.

        Raises:
            OSError, ValueError: not even an empty index can be made there.
        """
        self._deleted: list[int] = []
        self._deleting = 0  # by the commit that is on its way
        self._fresh = FreshDocuments()
        self._changed_at_s = 0.0  # the first change that is not committed
        self._vocabularies = Vocabularies(self._read_words)
        self.is_changed = False
        self.has_committed = False
        self._on_committed = on_committed
        self._thread = ThreadPoolExecutor(1, "text-commit", (Turns() if turns is None else turns).begin)
        self._commit: Future[None] | None = None
        self._committing: FreshDocuments | None = None
        self._folder = IndexFolder(folder)
        self._searcher = self._folder.searcher()
        self._held = ordinal_set(self._folder.indexed)
        self._postings = KeptPostings(folder)

    @property
    def indexed(self) -> OrdinalArray:
        """The ordinals that the folder had, uint64 [n], ascending."""
        return self._folder.indexed

    def keep_only(self, live: OrdinalArray) -> OrdinalSet:
        """Deletes all but these documents, at the start; returns those that need not be added again.

        Args:
            live: uint64 [n], ascending.
        """
        wanted = ordinal_set(live)
        for ordinal in self._held - wanted:
            self.delete(ordinal)
        self._held &= wanted
        held = self._held & self._postings.keep_only(live)
        if self.is_changed:
            # An older state of the store gives such ordinals a second time.
            self.commit()
        return held

    def add(self, namespace_number: int, ordinal: int, content: str) -> None:
        """Adds a document. Its ordinal is larger than all before.

        At the start, also one that the files have in part. Now and then it begins a commit, and waits for the
        one before.
        """
        tokens, prefix = DocumentTokens.of(content), f"{namespace_number}|"
        self._postings.add(ordinal, prefix, tokens.body)
        if ordinal in self._held:
            return
        self._note_change()
        self._vocabularies.add(namespace_number, tokens.vocabulary)
        self._fresh.add(
            FreshDocument(ordinal, in_one_text(prefix, tokens.body), in_one_text(prefix, tokens.words))
        )
        if len(self._fresh) >= MAX_FRESH_DOCUMENTS:
            self.begin_commit()

    def delete(self, ordinal: int) -> None:
        """Deletes a document added before, of which nobody asks any more."""
        self._note_change()
        self._deleted.append(ordinal)
        self._postings.delete(ordinal)

    def _note_change(self) -> None:
        if not self.is_changed:
            self.is_changed = True
            self._changed_at_s = time.monotonic()

    def wait_s(self) -> float | None:
        """How long until a commit should begin, if nothing comes; None for never."""
        if not self.is_changed or self._commit is not None:
            return None
        return max(0.0, self._changed_at_s + MAX_FRESH_S - time.monotonic())

    def begin_commit(self) -> None:
        """Begins to write the changes to disk, when the commit before is done."""
        self._finish_commit()
        self._commit, self._committing = (
            self._thread.submit(self._folder.write, self._fresh.documents, self._deleted),
            self._fresh,
        )
        self._vocabularies.begin_commit()
        self._deleting = len(self._deleted)
        self._fresh, self._deleted = FreshDocuments(), []
        self.is_changed = False
        self._commit.add_done_callback(lambda _: self._on_committed())

    def take_up(self) -> None:
        """Takes up a commit that is done. Raises what it failed with."""
        if self._commit is not None and self._commit.done():
            self._finish_commit()

    def commit(self) -> None:
        """Writes the changes to disk."""
        self.begin_commit()
        self._finish_commit()

    def _finish_commit(self) -> None:
        if self._commit is not None:
            self._commit.result()
            self._commit, self._committing, self._deleting = None, None, 0
            self._searcher = self._folder.searcher()
            self._vocabularies.committed()
            self._postings.maintain()
            self.has_committed = True

    def searcher(self) -> TextSearcher:
        """The index as of the last commit, and what came since."""
        self.has_committed = False
        fresh = [each for each in (self._committing, self._fresh) if each is not None]
        return TextSearcher(
            self._searcher,
            fresh,
            self._vocabularies,
            self._postings.words(),
            self._deleting + len(self._deleted),
        )

    def _read_words(self, namespace_number: int) -> list[str]:
        prefix = f"{namespace_number}|"
        words = (term[len(prefix) :] for term in self._folder.searcher().terms("words", prefix))
        return [word for word in words if not is_cjk(word)]

    def close(self) -> None:
        """Gives up what was not committed and the lock on the folder. Raises OSError."""
        self._thread.shutdown()
        self._folder.close()
        self._postings.close()
