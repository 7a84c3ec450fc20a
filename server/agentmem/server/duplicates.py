"""Memories that are there already: found by owner and content, skipped or merged."""

from __future__ import annotations

import itertools

from agentmem.core.history import is_expired
from agentmem.core.layout import content_digest
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.records import FloatVector
from agentmem.core.times import timestamp_us
from agentmem.core.validation import check_memory
from agentmem.v1 import memory_pb2


def find_duplicate(
    transaction: ReadTransaction, number: int, digest: bytes, added: memory_pb2.Memory, time_us: int
) -> tuple[int, memory_pb2.Memory] | None:
    """The live memory of a namespace with this owner and content, and its ordinal; None when there is none.

    Of several it is the one with the id of the added memory, else the oldest.

    Args:
        number: of the namespace.
        digest: of the added memory's owner and content.
        added: its namespace is set.
        time_us: what has expired by then does not count.
    """
    state = transaction.id_state(added.namespace, added.id)
    candidates = [state.ordinal] if state is not None and not state.deleted else []
    for ordinal in itertools.chain(candidates, transaction.duplicates(number, digest)):
        memory = transaction.named_record(ordinal).memory
        if not is_expired(memory, time_us) and content_digest(memory) == digest:
            return ordinal, memory
    return None


def merged(known: memory_pb2.Memory, added: memory_pb2.Memory, path: str) -> memory_pb2.Memory:
    """The known memory with what the added one brings; see DuplicatePolicy.

    Raises InvalidArgument when both together are over a limit; ``path`` is that of the added one.
    """
    memory = memory_pb2.Memory()
    memory.CopyFrom(known)
    memory.tags.extend(tag for tag in added.tags if tag not in known.tags)
    for key, value in added.metadata.items():
        memory.metadata[key].CopyFrom(value)
    memory.importance = max(known.importance, added.importance)
    memory.session_id = known.session_id or added.session_id
    if not (known.HasField("expire_time") and added.HasField("expire_time")):
        memory.ClearField("expire_time")
    elif timestamp_us(added.expire_time) > timestamp_us(known.expire_time):
        memory.expire_time.CopyFrom(added.expire_time)
    check_memory(memory, path)
    return memory


def merged_vector(
    memory: memory_pb2.Memory, known: FloatVector | None, added: FloatVector | None, model: str
) -> FloatVector | None:
    """The vector of the merged memory, whose model it sets when the vector is the added one's."""
    if known is not None or added is None:
        return known
    memory.embedding_model = model
    return added
