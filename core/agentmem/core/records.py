"""Memories and their vectors as they are stored: immutable values with a checksum.

A record is one version of a memory, or the tombstone that ends it:

    0       4       5         13          21
    | crc32c | kind  | revision | previous  | Memory (protobuf) ...
    | u32    | u8    | u64      | ordinal   |
                                | u64       |

``kind`` is 0 for a version and 1 for a tombstone, whose Memory has no more than namespace, id, version and
update_time. ``revision`` is the log entry that wrote it, ``previous ordinal`` the version before (0: none),
so that the versions of a memory are a list, newest first.

A vector is the unit-length embedding of the version at the same ordinal:

    0       4       5
    | crc32c | dtype | components ...
    | u32    | u8    |

``dtype`` is 0 for float32. Integers and floats are little-endian. Each crc32c covers everything behind it.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import uuid
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentmem.core.checksums import crc32c
from agentmem.core.errors import DataLoss
from agentmem.v1 import memory_pb2

RECORD_HEADER = struct.Struct("<IBQQ")
VECTOR_HEADER = struct.Struct("<IB")
CHECKSUM_BYTES = 4
KIND_VERSION = 0
KIND_TOMBSTONE = 1
DTYPE_FLOAT32 = 0

FloatVector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Record:
    """A decoded record: one version of a memory, or a tombstone."""

    revision: int
    previous_ordinal: int
    is_tombstone: bool
    memory: memory_pb2.Memory


def encode_record(record: Record) -> bytes:
    kind = KIND_TOMBSTONE if record.is_tombstone else KIND_VERSION
    # Deterministic, so that the same memory has the same bytes after export and import.
    body = RECORD_HEADER.pack(0, kind, record.revision, record.previous_ordinal)[CHECKSUM_BYTES:]
    body += record.memory.SerializeToString(deterministic=True)
    return struct.pack("<I", crc32c(body)) + body


def decode_record(value: bytes, ordinal: int) -> Record:
    """Raises DataLoss when the bytes fail their checksum; ``ordinal`` is for its message."""
    check_record(value, ordinal)
    _, kind, revision, previous_ordinal = RECORD_HEADER.unpack_from(value)
    return Record(
        revision=revision,
        previous_ordinal=previous_ordinal,
        is_tombstone=kind == KIND_TOMBSTONE,
        memory=memory_pb2.Memory.FromString(value[RECORD_HEADER.size :]),
    )


def check_record(value: bytes, ordinal: int) -> None:
    """Raises DataLoss when an encoded record fails its checksum."""
    if len(value) < RECORD_HEADER.size or stored_checksum(value) != crc32c(value[CHECKSUM_BYTES:]):
        raise DataLoss("CORRUPT_RECORD", f"the record at ordinal {ordinal} fails its checksum")


def encode_vector(vector: FloatVector) -> bytes:
    body = struct.pack("<B", DTYPE_FLOAT32) + vector.astype("<f4", copy=False).tobytes()
    return struct.pack("<I", crc32c(body)) + body


def decode_vector(value: bytes, ordinal: int) -> FloatVector:
    """The vector, float32 [dimension], read-only. Raises DataLoss when the bytes fail their checksum."""
    check_vector(value, ordinal)
    return np.frombuffer(value, dtype="<f4", offset=VECTOR_HEADER.size)


def check_vector(value: bytes, ordinal: int) -> None:
    """Raises DataLoss when an encoded vector fails its checksum."""
    if len(value) < VECTOR_HEADER.size or stored_checksum(value) != crc32c(value[CHECKSUM_BYTES:]):
        raise DataLoss("CORRUPT_VECTOR", f"the vector at ordinal {ordinal} fails its checksum")


def vector_dimension(value: bytes) -> int:
    """How many components an encoded vector has."""
    return (len(value) - VECTOR_HEADER.size) // 4


def stored_checksum(value: bytes) -> int:
    """The crc32c at the head of an encoded record, vector or log entry."""
    return int.from_bytes(value[:CHECKSUM_BYTES], "little")


class IdSource:
    """UUIDv7 (RFC 9562, 5.7) whose order is the order in which they were made, across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> str:
        """A new id, as 36 characters of text."""
        with self._lock:
            # 48 bits of milliseconds and 12 bits of a counter (RFC 9562, 6.2, method 1); the counter
            # overflows into the milliseconds rather than going back.
            self._last = max((time.time_ns() // 1_000_000) << 12, self._last + 1)
            stamp = self._last
        random_bits = int.from_bytes(os.urandom(8), "big") >> 2
        value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | random_bits
        return str(uuid.UUID(int=value))
