"""What the writer is asked to do, decided inside the commit's transaction.

A command's ``run`` sees everything that was committed before it, its neighbours in the same group commit
included. It either raises before it has written anything, or appends exactly one log entry, so that one
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
)
from agentmem.core.layout import IdState, NamespaceState
from agentmem.core.records import FloatVector
from agentmem.core.store import Change, WriteTransaction
from agentmem.v1 import memory_pb2, writer_pb2

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
    """Adds memories, all or none. Their ids are set; ``vectors`` has one entry for each."""

    namespace: str
    memories: Sequence[memory_pb2.Memory]
    vectors: Sequence[FloatVector | None]
    size_bytes: int

    def run(self, transaction: WriteTransaction, time_us: int) -> writer_pb2.AddMemoriesResponse:
        space = transaction.namespace(self.namespace) or NamespaceState(number=0)
        dimension, model = space.dimension, space.model
        changes = []
        for index, (memory, vector) in enumerate(zip(self.memories, self.vectors, strict=True)):
            state = transaction.id_state(self.namespace, memory.id)
            if state is not None and not state.deleted:
                raise AlreadyExists(
                    "MEMORY_EXISTS",
                    f"memories[{index}].id: {memory.id!r} exists already, at version {state.version}",
                    field=f"memories[{index}].id",
                    id=memory.id,
                )
            if vector is not None:
                check_vector(vector, memory.embedding_model, dimension, model, f"memories[{index}]")
                dimension, model = len(vector), memory.embedding_model
            stamped = memory_pb2.Memory()
            stamped.CopyFrom(memory)
            stamped.namespace = self.namespace
            stamped.version = state.version + 1 if state else 1
            stamped.create_time.FromMicroseconds(time_us)
            stamped.update_time.FromMicroseconds(time_us)
            if not stamped.HasField("event_time"):
                stamped.event_time.FromMicroseconds(time_us)
            changes.append(Change(stamped, vector, state))
        revision = transaction.append(changes, time_us)
        return writer_pb2.AddMemoriesResponse(
            memories=[
                writer_pb2.AddedMemory(id=change.memory.id, version=change.memory.version)
                for change in changes
            ],
            revision=revision,
        )


@dataclass(frozen=True, slots=True)
class UpdateMemory:
    """Writes the next version of a memory, with the masked fields of ``memory``.

    ``vector`` is the new embedding, made for the new content or given; None when the mask has neither.
    """

    namespace: str
    memory: memory_pb2.Memory
    fields: frozenset[str]
    expected_version: int | None
    vector: FloatVector | None
    size_bytes: int

    def run(self, transaction: WriteTransaction, time_us: int) -> writer_pb2.UpdateMemoryResponse:
        state = self._current(transaction)
        updated = transaction.named_record(state.ordinal).memory
        for field in self.fields:
            updated.ClearField(field)
        updated.MergeFrom(masked_copy(self.memory, self.fields))
        if "event_time" in self.fields and not updated.HasField("event_time"):
            updated.event_time.CopyFrom(updated.create_time)
        vector = self._vector(transaction, state, updated)
        updated.version = state.version + 1
        updated.update_time.FromMicroseconds(time_us)
        revision = transaction.append([Change(updated, vector, state)], time_us)
        return writer_pb2.UpdateMemoryResponse(memory=updated, revision=revision)

    def _current(self, transaction: WriteTransaction) -> IdState:
        state = transaction.id_state(self.namespace, self.memory.id)
        if state is None or state.deleted:
            raise NotFound("MEMORY_NOT_FOUND", f"there is no memory {self.memory.id!r}", id=self.memory.id)
        if self.expected_version is not None and state.version != self.expected_version:
            raise VersionMismatch(
                "VERSION_MISMATCH",
                f"{self.memory.id!r} is at version {state.version}, not {self.expected_version}",
                version=str(state.version),
                id=self.memory.id,
            )
        return state

    def _vector(
        self, transaction: WriteTransaction, state: IdState, updated: memory_pb2.Memory
    ) -> FloatVector | None:
        """The new version's vector; also sets its model."""
        if self.vector is not None:
            updated.embedding_model = self.memory.embedding_model
            space = transaction.namespace(self.namespace) or NamespaceState(number=0)
            check_vector(self.vector, updated.embedding_model, space.dimension, space.model, "memory")
            return self.vector
        if "content" in self.fields:
            # The old vector speaks of the old content.
            updated.embedding_model = ""
            return None
        return transaction.vector(state.ordinal)


@dataclass(frozen=True, slots=True)
class DeleteMemories:
    """Deletes the memories that exist among the ids."""

    namespace: str
    ids: Sequence[str]
    size_bytes: int

    def run(self, transaction: WriteTransaction, time_us: int) -> writer_pb2.DeleteMemoriesResponse:
        response = writer_pb2.DeleteMemoriesResponse()
        changes = []
        for memory_id in self.ids:
            state = transaction.id_state(self.namespace, memory_id)
            if state is None or state.deleted:
                response.missing_ids.append(memory_id)
                continue
            tombstone = memory_pb2.Memory(id=memory_id, namespace=self.namespace, version=state.version + 1)
            tombstone.update_time.FromMicroseconds(time_us)
            changes.append(Change(tombstone, None, state, is_tombstone=True))
            response.deleted_ids.append(memory_id)
        response.revision = transaction.append(changes, time_us) if changes else transaction.revision
        return response


def masked_copy(memory: memory_pb2.Memory, fields: Set[str]) -> memory_pb2.Memory:
    """The memory with these fields only."""
    masked = memory_pb2.Memory()
    masked.CopyFrom(memory)
    for field in memory_pb2.Memory.DESCRIPTOR.fields_by_name:
        if field not in fields:
            masked.ClearField(field)
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
