"""The embeddings of memories as the indexes need them: of the space that the index is of."""

from __future__ import annotations

from agentmem.core.errors import DataLoss
from agentmem.core.layout import NamespaceState
from agentmem.core.log import Operation
from agentmem.core.records import FloatVector, unit_vector
from agentmem.core.shipping import VectorsReplacedError
from agentmem.core.store import ReadTransaction


def vector_at(
    transaction: ReadTransaction,
    namespace: str,
    state: NamespaceState,
    ordinal: int,
    operation: Operation | None,
) -> FloatVector | None:
    """The unit vector of a memory; None when it has none.

    Args:
        state: as far as the index has come.
        operation: that of the log; None for what the store had at the start.

    Raises:
        VectorsReplacedError: the store has other embeddings by now, as a later entry of the log says.
        DataLoss: it is missing.
    """
    vector = transaction.vector_of_space(namespace, state.space, ordinal)
    if vector is not None:
        return unit_vector(vector) if len(vector) else None
    now = transaction.namespace(namespace)
    if operation is None or operation.vector_crc32c:
        if now is not None and now.space != state.space:
            raise VectorsReplacedError(f"the embeddings of the namespace {namespace!r} were replaced")
        if operation is not None:
            raise DataLoss("CORRUPT_VECTOR", f"the store has no vector at ordinal {ordinal}")
    return None


def coming_vector(
    transaction: ReadTransaction, namespace: str, state: NamespaceState, ordinal: int
) -> FloatVector | None:
    """The unit vector in the coming space; empty when the memory gets none, None when it has not come yet."""
    vector = transaction.vector_of_space(namespace, state.coming_space, ordinal)
    return None if vector is None else unit_vector(vector)
