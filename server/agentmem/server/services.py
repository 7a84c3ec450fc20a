"""The writer's gRPC services: requests to commands, errors named before anything is queued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.embedders import Embedder, embedding_required
from agentmem.core.errors import FailedPrecondition, InvalidArgument, invalid_field
from agentmem.core.layout import NamespaceState
from agentmem.core.reading import StoreReader
from agentmem.core.records import FloatVector, IdSource
from agentmem.core.store import Store
from agentmem.core.validation import (
    check_count,
    check_id,
    check_ids,
    check_memory,
    check_namespace,
    decode_embedding,
)
from agentmem.server.commands import (
    WRITABLE_FIELDS,
    AddMemories,
    DeleteMemories,
    UpdateMemory,
    masked_copy,
)
from agentmem.server.commit_queue import CommitQueue
from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2, writer_pb2_grpc

MAX_THREADS = 2
MAX_WAITING_CALLS = 256
# What is larger is checked in a thread: it would hold up the event loop.
MAX_INLINE_BYTES = 64 * 1024


class WriterService(writer_pb2_grpc.WriterServiceServicer):
    """Adds, updates and deletes."""

    def __init__(self, store: Store, queue: CommitQueue, embedder: Embedder) -> None:
        self._store = store
        self._queue = queue
        self._embedder = embedder
        self._ids = IdSource()
        self._threads = BoundedThreads("writes", threads=MAX_THREADS, max_calls=MAX_WAITING_CALLS)

    def close(self) -> None:
        """Drops what waits to be checked or embedded."""
        self._threads.close()

    async def AddMemories(
        self, request: writer_pb2.AddMemoriesRequest, context: object
    ) -> writer_pb2.AddMemoriesResponse:
        size_bytes = request.ByteSize()
        if size_bytes > MAX_INLINE_BYTES:
            vectors = await self._threads.run(self._prepare, request)
        else:
            vectors = self._prepare(request)
        missing = [index for index, vector in enumerate(vectors) if vector is None]
        made = await self._embed(request.namespace, [request.memories[index].content for index in missing])
        for index, vector in zip(missing, made, strict=True):
            if vector is not None:
                vectors[index] = vector
                request.memories[index].embedding_model = self._embedder.model
        return await self._queue.submit(AddMemories(request.namespace, request.memories, vectors, size_bytes))

    def _prepare(self, request: writer_pb2.AddMemoriesRequest) -> list[FloatVector | None]:
        """Checks the memories, gives them ids and types; takes their embeddings out and returns them."""
        check_namespace(request.namespace)
        check_count(len(request.memories), "memories")
        seen = set()
        vectors: list[FloatVector | None] = []
        for index, memory in enumerate(request.memories):
            path = f"memories[{index}]"
            self._check_new(memory, request.namespace, path)
            memory.id = memory.id or self._ids.next()
            memory.type = memory.type or memory_pb2.MEMORY_TYPE_EPISODIC
            if memory.id in seen:
                raise invalid_field(f"{path}.id", f"repeats {memory.id!r}")
            seen.add(memory.id)
            given = memory.embedding
            vectors.append(decode_embedding(given, f"{path}.embedding") if given else None)
            memory.ClearField("embedding")
        return vectors

    def _check_new(self, memory: memory_pb2.Memory, namespace: str, path: str) -> None:
        if memory.id:
            check_id(memory.id, f"{path}.id")
        if memory.namespace not in ("", namespace):
            raise invalid_field(f"{path}.namespace", f"is {memory.namespace!r}, the request's {namespace!r}")
        if memory.version:
            raise invalid_field(f"{path}.version", "is set by the server")
        for field in ("create_time", "update_time"):
            if memory.HasField(field):
                raise invalid_field(f"{path}.{field}", "is set by the server")
        if memory.embedding_model and not memory.embedding:
            raise invalid_field(f"{path}.embedding_model", "is set without an embedding")
        check_memory(memory, path)

    async def _embed(self, namespace: str, texts: Sequence[str]) -> Sequence[FloatVector | None]:
        """The embedder's vectors for texts that came without one."""
        if not texts or not self._embedder.model:
            return [None] * len(texts)
        space = self._namespace(namespace)
        if space.dimension and space.model != self._embedder.model:
            raise embedding_required(space.model, self._embedder.model, "send an embedding with each text")
        return await self._threads.run(self._embedder.embed, texts)

    def _namespace(self, namespace: str) -> NamespaceState:
        with self._store.read() as transaction:
            return transaction.namespace(namespace) or NamespaceState(number=0)

    async def UpdateMemory(
        self, request: writer_pb2.UpdateMemoryRequest, context: object
    ) -> writer_pb2.UpdateMemoryResponse:
        check_namespace(request.namespace)
        memory = request.memory
        check_id(memory.id, "memory.id")
        if memory.namespace not in ("", request.namespace):
            raise invalid_field("memory.namespace", f"is {memory.namespace!r}, not the request's")
        fields = _masked_fields(request)
        masked = masked_copy(memory, fields)
        if "content" not in fields:
            masked.content = "unchanged"
        check_memory(masked, "memory")
        if "type" in fields and not memory.type:
            memory.type = memory_pb2.MEMORY_TYPE_EPISODIC
        vector = await self._updated_vector(request.namespace, memory, fields)
        memory.ClearField("embedding")
        expected = request.expected_version if request.HasField("expected_version") else None
        return await self._queue.submit(
            UpdateMemory(request.namespace, memory, fields, expected, vector, request.ByteSize())
        )

    async def _updated_vector(
        self, namespace: str, memory: memory_pb2.Memory, fields: frozenset[str]
    ) -> FloatVector | None:
        """The embedding that the update brings or needs; sets ``memory.embedding_model`` to its model."""
        if "embedding" in fields:
            vector = decode_embedding(memory.embedding, "memory.embedding")
            if "embedding_model" not in fields:
                memory.embedding_model = self._namespace(namespace).model
            return vector
        if "content" in fields:
            (made,) = await self._embed(namespace, [memory.content])
            memory.embedding_model = self._embedder.model if made is not None else ""
            return made
        return None

    async def DeleteMemories(
        self, request: writer_pb2.DeleteMemoriesRequest, context: object
    ) -> writer_pb2.DeleteMemoriesResponse:
        check_namespace(request.namespace)
        check_ids(request.ids, "ids")
        return await self._queue.submit(
            DeleteMemories(request.namespace, list(request.ids), request.ByteSize())
        )


def _masked_fields(request: writer_pb2.UpdateMemoryRequest) -> frozenset[str]:
    paths = request.update_mask.paths
    if not paths:
        raise invalid_field("update_mask", "must name the fields to change")
    for path in paths:
        if path not in WRITABLE_FIELDS:
            raise InvalidArgument(
                "INVALID_FIELD",
                f"update_mask: {path!r} cannot be updated; the fields are {', '.join(WRITABLE_FIELDS)}",
                field="update_mask",
            )
    if "embedding_model" in paths and "embedding" not in paths:
        raise invalid_field("update_mask", "has embedding_model without embedding")
    return frozenset(paths)


class WriterReader(StoreReader):
    """The reads of the writer: all but the search, for which it keeps no index."""

    async def SearchMemories(self, request: reader_pb2.SearchMemoriesRequest, context: object) -> NoReturn:
        raise FailedPrecondition(
            "NOT_REPLICA", "the writer does not search: send searches to a replica, see GetTopology"
        )
