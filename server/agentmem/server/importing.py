"""Import: versions as an export gave them, with their ids, times and numbers."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.errors import AlreadyExists, invalid_field
from agentmem.core.layout import NamespaceState
from agentmem.core.records import FloatVector
from agentmem.core.store import Change, WriteTransaction
from agentmem.core.times import timestamp_us
from agentmem.core.validation import (
    MAX_BATCH,
    MAX_VERSION_NUMBER,
    check_id,
    check_memory,
    check_namespace,
    check_time,
    decode_embedding,
    decode_embeddings,
)
from agentmem.server.acknowledgement import LocalAcknowledgement
from agentmem.server.commands import check_vector
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.retention import PruneByCount
from agentmem.v1 import memory_pb2, writer_pb2

# Stored vectors are of unit length; those of float16 precision only about.
UNIT_LENGTH_TOLERANCE = 1e-3
_TOMBSTONE_FIELDS = {"id", "namespace", "version", "update_time", "expire_time"}


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has come to."""

    imported_versions: int
    skipped_versions: int
    revision: int
    epoch: int


@dataclass(frozen=True, slots=True)
class ImportVersions:
    """Writes versions in their order, those that follow what the store has."""

    namespace: str
    versions: Sequence[Change]
    skips: bool
    size_bytes: int

    def run(self, transaction: WriteTransaction, time_us: int) -> Imported:
        space = transaction.namespace(self.namespace) or NamespaceState(number=0)
        dimension, model = space.dimension, space.model
        # The newest version of each id so far, and when it was written.
        newest: dict[str, tuple[int, int]] = {}
        accepted = []
        for change in self.versions:
            memory = change.memory
            if memory.id not in newest:
                newest[memory.id] = self._stored(transaction, memory.id)
            version, written_us = newest[memory.id]
            if memory.version <= version:
                if self.skips:
                    continue
                raise AlreadyExists(
                    "MEMORY_EXISTS",
                    f"{memory.id!r} is at version {version} already; version {memory.version} cannot be "
                    "imported",
                    id=memory.id,
                    version=str(version),
                )
            if timestamp_us(memory.update_time) < written_us:
                raise invalid_field(
                    "versions.memory.update_time",
                    f"of version {memory.version} of {memory.id!r} is before that of version {version}",
                )
            if change.vector is not None:
                path = f"versions of {memory.id!r}"
                check_vector(change.vector, memory.embedding_model, dimension, model, path)
                dimension, model = len(change.vector), memory.embedding_model
            newest[memory.id] = memory.version, timestamp_us(memory.update_time)
            accepted.append(change)
        revision = transaction.append(accepted, time_us) if accepted else transaction.revision
        skipped = len(self.versions) - len(accepted)
        return Imported(len(accepted), skipped, revision, transaction.position.epoch)

    def _stored(self, transaction: WriteTransaction, memory_id: str) -> tuple[int, int]:
        state = transaction.id_state(self.namespace, memory_id)
        if state is None:
            return 0, -(2**63)
        memory = transaction.named_record(state.ordinal).memory
        return memory.version, timestamp_us(memory.update_time)


@dataclass(slots=True)
class _Stream:
    """What is known of an import from its first message on."""

    namespace: str = ""
    skips: bool = False
    response: writer_pb2.ImportMemoriesResponse = field(default_factory=writer_pb2.ImportMemoriesResponse)

    def begin(self, request: writer_pb2.ImportMemoriesRequest) -> None:
        check_namespace(request.namespace)
        if request.on_conflict not in writer_pb2.ImportConflict.values():
            raise invalid_field("on_conflict", f"has no meaning for {request.on_conflict}")
        self.namespace = request.namespace
        self.skips = request.on_conflict == writer_pb2.IMPORT_CONFLICT_SKIP


async def import_memories(
    requests: AsyncIterable[writer_pb2.ImportMemoriesRequest],
    queue: CommitQueue,
    threads: BoundedThreads,
    acknowledgement_of: Callable[[writer_pb2.ImportMemoriesRequest], LocalAcknowledgement],
) -> writer_pb2.ImportMemoriesResponse:
    """Commits each message of the stream. What was committed before an error stays."""
    with ExitStack() as held:
        stream = _Stream()
        acknowledgement: LocalAcknowledgement | None = None
        async for request in requests:
            if acknowledgement is None:
                stream.begin(request)
                acknowledgement = held.enter_context(acknowledgement_of(request))
            elif request.HasField("acknowledgement"):
                raise invalid_field("acknowledgement", "belongs in the first message")
            await _import_message(stream, request, queue, threads)
        if acknowledgement is None:
            raise invalid_field("namespace", "is missing: the stream has no message")
        return await acknowledgement.complete(stream.response)


