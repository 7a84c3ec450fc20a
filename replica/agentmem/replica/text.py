"""The text index: BM25 over stemmed English words and CJK bigrams.

One index on disk holds all namespaces of a replica. Its fields:

    ordinal   u64, indexed and fast
    body      tokens with their frequencies, made here and not by tantivy

A token is ``<namespace number>|<word>``, so a search cannot leave its namespace and the document frequency
of a word is that within the namespace. tantivy counts documents over all namespaces, though; ``_weight``
corrects for that. (The average length of a document stays that of all namespaces.)

The index is never the only copy of anything: a folder that cannot be read is built again from the store.
This is the only module that imports tantivy.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tantivy

from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set
from agentmem.replica.planner import OVERFETCH, pushes_down
from agentmem.replica.scripts import bigrams, runs
from agentmem.replica.stop_words import STOP_WORDS

WRITER_HEAP_BYTES = 32_000_000
# Lucene's limit, too. What is longer is no word: base64, a URL's token.
MAX_TOKEN_BYTES = 255
# A question of 16 KiB has thousands of words; the rarest of them decide the order.
MAX_QUERY_TOKENS = 64
MIN_FETCH_HITS = 64
# As alternatives of a query ordinals take 0.2 ms per 100; as a set 0.9 ms per 100, but 4 ms per 3,000.
MAX_ALTERNATIVE_ORDINALS = 1000

_logger = logging.getLogger(__name__)

# Each file of tantivy 0.27 ends with: footer (JSON with the crc32 of all before it) | its length | 1337.
_FILE_END = struct.Struct("<II")
_FILE_MAGIC = 1337
# What every segment has, whatever is in its documents; deletions are a file besides.
_SEGMENT_SUFFIXES = (".fast", ".fieldnorm", ".idx", ".pos", ".store", ".term")

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TextHits:
    """Ordinals, uint64 [n], and their BM25 scores, float64 [n], best first."""

    ordinals: OrdinalArray
    scores: Scores


NO_HITS = TextHits(np.empty(0, dtype=np.uint64), np.empty(0))


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("ordinal", indexed=True, fast=True)
    builder.add_text_field("body", tokenizer_name="raw", index_option="freq")
    return builder.build()


def _analyzer(stop_words: tuple[str, ...]) -> tantivy.TextAnalyzer:
    builder = (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(MAX_TOKEN_BYTES))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
    )
    if stop_words:
        builder = builder.filter(tantivy.Filter.custom_stopword(list(stop_words)))
    return builder.filter(tantivy.Filter.stemmer("english")).build()


_SCHEMA = _schema()
_WORDS = _analyzer(())
_WORDS_THAT_MEAN = _analyzer(tuple(sorted(STOP_WORDS)))


def document_tokens(content: str) -> list[str]:
    """The tokens that a memory is found by: English stems, CJK characters and bigrams."""
    tokens: list[str] = []
    for is_cjk, run in runs(content):
        tokens += [*run, *bigrams(run)] if is_cjk else _WORDS.analyze(run)
    return tokens


def query_tokens(text: str) -> list[str]:
    """The distinct tokens to look for. Stop words are left out unless there is nothing else."""
    pieces = list(runs(text))
    tokens = _query_tokens(pieces, _WORDS_THAT_MEAN) or _query_tokens(pieces, _WORDS)
    return list(dict.fromkeys(tokens))


def _query_tokens(pieces: list[tuple[bool, str]], analyzer: tantivy.TextAnalyzer) -> list[str]:
    tokens: list[str] = []
    for is_cjk, run in pieces:
        if not is_cjk:
            tokens += analyzer.analyze(run)
        elif len(run) == 1:
            tokens.append(run)
        else:
            tokens += bigrams(run)
    return tokens


def _idf(documents: int, frequency: int) -> float:
    """The inverse document frequency of BM25 as tantivy computes it."""
    return math.log(1 + (max(documents, frequency) - frequency + 0.5) / (frequency + 0.5))


class TextSearcher:
    """The text index as of one commit. Any thread may search."""

    def __init__(self, searcher: tantivy.Searcher) -> None:
        self._searcher = searcher

    def search(
        self, namespace_number: int, documents: int, text: str, top_k: int, allowed: OrdinalSet
    ) -> TextHits:
        """The best ``top_k`` of the allowed documents that share a token with the text.

        Args:
            documents: how many live documents the namespace has.
            allowed: the live ordinals that match the filter.
        """
        query = self._query(namespace_number, documents, text)
        if query is None or not allowed:
            return NO_HITS
        wanted = min(top_k, len(allowed))
        limit = max(MIN_FETCH_HITS, OVERFETCH * wanted * documents // len(allowed))
        while not pushes_down(len(allowed), documents, limit):
            fetched = self._fetch(query, limit)
            kept = _cut_to(fetched, allowed)
            if len(kept.ordinals) >= wanted or len(fetched.ordinals) < limit:
                return TextHits(kept.ordinals[:top_k], kept.scores[:top_k])
            limit *= 2
        return self._search_among(query, allowed, top_k)

    @property
    def documents(self) -> int:
        """How many documents there are, of all namespaces."""
        return int(self._searcher.num_docs)

    def ordinals(self) -> OrdinalArray:
        """The ordinals of all documents, uint64 [n], ascending."""
        result = self._searcher.search(
            tantivy.Query.all_query(), limit=max(1, self._searcher.num_docs), count=False
        )
        addresses = [address for _, address in result.hits]
        return np.sort(np.array(self._searcher.fast_field_values("ordinal", addresses), dtype=np.uint64))

    def _query(self, namespace_number: int, documents: int, text: str) -> tantivy.Query | None:
        terms = []
        for token in query_tokens(text):
            term = f"{namespace_number}|{token}"
            if frequency := self._searcher.doc_freq("body", term):
                terms.append((frequency, term))
        terms.sort()
        clauses = [
            (
                tantivy.Occur.Should,
                tantivy.Query.boost_query(
                    tantivy.Query.term_query(_SCHEMA, "body", term, index_option="freq"),
                    self._weight(documents, frequency),
                ),
            )
            for frequency, term in terms[:MAX_QUERY_TOKENS]
        ]
        return tantivy.Query.boolean_query(clauses) if clauses else None

    def _weight(self, documents: int, frequency: int) -> float:
        """What makes of tantivy's score, with its count of all documents, that of the namespace alone."""
        return _idf(documents, frequency) / _idf(self._searcher.num_docs, frequency)

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


