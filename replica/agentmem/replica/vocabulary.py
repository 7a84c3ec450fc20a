"""The words of a namespace, and which of them are like a given one.

An edit is a character more, less, other, or two neighbours changed about: the optimal string alignment
distance. 100,000 words are searched in about 2 ms: most are ruled out by their length and by which
characters are in them, and the rest are compared all at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentmem.core.measurements import Lookups
from agentmem.replica.columns import Column
from agentmem.replica.fuzziness import MAX_EDITS

# Of all namespaces that are searched for misspelt words; about 120 bytes each. The one in use is kept anyway.
MAX_HELD_WORDS = 1_000_000
# Words whose memories are gone stay until the vocabulary has doubled and this many.
MIN_RELOAD_WORDS = 10_000
# Words that are looked at together: bounds what a few very long ones cost.
CHUNK_WORDS = 4096

_FAR = np.int16(1000)
_NO_KIND = 32

Distances = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class NearWord:
    """A word like the one asked for.

    Attributes:
        edits: how far it is, or its beginning.
        is_whole: it is not just its beginning that is like it.
    """

    word: str
    edits: int
    is_whole: bool


class Vocabulary:
    """Distinct words. One thread adds at a time; any may search meanwhile."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words: list[str] = []
        self._known: set[str] = set()
        self._lengths = Column(np.uint8)
        self._characters = Column(np.uint64)
        self.add(words)

    def __len__(self) -> int:
        # What was appended last, so that all three have as many.
        return self._characters.count

    def add(self, words: Iterable[str]) -> None:
        """Adds those that are not there yet, each up to 255 characters."""
        fresh = list(dict.fromkeys(word for word in words if word not in self._known))
        self._known.update(fresh)
        for start in range(0, len(fresh), CHUNK_WORDS):
            chunk = fresh[start : start + CHUNK_WORDS]
            self._words += chunk
            for word in chunk:
                self._lengths.append(len(word))
            for characters in _characters_of(_matrix(chunk)):
                self._characters.append(characters)

    def near(self, word: str, max_edits: int, *, prefix: bool = False) -> list[NearWord]:
        """The other words within ``max_edits`` of the word, or with ``prefix`` beginning with one that is."""
        # Something of the word has to be left, or all words would be like it.
        edits = min(max_edits, len(word) - 1)
        if edits <= 0 and not prefix:
            return []
        count = len(self)
        lengths = self._lengths.rows(count).astype(np.int16)
        characters = self._characters.rows(count)
        wanted = _characters_of(_matrix([word]))[0]
        if prefix:
            missing = np.bitwise_count(~characters & wanted)
            possible = (lengths >= len(word) - edits) & (missing <= edits)
        else:
            differing = np.bitwise_count(characters ^ wanted)
            possible = (np.abs(lengths - len(word)) <= edits) & (differing <= 2 * edits)
        places = np.flatnonzero(possible)
        found = []
        for start in range(0, len(places), CHUNK_WORDS):
            chunk = places[start : start + CHUNK_WORDS]
            candidates = [self._words[place] for place in chunk.tolist()]
            found += _near(word, candidates, lengths[chunk], edits, prefix)
        return found


def _near(
    word: str, candidates: list[str], lengths: npt.NDArray[np.int16], edits: int, prefix: bool
) -> list[NearWord]:
    if prefix and not edits:
        return [NearWord(other, 0, False) for other in candidates if other.startswith(word) and other != word]
    longest = len(word) + edits + 1
    table = _alignment(word, [other[:longest] for other in candidates] if prefix else candidates)
    whole = table[np.minimum(lengths, len(table) - 1), np.arange(len(candidates))]
    # Further characters of a beginning only add edits, and the filling is like none of the word's.
    best = np.minimum(whole, table.min(axis=0)) if prefix else whole
    return [
        NearWord(candidates[place], int(best[place]), bool(whole[place] <= best[place]))
        for place in np.flatnonzero(best <= edits).tolist()
        if candidates[place] != word
    ]


