"""How far a misspelt word may be from the one that was meant, and what it counts for then."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

MAX_EDITS = 2
# Of the weight of a word, by its edits: low enough to put what has a word as it is before what has one like
# it, in memories of about the same length.
EDIT_SHARES = (1.0, 0.4, 0.16)
# What a form of the word (houses, house), or one that begins with it, counts for.
FORM_SHARE = 0.8
# Longer runs keep two neighbours in any case.
MAX_PATTERN_CHARACTERS = 7


@dataclass(frozen=True, slots=True)
class Fuzziness:
    """How far a word may be from one of the memory.

    Attributes:
        max_edits: 0 to 2; None for what suits the length of each word.
        prefix: the last word may be the beginning of a longer one.
    """

    max_edits: int | None = None
    prefix: bool = False

    def word_edits(self, word: str) -> int:
        if self.max_edits is not None:
            return self.max_edits
        return 0 if len(word) <= 2 else 1 if len(word) <= 5 else 2

    def run_edits(self, run: str) -> int:
        """Of a run of CJK characters."""
        if self.max_edits is not None:
            return self.max_edits
        return 0 if len(run) <= 1 else 1 if len(run) <= 4 else 2


ANY_FUZZINESS = Fuzziness()

# Characters with their positions, the first at 0; between them may be others.
Pattern = tuple[tuple[int, str], ...]
_ANY = ""  # stands for one character, whichever


def run_patterns(run: str, max_edits: int) -> list[tuple[Pattern, int]]:
    """The ways to misspell a run that leave no two neighbours of it, and the edits of each.

    What leaves two neighbours is found by these. A run of one character has none.
    """
    if len(run) > MAX_PATTERN_CHARACTERS:
        return []
    pairs = {run[index : index + 2] for index in range(len(run) - 1)}
    patterns: dict[Pattern, int] = {}
    variants = {tuple(run)}
    seen = set(variants)
    # Something of the run has to be left.
    for edits in range(1, min(max_edits, len(run) - 1) + 1):
        variants = {edited for variant in variants for edited in _edited(variant)} - seen
        seen |= variants
        for variant in variants:
            pattern = _pattern(variant)
            if pattern and not _has_one_of(pattern, pairs):
                patterns.setdefault(pattern, edits)
    return sorted(patterns.items(), key=lambda item: (item[1], item[0]))


def _edited(run: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for place in range(len(run)):
        before, after = run[:place], run[place + 1 :]
        yield before + after
        yield (*before, _ANY, *after)
        yield (*before, _ANY, *run[place:])
        if after:
            yield (*before, after[0], run[place], *after[1:])


def _pattern(variant: tuple[str, ...]) -> Pattern:
    characters = [(place, character) for place, character in enumerate(variant) if character != _ANY]
    if not characters:
        return ()
    first = characters[0][0]
    return tuple((place - first, character) for place, character in characters)


def _has_one_of(pattern: Pattern, pairs: set[str]) -> bool:
    return any(
        second - first == 1 and character + following in pairs
        for (first, character), (second, following) in itertools.pairwise(pattern)
    )
