"""Entries that were applied to the store a moment ago, as the indexer takes them: parsed, in memory.

To read a memory and its vector from the store again, to decompress them and to compare their checksums costs
as much as a third of what it takes to index them. What is not here is read from the store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from agentmem.core.shipping import AppliedEntry

# Some 10,000 memories with vectors of 256 components: more than an indexer is behind, but in an import.
MAX_APPLIED_BYTES = 16 * 1024 * 1024


class AppliedEntries:
    """Entries by revision, ascending. One thread gives, another takes."""

    def __init__(self, max_bytes: int = MAX_APPLIED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: deque[AppliedEntry] = deque()
        self._size_bytes = 0

    def extend(self, entries: Iterable[AppliedEntry]) -> None:
        """Keeps entries, newer than all before, as far as there is room."""
        with self._lock:
            for applied in entries:
                if self._size_bytes + applied.size_bytes <= self._max_bytes:
                    self._entries.append(applied)
                    self._size_bytes += applied.size_bytes

    def take(self, revision: int) -> AppliedEntry | None:
        """The entry of a revision, None when it is not here; this one and older ones are forgotten."""
        with self._lock:
            while self._entries and self._entries[0].entry.revision <= revision:
                applied = self._entries.popleft()
                self._size_bytes -= applied.size_bytes
                if applied.entry.revision == revision:
                    return applied
        return None
