"""Answers to searches that were asked before, for as long as nothing has changed that they were made of.

An answer is kept with the generation of what it shows: the last change of its namespace, for words that of
the whole index, whose counts go into each score. It is given out only while the view shows all that the store
has: what was removed from the store, purged above all, is never in an answer from here. What depends on the
time, by what expires or by recency, is not kept at all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from agentmem.core.measurements import Lookups
from agentmem.replica.search import SearchQuery
from agentmem.replica.view import NamespaceView, View

MAX_CACHED_BYTES = 16 * 1024 * 1024
# One takes at most this share of all.
MAX_SHARE = 1 / 64
MAX_AGE_S = 60.0
# What an entry takes besides its bytes.
_ENTRY_BYTES = 400

# Epoch and revision.
Generation = tuple[int, int]


def generation_of(view: View, namespace: NamespaceView, query: SearchQuery) -> Generation | None:
    """What an answer to the question is good for; None when it depends on the time."""
    if namespace.facets.has_expiring or (query.mode == "hybrid" and query.weights.recency):
        return None
    return view.epoch, (view.revision if query.text else namespace.changed_revision)


@dataclass(frozen=True, slots=True)
class _Answer:
    generation: Generation
    kept_at_s: float
    hits: bytes


class AnswerCache:
    """The hits of searches by their requests, the longest unused dropped first. Any thread may use it.

    Args:
        max_bytes: of requests and answers.

    Attributes:
        lookups: how often an answer was there.
    """

    def __init__(self, max_bytes: int) -> None:
        self.lookups = Lookups()
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._size_bytes = 0

    def find(self, key: bytes, generation: Generation, now_s: float) -> bytes | None:
        """The hits, serialized, that were kept of this generation."""
        with self._lock:
            found = self._answers.get(key)
            if found is not None and (found.generation != generation or now_s - found.kept_at_s > MAX_AGE_S):
                self._drop(key)
                found = None
            self.lookups.count(found is not None)
            if found is None:
                return None
            self._answers.move_to_end(key)
            return found.hits

    def keep(self, key: bytes, generation: Generation, hits: bytes, now_s: float) -> None:
        """Keeps hits, unless they are too large."""
        size_bytes = _size_bytes(key, hits)
        if size_bytes > self._max_bytes * MAX_SHARE:
            return
        with self._lock:
            if key in self._answers:
                self._drop(key)
            self._answers[key] = _Answer(generation, now_s, hits)
            self._size_bytes += size_bytes
            while self._size_bytes > self._max_bytes:
                self._drop(next(iter(self._answers)))

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def _drop(self, key: bytes) -> None:
        self._size_bytes -= _size_bytes(key, self._answers.pop(key).hits)


def _size_bytes(key: bytes, hits: bytes) -> int:
    return len(key) + len(hits) + _ENTRY_BYTES
