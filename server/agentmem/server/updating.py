"""UpdateMemory: checks, and the embedding that new content comes with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from agentmem.core.errors import InvalidArgument, invalid_field
from agentmem.core.records import FloatVector
from agentmem.core.validation import check_id, check_memory, check_namespace, decode_embedding
from agentmem.server.commands import WRITABLE_FIELDS, UpdateMemory, masked_copy
from agentmem.server.embedding import Wish
from agentmem.server.requests import request_key_of
from agentmem.server.writing import Write, attempted
from agentmem.v1 import memory_pb2, writer_pb2


class Updating:
    """Checks requests to update memories."""

    def __init__(self, model_of: Callable[[str], str]) -> None:
        """``model_of``: the model of the embeddings of a namespace."""
        self._model_of = model_of

    def check(
        self, requests: Sequence[writer_pb2.UpdateMemoryRequest]
    ) -> list[Write[writer_pb2.UpdateMemoryResponse] | Exception]:
        """The write of each request, or what is wrong with it."""
        return attempted(partial(self._check, request) for request in requests)

    def _check(self, request: writer_pb2.UpdateMemoryRequest) -> Write[writer_pb2.UpdateMemoryResponse]:
        """Checks a request; takes the embedding out."""
        namespace, memory = request.namespace, request.memory
        check_namespace(namespace)
        key = request_key_of("UpdateMemory", namespace, request.request_id, request)
        check_id(memory.id, "memory.id")
        if memory.namespace not in ("", namespace):
            raise invalid_field("memory.namespace", f"is {memory.namespace!r}, not the request's")
        fields = _masked_fields(request)
        masked = masked_copy(memory, fields)
        if "content" not in fields:
            masked.content = "unchanged"
        check_memory(masked, "memory")
        if "type" in fields and not memory.type:
            memory.type = memory_pb2.MEMORY_TYPE_EPISODIC
        vector = self._given_vector(namespace, memory, fields)
        memory.ClearField("embedding")
        expected = request.expected_version if request.HasField("expected_version") else None
        wish = Wish(namespace, [memory.content], [vector is not None]) if "content" in fields else None
        size_bytes = request.ByteSize()
        return Write(
            partial(UpdateMemory, namespace, memory, fields, expected, vector, key, size_bytes), wish
        )

    def _given_vector(
        self, namespace: str, memory: memory_pb2.Memory, fields: frozenset[str]
    ) -> FloatVector | None:
        """The embedding that the update brings; sets ``memory.embedding_model`` to its model."""
        if "embedding" not in fields:
            return None
        vector = decode_embedding(memory.embedding, "memory.embedding")
        if "embedding_model" not in fields:
            memory.embedding_model = self._model_of(namespace)
        return vector


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
    if "ttl" in paths and "expire_time" in paths:
        raise invalid_field("update_mask", "has ttl and expire_time: name one of them")
    return frozenset(paths)
