"""What the writer is asked to do, decided inside the commit's transaction: adds and updates.

A command's ``run`` sees everything that was committed before it, its neighbours in the same group commit
included. It either raises before it has written anything, or appends at most one log entry, so that one
command's error never touches another's work.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from agentmem.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    VersionMismatch,
    invalid_field,
)
from agentmem.core.history import is_expired, next_update_us
from agentmem.core.layout import IdState, NamespaceState, content_digest
from agentmem.core.records import MAX_MEMORY_BYTES, FloatVector
from agentmem.core.store import Change, Removal, WriteTransaction
from agentmem.core.times import duration_us, set_timestamp
from agentmem.core.validation import MAX_DIMENSION
from agentmem.server.duplicates import find_duplicate, merged, merged_vector
from agentmem.server.embedding import NOTHING_MADE, EmbeddingOutdated, Made
from agentmem.server.requests import RequestKey, first_outcome, outcome_of
from agentmem.server.retention import pruned
from agentmem.v1 import memory_pb2, writer_pb2

# What a batch may write: more than a request brings, with its embeddings made here, and well below what a
# message to a replica may have.
MAX_BATCH_BYTES = 56 * 1024 * 1024
# So many memories are within that, whatever they are, with two vectors each.
MAX_SURELY_FIT = MAX_BATCH_BYTES // (MAX_MEMORY_BYTES + 2 * 4 * MAX_DIMENSION)

A = TypeVar("A", covariant=True)

# The fields that an update may name.
WRITABLE_FIELDS = (
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
    "ttl",
)


class Command(Protocol, Generic[A]):
    """A write request, checked as far as that needs no store."""

    @property
    def size_bytes(self) -> int:
        """About how much it will write."""
        ...

    def run(self, transaction: WriteTransaction, time_us: int) -> A:
        """Writes, and returns the answer. ``time_us`` is the time of the log entry."""
        ...


@dataclass(frozen=True, slots=True)
class AddMemories:
    """Adds memories, all or none. Their ids are set.

    Attributes:
        vectors: for each memory, the one that it came with.
        made: for each memory, what was made of its content; empty when nobody was asked, as all came with
            vectors.
    """

    namespace: str
    memories: Sequence[memory_pb2.Memory]
    vectors: Sequence[FloatVector | None]
    on_duplicate: writer_pb2.DuplicatePolicy
    request: RequestKey | None
    size_bytes: int
    made: Sequence[Made] = ()

    def run(self, transaction: WriteTransaction, time_us: int) -> writer_pb2.AddMemoriesResponse:
        first = first_outcome(self.request, transaction, time_us)
        if first:
            return writer_pb2.AddMemoriesResponse.FromString(first.response)
        batch = _Batch(transaction, self.namespace, self.on_duplicate, time_us)
        if not self.made and batch.is_filling:
            # Nobody has asked for vectors in the coming space.
            raise EmbeddingOutdated(self.namespace)
        made_of_each = self.made or [NOTHING_MADE] * len(self.memories)
        response = writer_pb2.AddMemoriesResponse(
            memories=[
                batch.add(memory, vector, made, f"memories[{index}]")
                for index, (memory, vector, made) in enumerate(
                    zip(self.memories, self.vectors, made_of_each, strict=True)
                )
            ]
        )
        batch.check_size()
        position = transaction.position
        response.revision, response.epoch = position.revision, position.epoch
        if batch.changes or self.request:
            response.revision += 1
            transaction.append(
                [*batch.changes, *batch.removals],
                time_us,
                request=outcome_of(self.request, response),
            )
        return response


class _Batch:
    """The changes of one AddMemories, memory by memory; sees its own."""

    def __init__(
        self,
        transaction: WriteTransaction,
        namespace: str,
        on_duplicate: writer_pb2.DuplicatePolicy,
        time_us: int,
    ) -> None:
        self.changes: list[Change] = []
        self.removals: list[Removal] = []
        self._transaction = transaction
        self._namespace = namespace
        self._on_duplicate = on_duplicate
        self._time_us = time_us
        self._space = transaction.namespace(namespace) or NamespaceState(number=0)
        self._dimension, self._model = self._space.dimension, self._space.model
        self.is_filling = self._space.is_filling
        # Where in ``changes`` an owner's content is.
        self._places: dict[bytes, int] = {}

    def add(
        self, memory: memory_pb2.Memory, vector: FloatVector | None, made: Made, path: str
    ) -> writer_pb2.AddedMemory:
        """``vector`` is the one that the memory came with, ``made`` what was made of its content."""
        check_expire_time(memory, self._time_us, path)
        if vector is None:
            vector, memory.embedding_model = made.for_space(self._space, self._namespace)
        coming_vector = made.for_coming(self._space)
        if vector is not None:
            check_vector(vector, memory.embedding_model, self._dimension, self._model, path)
        if self._on_duplicate == writer_pb2.DUPLICATE_POLICY_ADD:
            return self._add_new(memory, vector, coming_vector, path)
        digest = content_digest(memory)
        place = self._places.get(digest)
        if place is None:
            found = find_duplicate(self._transaction, self._space.number, digest, memory, self._time_us)
            if found is None:
                added = self._add_new(memory, vector, coming_vector, path)
                self._places[digest] = len(self.changes) - 1
                return added
            known = Change(
                found[1],
                self._transaction.vector(self._space, found[0]),
                coming_vector=self._transaction.coming_vector(self._space, found[0]),
            )
        else:
            known = self.changes[place]
        if self._on_duplicate == writer_pb2.DUPLICATE_POLICY_SKIP:
            return writer_pb2.AddedMemory(
                id=known.memory.id,
                version=known.memory.version,
                outcome=writer_pb2.ADD_OUTCOME_SKIPPED,
            )
        return self._merge(known, place, digest, Change(memory, vector, coming_vector=coming_vector), path)

    def _add_new(
        self,
        memory: memory_pb2.Memory,
        vector: FloatVector | None,
        coming_vector: FloatVector | None,
        path: str,
    ) -> writer_pb2.AddedMemory:
        state = self._transaction.id_state(self._namespace, memory.id)
        update_us = self._time_us
        if state is not None:
            known = self._transaction.named_record(state.ordinal).memory
            if not state.deleted and not is_expired(known, self._time_us):
                raise AlreadyExists(
                    "MEMORY_EXISTS",
                    f"{path}.id: {memory.id!r} exists already, at version {state.version}",
                    field=f"{path}.id",
                    id=memory.id,
                )
            update_us = next_update_us(known, self._time_us)
        stamped = memory_pb2.Memory()
        stamped.CopyFrom(memory)
        stamped.namespace = self._namespace
        stamped.version = state.version + 1 if state else 1
        set_timestamp(stamped.create_time, update_us)
        set_timestamp(stamped.update_time, update_us)
        if not stamped.HasField("event_time"):
            set_timestamp(stamped.event_time, self._time_us)
        set_expire_time(stamped, self._time_us)
        if vector is not None:
            self._dimension, self._model = len(vector), memory.embedding_model
        self.changes.append(Change(stamped, vector, coming_vector=coming_vector, before=state))
        self.removals += pruned(self._transaction, self._namespace, state)
        return writer_pb2.AddedMemory(
            id=stamped.id, version=stamped.version, outcome=writer_pb2.ADD_OUTCOME_ADDED
        )

    def check_size(self) -> None:
        """Refuses what no message to a replica could hold: a small memory may merge into a large one."""
        if len(self.changes) <= MAX_SURELY_FIT:
            return
        size_bytes = sum(
            change.memory.ByteSize()
            + sum(vector.nbytes for vector in (change.vector, change.coming_vector) if vector is not None)
            for change in self.changes
        )
        if size_bytes > MAX_BATCH_BYTES:
            raise invalid_field(
                "memories",
                f"come to {size_bytes} bytes with what they are merged into; at most {MAX_BATCH_BYTES} are "
                "allowed: send fewer",
            )

    def _merge(
        self,
        known: Change,
        place: int | None,
        digest: bytes,
        added: Change,
        path: str,
    ) -> writer_pb2.AddedMemory:
        brought = memory_pb2.Memory()
        brought.CopyFrom(added.memory)
        set_expire_time(brought, self._time_us)
        memory = merged(known.memory, brought, path)
        vector = merged_vector(memory, known.vector, added.vector, added.memory.embedding_model)
        # Both have the same content.
        coming_vector = added.coming_vector if known.coming_vector is None else known.coming_vector
        if vector is not None:
            # It may be the first of the namespace.
            self._dimension, self._model = len(vector), memory.embedding_model
        if place is not None:
            self.changes[place] = Change(memory, vector, coming_vector=coming_vector)
        elif memory != known.memory or vector is not known.vector:
            state = self._transaction.id_state(self._namespace, memory.id)
            memory.version += 1
            memory.update_time.FromMicroseconds(next_update_us(known.memory, self._time_us))
            self._places[digest] = len(self.changes)
            self.changes.append(Change(memory, vector, coming_vector=coming_vector))
            self.removals += pruned(self._transaction, self._namespace, state)
        return writer_pb2.AddedMemory(
            id=memory.id, version=memory.version, outcome=writer_pb2.ADD_OUTCOME_MERGED
        )


@dataclass(frozen=True, slots=True)
class UpdateMemory:
    """Writes the next version of a memory, with the masked fields of ``memory``.

    Attributes:
        vector: the embedding that was given; None when the mask has none.
        made: what was made of the new content; empty when nobody was asked.
    """

    namespace: str
    memory: memory_pb2.Memory
    fields: frozenset[str]
    expected_version: int | None
    vector: FloatVector | None
    request: RequestKey | None
    size_bytes: int
    made: Sequence[Made] = ()

    def run(self, transaction: WriteTransaction, time_us: int) -> writer_pb2.UpdateMemoryResponse:
        first = first_outcome(self.request, transaction, time_us)
        if first:
            response = writer_pb2.UpdateMemoryResponse.FromString(first.response)
            record = transaction.record(first.ordinal)
            if record is not None:  # else pruned or purged since
                response.memory.CopyFrom(record.memory)
            return response
        if "expire_time" in self.fields:
            check_expire_time(self.memory, time_us, "memory")
        state, newest = current_memory(
            transaction, self.namespace, self.memory.id, self.expected_version, time_us
        )
        updated = memory_pb2.Memory()
        updated.CopyFrom(newest)
        for field in self.fields:
            updated.ClearField(field)
        updated.MergeFrom(masked_copy(self.memory, self.fields))
        if "event_time" in self.fields and not updated.HasField("event_time"):
            updated.event_time.CopyFrom(updated.create_time)
        if "ttl" in self.fields:
            updated.ClearField("expire_time")
        set_expire_time(updated, time_us)
        vector, coming_vector = self._vectors(transaction, state, updated)
        updated.version = state.version + 1
        updated.update_time.FromMicroseconds(next_update_us(updated, time_us))
        response = writer_pb2.UpdateMemoryResponse(
            memory=memory_pb2.Memory(id=updated.id, namespace=self.namespace, version=updated.version),
            revision=transaction.revision + 1,
            epoch=transaction.position.epoch,
        )
        transaction.append(
            [
                Change(updated, vector, coming_vector=coming_vector, before=state, ended=newest),
                *pruned(transaction, self.namespace, state),
            ],
            time_us,
            request=outcome_of(self.request, response, transaction.newest_ordinal + 1),
        )
        response.memory.CopyFrom(updated)
        return response

    def _vectors(
        self, transaction: WriteTransaction, state: IdState, updated: memory_pb2.Memory
    ) -> tuple[FloatVector | None, FloatVector | None]:
        """The new version's vector, whose model it sets, and that in the coming space."""
        space = transaction.namespace(self.namespace) or NamespaceState(number=0)
        made = self.made[0] if self.made else NOTHING_MADE
        if "content" in self.fields:
            if not self.made and space.is_filling:
                # Nobody has asked for a vector in the coming space.
                raise EmbeddingOutdated(self.namespace)
            # The old vectors speak of the old content.
            coming_vector = made.for_coming(space)
        else:
            coming_vector = transaction.coming_vector(space, state.ordinal)
        if self.vector is not None:
            updated.embedding_model = self.memory.embedding_model
            check_vector(self.vector, updated.embedding_model, space.dimension, space.model, "memory")
            return self.vector, coming_vector
        if "content" in self.fields:
            vector, updated.embedding_model = made.for_space(space, self.namespace)
            if vector is not None:
                check_vector(vector, updated.embedding_model, space.dimension, space.model, "memory")
            return vector, coming_vector
        return transaction.vector(space, state.ordinal), coming_vector