async def _import_message(
    stream: _Stream,
    request: writer_pb2.ImportMemoriesRequest,
    queue: CommitQueue,
    threads: BoundedThreads,
) -> None:
    if request.namespace not in ("", stream.namespace):
        raise invalid_field("namespace", f"is {request.namespace!r}, in the first message another")
    if len(request.versions) > MAX_BATCH:
        raise invalid_field("versions", f"must have at most {MAX_BATCH} items in a message")
    size_bytes = request.ByteSize()
    changes = await threads.run(_changes, stream.namespace, request)
    if not changes:
        return
    done = await queue.submit(ImportVersions(stream.namespace, changes, stream.skips, size_bytes))
    stream.response.imported_versions += done.imported_versions
    stream.response.skipped_versions += done.skipped_versions
    stream.response.revision, stream.response.epoch = done.revision, done.epoch
    # What the namespace does not keep goes in a commit of its own.
    ids = list(dict.fromkeys(change.memory.id for change in changes))
    while done.imported_versions and await queue.submit(PruneByCount(stream.namespace, ids)):
        pass


def _changes(namespace: str, request: writer_pb2.ImportMemoriesRequest) -> list[Change]:
    """Checks the versions of a message."""
    embeddings = [version.memory.embedding for version in request.versions]
    vectors = decode_embeddings(embeddings, keep_within=UNIT_LENGTH_TOLERANCE)
    return [
        _change(namespace, version, embedding, vector, f"versions[{index}]")
        for index, (version, embedding, vector) in enumerate(
            zip(request.versions, embeddings, vectors, strict=True)
        )
    ]


def _change(
    namespace: str,
    version: memory_pb2.MemoryVersion,
    embedding: bytes,
    vector: FloatVector | None,
    path: str,
) -> Change:
    """``vector`` is the embedding, if that was decoded already."""
    memory = version.memory
    check_id(memory.id, f"{path}.memory.id")
    if memory.namespace not in ("", namespace):
        raise invalid_field(f"{path}.memory.namespace", f"is {memory.namespace!r}, not the request's")
    memory.namespace = namespace
    if not memory.version:
        raise invalid_field(f"{path}.memory.version", "is missing")
    if memory.version > MAX_VERSION_NUMBER:
        raise invalid_field(f"{path}.memory.version", f"must be at most {MAX_VERSION_NUMBER}")
    if version.revision:
        raise invalid_field(f"{path}.revision", "is set by the server")
    _check_times(memory, path, is_written=version.kind == memory_pb2.VERSION_KIND_WRITTEN)
    if version.kind == memory_pb2.VERSION_KIND_WRITTEN:
        if embedding:
            if vector is None:
                vector = decode_embedding(
                    embedding, f"{path}.memory.embedding", keep_within=UNIT_LENGTH_TOLERANCE
                )
            memory.ClearField("embedding")
        check_memory(memory, f"{path}.memory")
        memory.type = memory.type or memory_pb2.MEMORY_TYPE_EPISODIC
        return Change(memory, vector)
    is_expired = version.kind == memory_pb2.VERSION_KIND_EXPIRED
    if not is_expired and version.kind != memory_pb2.VERSION_KIND_DELETED:
        raise invalid_field(f"{path}.kind", f"has no meaning for {version.kind}")
    if memory.HasField("expire_time") != is_expired:
        raise invalid_field(f"{path}.memory.expire_time", "must be set for EXPIRED and not for DELETED")
    for descriptor, _ in memory.ListFields():
        if descriptor.name not in _TOMBSTONE_FIELDS:
            raise invalid_field(f"{path}.memory.{descriptor.name}", "must not be set for a deletion")
    return Change(memory, is_tombstone=True)


def _check_times(memory: memory_pb2.Memory, path: str, *, is_written: bool) -> None:
    for name in ("create_time", "update_time", "event_time") if is_written else ("update_time",):
        if not memory.HasField(name):
            raise invalid_field(f"{path}.memory.{name}", "is missing")
        check_time(getattr(memory, name), f"{path}.memory.{name}")
    if memory.HasField("ttl"):
        raise invalid_field(f"{path}.memory.ttl", "must not be set: an import keeps expire_time")
