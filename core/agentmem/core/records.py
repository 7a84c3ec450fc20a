"""Memories and their vectors as they are stored: immutable values with a checksum.

A record is one version of a memory, or the tombstone that ends it:

    0       4       5       6          14         22
    | crc32c | codec | kind  | revision | previous  | Memory (protobuf), compressed as the codec says ...
    | u32    | u8    | u8    | u64      | ordinal   |
                                        | u64       |

``kind`` is 0 for a version and 1 for a tombstone, whose Memory has no more than namespace, id, version and
update_time, and expire_time when the memory expired. ``revision`` is the log entry that wrote it, ``previous
ordinal`` the version before (0: none), so that the versions of a memory are a list, newest first.

The checksum covers kind, revision, previous ordinal and the uncompressed Memory: how a record is compressed
is the matter of each store, and its checksum in the log holds for all of them. Codecs are those of
compression.py. Replicas are sent records of codec 0, uncompressed.

A vector is the unit-length embedding of the version at the same ordinal:

    0       4       5
    | crc32c | dtype | components ...
    | u32    | u8    |

``dtype`` is 0 for float32 and 1 for float16. Its crc32c covers everything behind it. A vector without
components stands for content that means nothing to the model. Integers and floats are little-endian.
"""

from __future__ import annotations

import math
import os
import struct
import threading
import time
import uuid
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agentmem.core.checksums import crc32c
from agentmem.core.compression import (
    CODEC_RAW,
    CODEC_ZSTD_DICTIONARY,
    CompressionError,
    Dictionary,
    FindDictionary,
    compress,
    decompress_with,
    dictionary_id,
)
from agentmem.core.errors import DataLoss
from agentmem.v1 import memory_pb2, writer_pb2

CHECKSUM_BYTES = 4
RECORD_HEADER = struct.Struct("<IBBQQ")
_CHECKED = struct.Struct("<IB")
_RECORD_BODY = struct.Struct("<BQQ")
_CODEC_OFFSET = CHECKSUM_BYTES
_BODY_OFFSET = CHECKSUM_BYTES + 1
_KIND_OFFSET = _BODY_OFFSET
VECTOR_HEADER = struct.Struct("<IB")
KIND_VERSION = 0
KIND_TOMBSTONE = 1
DTYPE_FLOAT32 = 0
DTYPE_FLOAT16 = 1
_DTYPES: dict[int, np.dtype[Any]] = {DTYPE_FLOAT32: np.dtype("<f4"), DTYPE_FLOAT16: np.dtype("<f2")}
# Field 17 with a length, as every encoder writes it.
_EXPIRE_TIME_TAG = b"\x8a\x01"
# More than any memory that the limits of a request allow.
MAX_MEMORY_BYTES = 1024 * 1024

FloatVector = npt.NDArray[np.float32]


def no_dictionary(dictionary_id: int) -> None:
    """For records that were compressed without one."""


class Record(NamedTuple):
    """A decoded record: one version of a memory, or a tombstone."""

    revision: int
    previous_ordinal: int
    is_tombstone: bool
    memory: memory_pb2.Memory

    @property
    def kind(self) -> memory_pb2.VersionKind:
        """How the version came to be."""
        if not self.is_tombstone:
            return memory_pb2.VERSION_KIND_WRITTEN
        if self.memory.HasField("expire_time"):
            return memory_pb2.VERSION_KIND_EXPIRED
        return memory_pb2.VERSION_KIND_DELETED


def encode_record(record: Record) -> bytes:
    """The record uncompressed."""
    kind = KIND_TOMBSTONE if record.is_tombstone else KIND_VERSION
    body = _RECORD_BODY.pack(kind, record.revision, record.previous_ordinal)
    # Deterministic, so that the same memory has the same bytes after export and import.
    body += record.memory.SerializeToString(deterministic=True)
    return _CHECKED.pack(crc32c(body), CODEC_RAW) + body


def compress_record(record: bytes, dictionary: Dictionary | None) -> bytes:
    """An uncompressed record in the smallest form that there is."""
    codec, payload = compress(record[RECORD_HEADER.size :], dictionary)
    if codec == CODEC_RAW:
        return record
    header = record[:_CODEC_OFFSET] + bytes((codec,)) + record[_BODY_OFFSET : RECORD_HEADER.size]
    return header + payload


def expand_record(value: bytes, ordinal: int, find: FindDictionary = no_dictionary) -> bytes:
    """A stored record uncompressed, its checksum compared.

    Args:
        find: gives the store's dictionaries by id.

    Raises:
        DataLoss: the bytes fail their checksum; ``ordinal`` is for its message.
    """
    memory = memory_bytes(value, ordinal, find)
    if value[_CODEC_OFFSET] == CODEC_RAW:
        return value
    return value[:_CODEC_OFFSET] + bytes((CODEC_RAW,)) + value[_BODY_OFFSET : RECORD_HEADER.size] + memory


