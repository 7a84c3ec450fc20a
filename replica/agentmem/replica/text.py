"""The text index: BM25 over stemmed English words and CJK bigrams.

One index on disk holds all namespaces of a replica. Its fields:

    ordinal   u64, indexed and fast
    body      tokens with their frequencies: stems, CJK characters and bigrams
    words     tokens with their positions: words as they are written, CJK characters

Tokens are made here and handed over in one text, which tantivy parts at the spaces, in a thread of its own:
token by token it would take them thirty times as long, and hold the interpreter's lock.

A token is ``<namespace number>|<word>``, so a search cannot leave its namespace and the document frequency
of a word is that within the namespace. tantivy counts documents over all namespaces, though; ``Sought``
corrects for that. (The average length of a document stays that of all namespaces.)

What plain words find among few memories, and what each word counts for in them, comes from postings in memory
(postings.py), which are kept beside the index.

The index is never the only copy of anything: a folder that cannot be read is built again from the store.
This is the only module that imports tantivy.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tantivy

from agentmem.replica.fuzziness import Fuzziness
from agentmem.replica.kept_postings import KeptPostings
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set
from agentmem.replica.planner import OVERFETCH, pushes_down
from agentmem.replica.scripts import is_cjk
from agentmem.replica.sought import (
    MAX_QUERY_TOKENS,
    MORE_QUERY_TOKENS,
    Seeker,
    Sought,
)
from agentmem.replica.text_files import check_files
from agentmem.replica.text_hits import NO_HITS, SCORED_PLAN, TextHits
from agentmem.replica.vocabulary import Vocabularies
from agentmem.replica.word_scores import WordScores
from agentmem.replica.words import DocumentTokens, cjk_tokens, fuzzy_parts, phrase_tokens, query_tokens, stems

WRITER_HEAP_BYTES = 32_000_000
MIN_FETCH_HITS = 64
# Words like one of the question: this many of the nearest, and more when they leave the hits too few.
MAX_NEAR_WORDS = 64
MORE_NEAR_WORDS = 8
# As alternatives of a query ordinals take 0.2 ms per 100; as a set 0.9 ms per 100, but 4 ms per 3,000.
MAX_ALTERNATIVE_ORDINALS = 1000

_TOKENIZER = "between spaces"
# Takes a position, and is not indexed.
_GAP = "-"

_logger = logging.getLogger(__name__)


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("ordinal", indexed=True, fast=True)
    builder.add_text_field("body", tokenizer_name=_TOKENIZER, index_option="freq")
    builder.add_text_field("words", tokenizer_name=_TOKENIZER, index_option="position")
    return builder.build()


_SCHEMA = _schema()
_BETWEEN_SPACES = (
    tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    .filter(tantivy.Filter.custom_stopword([_GAP]))
    .build()
)


def _in_one_text(prefix: str, tokens: list[str]) -> str:
    if "" in tokens:
        return " ".join([prefix + token if token else _GAP for token in tokens])
    return prefix + f" {prefix}".join(tokens) if tokens else ""


def _query(sought: Sought) -> tantivy.Query:
    if len(sought.terms) == 1:
        query = tantivy.Query.term_query(_SCHEMA, sought.field, sought.terms[0][1], index_option="freq")
    else:
        query = tantivy.Query.phrase_query(_SCHEMA, sought.field, [*sought.terms])
    return tantivy.Query.boost_query(query, sought.weight / sought.index_weight)


def _sum_of_best(sought: Sequence[Sequence[Sought]]) -> tantivy.Query | None:
    """A query for the sum, over all groups, of the best score in the group."""
    clauses = []
    for alternatives in sought:
        queries = [_query(one) for one in alternatives]
        if queries:
            best = queries[0] if len(queries) == 1 else tantivy.Query.disjunction_max_query(queries)
            clauses.append((tantivy.Occur.Should, best))
    return tantivy.Query.boolean_query(clauses) if clauses else None


class TextSearcher:
    """The text index as of one commit. Any thread may search.

    Attributes:
        words: what each word counts for in given documents.
    """

    def __init__(self, searcher: tantivy.Searcher, vocabularies: Vocabularies, words: WordScores) -> None:
        self._searcher = searcher
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
        fetched = _fetched_first(min(top_k, len(allowed)), len(allowed), documents)
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
        query = None if phrase is None else _query(phrase)
        return self._best(query, documents, top_k, allowed)

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
            query = _sum_of_best([alternatives[:max_near] for alternatives in sought])
            hits = self._best(query, documents, top_k, allowed)
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
            hits = self._best(_sum_of_best(sought[:most]), documents, top_k, allowed)
            if len(hits.ordinals) >= wanted or len(sought) <= most:
                return hits
            most *= MORE_QUERY_TOKENS

    def _best(self, query: tantivy.Query | None, documents: int, top_k: int, allowed: OrdinalSet) -> TextHits:
        if query is None or not allowed:
            return NO_HITS
        wanted = min(top_k, len(allowed))
        limit = _fetched_first(wanted, len(allowed), documents)
        while not pushes_down(len(allowed), documents, limit):
            fetched = self._fetch(query, limit)
            kept = fetched.cut_to(allowed)
            if len(kept.ordinals) >= wanted or len(fetched.ordinals) < limit:
                plan = f"the best {limit}" + (", cut to those that match" if len(allowed) < documents else "")
                return TextHits(kept.ordinals[:top_k], kept.scores[:top_k], plan)
            limit *= 2
        return replace(self._search_among(query, allowed, top_k), plan="among those that match")

    @property
    def documents(self) -> int:
        """How many documents there are, of all namespaces."""
        return int(self._searcher.num_docs)

    def ordinals(self) -> OrdinalArray:
        """The ordinals of all documents, uint64 [n], ascending."""
        return _ordinals(self._searcher)

    def _seeker(self, namespace_number: int, documents: int) -> Seeker:
        return Seeker(self._searcher.doc_freq, self._searcher.num_docs, namespace_number, documents)

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

    def _search_among(self, query: tantivy.Query, allowed: OrdinalSet, top_k: int) -> TextHits:
        among = tantivy.Query.const_score_query(_one_of(ordinal_array(allowed).tolist()), 0.0)
        both = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, among)])
        return self._fetch(both, min(top_k, len(allowed)))

    def _fetch(self, query: tantivy.Query, limit: int) -> TextHits:
        hits = self._searcher.search(query, limit=limit, count=False).hits
        if not hits:
            return NO_HITS
        ordinals = np.array(
            self._searcher.fast_field_values("ordinal", [address for _, address in hits]), dtype=np.uint64
        )
        scores = np.array([score for score, _ in hits], dtype=np.float64)
        # Equal scores come in the order of tantivy's files, which is not the same in every replica.
        order = np.lexsort((~ordinals, -scores))
        return TextHits(ordinals[order], scores[order])


def _ordinals(searcher: tantivy.Searcher) -> OrdinalArray:
    result = searcher.search(tantivy.Query.all_query(), limit=max(1, searcher.num_docs), count=False)
    addresses = [address for _, address in result.hits]
    return np.sort(np.array(searcher.fast_field_values("ordinal", addresses), dtype=np.uint64))


def _fetched_first(wanted: int, allowed: int, documents: int) -> int:
    """How many of the best hits are fetched, that so many may be among the allowed ones."""
    return max(MIN_FETCH_HITS, OVERFETCH * wanted * documents // allowed)


def _one_of(ordinals: list[int]) -> tantivy.Query:
    if len(ordinals) > MAX_ALTERNATIVE_ORDINALS:
        return tantivy.Query.term_set_query(_SCHEMA, "ordinal", ordinals)
    return tantivy.Query.boolean_query(
        [
            (
                tantivy.Occur.Should,
                tantivy.Query.term_query(_SCHEMA, "ordinal", ordinal, index_option="basic"),
            )
            for ordinal in ordinals
        ]
    )


class TextIndex:
    """The writing side. One thread uses it, and one process at a time has the folder open."""

    def __init__(self, folder: Path | None) -> None:
        """Opens the index in the folder, or an empty one when there is none that can be read.

        Without a folder it is in memory and empty.

        Raises:
            OSError, ValueError: not even an empty index can be made there.
        """
        self._deleted: list[int] = []
        self._vocabularies = Vocabularies(self._read_words)
        self.is_changed = False
        try:
            self._open(folder)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if folder is None:
                raise
            # Cut short, of another release, …: tantivy has a dozen errors for one and the same remedy, and
            # panics, which are no Exception, over a meta.json that does not fit its files.
            _logger.warning("the text index in %s is built again from the store: %s", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
            self._open(folder)
        self._held = ordinal_set(self.indexed)
        self._postings = KeptPostings(folder)

    def keep_only(self, live: OrdinalArray) -> OrdinalSet:
        """Deletes all but these documents, at the start; returns those that need not be added again.

        Args:
            live: uint64 [n], ascending.
        """
        wanted = ordinal_set(live)
        for ordinal in self._held - wanted:
            self.delete(ordinal)
        self._held &= wanted
        return self._held & self._postings.keep_only(live)

    def _open(self, folder: Path | None) -> None:
        if folder is None:
            self._index = tantivy.Index(_SCHEMA)
        else:
            check_files(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._index = tantivy.Index(_SCHEMA, path=str(folder), reuse=True)
        self._index.register_tokenizer(_TOKENIZER, _BETWEEN_SPACES)
        self._writer = self._index.writer(heap_size=WRITER_HEAP_BYTES, num_threads=1)
        self.indexed = _ordinals(self._index.searcher())

    def add(self, namespace_number: int, ordinal: int, content: str) -> None:
        """Adds a document; searchable after ``commit``. Its ordinal is larger than all before.

        At the start, also one that the files have in part.
        """
        tokens, prefix = DocumentTokens.of(content), f"{namespace_number}|"
        self._postings.add(ordinal, [prefix + token for token in tokens.body])
        self.is_changed = True
        if ordinal in self._held:
            return
        self._vocabularies.add(namespace_number, tokens.vocabulary)
        document = tantivy.Document()
        document.add_unsigned("ordinal", ordinal)
        document.add_text("body", _in_one_text(prefix, tokens.body))
        document.add_text("words", _in_one_text(prefix, tokens.words))
        self._writer.add_document(document)

    def delete(self, ordinal: int) -> None:
        """Deletes a document added before; gone after ``commit``."""
        self._deleted.append(ordinal)
        self._postings.delete(ordinal)
        self.is_changed = True

    def commit(self) -> None:
        """Writes the changes to disk; ``searcher`` shows them from then on."""
        if self._deleted:
            # delete_documents_by_term leaves unsigned fields alone (tantivy 0.27.0).
            doomed = tantivy.Query.term_set_query(_SCHEMA, "ordinal", self._deleted)
            self._writer.delete_documents_by_query(doomed)
            self._deleted = []
        self._writer.commit()
        self._index.reload()
        self._postings.flush()
        self._vocabularies.committed()
        self.is_changed = False

    def searcher(self) -> TextSearcher:
        """The index as of the last commit."""
        return TextSearcher(self._index.searcher(), self._vocabularies, self._postings.words())

    def _read_words(self, namespace_number: int) -> list[str]:
        prefix = f"{namespace_number}|"
        terms = self._index.searcher().terms_with_prefix("words", prefix)
        words = (term[len(prefix) :] for term, _ in terms)
        return [word for word in words if not is_cjk(word)]

    def close(self) -> None:
        """Gives up what was not committed and the lock on the folder."""
        del self._writer
        self._postings.close()
