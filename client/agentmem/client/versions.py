"""Versions of memories, as histories and exports have them, and states of the store in the past."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from agentmem.client import models, values
from agentmem.client.acknowledgement import Acknowledged
from agentmem.client.errors import ServerError, invalid_field
from agentmem.client.models import Memory, MemoryType
from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2

# A revision, or an aware datetime; None is now.
AsOf: TypeAlias = int | datetime | None

_MAX_UINT64 = 2**64 - 1


class VersionKind(StrEnum):
    """How a version came to be: it was added, updated or merged; it was deleted; its time was over."""

    WRITTEN = "written"
    DELETED = "deleted"
    EXPIRED = "expired"


@dataclass(frozen=True)
class MemoryVersion:
    """One version of a memory.

    Attributes:
        memory: of a DELETED version only id, namespace, version and update_time mean something, of an EXPIRED
            one expire_time too.
        kind: how it came to be.
        revision: of the commit that wrote it; 0 in an export, for in another store it is another.
    """

    memory: Memory
    kind: VersionKind = VersionKind.WRITTEN
    revision: int = 0


@dataclass(frozen=True)
class HistoryPage:
    """Versions of one memory, newest first.

    Attributes:
        next_page_token: empty on the last page; a page before it may be short.
        pruned: on the last page, whether there were older versions that retention removed.
    """

    versions: tuple[MemoryVersion, ...]
    next_page_token: str
    pruned: bool
    applied_revision: int
    epoch: int = 0


class ImportConflict(StrEnum):
    """What an import does with a version that is there already, or is older than what is there.

    FAIL: it ends. SKIP: the version is left out and counted.
    """

    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class ImportResult:
    """How many versions were taken in and left out, and the revision of the last commit.

    ``acknowledged`` is of what was taken in last.
    """

    imported_versions: int
    skipped_versions: int
    revision: int
    epoch: int = 0
    acknowledged: Acknowledged | None = None


_KIND_TO_PROTO = {
    VersionKind.WRITTEN: memory_pb2.VERSION_KIND_WRITTEN,
    VersionKind.DELETED: memory_pb2.VERSION_KIND_DELETED,
    VersionKind.EXPIRED: memory_pb2.VERSION_KIND_EXPIRED,
}
_KIND_FROM_PROTO = {number: kind for kind, number in _KIND_TO_PROTO.items()}
_CONFLICT_TO_PROTO = {
    ImportConflict.FAIL: writer_pb2.IMPORT_CONFLICT_FAIL,
    ImportConflict.SKIP: writer_pb2.IMPORT_CONFLICT_SKIP,
}
_WRITTEN_FIELDS = (
    "content",
    "type",
    "user_id",
    "agent_id",
    "session_id",
    "importance",
    "tags",
    "metadata",
    "embedding",
    "embedding_model",
    "event_time",
    "expire_time",
)


def as_of_to_proto(value: object) -> reader_pb2.AsOf | None:
    """The state of the store that is meant; None for now."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return reader_pb2.AsOf(time=values.timestamp("as_of", value))
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid_field("as_of", f"must be a revision or a datetime, not {values.kind(value)}")
    return reader_pb2.AsOf(revision=values.integer("as_of", value, low=0, high=_MAX_UINT64))


def import_conflict_to_proto(value: object) -> writer_pb2.ImportConflict:
    """What to do with what is there, from itself or its name, as the API has it."""
    return _CONFLICT_TO_PROTO[values.choice("on_conflict", value, ImportConflict)]


def version_to_proto(version: object) -> memory_pb2.MemoryVersion:
    """The message for a version to import. It goes to the namespace of the import, whatever its own."""
    if not isinstance(version, MemoryVersion):
        raise invalid_field("versions", f"must be of MemoryVersion, not {values.kind(version)}")
    kind = values.choice("versions.kind", version.kind, VersionKind)
    memory = version.memory
    if kind is VersionKind.WRITTEN:
        message = models.fields_to_proto({name: getattr(memory, name) for name in _WRITTEN_FIELDS})
        message.create_time.CopyFrom(values.timestamp("create_time", memory.create_time))
    else:
        message = memory_pb2.Memory()
        if kind is VersionKind.EXPIRED:
            message.expire_time.CopyFrom(values.timestamp("expire_time", memory.expire_time))
    message.id = values.text("id", memory.id)
    message.version = values.integer("version", memory.version, low=1, high=_MAX_UINT64)
    message.update_time.CopyFrom(values.timestamp("update_time", memory.update_time))
    return memory_pb2.MemoryVersion(memory=message, kind=_KIND_TO_PROTO[kind])


def version_from_proto(message: memory_pb2.MemoryVersion) -> MemoryVersion:
    """A version that a server sent."""
    kind = _KIND_FROM_PROTO.get(message.kind)
    if kind is None:
        raise ServerError(
            f"version {message.memory.version} of memory {message.memory.id!r} is of kind {message.kind}, "
            "which this client does not know"
        )
    if kind is VersionKind.WRITTEN:
        return MemoryVersion(models.memory_from_proto(message.memory), kind, message.revision)
    sent = message.memory
    expire_time = values.to_datetime(sent.expire_time) if sent.HasField("expire_time") else None
    memory = ended_memory(
        sent.id, sent.version, values.to_datetime(sent.update_time), expire_time, namespace=sent.namespace
    )
    return MemoryVersion(memory, kind, message.revision)


def ended_memory(
    id: str, version: int, update_time: datetime, expire_time: datetime | None, *, namespace: str = ""
) -> Memory:
    """What is left of a memory that was deleted, or has expired: the fields without a meaning are empty."""
    return Memory(
        id=id,
        namespace=namespace,
        content="",
        type=MemoryType.EPISODIC,
        user_id="",
        agent_id="",
        session_id="",
        importance=0.0,
        tags=(),
        metadata={},
        embedding=None,
        embedding_model="",
        event_time=update_time,
        create_time=update_time,
        update_time=update_time,
        version=version,
        expire_time=expire_time,
    )


def history_page_from_proto(message: reader_pb2.GetMemoryHistoryResponse) -> HistoryPage:
    """One page of a history."""
    return HistoryPage(
        tuple(map(version_from_proto, message.versions)),
        message.next_page_token,
        message.pruned,
        message.applied_revision,
        message.epoch,
    )
