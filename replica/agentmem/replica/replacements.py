"""What stands now for versions that retention removed behind the back of a view."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from agentmem.core.read_transaction import ReadTransaction
from agentmem.v1.storage_pb2 import Operation

# A view is behind the store by some dozens of milliseconds; while it catches up it may be by more.
MAX_OPERATIONS = 20_000


def replacements(transaction: ReadTransaction, removed: Collection[int]) -> dict[int, int]:
    """The newest version of the memory of each of the removed ones, by its ordinal.

    Of memories that were deleted there is none, nor of versions that were replaced more than MAX_OPERATIONS
    operations ago.
    """
    successors: dict[int, int | None] = {}
    unknown = set(removed)
    for operation in _backwards(transaction):
        if operation.kind in (Operation.KIND_PUT, Operation.KIND_DELETE):
            ended = [operation.replaced_ordinal]
            successor = operation.ordinal if operation.kind == Operation.KIND_PUT else None
        elif operation.kind == Operation.KIND_PURGE:
            ended, successor = [*operation.removed_ordinals], None
        else:
            continue  # retention removes what was replaced before
        for ordinal in ended:
            successors.setdefault(ordinal, successor)
        unknown.difference_update(ended)
        if not unknown:
            break
    found: dict[int, int] = {}
    for ordinal in removed:
        newest: int | None = ordinal
        while newest is not None and newest in successors:
            newest = successors[newest]
        if newest is not None and newest != ordinal:
            found[ordinal] = newest
    return found


def _backwards(transaction: ReadTransaction) -> Iterator[Operation]:
    """The operations of the log, the newest first."""
    count = 0
    for revision in range(transaction.revision, 0, -1):
        if count >= MAX_OPERATIONS or transaction.log_value(revision) is None:
            return
        operations = transaction.log_entry(revision).operations
        count += len(operations)
        yield from reversed(operations)
