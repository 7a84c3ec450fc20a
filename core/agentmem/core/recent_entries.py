"""The newest entries of the log as they go to replicas, in memory.

A replica that keeps up needs what was committed a moment ago. To read that from the store again, and to
compare its checksums, costs the writer a fifth of all that it does for an add. A replica that is further
behind than these entries reach gets them from the store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

# What an import writes in some seconds, by which its replicas may be behind. An entry that is larger is not
# kept.
MAX_RECENT_BYTES = 32 * 1024 * 1024


class RecentEntries:
    """Entries without gaps, the newest last. Any thread may use it."""

    def __init__(self, max_bytes: int = MAX_RECENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: deque[bytes] = deque()
        self._size_bytes = 0
        # Of the newest entry.
        self._revision = 0

    def extend(self, revision: int, entries: Sequence[bytes]) -> None:
        """Takes in what a commit has written.

        Args:
            revision: of the last of them.
            entries: each a ShippedEntry, serialized.
        """
        with self._lock:
            if revision - len(entries) != self._revision:
                self._clear()
            self._revision = revision
            self._entries.extend(entries)
            self._size_bytes += sum(map(len, entries))
            while self._size_bytes > self._max_bytes:
                self._size_bytes -= len(self._entries.popleft())

    def clear(self) -> None:
        """Forgets all of them: some are not to be shipped any more as they were."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._entries.clear()
        self._size_bytes = 0

    def after(self, revision: int, max_bytes: int) -> tuple[list[bytes], int]:
        """The entries behind a revision, at most ``max_bytes`` or one, and the revision of the newest.

        No entries when there are none behind it, or not all of them are here.
        """
        with self._lock:
            count = self._revision - revision
            if not 0 < count <= len(self._entries):
                return [], self._revision
            found: list[bytes] = []
            size_bytes = 0
            for index in range(-count, 0):
                entry = self._entries[index]
                size_bytes += len(entry)
                if found and size_bytes > max_bytes:
                    break
                found.append(entry)
            return found, self._revision
