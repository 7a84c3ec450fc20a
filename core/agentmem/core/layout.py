"""The layout of the store: its databases, their keys and values.

    database      key                               value
    meta          b"format"                         u32, the version of this layout
                  b"cluster_id"                     16 bytes, sealed
                  b"position"                       epoch u64 | revision u64 | chain hash 32 bytes, sealed
                  b"counters"                       next ordinal u64 | bytes in log u64, sealed
    namespaces    namespace                         NamespaceState, sealed
    numbers       number u32                        namespace, sealed
    ids           namespace | 0x00 | id             ordinal u64 | version u64 | deleted u8, sealed
    docs          ordinal u64                       record, see records.py
    vectors       ordinal u64                       vector, see records.py
    superseded    number u32 | time i64 | ordinal   empty: a version that ended, by when it did
    hashes        number u32 | digest 16 | ordinal  empty: a live memory, by owner and content
    expiry        time i64 | ordinal u64            empty: a live memory that has an expire_time
    log           revision u64                      log entry, see log.py
    requests      key 16                            RequestOutcome (protobuf), sealed
    request_log   revision u64                      key 16 of the request that the entry carried out
    receipts      revision u64                      PurgeReceipt (protobuf), sealed
    epochs        epoch u64                         revision of its first entry u64, sealed; from epoch 2 on
    dictionaries  id u32                            see dictionaries.py

A sealed value is crc32c u32 of the rest | the rest. A namespace's number counts namespaces from 1. Times are
microseconds since 1970. Integers in keys are big-endian and signed ones biased by 2^63, so that their order
is the order of the bytes; integers in values are little-endian; text is UTF-8.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from agentmem.core.checksums import crc32c
from agentmem.core.errors import DataLoss
from agentmem.v1 import memory_pb2, writer_pb2

FORMAT_VERSION = 3
DATABASES = (
    b"meta",
    b"namespaces",
    b"numbers",
    b"ids",
    b"docs",
    b"vectors",
    b"superseded",
    b"hashes",
    b"expiry",
    b"log",
    b"requests",
    b"request_log",
    b"receipts",
    b"epochs",
    b"dictionaries",
)
DIGEST_BYTES = 16

# Keys of docs, vectors, log, request_log, receipts and epochs; values of epochs.
KEY = struct.Struct(">Q")
# Values of meta.
COUNTERS = struct.Struct("<QQ")
POSITION = struct.Struct("<QQ32s")
_SEAL = struct.Struct("<I")
_ID_STATE = struct.Struct("<QQB")
_NAMESPACE = struct.Struct("<IIQQQQQqIQB")
_TIME_BIAS = 1 << 63
_NUMBER = struct.Struct(">I")
_SUPERSEDED = struct.Struct(">IQQ")
_HASH = struct.Struct(f">I{DIGEST_BYTES}sQ")
_EXPIRY = struct.Struct(">QQ")


@dataclass(frozen=True, slots=True)
class IdState:
    """What an id names: its newest version, which is a tombstone when ``deleted``."""

    ordinal: int
    version: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """What the store knows of a namespace.

    Attributes:
        number: from 1, in the order of the first writes; never changes.
        dimension, model: those of the first embedding; 0 and "" before it.
        live_memories, live_vectors: of undeleted memories.
        versions: that are stored, tombstones included.
        pruned_versions: that retention has removed.
        history_start, history_start_us: what was there before this revision and this time is not wholly
            known any more; 0: all is.
        max_versions: that are kept of a memory; 0 for all.
        max_version_age_us: how long one is kept that was replaced or deleted; 0 for ever.
        precision: VectorPrecision of embeddings to come.
    """

    number: int
    dimension: int = 0
    live_memories: int = 0
    live_vectors: int = 0
    versions: int = 0
    pruned_versions: int = 0
    history_start: int = 0
    history_start_us: int = 0
    max_versions: int = 0
    max_version_age_us: int = 0
    precision: writer_pb2.VectorPrecision = writer_pb2.VECTOR_PRECISION_FLOAT32
    model: str = ""

    def settings(self) -> writer_pb2.NamespaceSettings:
        """What the namespace keeps, as the API has it."""
        settings = writer_pb2.NamespaceSettings(
            max_versions=self.max_versions, vector_precision=self.precision
        )
        if self.max_version_age_us:
            settings.max_version_age.FromMicroseconds(self.max_version_age_us)
        return settings


def seal(value: bytes) -> bytes:
    return _SEAL.pack(crc32c(value)) + value


def unseal(value: bytes, name: str) -> bytes:
    """The sealed value. Raises DataLoss, with the name, when it fails its checksum."""
    rest = value[_SEAL.size :]
    if len(value) < _SEAL.size or _SEAL.unpack_from(value)[0] != crc32c(rest):
        raise DataLoss("CORRUPT_VALUE", f"{name} fails its checksum")
    return rest


def id_key(namespace: str, memory_id: str) -> bytes:
    return namespace.encode() + b"\x00" + memory_id.encode()


def encode_id_state(state: IdState) -> bytes:
    return seal(_ID_STATE.pack(state.ordinal, state.version, state.deleted))


def decode_id_state(value: bytes, memory_id: str) -> IdState:
    """Raises DataLoss when the value fails its checksum."""
    ordinal, version, deleted = _ID_STATE.unpack(unseal(value, f"the entry of id {memory_id!r}"))
    return IdState(ordinal, version, bool(deleted))


def encode_namespace(state: NamespaceState) -> bytes:
    numbers = _NAMESPACE.pack(
        state.number,
        state.dimension,
        state.live_memories,
        state.live_vectors,
        state.versions,
        state.pruned_versions,
        state.history_start,
        state.history_start_us,
        state.max_versions,
        state.max_version_age_us,
        state.precision,
    )
    return seal(numbers + state.model.encode())


def decode_namespace(value: bytes, namespace: str) -> NamespaceState:
    """Raises DataLoss when the value fails its checksum."""
    rest = unseal(value, f"the entry of namespace {namespace!r}")
    return NamespaceState(*(*_NAMESPACE.unpack_from(rest), rest[_NAMESPACE.size :].decode()))


def superseded_key(number: int, ended_us: int, ordinal: int) -> bytes:
    return _SUPERSEDED.pack(number, ended_us + _TIME_BIAS, ordinal)


def decode_superseded_key(key: bytes) -> tuple[int, int]:
    """When the version ended, and its ordinal."""
    _, ended, ordinal = _SUPERSEDED.unpack(key)
    return ended - _TIME_BIAS, ordinal


def hash_key(number: int, digest: bytes, ordinal: int) -> bytes:
    return _HASH.pack(number, digest, ordinal)


def hash_prefix(number: int, digest: bytes) -> bytes:
    return _NUMBER.pack(number) + digest


def decode_hash_key(key: bytes) -> int:
    """The ordinal."""
    return int(_HASH.unpack(key)[2])


def expiry_key(expire_us: int, ordinal: int) -> bytes:
    return _EXPIRY.pack(expire_us + _TIME_BIAS, ordinal)


def decode_expiry_key(key: bytes) -> tuple[int, int]:
    """When the memory expires, and the ordinal of its newest version."""
    expire, ordinal = _EXPIRY.unpack(key)
    return expire - _TIME_BIAS, ordinal


def number_prefix(number: int) -> bytes:
    """How the keys of a namespace begin in superseded and hashes; the whole key in numbers, dictionaries."""
    return _NUMBER.pack(number)


def decode_number_key(key: bytes) -> int:
    """The number that is the whole key, in numbers and dictionaries."""
    return int(_NUMBER.unpack(key)[0])


def content_digest(memory: memory_pb2.Memory) -> bytes:
    """What duplicates have in common: owner and content. BLAKE2b-128."""
    # Owners have no control characters, so the zero bytes tell the parts from each other.
    text = f"{memory.user_id}\x00{memory.agent_id}\x00{memory.content}"
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def request_key(namespace: str, request_id: str) -> bytes:
    """What a request_id is kept under. BLAKE2b-128."""
    return hashlib.blake2b(id_key(namespace, request_id), digest_size=DIGEST_BYTES).digest()


def id_digest(namespace: str, memory_id: str) -> bytes:
    """What a purge leaves of an id in the log. BLAKE2b-128."""
    return hashlib.blake2b(id_key(namespace, memory_id), digest_size=DIGEST_BYTES).digest()