def current_memory(
    transaction: WriteTransaction,
    namespace: str,
    memory_id: str,
    expected_version: int | None,
    time_us: int,
) -> tuple[IdState, memory_pb2.Memory]:
    """The newest version of a live memory.

    Raises:
        NotFound: there is none.
        VersionMismatch: it is not the expected one.
    """
    state = transaction.id_state(namespace, memory_id)
    memory = None if state is None or state.deleted else transaction.named_record(state.ordinal).memory
    if state is None or memory is None or is_expired(memory, time_us):
        raise NotFound("MEMORY_NOT_FOUND", f"there is no memory {memory_id!r}", id=memory_id)
    if expected_version is not None and state.version != expected_version:
        raise VersionMismatch(
            "VERSION_MISMATCH",
            f"{memory_id!r} is at version {state.version}, not {expected_version}",
            version=str(state.version),
            id=memory_id,
        )
    return state, memory


def check_expire_time(memory: memory_pb2.Memory, time_us: int, path: str) -> None:
    """Refuses an end before the write. Not before here: a request that comes again may come after it."""
    if is_expired(memory, time_us):
        raise invalid_field(f"{path}.expire_time", "must be in the future")


def set_expire_time(memory: memory_pb2.Memory, time_us: int) -> None:
    """Turns a ttl into the time that it means for a write at ``time_us``."""
    if memory.HasField("ttl"):
        memory.expire_time.FromMicroseconds(time_us + duration_us(memory.ttl))
        memory.ClearField("ttl")


def masked_copy(memory: memory_pb2.Memory, fields: Set[str]) -> memory_pb2.Memory:
    """The memory with these fields only."""
    masked = memory_pb2.Memory()
    masked.CopyFrom(memory)
    for field, _ in memory.ListFields():
        if field.name not in fields:
            masked.ClearField(field.name)
    return masked


def check_vector(vector: FloatVector, model: str, dimension: int, space_model: str, path: str) -> None:
    """Refuses a vector that cannot be compared with those of its namespace."""
    if not dimension:
        return
    if len(vector) != dimension:
        raise InvalidArgument(
            "DIMENSION_MISMATCH",
            f"{path}.embedding has {len(vector)} dimensions; the namespace has {dimension}",
            field=f"{path}.embedding",
            dimension=str(dimension),
        )
    if model != space_model:
        raise FailedPrecondition(
            "MODEL_MISMATCH",
            f"{path}.embedding_model is {model!r}; the namespace's embeddings were made by {space_model!r}",
            field=f"{path}.embedding_model",
            namespace_model=space_model,
        )
