"""The layout of the store: its databases, their keys and values.

    database    key                      value
    meta        b"format"                u32, the version of this layout
                b"cluster_id"            16 bytes
                b"position"              epoch u64 | revision u64 | chain hash 32 bytes
                b"next_ordinal"          u64
    namespaces  namespace                number u32 | dimension u32 | live u64 | vectors u64 | model
    ids         namespace | 0x00 | id    ordinal u64 | version u64 | deleted u8
    docs        ordinal u64              record, see records.py
    vectors     ordinal u64              vector, see records.py
    log         revision u64             log entry, see log.py

Integers in keys are big-endian, so that their order is the order of the bytes; integers in values are
little-endian; text is UTF-8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FORMAT_VERSION = 1
DATABASES = (b"meta", b"namespaces", b"ids", b"docs", b"vectors", b"log")

# Keys of docs, vectors and log.
KEY = struct.Struct(">Q")
# Values of meta.
COUNTER = struct.Struct("<Q")
POSITION = struct.Struct("<QQ32s")
_ID_STATE = struct.Struct("<QQB")
_NAMESPACE = struct.Struct("<IIQQ")


@dataclass(frozen=True, slots=True)
class IdState:
    """What an id names: its newest version, which is a tombstone when ``deleted``."""

    ordinal: int
    version: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """What the store knows of a namespace.

    ``number`` counts namespaces from 1 in the order of their first write and never changes.
    ``dimension`` and ``model`` are those of the first embedding, 0 and "" before it.
    """

    number: int
    dimension: int = 0
    live_memories: int = 0
    live_vectors: int = 0
    model: str = ""


def id_key(namespace: str, memory_id: str) -> bytes:
    return namespace.encode() + b"\x00" + memory_id.encode()


def encode_id_state(state: IdState) -> bytes:
    return _ID_STATE.pack(state.ordinal, state.version, state.deleted)


def decode_id_state(value: bytes) -> IdState:
    ordinal, version, deleted = _ID_STATE.unpack(value)
    return IdState(ordinal, version, bool(deleted))


def encode_namespace(state: NamespaceState) -> bytes:
    counts = _NAMESPACE.pack(state.number, state.dimension, state.live_memories, state.live_vectors)
    return counts + state.model.encode()


def decode_namespace(value: bytes) -> NamespaceState:
    number, dimension, live_memories, live_vectors = _NAMESPACE.unpack_from(value)
    return NamespaceState(number, dimension, live_memories, live_vectors, value[_NAMESPACE.size :].decode())
