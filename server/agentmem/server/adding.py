"""AddMemories: checks, ids, and the embeddings that memories come with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from agentmem.core.errors import invalid_field
from agentmem.core.records import FloatVector, IdSource
from agentmem.core.validation import (
    MAX_BATCH,
    check_count,
    check_id,
    check_memory,
    check_namespace,
    decode_embedding,
    decode_embeddings,
)
from agentmem.server.commands import AddMemories
from agentmem.server.embedding import Wish
from agentmem.server.requests import request_key_of
from agentmem.server.writing import Write, attempted
from agentmem.v1 import memory_pb2, writer_pb2

_POLICIES = frozenset(writer_pb2.DuplicatePolicy.values())


def check_batch_of_adds(batch: writer_pb2.BatchAddMemoriesRequest) -> None:
    """What its requests ask for together."""
    memories = sum(len(request.memories) for request in batch.requests)
    if memories > MAX_BATCH:
        raise invalid_field("requests", f"have {memories} memories; at most {MAX_BATCH} are allowed")


class Adding:
    """Checks requests to add memories."""

    def __init__(self) -> None:
        self._ids = IdSource()

    def check(
        self, requests: Sequence[writer_pb2.AddMemoriesRequest]
    ) -> list[Write[writer_pb2.AddMemoriesResponse] | Exception]:
        """The write of each request, or what is wrong with it."""
        # A list of each: a way through the request's own container costs as much as a check.
        memories_of_each = [request.memories[:] for request in requests]
        embeddings = [memory.embedding for memories in memories_of_each for memory in memories]
        # One alone is decoded faster by itself.
        vectors = decode_embeddings(embeddings if len(embeddings) > 1 else [b""] * len(embeddings))
        checks = []
        end = 0
        for request, memories in zip(requests, memories_of_each, strict=True):
            start, end = end, end + len(memories)
            checks.append(partial(self._check, request, memories, embeddings[start:end], vectors[start:end]))
        return attempted(checks)

    def _check(
        self,
        request: writer_pb2.AddMemoriesRequest,
        memories: Sequence[memory_pb2.Memory],
        embeddings: Sequence[bytes],
        vectors: list[FloatVector | None],
    ) -> Write[writer_pb2.AddMemoriesResponse]:
        """Checks a request, and gives its memories ids and types; takes their embeddings out.

        Args:
            memories: those of the request.
            embeddings: of these, empty where one came without.
            vectors: of those, as far as they were decoded.
        """
        size_bytes = request.ByteSize()
        policy = request.on_duplicate or writer_pb2.DUPLICATE_POLICY_ADD
        if policy not in _POLICIES:
            raise invalid_field("on_duplicate", f"has no meaning for {policy}")
        namespace = request.namespace
        key = request_key_of("AddMemories", namespace, request.request_id, request)
        check_namespace(namespace)
        check_count(len(embeddings), "memories")
        seen = set()
        for index, (memory, given) in enumerate(zip(memories, embeddings, strict=True)):
            path = f"memories[{index}]"
            _check_new(memory, bool(given), namespace, path)
            memory.namespace = namespace
            if not memory.id:
                memory.id = self._ids.next()
            if not memory.type:
                memory.type = memory_pb2.MEMORY_TYPE_EPISODIC
            memory_id = memory.id
            if memory_id in seen:
                raise invalid_field(f"{path}.id", f"repeats {memory_id!r}")
            seen.add(memory_id)
            if given:
                if vectors[index] is None:
                    vectors[index] = decode_embedding(given, f"{path}.embedding")
                memory.ClearField("embedding")
        wish = Wish(
            namespace,
            [memory.content for memory in memories],
            [vector is not None for vector in vectors],
        )
        return Write(partial(AddMemories, namespace, memories, vectors, policy, key, size_bytes), wish)


def _check_new(memory: memory_pb2.Memory, has_embedding: bool, namespace: str, path: str) -> None:
    if memory.id:
        check_id(memory.id, f"{path}.id")
    if memory.namespace not in ("", namespace):
        raise invalid_field(f"{path}.namespace", f"is {memory.namespace!r}, the request's {namespace!r}")
    if memory.version:
        raise invalid_field(f"{path}.version", "is set by the server")
    for field in ("create_time", "update_time"):
        if memory.HasField(field):
            raise invalid_field(f"{path}.{field}", "is set by the server")
    if memory.embedding_model and not has_embedding:
        raise invalid_field(f"{path}.embedding_model", "is set without an embedding")
    check_memory(memory, path)
