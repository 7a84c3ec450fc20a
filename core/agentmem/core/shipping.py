"""What the writer sends of its log, and what a replica asks of it before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentmem.core import records
from agentmem.core.errors import DataLoss
from agentmem.core.log import RECORD_KINDS, SHIPPED_KINDS, LogEntry
from agentmem.v1 import memory_pb2, replication_pb2


class VectorsReplacedError(Exception):
    """Vectors that an entry of the log tells of are of no use any more, and gone."""


@dataclass(frozen=True, slots=True)
class AppliedEntry:
    """An entry that a replica has applied, checked and parsed.

    Attributes:
        written: by ordinal the memory of each version that it wrote, and its encoded vector, empty for none.
            What was removed since is not there.
        size_bytes: of the entry and what came with it, as stored.
    """

    entry: LogEntry
    written: Mapping[int, tuple[memory_pb2.Memory, bytes]]
    size_bytes: int


def checked_memories(
    entry: LogEntry, shipped: replication_pb2.ShippedEntry
) -> list[memory_pb2.Memory | None]:
    """The memory of each shipped record; None for one that was removed since, or for a vector alone.

    Raises DataLoss unless records and vectors are those that the entry names.
    """
    operations = [operation for operation in entry.operations if operation.kind in SHIPPED_KINDS]
    if len(shipped.records) != len(operations):
        raise DataLoss("RECORDS_MISSING", f"entry {entry.revision} came without all of its records")
    memories: list[memory_pb2.Memory | None] = []
    for operation, sent in zip(operations, shipped.records, strict=True):
        if sent.removed and sent.ordinal == operation.ordinal:
            memories.append(None)
            continue
        has_record = operation.kind in RECORD_KINDS
        memories.append(records.decode_record(sent.record, operation.ordinal).memory if has_record else None)
        for vector in (sent.vector, sent.coming_vector):
            if vector:
                records.check_vector(vector, operation.ordinal)
        if (
            sent.ordinal != operation.ordinal
            or records.stored_checksum(sent.record) != operation.record_crc32c
            or records.stored_checksum(sent.vector) != operation.vector_crc32c
            or records.stored_checksum(sent.coming_vector) != operation.coming_vector_crc32c
        ):
            raise DataLoss(
                "RECORD_MISMATCH",
                f"the record at ordinal {operation.ordinal} is not the one entry {entry.revision} names",
            )
    return memories
