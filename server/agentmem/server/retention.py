"""What ends by itself: expired memories, old versions, old log entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentmem.core.history import next_update_us
from agentmem.core.layout import IdState, NamespaceState
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.store import Change, Removal, WriteTransaction
from agentmem.v1 import memory_pb2

# What one command may end: some ten milliseconds of the commit thread.
MAX_SWEPT_MEMORIES = 500
MAX_PRUNED_VERSIONS = 500
MAX_TRIMMED_ENTRIES = 1000


def excess_versions(
    transaction: ReadTransaction, space: NamespaceState | None, state: IdState, added: int
) -> Sequence[int]:
    """The ordinals of a memory's versions that are too many, newest first.

    Args:
        space: its namespace.
        state: of its id before the write that this is asked for.
        added: how many versions that write adds.
    """
    if space is None or not space.max_versions:
        return ()
    kept = [ordinal for ordinal, _ in transaction.versions(state.ordinal)]
    # The oldest first, so that what is left has no gap.
    return kept[max(0, space.max_versions - added) :][-MAX_PRUNED_VERSIONS:]


def pruned(
    transaction: ReadTransaction, namespace: str, state: IdState | None, added: int = 1
) -> list[Removal]:
    """What retention by count removes with a write to a memory."""
    if state is None:
        return []
    excess = excess_versions(transaction, transaction.namespace(namespace), state, added)
    return [Removal(namespace, excess)] if excess else []


@dataclass(frozen=True, slots=True)
class SweepExpired:
    """Deletes memories whose time is over; says how many."""

    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> int:
        changes: list[Change | Removal] = []
        ordinals = transaction.expired(time_us, MAX_SWEPT_MEMORIES)
        for ordinal in ordinals:
            memory = transaction.named_record(ordinal).memory
            state = transaction.id_state(memory.namespace, memory.id)
            assert state is not None
            end = tombstone(memory, state, time_us)
            end.memory.expire_time.CopyFrom(memory.expire_time)
            changes.append(end)
            changes += pruned(transaction, memory.namespace, state)
        if changes:
            transaction.append(changes, time_us)
        return len(ordinals)


def tombstone(newest: memory_pb2.Memory, state: IdState, time_us: int) -> Change:
    """The change that ends a memory behind its newest version; ``state`` is that of its id."""
    memory = memory_pb2.Memory(id=newest.id, namespace=newest.namespace, version=newest.version + 1)
    memory.update_time.FromMicroseconds(next_update_us(newest, time_us))
    return Change(memory, is_tombstone=True, before=state, ended=newest)


@dataclass(frozen=True, slots=True)
class PruneByAge:
    """Removes versions of a namespace that ended too long ago; says how many."""

    namespace: str
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> int:
        space = transaction.namespace(self.namespace)
        if space is None or not space.max_version_age_us:
            return 0
        due = transaction.superseded(space.number, time_us - space.max_version_age_us, MAX_PRUNED_VERSIONS)
        by_id: dict[str, list[int]] = {}
        for ordinal in due:
            by_id.setdefault(transaction.named_record(ordinal).memory.id, []).append(ordinal)
        removals = [self._removal(transaction, memory_id, ordinals) for memory_id, ordinals in by_id.items()]
        if removals:
            transaction.append(removals, time_us)
        return sum(len(removal.ordinals) for removal in removals)

    def _removal(self, transaction: WriteTransaction, memory_id: str, ordinals: list[int]) -> Removal:
        state = transaction.id_state(self.namespace, memory_id)
        if state is None or not state.deleted or state.ordinal not in ordinals:
            return Removal(self.namespace, sorted(ordinals, reverse=True))
        # The tombstone goes, and with it the id and whatever is left of the memory.
        versions = list(transaction.versions(state.ordinal))
        return Removal(
            self.namespace,
            [ordinal for ordinal, _ in versions],
            forgotten=versions[0][1],
        )


@dataclass(frozen=True, slots=True)
class PruneByCount:
    """Removes excess versions of some memories, after the count was lowered; says how many."""

    namespace: str
    ids: Sequence[str]
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> int:
        removals = [
            removal
            for memory_id in self.ids
            for removal in pruned(
                transaction, self.namespace, transaction.id_state(self.namespace, memory_id), added=0
            )
        ]
        if removals:
            transaction.append(removals, time_us)
        return sum(len(removal.ordinals) for removal in removals)


@dataclass(frozen=True, slots=True)
class TrimLog:
    """Removes the oldest entries of the log; says how many.

    What ``WriteTransaction.trim_log`` takes; ``max_age_us`` counts back from the time of the commit.
    """

    max_bytes: int
    max_age_us: int
    keep_from_revision: int
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> int:
        return transaction.trim_log(
            max_bytes=self.max_bytes,
            before_us=time_us - self.max_age_us,
            keep_from_revision=self.keep_from_revision,
            limit=MAX_TRIMMED_ENTRIES,
        )
