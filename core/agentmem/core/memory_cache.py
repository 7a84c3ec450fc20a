"""Memories that were read not long ago, as answers have them: serialized, their checksum compared.

What is at an ordinal never changes, but it may be removed: by retention, by the sweeper, by a purge. So
whoever commits says what went, and what a snapshot from before that still shows is not kept any more.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from agentmem.core.measurements import Lookups

DEFAULT_CACHED_BYTES = 32 * 1024 * 1024
# One takes at most this share of all.
MAX_SHARE = 1 / 64
# What an entry takes besides its bytes.
_ENTRY_BYTES = 200


class MemoryCache:
    """Serialized memories by their ordinals, the longest unused dropped first. Any thread may use it.

    Args:
        max_bytes: of all; 0 for none.

    Attributes:
        lookups: how often a memory was there.
    """

    def __init__(self, max_bytes: int) -> None:
        self.lookups = Lookups()
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._memories: OrderedDict[int, bytes] = OrderedDict()
        self._size_bytes = 0
        # The number of the last transaction that removed something.
        self._removed_in = 0

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def find(self, ordinals: Sequence[int]) -> list[bytes | None]:
        """The memory at each ordinal; None where it is not known."""
        memories = self._memories
        found: list[bytes | None] = []
        with self._lock:
            for ordinal in ordinals:
                memory = memories.get(ordinal)
                if memory is not None:
                    memories.move_to_end(ordinal)
                found.append(memory)
            missing = found.count(None)
            self.lookups.misses += missing
            self.lookups.hits += len(found) - missing
        return found

    def keep(self, ordinal: int, memory: bytes, transaction_number: int) -> None:
        """Keeps what a snapshot of the store shows, unless something was removed since, or it is too large.

        Args:
            transaction_number: of the last transaction that the snapshot shows.
        """
        size_bytes = len(memory) + _ENTRY_BYTES
        if size_bytes > self._max_bytes * MAX_SHARE:
            return
        with self._lock:
            if transaction_number < self._removed_in or ordinal in self._memories:
                return
            self._memories[ordinal] = memory
            self._size_bytes += size_bytes
            while self._size_bytes > self._max_bytes:
                self._size_bytes -= len(self._memories.popitem(last=False)[1]) + _ENTRY_BYTES

    def drop(self, ordinals: Iterable[int], transaction_number: int) -> None:
        """Forgets memories that a transaction has removed, once it is committed."""
        with self._lock:
            self._removed_in = transaction_number
            for ordinal in ordinals:
                memory = self._memories.pop(ordinal, None)
                if memory is not None:
                    self._size_bytes -= len(memory) + _ENTRY_BYTES
