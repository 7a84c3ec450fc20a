"""Changes of memories, and the places between them from which a watch goes on."""

from __future__ import annotations

import base64
import hashlib
import uuid
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from google.protobuf.message import DecodeError

from agentmem.client import models, values
from agentmem.client.errors import InvalidArgument, ServerError, invalid_field
from agentmem.client.models import Memory
from agentmem.client.versions import ended_memory
from agentmem.v1 import reader_pb2

# Behind it, as base64url: 16 bytes of the cluster's id, the position as WatchPosition, crc32 of both.
_TOKEN_PREFIX = "w1."
_CLUSTER_ID_BYTES = 16
_CHECKSUM_BYTES = 4
_DIGEST_BYTES = 16
_MAX_UINT32 = 2**32 - 1
_MAX_UINT64 = 2**64 - 1


class ChangeKind(StrEnum):
    """What happened to a memory: of EXPIRED its time was over, of PURGED nothing is left but a digest."""

    ADDED = "added"
    UPDATED = "updated"
    DELETED = "deleted"
    EXPIRED = "expired"
    PURGED = "purged"


@dataclass(frozen=True)
class WatchPosition:
    """A place in the history of a cluster, between two changes; the same on all of its nodes.

    Attributes:
        epoch: whose history it is in; 0 when it is not known.
        revision: 0 is the beginning.
        operation: behind this one of the revision, counted from 1; 0 is behind all of it.
    """

    cluster_id: str
    epoch: int
    revision: int
    operation: int = 0

    @property
    def token(self) -> str:
        """The position as a short text, to be kept and given as ``after`` later."""
        position = reader_pb2.WatchPosition(
            epoch=self.epoch, revision=self.revision, operation=self.operation
        )
        body = uuid.UUID(self.cluster_id).bytes + position.SerializeToString(deterministic=True)
        checked = body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")
        return _TOKEN_PREFIX + base64.urlsafe_b64encode(checked).decode().rstrip("=")

    def __str__(self) -> str:
        return self.token

    @classmethod
    def from_token(cls, token: str) -> WatchPosition:
        """The position that a token stands for. Raises InvalidArgument naming ``after``."""
        try:
            encoded = values.text("after", token).removeprefix(_TOKEN_PREFIX)
            if encoded == token:
                raise _no_token(token)
            padded = encoded + "=" * (-len(encoded) % 4)
            checked = base64.b64decode(padded, altchars=b"-_", validate=True)
            body, checksum = checked[:-_CHECKSUM_BYTES], checked[-_CHECKSUM_BYTES:]
            if len(body) < _CLUSTER_ID_BYTES or zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
                raise _no_token(token)
            position = reader_pb2.WatchPosition.FromString(body[_CLUSTER_ID_BYTES:])
        except (ValueError, DecodeError) as error:
            raise _no_token(token) from error
        return _position(str(uuid.UUID(bytes=body[:_CLUSTER_ID_BYTES])), position)


def _no_token(token: str) -> InvalidArgument:
    return invalid_field("after", f"must be the token of a position, which {token[:80]!r} is not")


# A position, its token, or a revision: behind all of it, 0 for the beginning. None is now.
After: TypeAlias = WatchPosition | str | int | None


@dataclass(frozen=True)
class MemoryChange:
    """One change of one memory.

    Attributes:
        memory: the new version. Of a deletion only id, namespace, version and update_time mean something, of
            an expiry expire_time too. None of a purge.
        id_digest: of a purge, what ``id_digest`` makes of the namespace and the id; empty otherwise.
        matches: of a memory that was added or updated, whether the new version matches the filter. If not,
            the one before did, or retention has removed that one.
        position: behind this change.
    """

    kind: ChangeKind
    memory: Memory | None
    id_digest: bytes
    matches: bool
    position: WatchPosition


def id_digest(namespace: str, id: str) -> bytes:
    """What a purge leaves of an id: those who know the id can tell that it is meant. BLAKE2b-128."""
    text = f"{values.text('namespace', namespace)}\0{values.text('id', id)}"
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()


def start_of(after: object) -> WatchPosition | None:
    """The position to begin behind, of no cluster when it is a revision; None for now."""
    if after is None:
        return None
    if isinstance(after, WatchPosition):
        for number, high in (
            (after.epoch, _MAX_UINT64),
            (after.revision, _MAX_UINT64),
            (after.operation, _MAX_UINT32),
        ):
            values.integer("after", number, low=0, high=high)
        return after
    if isinstance(after, str):
        return WatchPosition.from_token(after)
    if isinstance(after, bool) or not isinstance(after, int):
        raise invalid_field("after", f"must be a position, a token or a revision, not {values.kind(after)}")
    return WatchPosition("", 0, values.integer("after", after, low=0, high=_MAX_UINT64))


_KINDS = {
    reader_pb2.CHANGE_KIND_ADDED: ChangeKind.ADDED,
    reader_pb2.CHANGE_KIND_UPDATED: ChangeKind.UPDATED,
    reader_pb2.CHANGE_KIND_DELETED: ChangeKind.DELETED,
    reader_pb2.CHANGE_KIND_EXPIRED: ChangeKind.EXPIRED,
    reader_pb2.CHANGE_KIND_PURGED: ChangeKind.PURGED,
}
_WRITTEN = (ChangeKind.ADDED, ChangeKind.UPDATED)


def changes_from_proto(
    cluster_id: str, message: reader_pb2.WatchMemoriesResponse
) -> tuple[tuple[MemoryChange, ...], WatchPosition]:
    """The changes of a message, and the position behind all of it."""
    changes = tuple(_change(cluster_id, change) for change in message.changes)
    return changes, _position(cluster_id, message.position)


def _change(cluster_id: str, message: reader_pb2.MemoryChange) -> MemoryChange:
    kind = _KINDS.get(message.kind)
    if kind is None:
        raise ServerError(
            f"a change at revision {message.position.revision} is of kind {message.kind}, which this client "
            "does not know"
        )
    memory: Memory | None = None
    if kind in _WRITTEN:
        memory = models.memory_from_proto(message.memory)
    elif kind is not ChangeKind.PURGED:
        sent = message.memory
        expire_time = values.to_datetime(sent.expire_time) if sent.HasField("expire_time") else None
        memory = ended_memory(
            sent.id, sent.version, values.to_datetime(sent.update_time), expire_time, namespace=sent.namespace
        )
    return MemoryChange(
        kind=kind,
        memory=memory,
        id_digest=message.purged_id_digest,
        matches=message.matches,
        position=_position(cluster_id, message.position),
    )


def _position(cluster_id: str, message: reader_pb2.WatchPosition) -> WatchPosition:
    return WatchPosition(cluster_id, message.epoch, message.revision, message.operation)
