"""The index on disk: BM25 over tokens, for phrases and for the best of very many documents.

One index holds all namespaces of a replica. Its fields:

    ordinal   u64, indexed and fast
    body      tokens with their frequencies: stems, CJK characters and bigrams
    words     tokens with their positions: words as they are written, CJK characters

Tokens come in one text, which tantivy parts at the spaces, in a thread of its own: token by token it would
take them thirty times as long, and hold the interpreter's lock.

tantivy counts documents over all namespaces; ``Sought`` corrects for that. (The average length of a document
stays that of all namespaces.)

This is the only module that imports tantivy, but for words.py.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tantivy

from agentmem.core.turns import give_turn
from agentmem.replica.fresh_documents import GAP, FreshDocument
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array
from agentmem.replica.planner import OVERFETCH, pushes_down
from agentmem.replica.sought import Sought
from agentmem.replica.text_files import check_files
from agentmem.replica.text_hits import NO_HITS, TextHits

WRITER_HEAP_BYTES = 32_000_000
MIN_FETCH_HITS = 64
# As alternatives of a query ordinals take 0.2 ms per 100; as a set 0.9 ms per 100, but 4 ms per 3,000.
MAX_ALTERNATIVE_ORDINALS = 1000

_TOKENIZER = "between spaces"

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
    .filter(tantivy.Filter.custom_stopword([GAP]))
    .build()
)


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


class IndexSearcher:
    """The index as of one commit. Any thread may search."""

    def __init__(self, searcher: tantivy.Searcher) -> None:
        self._searcher = searcher

    @property
    def documents(self) -> int:
        """How many documents there are, of all namespaces."""
        return int(self._searcher.num_docs)

    def ordinals(self) -> OrdinalArray:
        """The ordinals of all documents, uint64 [n], ascending."""
        result = self._searcher.search(tantivy.Query.all_query(), limit=max(1, self.documents), count=False)
        addresses = [address for _, address in result.hits]
        return np.sort(np.array(self._searcher.fast_field_values("ordinal", addresses), dtype=np.uint64))

    def frequency(self, field: str, term: str) -> int:
        """In how many documents a field has the term, those that were deleted lately included."""
        return int(self._searcher.doc_freq(field, term))

    def terms(self, field: str, prefix: str) -> list[str]:
        """The terms of a field that begin so."""
        return [term for term, _ in self._searcher.terms_with_prefix(field, prefix)]

    def best(
        self, sought: Sequence[Sequence[Sought]], documents: int, top_k: int, allowed: OrdinalSet
    ) -> TextHits:
        """The best by the sum, over all groups, of the best score in the group.

        Args:
            documents: how many live documents the namespace has.
            allowed: ordinals that may be found.
        """
        query = _sum_of_best(sought)
        if query is None or not allowed:
            return NO_HITS
        wanted = min(top_k, len(allowed))
        limit = fetched_first(wanted, len(allowed), documents)
        while not pushes_down(len(allowed), documents, limit):
            fetched = self._fetch(query, limit)
            kept = fetched.cut_to(allowed)
            if len(kept.ordinals) >= wanted or len(fetched.ordinals) < limit:
                plan = f"the best {limit}" + (", cut to those that match" if len(allowed) < documents else "")
                return TextHits(kept.ordinals[:top_k], kept.scores[:top_k], plan)
            limit *= 2
        return replace(self._search_among(query, allowed, top_k), plan="among those that match")

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


def fetched_first(wanted: int, allowed: int, documents: int) -> int:
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


class IndexFolder:
    """The writing side, in a folder that one process at a time has open.

    Attributes:
        indexed: the ordinals that it had when it was opened, uint64 [n], ascending.
    """

    def __init__(self, folder: Path | None) -> None:
        """Opens the index in the folder, or an empty one when there is none that can be read.

        Without a folder it is in memory and empty.

        Raises:
            OSError, ValueError: not even an empty index can be made there.
        """
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

    def _open(self, folder: Path | None) -> None:
        if folder is None:
            self._index = tantivy.Index(_SCHEMA)
        else:
            check_files(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._index = tantivy.Index(_SCHEMA, path=str(folder), reuse=True)
        self._index.register_tokenizer(_TOKENIZER, _BETWEEN_SPACES)
        self._writer = self._index.writer(heap_size=WRITER_HEAP_BYTES, num_threads=1)
        self.indexed = self.searcher().ordinals()

    def write(self, documents: Sequence[FreshDocument], deleted: Sequence[int]) -> None:
        """Adds documents, then deletes some, and commits; ``searcher`` shows it from then on."""
        for each in documents:
            document = tantivy.Document()
            document.add_unsigned("ordinal", each.ordinal)
            document.add_text("body", each.body)
            document.add_text("words", each.words)
            self._writer.add_document(document)
            give_turn()
        if deleted:
            # delete_documents_by_term leaves unsigned fields alone (tantivy 0.27.0).
            self._writer.delete_documents_by_query(tantivy.Query.term_set_query(_SCHEMA, "ordinal", deleted))
        self._writer.commit()
        self._index.reload()

    def searcher(self) -> IndexSearcher:
        """As of the last commit."""
        return IndexSearcher(self._index.searcher())

    def close(self) -> None:
        """Gives up the lock on the folder."""
        del self._writer
