"""Memories as answers have them, serialized: for the reads that are asked for most.

They are what ``ReadTransaction.record`` returns, without a Message made of each. Of two values of a field the
last counts, so what differs from the stored bytes is put behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agentmem.core import records, wire
from agentmem.core.history import is_expired
from agentmem.core.layout import NamespaceState
from agentmem.core.memory_cache import MemoryCache
from agentmem.core.read_transaction import ReadTransaction
from agentmem.v1 import memory_pb2

_EMBEDDING = memory_pb2.Memory.EMBEDDING_FIELD_NUMBER
_EMBEDDING_MODEL = memory_pb2.Memory.EMBEDDING_MODEL_FIELD_NUMBER


def memories_bytes(
    transaction: ReadTransaction,
    space: NamespaceState | None,
    ordinals: Sequence[int],
    known: MemoryCache,
    *,
    include_embedding: bool = False,
) -> Iterator[bytes | None]:
    """The versions at some ordinals, as they are read; None for each that the store does not have.

    Args:
        space: of their namespace.
        known: of the store.

    Raises:
        DataLoss: the stored bytes of one fail their checksum.
    """
    if is_as_stored(space) and not include_embedding:
        dictionary, number = transaction.dictionary, 0
        for ordinal, found in zip(ordinals, known.find(ordinals), strict=True):
            memory = found
            if memory is None and (value := transaction.stored_record(ordinal)) is not None:
                memory = records.memory_bytes(value, ordinal, dictionary)
                number = number or transaction.number
                known.keep(ordinal, memory, number)
            yield memory
        return
    for ordinal in ordinals:
        value = transaction.stored_record(ordinal)
        if value is None:
            yield None
            continue
        memory = records.memory_bytes(value, ordinal, transaction.dictionary)
        if space is not None and space.space and not records.is_tombstone(value):
            # The record names the model of its first embedding.
            model = space.model if transaction.has_vector(space, ordinal) else ""
            memory += wire.delimited(_EMBEDDING_MODEL, model.encode())
        if space is not None and include_embedding:
            memory += _embedding_bytes(transaction, space, ordinal)
        yield memory


def is_as_stored(space: NamespaceState | None) -> bool:
    """Whether memories of a namespace are answered as they are stored: it has its first embeddings."""
    return space is None or not space.space


def has_ended(memory: bytes, now_us: int) -> bool:
    """Whether the time of a memory is over."""
    return records.may_expire(memory) and is_expired(memory_pb2.Memory.FromString(memory), now_us)


def _embedding_bytes(transaction: ReadTransaction, space: NamespaceState, ordinal: int) -> bytes:
    """The embedding of a version as a field of its memory; nothing when it has none."""
    vector = transaction.vector(space, ordinal)
    return b"" if vector is None else wire.delimited(_EMBEDDING, vector.astype("<f4", copy=False).tobytes())
