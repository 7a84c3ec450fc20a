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
    vectors2      ordinal u64                       the same: a namespace's embeddings are in one of the two,
                                                    see NamespaceState
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
from dataclasses import dataclass, replace
from functools import lru_cache

from agentmem.core.checksums import crc32c
from agentmem.core.errors import DataLoss
from agentmem.v1 import memory_pb2, writer_pb2

FORMAT_VERSION = 4
# What can be made one of this format where it is: it had one database of vectors.
UPGRADABLE_FORMAT = 3
# The two places for the vectors of a namespace.
VECTORS = (b"vectors", b"vectors2")
DATABASES = (
    b"meta",
    b"namespaces",
    b"numbers",
    b"ids",
    b"docs",
    *VECTORS,
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
# Of decoded states, about 1 KB each.
MAX_KNOWN_NAMESPACES = 256
_SEAL = struct.Struct("<I")
_ID_STATE = struct.Struct("<QQB")
_NAMESPACE = struct.Struct("<IIQQQQQqIQBBIIIBIQQHH")
_NAMESPACE_OF_FORMAT_3 = struct.Struct("<IIQQQQQqIQB")
# Where among these numbers a boolean stands.
_IS_CLEARING = 15
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


@dataclass(slots=True)
class NamespaceState:
    """What the store knows of a namespace. Only a write transaction changes one, and that is its own.

    Its vectors are of one embedding space: those of one model. When they are replaced, those of the coming
    space gather in the other database. When every version has its vector there, the databases change their
    parts, and what is in the other one is cleared.

    Attributes:
        number: from 1, in the order of the first writes; never changes.
        dimension, model: those of the embeddings; 0 and "" before the first.
        live_memories, live_vectors: of undeleted memories.
        versions: that are stored, tombstones included.
        pruned_versions: that retention has removed.
        history_start, history_start_us: what was there before this revision and this time is not wholly
            known any more; 0: all is.
        max_versions: that are kept of a memory; 0 for all.
        max_version_age_us: how long one is kept that was replaced or deleted; 0 for ever.
        precision: VectorPrecision of embeddings to come.
        slot: which of VECTORS has the embeddings: 0 or 1.
        space: the number of their embedding space; 0 for the first of the namespace.
        spaces: how many spaces were begun after the first; the last one's number.
        coming_space: the number of the space that will take their place; 0 for none.
        is_clearing: there may be vectors in the other database that are of no use any more. Until they are
            gone, no others come there.
        coming_dimension, coming_model: of the coming space.
        coming_versions: that have their vector, or the word that they get none, in the coming space.
        coming_vectors: of live memories, in the coming space.
        embedder: the name of the one chosen for the namespace; "" for the server's first.
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
    slot: int = 0
    space: int = 0
    spaces: int = 0
    coming_space: int = 0
    is_clearing: bool = False
    coming_dimension: int = 0
    coming_versions: int = 0
    coming_vectors: int = 0
    model: str = ""
    coming_model: str = ""
    embedder: str = ""

    @property
    def vectors(self) -> bytes:
        """The database that has the embeddings."""
        return VECTORS[self.slot]

    @property
    def other_vectors(self) -> bytes:
        """The database for the coming embeddings, or with those that are of no use any more."""
        return VECTORS[1 - self.slot]

    @property
    def is_filling(self) -> bool:
        """Whether vectors of the coming space are being written."""
        return bool(self.coming_space) and not self.is_clearing

    def database_of(self, space: int) -> bytes | None:
        """Where all vectors of an embedding space are; None when they are gone, or may be."""
        if space == self.space:
            return self.vectors
        return self.other_vectors if space == self.coming_space and self.is_filling else None

    def settings(self) -> writer_pb2.NamespaceSettings:
        """What the namespace keeps, as the API has it."""
        settings = writer_pb2.NamespaceSettings(
            max_versions=self.max_versions, vector_precision=self.precision, embedder=self.embedder
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


def encode_id_state(ordinal: int, version: int, deleted: bool) -> bytes:
    """As IdState has them."""
    return seal(_ID_STATE.pack(ordinal, version, deleted))


def decode_id_state(value: bytes, memory_id: str) -> IdState:
    """Raises DataLoss when the value fails its checksum."""
    ordinal, version, deleted = _id_numbers(value, memory_id)
    return IdState(ordinal, version, bool(deleted))


def decode_live_ordinal(value: bytes, memory_id: str) -> int:
    """Of an encoded IdState: 0 when it is deleted. Raises DataLoss as ``decode_id_state``."""
    ordinal, _, deleted = _id_numbers(value, memory_id)
    return 0 if deleted else ordinal


def _id_numbers(value: bytes, memory_id: str) -> tuple[int, int, int]:
    rest = value[_SEAL.size :]
    if len(rest) != _ID_STATE.size or _SEAL.unpack_from(value)[0] != crc32c(rest):
        raise DataLoss("CORRUPT_VALUE", f"the entry of id {memory_id!r} fails its checksum")
    return _ID_STATE.unpack(rest)


def encode_namespace(state: NamespaceState) -> bytes:
    model, coming_model = state.model.encode(), state.coming_model.encode()
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
        state.slot,
        state.space,
        state.spaces,
        state.coming_space,
        state.is_clearing,
        state.coming_dimension,
        state.coming_versions,
        state.coming_vectors,
        len(model),
        len(coming_model),
    )
    return seal(numbers + model + coming_model + state.embedder.encode())


# Every read asks for one, and mostly finds what the read before it did.
@lru_cache(MAX_KNOWN_NAMESPACES)
def decode_namespace(value: bytes, namespace: str) -> NamespaceState:
    """Raises DataLoss when the value fails its checksum."""
    rest = unseal(value, f"the entry of namespace {namespace!r}")
    *numbers, model_bytes, coming_bytes = _NAMESPACE.unpack_from(rest)
    numbers[_IS_CLEARING] = bool(numbers[_IS_CLEARING])
    texts = rest[_NAMESPACE.size :]
    behind = model_bytes + coming_bytes
    names = (texts[:model_bytes], texts[model_bytes:behind], texts[behind:])
    return NamespaceState(*numbers, *[name.decode() for name in names])


def upgraded_namespace(value: bytes, namespace: str) -> bytes:
    """The value of a store of UPGRADABLE_FORMAT, in this format. Raises DataLoss as ``decode_namespace``."""
    rest = unseal(value, f"the entry of namespace {namespace!r}")
    numbers, model = _NAMESPACE_OF_FORMAT_3.unpack_from(rest), rest[_NAMESPACE_OF_FORMAT_3.size :].decode()
    return encode_namespace(replace(NamespaceState(*numbers), model=model))


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
