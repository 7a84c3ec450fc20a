"""What stands now for versions that retention removed behind the back of a view."""

from __future__ import annotations

from collections.abc import Iterable

from agentmem.core.log import decode_entry
from agentmem.core.read_transaction import ReadTransaction
from agentmem.v1.storage_pb2 import Operation

# A view is behind the store by some dozens of milliseconds; while it catches up it may be by more.
MAX_OPERATIONS = 20_000


def replacements(transaction: ReadTransaction, after_revision: int, removed: Iterable[int]) -> dict[int, int]:
    """The live version that each of the removed ones was replaced by, by its ordinal.

    A version whose memory was deleted is left out, and one whose end is not among the first
    MAX_OPERATIONS operations behind the revision.

    Args:
        after_revision: they were live then.
    """
    successors: dict[int, int | None] = {}
    operations = 0
    for revision, value in transaction.log_values(after_revision + 1):
        for operation in decode_entry(value, revision)[0].operations:
            if operation.kind in (Operation.KIND_PUT, Operation.KIND_DELETE) and operation.replaced_ordinal:
                is_live = operation.kind == Operation.KIND_PUT
                successors[operation.replaced_ordinal] = operation.ordinal if is_live else None
            operations += 1
        if operations >= MAX_OPERATIONS:
            break
    found: dict[int, int] = {}
    for ordinal in removed:
        newest: int | None = ordinal
        while newest is not None and newest in successors:
            newest = successors[newest]
        if newest is not None and newest != ordinal:
            found[ordinal] = newest
    return found
