"""Why a version is missing that the log tells of: purged, pruned, or not known yet.

Its id cannot be told from the log, so the only witness is the entry that removed it. That comes behind the
entry that wrote it, so it is in the log as long as that one is.
"""

from __future__ import annotations

import threading
from itertools import islice

from agentmem.core.errors import FailedPrecondition
from agentmem.core.log import Operation, decode_entry
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.store import Store

# Some 64 MiB. Only the ordinals that purges have removed, in that part of the log which was asked about.
MAX_PURGED_ORDINALS = 1_000_000
# What one look at the log reads: some ten milliseconds.
MAX_SEARCHED_ENTRIES = 1000


class PurgedOrdinals:
    """What the purges of a stretch of the log have removed. Shared by all who ask, in any thread.

    Each entry is read once, however many ask: after the purge of a whole namespace every version of it is
    missing, and each would else be searched for in all of the log behind it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordinals: set[int] = set()
        # The stretch that was read: from the first to before the second.
        self._begin = self._end = 0

    def __contains__(self, ordinal: int) -> bool:
        return ordinal in self._ordinals

    def covers(self, store: Store, from_revision: int) -> bool:
        """Whether it knows of every purge from a revision on, after reading a little more if need be.

        Raises:
            FailedPrecondition: ``HISTORY_PRUNED``, since then so many versions were purged that it cannot be
                told of one whether it was purged or pruned.
        """
        with self._lock, store.read() as transaction:
            newest = transaction.revision
            if self._begin == self._end or transaction.first_log_revision > self._end:
                self._restart(from_revision)
            if self._begin > from_revision:
                low = max(from_revision, self._begin - MAX_SEARCHED_ENTRIES)
                self._read(transaction, low, self._begin)
                self._begin = low
            elif self._end <= newest:
                high = min(newest + 1, self._end + MAX_SEARCHED_ENTRIES)
                self._read(transaction, self._end, high)
                self._end = high
            if len(self._ordinals) > MAX_PURGED_ORDINALS:
                if self._begin >= from_revision:
                    self._restart(from_revision)
                    raise FailedPrecondition(
                        "HISTORY_PRUNED",
                        f"more than {MAX_PURGED_ORDINALS} versions were purged behind revision "
                        f"{from_revision}; with skip_pruned what was removed is left out",
                        revision=str(from_revision),
                    )
                # What is known of the time before is not needed here.
                self._restart(from_revision)
            return self._begin <= from_revision and self._end > newest

    def _restart(self, revision: int) -> None:
        # A new set: those who ask without the lock see the one or the other.
        self._ordinals = set()
        self._begin = self._end = revision

    def _read(self, transaction: ReadTransaction, begin: int, end: int) -> None:
        for revision, value in islice(transaction.log_values(begin), end - begin):
            if revision >= end:
                return
            for operation in decode_entry(value, revision)[0].operations:
                if operation.kind == Operation.KIND_PURGE:
                    self._ordinals.update(operation.removed_ordinals)


def prune_of(transaction: ReadTransaction, ordinal: int, from_revision: int) -> tuple[int, int]:
    """The revision at which retention removed a version, 0 when it is not found; and where to search on."""
    for revision, value in islice(transaction.log_values(from_revision), MAX_SEARCHED_ENTRIES):
        for operation in decode_entry(value, revision)[0].operations:
            if operation.kind == Operation.KIND_PRUNE and ordinal in operation.removed_ordinals:
                return revision, revision
        from_revision = revision + 1
    return 0, from_revision