def _cut_to(hits: TextHits, allowed: OrdinalSet) -> TextHits:
    found = ordinal_array(ordinal_set(hits.ordinals) & allowed)
    if len(found) == len(hits.ordinals):
        return hits
    mask = np.isin(hits.ordinals, found)
    return TextHits(hits.ordinals[mask], hits.scores[mask])


def _check_files(folder: Path) -> None:
    """Reads the committed files against their checksums: tantivy does not, and panics in a search instead.

    Raises:
        OSError, ValueError, KeyError: a file is missing or damaged.
    """
    if not folder.exists():
        return
    for path in _committed_files(folder):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            footer_bytes, magic = _FILE_END.unpack(data[-_FILE_END.size :])
            footer_start = len(data) - _FILE_END.size - footer_bytes
            if magic != _FILE_MAGIC or footer_start < 0:
                raise ValueError(f"{path} has no footer")
            footer = json.loads(data[footer_start : -_FILE_END.size])
            with memoryview(data)[:footer_start] as body:
                if zlib.crc32(body) != footer["crc"]:
                    raise ValueError(f"{path} fails its checksum")


def _committed_files(folder: Path) -> Iterator[Path]:
    """Every file that the last commit needs. Without some of them tantivy opens and fails in a search."""
    for segment in json.loads((folder / "meta.json").read_bytes())["segments"]:
        name = segment["segment_id"].replace("-", "")
        for suffix in _SEGMENT_SUFFIXES:
            yield folder / (name + suffix)
        if segment["deletes"] is not None:
            yield folder / f"{name}.{segment['deletes']['opstamp']}.del"


class TextIndex:
    """The writing side. One thread uses it, and one process at a time has the folder open."""

    def __init__(self, folder: Path | None) -> None:
        """Opens the index in the folder, or an empty one when there is none that can be read.

        Without a folder it is in memory and empty.

        Raises:
            OSError, ValueError: not even an empty index can be made there.
        """
        self._deleted: list[int] = []
        self.is_changed = False
        if folder is None:
            self._index = tantivy.Index(_SCHEMA)
            self._writer = self._index.writer(heap_size=WRITER_HEAP_BYTES, num_threads=1)
            self.indexed = np.empty(0, dtype=np.uint64)
            return
        try:
            _check_files(folder)
            self._open(folder)
            self.indexed = self.searcher().ordinals()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Cut short, of another release, …: tantivy has a dozen errors for one and the same remedy, and
            # panics, which are no Exception, over a meta.json that does not fit its files.
            _logger.warning("the text index in %s is built again from the store: %s", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
            self._open(folder)
            self.indexed = self.searcher().ordinals()

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._index = tantivy.Index(_SCHEMA, path=str(folder), reuse=True)
        self._writer = self._index.writer(heap_size=WRITER_HEAP_BYTES, num_threads=1)

    def add(self, namespace_number: int, ordinal: int, content: str) -> None:
        """Adds a document; searchable after ``commit``."""
        # No positions and no offsets are kept, so that all of them may be 0.
        tokens = [tantivy.Token(f"{namespace_number}|{token}", 0, 0, 0) for token in document_tokens(content)]
        document = tantivy.Document()
        document.add_unsigned("ordinal", ordinal)
        document.add_pre_tokenized_text("body", tantivy.PreTokenizedString(text="", tokens=tokens))
        self._writer.add_document(document)
        self.is_changed = True

    def delete(self, ordinal: int) -> None:
        """Deletes a document added before; gone after ``commit``."""
        self._deleted.append(ordinal)
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
        self.is_changed = False

    def searcher(self) -> TextSearcher:
        """The index as of the last commit."""
        return TextSearcher(self._index.searcher())

    def close(self) -> None:
        """Gives up what was not committed and the lock on the folder."""
        del self._writer
