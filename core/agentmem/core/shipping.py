"""What the writer sends of its log, and what a replica asks of it before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

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


class SentVersion(NamedTuple):
    """What came with an operation of an entry, as it is stored.

    Attributes:
        memory: None when a vector came alone.
    """

    memory: memory_pb2.Memory | None
    record: bytes
    vector: bytes
    coming_vector: bytes


def checked_versions(entry: LogEntry, shipped: replication_pb2.ShippedEntry) -> list[SentVersion | None]:
    """What came with each operation of SHIPPED_KINDS; None for what was removed since.

    Raises DataLoss unless records and vectors are those that the entry names.
    """
    operations = [operation for operation in entry.operations if operation.kind in SHIPPED_KINDS]
    if len(shipped.records) != len(operations):
        raise DataLoss("RECORDS_MISSING", f"entry {entry.revision} came without all of its records")
    versions: list[SentVersion | None] = []
    for operation, sent in zip(operations, shipped.records, strict=True):
        ordinal = operation.ordinal
        if sent.removed and sent.ordinal == ordinal:
            versions.append(None)
            continue
        # Once of each: a message copies its bytes for whoever asks.
        record, vector, coming_vector = sent.record, sent.vector, sent.coming_vector
        memory = None
        if operation.kind in RECORD_KINDS:
            memory = memory_pb2.Memory.FromString(records.memory_bytes(record, ordinal))
        if vector:
            records.check_vector(vector, ordinal)
        if coming_vector:
            records.check_vector(coming_vector, ordinal)
        if (
            sent.ordinal != ordinal
            or records.stored_checksum(record) != operation.record_crc32c
            or records.stored_checksum(vector) != operation.vector_crc32c
            or records.stored_checksum(coming_vector) != operation.coming_vector_crc32c
        ):
            raise DataLoss(
                "RECORD_MISMATCH",
                f"the record at ordinal {ordinal} is not the one entry {entry.revision} names",
            )
        versions.append(SentVersion(memory, record, vector, coming_vector))
    return versions
