"""Messages of the API put together from the bytes of their parts, in protobuf's wire format.

Most of an answer is memories, whose bytes are in the store as they go over the wire. To parse them and write
them again costs more than all else that a get does.
"""

from __future__ import annotations

import struct
from functools import lru_cache

# A field's number and wire type make its tag. These are for numbers up to 15, whose tags are single bytes.
_VARINT = 0
_DOUBLE = 1
_LENGTH_DELIMITED = 2
MAX_KNOWN_HEADS = 4_096
_pack_double = struct.Struct("<Bd").pack


def _varint(value: int) -> bytes:
    """An unsigned number, seven bits to a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))


# Most are of memories, whose sizes are much alike.
@lru_cache(MAX_KNOWN_HEADS)
def head(field: int, size_bytes: int) -> bytes:
    """What stands before a message, text or bytes of this size; ``field``: 1 to 15."""
    return bytes((field << 3 | _LENGTH_DELIMITED,)) + _varint(size_bytes)


def delimited(field: int, value: bytes) -> bytes:
    """A message, text or bytes as a field, 1 to 15."""
    return head(field, len(value)) + value


def number(field: int, value: int) -> bytes:
    """A uint64 as a field, 1 to 15; nothing for 0."""
    return bytes((field << 3 | _VARINT,)) + _varint(value) if value else b""


def double(field: int, value: float) -> bytes:
    """A double as a field, 1 to 15."""
    return _pack_double(field << 3 | _DOUBLE, value)
