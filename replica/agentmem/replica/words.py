"""The words of texts and questions: what a memory is found by, and what a question looks for.

tantivy parts and stems them, for it is tantivy that indexes them; but for what is CJK.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import tantivy

from agentmem.replica import cjk_questions
from agentmem.replica.cjk_questions import Piece
from agentmem.replica.fuzziness import Fuzziness
from agentmem.replica.scripts import JOINERS, bigrams, runs
from agentmem.replica.sought import MAX_TOKEN_BYTES, is_indexed
from agentmem.replica.stop_words import STOP_WORDS

# Most of what is said is said in as many words.
MAX_REMEMBERED_STEMS = 32_768


def _folding() -> tantivy.TextAnalyzerBuilder:
    # Accents go first: in lower case the Turkish capital İ is two characters.
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.ascii_fold())
        .filter(tantivy.Filter.lowercase())
    )


def _stemming(words: tantivy.TextAnalyzerBuilder, stop_words: tuple[str, ...] = ()) -> tantivy.TextAnalyzer:
    builder = words.filter(tantivy.Filter.remove_long(MAX_TOKEN_BYTES))
    if stop_words:
        builder = builder.filter(tantivy.Filter.custom_stopword(list(stop_words)))
    return builder.filter(tantivy.Filter.stemmer("english")).build()


_AS_WRITTEN = _folding().build()
_STEMS = _stemming(_folding())
_STEM = _stemming(tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw()))
_STEMS_THAT_MEAN = _stemming(_folding(), tuple(sorted(STOP_WORDS)))


@lru_cache(MAX_REMEMBERED_STEMS)
def _stem(word: str) -> str:
    """The stem of a word as it is written; empty when the word is too long to be indexed."""
    return "".join(_STEM.analyze(word))


@dataclass(frozen=True, slots=True)
class DocumentTokens:
    """What a memory is found by.

    Attributes:
        body: English stems, CJK characters and bigrams.
        words: as they are written, CJK characters; each at its position, empty where there is none.
        vocabulary: the words that are not CJK, once for each time.
    """

    body: list[str]
    words: list[str]
    vocabulary: list[str]

    @classmethod
    def of(cls, content: str) -> DocumentTokens:
        cjk: list[str] = []
        words: list[str] = []
        written: list[str] = []
        for run, found in _words_in_order(content):
            if run:
                words += run
                cjk += run
                cjk += bigrams(run)
            elif found:
                words += found
                written += found
            else:
                words.append("")
        if written and max(map(len, written)) > MAX_TOKEN_BYTES // 4:
            words = [word if is_indexed(word) else "" for word in words]
            written = [word for word in written if is_indexed(word)]
        return cls([*filter(None, map(_stem, written)), *cjk], words, written)


def query_tokens(text: str) -> list[str]:
    """The distinct tokens to look for. Words of grammar are left out unless there is nothing else."""
    parts = list(runs(text))
    tokens = [
        token
        for of_cjk, run in parts
        for token in (cjk_tokens(cjk_questions.pieces(run)) if of_cjk else _STEMS_THAT_MEAN.analyze(run))
    ]
    tokens = tokens or [
        token
        for of_cjk, run in parts
        for token in (cjk_questions.whole(run).tokens if of_cjk else _STEMS.analyze(run))
    ]
    return list(dict.fromkeys(tokens))


def stems(word: str) -> list[str]:
    """The stem of a word as it is written; none when the word is too long to be indexed."""
    return _STEMS.analyze(word)


def cjk_tokens(pieces: Iterable[Piece]) -> list[str]:
    """What the pieces are found by."""
    return [token for piece in pieces for token in piece.tokens]


def fuzzy_parts(text: str, fuzziness: Fuzziness) -> tuple[list[str], list[Piece], str]:
    """The distinct words and CJK pieces to look for, and the word that may be only begun."""
    parts = list(runs(text))
    words = [word for of_cjk, run in parts if not of_cjk for word in _AS_WRITTEN.analyze(run)]
    cjk_runs = [run for of_cjk, run in parts if of_cjk]
    ends_in_word = bool(words) and not parts[-1][0] and bool(_AS_WRITTEN.analyze(parts[-1][1]))
    begun = words[-1] if fuzziness.prefix and ends_in_word else ""
    meant = [word for word in words if word not in STOP_WORDS or word == begun]
    pieces = [piece for run in cjk_runs for piece in cjk_questions.pieces(run)]
    if not meant and not pieces:
        meant = words
        pieces = [cjk_questions.whole(run) for run in cjk_runs]
    return list(dict.fromkeys(meant)), list(dict.fromkeys(pieces)), begun


def phrase_tokens(text: str) -> list[tuple[int, str]]:
    """Each word as it is written, or CJK character, with its position, the first at 0 and ascending.

    Case, width and accents make no difference, nor do spaces and punctuation between words; but punctuation
    between two CJK characters, where a space would say nothing, takes a position.
    """
    words = [word for run, found in _words_in_order(text) for word in run or found or [""]]
    return [(position, word) for position, word in enumerate(words) if word]


def _words_in_order(text: str) -> Iterator[tuple[str, list[str]]]:
    """A run of CJK characters, or some words; neither where a position is left out."""
    is_behind_cjk = is_apart = False
    for of_cjk, run in runs(text):
        if of_cjk:
            if is_behind_cjk and is_apart:
                yield "", []
            yield run, []
            is_behind_cjk = True
        else:
            words = _AS_WRITTEN.analyze(run)
            is_apart = not words and bool(run.strip(JOINERS))
            if words:
                yield "", words
                is_behind_cjk = False
