"""ReembedNamespace: what is written when the embeddings of a namespace are replaced.

The work is in reembedder.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentmem.core.errors import FailedPrecondition, NotFound, invalid_field
from agentmem.core.layout import NamespaceState
from agentmem.core.records import FloatVector
from agentmem.core.store import ClearedVectors, ComingVector, WriteTransaction
from agentmem.server.requests import RequestKey, first_outcome, outcome_of
from agentmem.v1 import storage_pb2, writer_pb2


@dataclass(frozen=True, slots=True)
class ReembedNamespace:
    """Begins to replace the embeddings of a namespace, or stops that.

    Attributes:
        model, dimension: of the embedder that is asked for; "" and 0 for "none".
    """

    namespace: str
    model: str
    dimension: int
    request: RequestKey | None
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> writer_pb2.ReembedNamespaceResponse:
        first = first_outcome(self.request, transaction, time_us)
        if first:
            return writer_pb2.ReembedNamespaceResponse.FromString(first.response)
        space = transaction.namespace(self.namespace)
        if space is None:
            raise NotFound("NAMESPACE_NOT_FOUND", f"there is no namespace {self.namespace!r}")
        step = self._step(space)
        coming_model = space.coming_model
        if step is not None:
            coming_model = step.embedding_model
        response = writer_pb2.ReembedNamespaceResponse(
            embedding_model=space.model if space.dimension else "",
            coming_model=coming_model,
            revision=transaction.revision,
            epoch=transaction.position.epoch,
        )
        if step is not None or self.request is not None:
            response.revision += 1
            transaction.append((), time_us, step=step, request=outcome_of(self.request, response))
        return response

    def _step(self, space: NamespaceState) -> storage_pb2.NamespaceChange | None:
        """What has to be written; None for nothing."""
        step = storage_pb2.NamespaceChange(name=self.namespace)
        present = space.model if space.dimension else ""
        if space.coming_space and self.model in (present, ""):
            step.reembedding = storage_pb2.REEMBEDDING_STEP_CANCELLED
            return step
        if self.model == present:
            return None
        if not self.model:
            raise invalid_field("embedder", "is 'none', which makes no embeddings")
        if space.coming_space:
            if space.coming_model == self.model:
                return None
            raise FailedPrecondition(
                "REEMBEDDING",
                f"the embeddings of {self.namespace!r} are being replaced by those of "
                f"{space.coming_model!r}: wait, or stop that with the embedder 'none'",
                field="embedder",
                coming_model=space.coming_model,
            )
        step.reembedding = storage_pb2.REEMBEDDING_STEP_BEGUN
        step.embedding_model, step.dimension = self.model, self.dimension
        return step


@dataclass(frozen=True, slots=True)
class EmbedVersions:
    """Gives versions their vectors in a coming space; says how many. Those that have one are passed over.

    Attributes:
        space: the number of the coming space.
        vectors: by ordinal; empty for a version that gets none.
    """

    namespace: str
    space: int
    vectors: Sequence[tuple[int, FloatVector]]

    @property
    def size_bytes(self) -> int:
        return sum(vector.nbytes for _, vector in self.vectors)

    def run(self, transaction: WriteTransaction, time_us: int) -> int:
        space = transaction.namespace(self.namespace)
        if space is None or not space.is_filling or space.coming_space != self.space:
            return 0
        changes = [
            ComingVector(self.namespace, ordinal, vector)
            for ordinal, vector in self.vectors
            if transaction.record_checksum(ordinal) is not None
            and not transaction.has_other_vector(space, ordinal)
        ]
        if changes:
            transaction.append(changes, time_us)
        return len(changes)


@dataclass(frozen=True, slots=True)
class SwitchSpace:
    """Lets the coming embeddings answer, if every version has its own; says at which revision, 0 if not.

    Attributes:
        space: the number of the coming space.
        embedder: the name of the one that makes them.
    """

    namespace: str
    space: int
    embedder: str
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> int:
        space = transaction.namespace(self.namespace)
        if space is None or not space.is_filling or space.coming_space != self.space:
            return 0
        if space.coming_versions != space.versions:
            return 0
        step = storage_pb2.NamespaceChange(
            name=self.namespace,
            reembedding=storage_pb2.REEMBEDDING_STEP_SWITCHED,
            dimension=space.coming_dimension,
            embedding_model=space.coming_model,
            settings=writer_pb2.NamespaceSettings(embedder=self.embedder),
        )
        return transaction.append((), time_us, step=step)


@dataclass(frozen=True, slots=True)
class ClearVectors:
    """Removes vectors of versions that are of no use any more; without versions, says that none is left."""

    namespace: str
    ordinals: Sequence[int]
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> int:
        space = transaction.namespace(self.namespace)
        if space is None or not space.is_clearing:
            return 0
        if self.ordinals:
            transaction.append([ClearedVectors(self.namespace, self.ordinals)], time_us)
            return len(self.ordinals)
        step = storage_pb2.NamespaceChange(
            name=self.namespace, reembedding=storage_pb2.REEMBEDDING_STEP_CLEARED
        )
        transaction.append((), time_us, step=step)
        return 0
