"""What the log tells of one namespace, change by change, from a place in it.

A step reads a bounded piece of the log in one short transaction. A change is left out only when it is known
why: an entry that is not in the log any more, or a version that retention has removed, ends the reading with
HISTORY_PRUNED. A version whose record is missing because its memory was purged is left out; the log has the
purge further on (purged_ordinals.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentmem.core.errors import DataLoss, FailedPrecondition, invalid_field
from agentmem.core.filters import Filter
from agentmem.core.log import FIRST_EPOCH, RECORD_KINDS, LogEntry, Operation, decode_entry
from agentmem.core.purged_ordinals import PurgedOrdinals, prune_of
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.reading import add_embedding
from agentmem.core.store import Store
from agentmem.v1 import memory_pb2, reader_pb2

# Of one message: it ends behind the change that reaches this.
MAX_FRAME_BYTES = 256 * 1024
# What one step looks at, so that its transaction is short: some ten milliseconds.
MAX_STEP_ENTRIES = 1000
MAX_STEP_OPERATIONS = 256
# The epoch of a cluster before any promotion.

ChangeKind = reader_pb2.ChangeKind
_CHANGES = (*RECORD_KINDS, Operation.KIND_PURGE)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the log, between two operations.

    Attributes:
        epoch: of the entry.
        operation: behind this one of the entry, counted from 1; 0 is behind all of them.
    """

    epoch: int
    revision: int
    operation: int = 0

    @property
    def next_revision(self) -> int:
        """The entry in which the next operation is."""
        return self.revision if self.operation else self.revision + 1

    def to_proto(self) -> reader_pb2.WatchPosition:
        return reader_pb2.WatchPosition(epoch=self.epoch, revision=self.revision, operation=self.operation)


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """Which changes are read; see WatchMemoriesRequest. ``matcher`` is None for those of all memories."""

    namespace: str
    matcher: Filter | None = None
    include_embedding: bool = False
    skip_pruned: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What one step came to.

    Attributes:
        place: behind the changes, and behind everything before.
        is_level: there was nothing behind the place, or what is there cannot be told yet.
    """

    changes: Sequence[reader_pb2.MemoryChange]
    place: Place
    is_level: bool


class PositionAhead(Exception):
    """The store has not reached the position."""


def start_place(transaction: ReadTransaction, after: reader_pb2.WatchPosition | None) -> Place:
    """The place that a request names; the newest, when it names none.

    Raises:
        PositionAhead: it is of a later epoch or revision than the store's.
        FailedPrecondition: ``REVISION_LOST``, a promotion has left it behind; ``HISTORY_PRUNED``, the log
            does not reach back to it.
        InvalidArgument: the entry has not so many operations.
    """
    position = transaction.position
    if after is None:
        return Place(position.epoch, position.revision)
    common = transaction.common_revision(after.epoch, after.revision) if after.epoch else None
    if common is not None:
        raise FailedPrecondition(
            "REVISION_LOST",
            f"revision {after.revision} of epoch {after.epoch} was left behind by a promotion; what goes on "
            f"has revisions up to {common} in common with it",
            epoch=str(position.epoch),
            common_revision=str(common),
        )
    if after.epoch > position.epoch or after.revision > position.revision:
        raise PositionAhead
    place = Place(_epoch_at(transaction, after.revision), after.revision, after.operation)
    count = 0
    if place.revision:
        check_kept(transaction, place)
        count = len(transaction.log_entry(place.revision).operations) if place.operation else 0
    if place.operation > count:
        raise invalid_field(
            "after.operation", f"is {place.operation}; revision {place.revision} has {count} operations"
        )
    check_kept(transaction, place)
    return place


def _epoch_at(transaction: ReadTransaction, revision: int) -> int:
    began = [epoch for epoch, first_revision in transaction.epochs() if first_revision <= revision]
    return max(began, default=FIRST_EPOCH)


def check_kept(transaction: ReadTransaction, place: Place) -> None:
    """Raises FailedPrecondition (``HISTORY_PRUNED``) when the log does not have what follows the place."""
    newest = transaction.revision
    if place.next_revision > newest or transaction.log_value(place.next_revision) is not None:
        return
    oldest = (transaction.first_log_revision or newest + 1) - 1
    raise FailedPrecondition(
        "HISTORY_PRUNED",
        f"the log does not reach back to revision {place.next_revision} any more; it can be watched from "
        f"behind revision {oldest} on",
        oldest_revision=str(oldest),
        field="after",
    )


@dataclass(frozen=True, slots=True)
class _Gap:
    """A version whose record is missing, at a place."""

    ordinal: int
    revision: int


class ChangeReader:
    """Reads on from a place, step by step, one step at a time.

    Attributes:
        place: behind all that was read.
    """

    def __init__(self, store: Store, query: WatchQuery, place: Place, purged: PurgedOrdinals) -> None:
        self.place = place
        self._store = store
        self._query = query
        self._purged = purged
        # A missing record that nothing is known about yet, and where the search for its end goes on.
        self._gap: _Gap | None = None
        self._search_from = 0

    @property
    def has_gap(self) -> bool:
        """Whether it stands before a version that was removed, and has not found out by what."""
        return self._gap is not None

    def step(self) -> Step:
        """The next changes, or less: what one bounded step comes to.

        Raises:
            FailedPrecondition: ``HISTORY_PRUNED``, what comes next is not there any more.
            DataLoss: stored bytes fail their checksum.
        """
        if self._gap is not None and not self._explained(self._gap):
            # A replica may lack a record before it has the entry that removed it.
            return Step((), self.place, is_level=self._search_from > self._store.position().revision)
        self._gap = None
        return self._read()

    def _explained(self, gap: _Gap) -> bool:
        """Whether the gap is that of a purge, after one more bounded look at the log behind it."""
        if not self._purged.covers(self._store, gap.revision):
            return False
        if gap.ordinal in self._purged:
            return True
        with self._store.read() as transaction:
            check_kept(transaction, self.place)
            found, self._search_from = prune_of(transaction, gap.ordinal, self._search_from)
        if found:
            raise self._pruned(gap, found)
        return False

    def _pruned(self, gap: _Gap, pruned_at: int) -> FailedPrecondition:
        return FailedPrecondition(
            "HISTORY_PRUNED",
            f"retention has removed a version that revision {gap.revision} wrote, with revision {pruned_at}; "
            "with skip_pruned such changes are left out",
            revision=str(gap.revision),
        )

    def _read(self) -> Step:
        changes: list[reader_pb2.MemoryChange] = []
        size_bytes = entries = operations = 0
        with self._store.read() as transaction:
            check_kept(transaction, self.place)
            space = transaction.namespace(self._query.namespace)
            number = space.number if space is not None else 0
            for entry in _entries(transaction, self.place.next_revision):
                for operation, place in _following(entry, number, self.place):
                    if size_bytes >= MAX_FRAME_BYTES or operations == MAX_STEP_OPERATIONS:
                        return Step(changes, self.place, is_level=False)
                    operations += 1
                    change = self._change(transaction, entry, operation)
                    if self._gap is not None:
                        return Step(changes, self.place, is_level=False)
                    self.place = place
                    if change is not None:
                        change.position.CopyFrom(place.to_proto())
                        size_bytes += change.ByteSize()
                        changes.append(change)
                self.place = Place(entry.epoch, entry.revision)
                entries += 1
                if entries == MAX_STEP_ENTRIES:
                    return Step(changes, self.place, is_level=False)
        return Step(changes, self.place, is_level=True)

    def _change(
        self, transaction: ReadTransaction, entry: LogEntry, operation: Operation
    ) -> reader_pb2.MemoryChange | None:
        """The change that an operation made; None when it is left out, or with ``_gap`` set, not known."""
        if operation.kind == Operation.KIND_PURGE:
            return reader_pb2.MemoryChange(
                kind=reader_pb2.CHANGE_KIND_PURGED, purged_id_digest=operation.purged_id_digest
            )
        record = transaction.record(operation.ordinal)
        if record is None:
            if not self._query.skip_pruned and operation.ordinal not in self._purged:
                # In the same entry at the earliest: a batch may write a version and remove it again.
                self._gap = _Gap(operation.ordinal, entry.revision)
                self._search_from = entry.revision
            return None
        matcher = self._query.matcher
        matches = matcher is None or (not record.is_tombstone and matcher.matches(record.memory))
        if not matches and not self._matched_before(transaction, operation.replaced_ordinal):
            return None
        if record.is_tombstone:
            return reader_pb2.MemoryChange(kind=_END_KINDS[record.kind], memory=record.memory)
        if self._query.include_embedding:
            add_embedding(transaction, operation.ordinal, record.memory)
        kind = reader_pb2.CHANGE_KIND_UPDATED if operation.replaced_ordinal else reader_pb2.CHANGE_KIND_ADDED
        return reader_pb2.MemoryChange(kind=kind, memory=record.memory, matches=matches)

    def _matched_before(self, transaction: ReadTransaction, replaced_ordinal: int) -> bool:
        """Whether the version that a change replaced matches the filter; one that is gone may have."""
        if not replaced_ordinal or self._query.matcher is None:
            return False
        record = transaction.record(replaced_ordinal)
        return record is None or self._query.matcher.matches(record.memory)


_END_KINDS: dict[memory_pb2.VersionKind, ChangeKind] = {
    memory_pb2.VERSION_KIND_DELETED: reader_pb2.CHANGE_KIND_DELETED,
    memory_pb2.VERSION_KIND_EXPIRED: reader_pb2.CHANGE_KIND_EXPIRED,
}


def _entries(transaction: ReadTransaction, first_revision: int) -> Iterator[LogEntry]:
    """The entries from a revision on. Raises DataLoss when one is missing between them."""
    for expected, (revision, value) in enumerate(transaction.log_values(first_revision), first_revision):
        if revision != expected:
            raise DataLoss("CORRUPT_LOG", f"the log has no entry at revision {expected}")
        yield decode_entry(value, revision)[0]


def _following(entry: LogEntry, number: int, after: Place) -> Iterator[tuple[Operation, Place]]:
    """The operations of an entry that are changes of the namespace and come behind a place.

    Each with the place behind it. The last one's is behind the entry, so that it is good for as long as the
    entry after it is in the log.
    """
    told = [
        (index, operation)
        for index, operation in enumerate(entry.operations, 1)
        if operation.namespace_number == number and operation.kind in _CHANGES
    ]
    for index, operation in told:
        if after.revision == entry.revision and index <= after.operation:
            continue
        behind = 0 if index == told[-1][0] else index
        yield operation, Place(entry.epoch, entry.revision, behind)