def _alignment(word: str, others: Sequence[str]) -> Distances:
    """The edits from the word to the first n characters of each of the others: [longest + 1, others].

    Up to ``MAX_EDITS``; what is further off may be taken for further yet.
    """
    characters = np.ascontiguousarray(_matrix(others).T)
    places = np.arange(len(characters) + 1, dtype=np.int16)[:, None]
    above = before = np.repeat(places, len(others), axis=1)
    for row, character in enumerate(map(ord, word), start=1):
        same = characters == character
        here = np.empty_like(above)
        here[0] = row
        np.minimum(above[:-1] + ~same, above[1:] + 1, out=here[1:])
        if row > 1:
            swapped = same[:-1] & (characters[1:] == ord(word[row - 2]))
            np.minimum(here[2:], before[:-2] + np.where(swapped, np.int16(1), _FAR), out=here[2:])
        for _ in range(MAX_EDITS):  # that many characters more than in the word
            here[1:] = np.minimum(here[1:], here[:-1] + 1)
        before, above = above, here
    return above


def _matrix(words: Sequence[str]) -> npt.NDArray[np.uint32]:
    """The characters of each word, filled up with 0: uint32 [words, longest]."""
    texts = np.array(words, dtype=np.str_)
    return texts.view(np.uint32).reshape(len(words), -1)


def _characters_of(matrix: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Which characters a word has once (low bits) and again (high bits); several share a bit: uint64 [words].

    An edit changes at most two of them.
    """
    kinds = np.sort(np.where(matrix == 0, _NO_KIND, matrix & 31).astype(np.uint64), axis=1)
    bits = np.where(kinds == _NO_KIND, np.uint64(0), np.uint64(1) << (kinds & np.uint64(31)))
    again = np.where(kinds[:, 1:] == kinds[:, :-1], bits[:, 1:] << np.uint64(32), np.uint64(0))
    characters: npt.NDArray[np.uint64] = np.bitwise_or.reduce(bits, axis=1)
    characters |= np.bitwise_or.reduce(again, axis=1)
    return characters


class Vocabularies:
    """The vocabularies of those namespaces that somebody searches for misspelt words.

    One is read from the text index when it is first needed, and then kept up with what is added. It may
    have words that no memory has any more.

    Args:
        read: the words of a namespace, by its number, as of the newest commit. Any thread may call it.
    """

    def __init__(self, read: Callable[[int], list[str]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Vocabulary] = OrderedDict()  # used last at the end
        self.lookups = Lookups()
        self._reload_at_words: dict[int, int] = {}
        self._uncommitted: dict[int, set[str]] = {}
        # Of the commit that is on its way.
        self._committing: dict[int, set[str]] = {}

    def add(self, number: int, words: Collection[str]) -> None:
        """Takes up the words of a memory that the next commit to begin will have."""
        with self._lock:
            # Noted in any case: what is held may be given up before the commit.
            self._uncommitted.setdefault(number, set()).update(words)
            if number in self._held:
                self._held[number].add(words)

    def begin_commit(self) -> None:
        """Says that a commit of all that was added begins."""
        with self._lock:
            self._committing, self._uncommitted = self._uncommitted, {}

    def committed(self) -> None:
        """Says that ``read`` now gives all that had been added when the commit began."""
        with self._lock:
            self._committing = {}

    def of(self, number: int) -> Vocabulary:
        """At least the words that were added to the namespace so far, but for those of dead memories."""
        with self._lock:
            held = self._held.get(number)
            self.lookups.count(held is not None)
            if held is None or len(held) >= self._reload_at_words[number]:
                held = Vocabulary(self._read(number))
                held.add(self._committing.get(number, ()))
                held.add(self._uncommitted.get(number, ()))
                self._reload_at_words[number] = 2 * len(held) + MIN_RELOAD_WORDS
                self._held[number] = held
            self._held.move_to_end(number)
            while len(self._held) > 1 and sum(map(len, self._held.values())) > MAX_HELD_WORDS:
                forgotten, _ = self._held.popitem(last=False)
                del self._reload_at_words[forgotten]
            return held
