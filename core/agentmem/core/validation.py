"""What a request may hold: every limit of the API, and the checks that name the field."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from google.protobuf import timestamp_pb2

from agentmem.core.errors import InvalidArgument, invalid_field
from agentmem.core.records import FloatVector, vector_length
from agentmem.core.times import duration_us
from agentmem.v1 import memory_pb2

MAX_NAMESPACE_BYTES = 128
MAX_ID_BYTES = 256
MAX_REQUEST_ID_BYTES = 128
MAX_VERSIONS = 1000
# Of an imported version: far enough from the end of uint64 for all that may follow.
MAX_VERSION_NUMBER = 2**63 - 1
MAX_OWNER_BYTES = 256
MAX_CONTENT_BYTES = 256 * 1024
MAX_TAGS = 64
MAX_TAG_BYTES = 128
MAX_METADATA_KEYS = 64
MAX_METADATA_KEY_BYTES = 128
MAX_METADATA_BYTES = 64 * 1024
MAX_MODEL_BYTES = 128
MAX_DIMENSION = 4096
# Of embeddings that are decoded together: what a processor keeps near while it works on it.
DECODED_BYTES = 256 * 1024
# Below this a float32 unit vector is no more than rounding noise.
MIN_LENGTH = 1e-30
MAX_BATCH = 1000
MAX_BATCHED_REQUESTS = 100
MAX_PAGE_SIZE = 1000
MAX_TOP_K = 1000
MAX_QUERY_BYTES = 16 * 1024
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_MEMORY_TYPES = frozenset(memory_pb2.MemoryType.values())
# protobuf's Timestamp: 0001-01-01 to 9999-12-31.
MAX_TTL_US = 100 * 365 * 24 * 3600 * 1_000_000
_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799


def check_namespace(namespace: str) -> None:
    if not namespace:
        raise InvalidArgument(
            "NAMESPACE_REQUIRED",
            "namespace is required: it names whose memories are meant",
            field="namespace",
        )
    _check_key(namespace, "namespace", MAX_NAMESPACE_BYTES)


def check_id(memory_id: str, field: str) -> None:
    if not memory_id:
        raise invalid_field(field, "must not be empty")
    _check_key(memory_id, field, MAX_ID_BYTES)


def check_ids(ids: Sequence[str], field: str) -> None:
    """1 to MAX_BATCH ids without repeats."""
    check_count(len(ids), field)
    seen = set(ids)
    if (
        len(seen) == len(ids)
        and "" not in seen
        and max(map(len, ids)) * 4 <= MAX_ID_BYTES
        and not _CONTROL_CHARACTER.search("".join(ids))
    ):
        return  # which is how it mostly is
    seen.clear()
    for index, memory_id in enumerate(ids):
        check_id(memory_id, f"{field}[{index}]")
        if memory_id in seen:
            raise invalid_field(f"{field}[{index}]", f"repeats {memory_id!r}")
        seen.add(memory_id)


def check_request_id(request_id: str) -> None:
    _check_key(request_id, "request_id", MAX_REQUEST_ID_BYTES)


def check_count(count: int, field: str) -> None:
    if not 1 <= count <= MAX_BATCH:
        raise invalid_field(field, f"must have 1 to {MAX_BATCH} items, not {count}")


def check_batch(count: int, field: str) -> None:
    """The number of requests in one call."""
    if not 1 <= count <= MAX_BATCHED_REQUESTS:
        raise invalid_field(field, f"must have 1 to {MAX_BATCHED_REQUESTS} items, not {count}")


def check_limit(value: int, field: str, default: int, maximum: int) -> int:
    """The number of results asked for; 0 stands for the default."""
    if not 0 <= value <= maximum:
        raise invalid_field(field, f"must be 1 to {maximum}, or 0 for {default}, not {value}")
    return value or default


def check_query_text(text: str) -> None:
    _check_length(text, "text", MAX_QUERY_BYTES)


def _check_key(value: str, field: str, max_bytes: int) -> None:
    _check_length(value, field, max_bytes)
    # What is printable has none; mostly it is, and to know that takes less time.
    if not value.isprintable() and _CONTROL_CHARACTER.search(value):
        raise invalid_field(field, "must not have control characters")


def _check_length(value: str, field: str, max_bytes: int) -> None:
    if len(value) * 4 <= max_bytes:
        return  # no character has more bytes
    size_bytes = len(value.encode())
    if size_bytes > max_bytes:
        raise invalid_field(field, f"is {size_bytes} bytes long; at most {max_bytes} are allowed")


def check_memory(memory: memory_pb2.Memory, path: str) -> None:
    """Checks every field that a caller may set, except the id and the embedding."""
    if not memory.content.strip():
        raise invalid_field(f"{path}.content", "must not be empty")
    _check_length(memory.content, f"{path}.content", MAX_CONTENT_BYTES)
    if memory.type not in _MEMORY_TYPES:
        raise invalid_field(f"{path}.type", f"has no meaning for {memory.type}")
    for owner in ("user_id", "agent_id", "session_id"):
        value = getattr(memory, owner)
        if value:
            _check_key(value, f"{path}.{owner}", MAX_OWNER_BYTES)
    # Written this way round so that NaN is refused too.
    if not 0.0 <= memory.importance <= 1.0:
        raise invalid_field(f"{path}.importance", f"must be 0 to 1, not {memory.importance}")
    _check_length(memory.embedding_model, f"{path}.embedding_model", MAX_MODEL_BYTES)
    if memory.tags:
        _check_tags(memory, path)
    if memory.metadata:
        _check_metadata(memory, path)
    for time in ("event_time", "expire_time"):
        if memory.HasField(time):
            check_time(getattr(memory, time), f"{path}.{time}")
    if memory.HasField("ttl"):
        if memory.HasField("expire_time"):
            raise invalid_field(f"{path}.ttl", "is given with expire_time: give one of them")
        if not 0 < duration_us(memory.ttl) <= MAX_TTL_US:
            raise invalid_field(f"{path}.ttl", "must be above 0 and at most 100 years")


def check_time(time: timestamp_pb2.Timestamp, field: str) -> None:
    if not (_MIN_SECONDS <= time.seconds <= _MAX_SECONDS and 0 <= time.nanos < 1_000_000_000):
        raise invalid_field(field, "must be in the years 1 to 9999")


def _check_tags(memory: memory_pb2.Memory, path: str) -> None:
    if len(memory.tags) > MAX_TAGS:
        raise invalid_field(f"{path}.tags", f"has {len(memory.tags)} tags; at most {MAX_TAGS} are allowed")
    for index, tag in enumerate(memory.tags):
        field = f"{path}.tags[{index}]"
        if not tag:
            raise invalid_field(field, "must not be empty")
        _check_key(tag, field, MAX_TAG_BYTES)
        if tag in memory.tags[:index]:
            raise invalid_field(field, f"repeats {tag!r}")


def _check_metadata(memory: memory_pb2.Memory, path: str) -> None:
    if len(memory.metadata) > MAX_METADATA_KEYS:
        raise invalid_field(
            f"{path}.metadata",
            f"has {len(memory.metadata)} keys; at most {MAX_METADATA_KEYS} are allowed",
        )
    size_bytes = 0
    for key, value in memory.metadata.items():
        field = f"{path}.metadata[{key!r}]"
        if not key:
            raise invalid_field(field, "must have a key that is not empty")
        _check_key(key, field, MAX_METADATA_KEY_BYTES)
        size_bytes += len(key.encode()) + value.ByteSize()
        _check_metadata_value(value, field, nested=False)
    if size_bytes > MAX_METADATA_BYTES:
        raise invalid_field(
            f"{path}.metadata", f"is {size_bytes} bytes long; at most {MAX_METADATA_BYTES} are allowed"
        )


def _check_metadata_value(value: memory_pb2.MetadataValue, field: str, *, nested: bool) -> None:
    kind = value.WhichOneof("kind")
    if kind is None:
        raise invalid_field(field, "has no value")
    if kind == "number_value" and not math.isfinite(value.number_value):
        raise invalid_field(field, "must be a finite number")
    if kind == "list_value":
        if nested:
            raise invalid_field(field, "must not have a list in a list")
        for index, item in enumerate(value.list_value.values):
            _check_metadata_value(item, f"{field}[{index}]", nested=True)


def decode_embedding(data: bytes, field: str, *, keep_within: float = 0.0) -> FloatVector:
    """The embedding of a request, scaled to unit length: float32 [dimension].

    Args:
        keep_within: one whose length is this near to 1 is left as it is, to the bit.

    Raises:
        InvalidArgument: not a whole number of float32 values, too many, not finite, or of length zero.
    """
    if len(data) % 4 or not data:
        raise invalid_field(field, f"must be float32 values of 4 bytes each, not {len(data)} bytes")
    if len(data) > MAX_DIMENSION * 4:
        raise invalid_field(field, f"has {len(data) // 4} dimensions; at most {MAX_DIMENSION} are allowed")
    vector = np.frombuffer(data, dtype="<f4").astype(np.float64)
    # The squares of no float32 are too large for a float64, so it is not finite when one of them is not.
    length = vector_length(vector)
    if not math.isfinite(length):
        raise invalid_field(field, "must have finite values only")
    if length < MIN_LENGTH:
        raise invalid_field(field, "must not be all zero")
    if abs(length - 1) <= keep_within:
        return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)
    return np.asarray(vector / length, dtype=np.float32)


def decode_embeddings(embeddings: Sequence[bytes], *, keep_within: float = 0.0) -> list[FloatVector | None]:
    """Several embeddings, as ``decode_embedding`` has each: to the bit, for a fraction of its time.

    None for those that it has to look at: what is wrong, what is not as long as the first of them, and none.
    """
    found: list[FloatVector | None] = [None] * len(embeddings)
    size_bytes = next((len(each) for each in embeddings if each), 0)
    if size_bytes % 4 or not 0 < size_bytes <= MAX_DIMENSION * 4:
        return found
    places = [place for place, each in enumerate(embeddings) if len(each) == size_bytes]
    step = max(1, DECODED_BYTES // size_bytes)
    for start in range(0, len(places), step):
        chunk = places[start : start + step]
        rows = np.frombuffer(b"".join([embeddings[place] for place in chunk]), dtype="<f4")
        rows = rows.reshape(len(chunk), -1)
        wide = rows.astype(np.float64)
        lengths = np.sqrt(np.add.reduce(wide * wide, axis=1))
        is_good = np.isfinite(lengths) & (lengths >= MIN_LENGTH)
        divisors = np.where(is_good & (np.abs(lengths - 1) > keep_within), lengths, 1.0)
        units = (wide / divisors[:, np.newaxis]).astype(np.float32)
        for place, unit, good in zip(chunk, units, is_good.tolist(), strict=True):
            if good:
                found[place] = unit
    return found
