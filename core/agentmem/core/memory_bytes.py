"""Memories as answers have them, serialized: for the reads that are asked for most.

They are what ``ReadTransaction.record`` returns, without a Message made of each. Of two values of a field the
last counts, so what differs from the stored bytes is put behind them.
"""

from __future__ import annotations

from agentmem.core import records, wire
from agentmem.core.history import is_expired
from agentmem.core.layout import NamespaceState
from agentmem.core.read_transaction import ReadTransaction, missing_record
from agentmem.v1 import memory_pb2

_EMBEDDING = memory_pb2.Memory.EMBEDDING_FIELD_NUMBER
_EMBEDDING_MODEL = memory_pb2.Memory.EMBEDDING_MODEL_FIELD_NUMBER


def memory_bytes(
    transaction: ReadTransaction,
    space: NamespaceState | None,
    ordinal: int,
    *,
    include_embedding: bool = False,
) -> bytes | None:
    """The version at an ordinal; None when the store does not have it.

    Args:
        space: of its namespace.

    Raises:
        DataLoss: the stored bytes fail their checksum.
    """
    value = transaction.stored_record(ordinal)
    if value is None:
        return None
    memory = records.memory_bytes(value, ordinal, transaction.dictionary)
    if space is None:
        return memory
    if space.space and not records.is_tombstone(value):
        # The record names the model of its first embedding.
        model = space.model if transaction.has_vector(space, ordinal) else ""
        memory += wire.delimited(_EMBEDDING_MODEL, model.encode())
    if include_embedding:
        memory += embedding_bytes(transaction, space, ordinal)
    return memory


def named_memory_bytes(
    transaction: ReadTransaction, space: NamespaceState | None, ordinal: int, *, include_embedding: bool
) -> bytes:
    """As ``memory_bytes``, at an ordinal that the store itself names. Raises DataLoss when it is missing."""
    memory = memory_bytes(transaction, space, ordinal, include_embedding=include_embedding)
    if memory is None:
        raise missing_record(ordinal)
    return memory


def has_ended(memory: bytes, now_us: int) -> bool:
    """Whether the time of a memory is over."""
    return records.may_expire(memory) and is_expired(memory_pb2.Memory.FromString(memory), now_us)


def embedding_bytes(transaction: ReadTransaction, space: NamespaceState | None, ordinal: int) -> bytes:
    """The embedding of a version as a field of its memory; nothing when it has none."""
    vector = None if space is None else transaction.vector(space, ordinal)
    return b"" if vector is None else wire.delimited(_EMBEDDING, vector.astype("<f4", copy=False).tobytes())
