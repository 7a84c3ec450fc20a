"""The log: one entry for each write request, chained by hash.

An entry's value, under its revision as key:

    0        4            36
    | crc32c | chain hash | LogEntry (protobuf) ...
    | u32    | 32 bytes   |

    chain hash = BLAKE2b-256(chain hash of the entry before || LogEntry bytes)

The first entry's predecessor is 32 zero bytes. The operations of an entry name the checksums of their
records and vectors, so equal chain hashes mean equal content. The crc32c covers everything behind it.
Entries are shipped to replicas as these bytes and stored there as they are.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from agentmem.core.checksums import crc32c
from agentmem.core.errors import DataLoss
from agentmem.core.records import CHECKSUM_BYTES, stored_checksum
from agentmem.v1 import cluster_pb2, storage_pb2

CHAIN_HASH_BYTES = 32
LOG_HEADER_BYTES = CHECKSUM_BYTES + CHAIN_HASH_BYTES
EMPTY_CHAIN_HASH = bytes(CHAIN_HASH_BYTES)

# Of a cluster before any promotion.
FIRST_EPOCH = 1
# How many of its epochs a replica tells a writer: the newest.
MAX_EPOCHS = 1000

LogEntry = storage_pb2.LogEntry
Operation = storage_pb2.Operation
# Operations that write a record.
RECORD_KINDS = (Operation.KIND_PUT, Operation.KIND_DELETE)
# Those that come to a replica with what they wrote.
SHIPPED_KINDS = (*RECORD_KINDS, Operation.KIND_EMBED)


class Position(NamedTuple):
    """A place in a cluster's log: everything up to ``revision`` is there, and hashes to ``chain_hash``."""

    cluster_id: bytes
    epoch: int
    revision: int
    chain_hash: bytes

    def to_proto(self) -> cluster_pb2.Position:
        return cluster_pb2.Position(
            cluster_id=self.cluster_id,
            epoch=self.epoch,
            revision=self.revision,
            chain_hash=self.chain_hash,
        )


def next_chain_hash(chain_hash: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(chain_hash + body, digest_size=CHAIN_HASH_BYTES).digest()


def encode_entry(entry: LogEntry, previous_chain_hash: bytes) -> bytes:
    body = entry.SerializeToString()
    hashed = next_chain_hash(previous_chain_hash, body) + body
    return struct.pack("<I", crc32c(hashed)) + hashed


def decode_entry(value: bytes, revision: int) -> tuple[LogEntry, bytes]:
    """The entry and its chain hash. Raises DataLoss when the bytes fail their checksum."""
    if len(value) < LOG_HEADER_BYTES or stored_checksum(value) != crc32c(value[CHECKSUM_BYTES:]):
        raise DataLoss("CORRUPT_LOG", f"the log entry at revision {revision} fails its checksum")
    return LogEntry.FromString(value[LOG_HEADER_BYTES:]), value[CHECKSUM_BYTES:LOG_HEADER_BYTES]
