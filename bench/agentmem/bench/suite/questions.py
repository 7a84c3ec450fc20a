"""What is asked, so that it is known which memory should be found."""

from __future__ import annotations

import re

from agentmem.bench.suite.corpus import Corpus, misspelt

_TOKEN = re.compile(r"\w+")
# Shorter words are taken as they are by a fuzzy search.
_MIN_MISSPELT_CHARACTERS = 5


def question(corpus: Corpus, number: int, mode: str) -> str:
    """What finds a memory: two neighbouring words of it, its longest ones misspelt, or its longest ones."""
    if mode == "exact":
        return phrase(corpus, number)
    words = corpus.words(number)
    if mode == "fuzzy":
        return " ".join(
            misspelt(word, number) if len(word) >= _MIN_MISSPELT_CHARACTERS else word for word in words
        )
    return " ".join(words)


def phrase(corpus: Corpus, number: int) -> str:
    """The longest word of a memory that is alone in it, and the one behind it."""
    longest = corpus.words(number, 1)[0]
    words = tokens(corpus.text(number))
    at = words.index(longest) if longest in words else 0
    return " ".join(words[at : at + 2])


def tokens(text: str) -> list[str]:
    """Words in small letters, as a phrase is compared."""
    return _TOKEN.findall(text.lower())


def as_phrases(text: str) -> str:
    """The words with a blank around each, so that a phrase with one on both sides is in it or not."""
    return f" {' '.join(tokens(text))} "


def has_phrase(text: str, wanted: str) -> bool:
    """Whether these words stand in the text one behind the other."""
    return f" {wanted} " in as_phrases(text)