def memory_bytes(value: bytes, ordinal: int, find: FindDictionary = no_dictionary) -> bytes:
    """The serialized Memory of a stored record. Raises as ``expand_record``."""
    if len(value) < RECORD_HEADER.size:
        raise _damaged_record(ordinal)
    codec, memory = value[_CODEC_OFFSET], value[RECORD_HEADER.size :]
    if codec != CODEC_RAW:
        try:
            memory = decompress_with(codec, memory, find, MAX_MEMORY_BYTES)
        except CompressionError as error:
            raise _damaged_record(ordinal) from error
    if stored_checksum(value) != crc32c(value[_BODY_OFFSET : RECORD_HEADER.size] + memory):
        raise _damaged_record(ordinal)
    return memory


def is_tombstone(value: bytes) -> bool:
    """Whether a stored record ends a memory."""
    return value[_KIND_OFFSET] == KIND_TOMBSTONE


def may_expire(memory: bytes) -> bool:
    """Whether a serialized Memory may have an expire_time; when it has none, it mostly says no.

    Its tag cannot be missing where there is one, and two such bytes are seldom anything else.
    """
    return _EXPIRE_TIME_TAG in memory


def previous_ordinal(record: bytes) -> int:
    """The ordinal of the version before that of a record; 0 for none."""
    return int(RECORD_HEADER.unpack_from(record)[4])


def used_dictionary(value: bytes) -> int:
    """The id of the dictionary that a stored record is compressed with; 0 for none, or for damaged bytes."""
    if len(value) < RECORD_HEADER.size or value[_CODEC_OFFSET] != CODEC_ZSTD_DICTIONARY:
        return 0
    try:
        return dictionary_id(value[RECORD_HEADER.size :])
    except CompressionError:
        return 0


def decode_record(value: bytes, ordinal: int, find: FindDictionary = no_dictionary) -> Record:
    """Raises DataLoss when the bytes fail their checksum; ``ordinal`` is for its message."""
    value = expand_record(value, ordinal, find)
    _, _, kind, revision, previous_ordinal = RECORD_HEADER.unpack_from(value)
    return Record(
        revision=revision,
        previous_ordinal=previous_ordinal,
        is_tombstone=kind == KIND_TOMBSTONE,
        memory=memory_pb2.Memory.FromString(value[RECORD_HEADER.size :]),
    )


def _damaged_record(ordinal: int) -> DataLoss:
    return DataLoss("CORRUPT_RECORD", f"the record at ordinal {ordinal} fails its checksum")


def encode_vector(vector: FloatVector, precision: writer_pb2.VectorPrecision) -> bytes:
    """The vector in a VectorPrecision."""
    dtype = DTYPE_FLOAT16 if precision == writer_pb2.VECTOR_PRECISION_FLOAT16 else DTYPE_FLOAT32
    body = bytes((dtype,)) + vector.astype(_DTYPES[dtype], copy=False).tobytes()
    return crc32c(body).to_bytes(CHECKSUM_BYTES, "little") + body


# Of content that means nothing to the model.
NO_VECTOR: FloatVector = np.empty(0, dtype=np.float32)


def has_components(value: bytes | None) -> bool:
    """Whether an encoded vector is one, and not the word that there is none."""
    return value is not None and len(value) > VECTOR_HEADER.size


def decode_vector(value: bytes, ordinal: int) -> FloatVector:
    """The vector, float32 [dimension], read-only. Raises DataLoss when the bytes fail their checksum."""
    check_vector(value, ordinal)
    return checked_vector(value)


def checked_vector(value: bytes) -> FloatVector:
    """As ``decode_vector``, of bytes whose checksum was compared."""
    stored = np.frombuffer(value, dtype=_DTYPES[value[CHECKSUM_BYTES]], offset=VECTOR_HEADER.size)
    return stored.astype(np.float32, copy=False)


def vector_length(vector: npt.NDArray[Any]) -> float:
    """The length of a vector of floats [n], in their precision; not finite when one of them is not.

    NumPy's norm and products let go of the interpreter's lock, which beside a busy thread comes back after
    0.2 ms: many times what they compute. This keeps it, up to some 500 components.
    """
    return math.sqrt(float(np.add.reduce(vector * vector)))


def unit_vector(vector: FloatVector) -> FloatVector:
    """The vector at unit length, which one of half precision has only about: near duplicates would swap."""
    length = vector_length(vector)
    if not length or abs(length - 1) < 1e-6:
        return vector
    return np.asarray(vector / length, dtype=np.float32)


def check_vector(value: bytes, ordinal: int) -> None:
    """Raises DataLoss when an encoded vector fails its checksum."""
    if (
        len(value) < VECTOR_HEADER.size
        or stored_checksum(value) != crc32c(value[CHECKSUM_BYTES:])
        or value[CHECKSUM_BYTES] not in _DTYPES
    ):
        raise DataLoss("CORRUPT_VECTOR", f"the vector at ordinal {ordinal} fails its checksum")


def stored_checksum(value: bytes) -> int:
    """The crc32c at the head of an encoded record, vector or log entry; 0 for empty bytes."""
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
