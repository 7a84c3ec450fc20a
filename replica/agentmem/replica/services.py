"""The replica's gRPC services: gets, lists and searches; writes are sent on to the writer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.embedders import Embedder, embedding_required
from agentmem.core.errors import FailedPrecondition, InvalidArgument, invalid_field
from agentmem.core.filters import Filter, compile_filter
from agentmem.core.layout import NamespaceState
from agentmem.core.reading import StoreReader, checked_size, read_memory
from agentmem.core.records import FloatVector
from agentmem.core.store import Store
from agentmem.core.validation import (
    MAX_TOP_K,
    check_limit,
    check_namespace,
    check_query_text,
    decode_embedding,
)
from agentmem.replica.search import Mode, SearchQuery, search
from agentmem.replica.view import View
from agentmem.v1 import reader_pb2, writer_pb2, writer_pb2_grpc

DEFAULT_TOP_K = 10
MAX_WAITING_SEARCHES = 1024
_MODES: dict[int, Mode] = {
    reader_pb2.SEARCH_MODE_UNSPECIFIED: "hybrid",
    reader_pb2.SEARCH_MODE_HYBRID: "hybrid",
    reader_pb2.SEARCH_MODE_SEMANTIC: "semantic",
    reader_pb2.SEARCH_MODE_TEXT: "text",
}


class ReplicaReader(StoreReader):
    """GetMemories and ListMemories from the store, SearchMemories from the newest view."""

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        *,
        view: Callable[[], View],
        check_serving: Callable[[], None],
        search_threads: int,
    ) -> None:
        super().__init__(store)
        self._searches = BoundedThreads(
            "searches", threads=search_threads, max_calls=search_threads + MAX_WAITING_SEARCHES
        )
        self._embedder = embedder
        self._view = view
        self._check_serving = check_serving

    def close(self) -> None:
        super().close()
        self._searches.close()

    async def GetMemories(
        self, request: reader_pb2.GetMemoriesRequest, context: object
    ) -> reader_pb2.GetMemoriesResponse:
        self._check_serving()
        return await super().GetMemories(request, context)

    async def ListMemories(
        self, request: reader_pb2.ListMemoriesRequest, context: object
    ) -> reader_pb2.ListMemoriesResponse:
        self._check_serving()
        return await super().ListMemories(request, context)

    async def SearchMemories(
        self, request: reader_pb2.SearchMemoriesRequest, context: object
    ) -> reader_pb2.SearchMemoriesResponse:
        self._check_serving()
        check_namespace(request.namespace)
        check_query_text(request.text)
        mode = _MODES.get(request.mode)
        if mode is None:
            raise invalid_field("mode", f"has no meaning for {request.mode}")
        top_k = check_limit(request.top_k, "top_k", DEFAULT_TOP_K, MAX_TOP_K)
        given = decode_embedding(request.embedding, "embedding") if request.embedding else None
        text = request.text.strip()
        if not text and (given is None or mode == "text"):
            raise invalid_field(
                "text", "must not be empty" + ("" if mode == "text" else ", or send an embedding")
            )
        matcher = compile_filter(request.filter)
        return await self._searches.run(self._search, request, mode, text, given, matcher, top_k)

    def _search(
        self,
        request: reader_pb2.SearchMemoriesRequest,
        mode: Mode,
        text: str,
        given: FloatVector | None,
        matcher: Filter | None,
        top_k: int,
    ) -> reader_pb2.SearchMemoriesResponse:
        view = self._view()
        response = reader_pb2.SearchMemoriesResponse(applied_revision=view.revision)
        namespace = view.namespaces.get(request.namespace)
        if namespace is None:
            return response
        vector = None if mode == "text" else self._query_vector(namespace.state, mode, text, given)
        hits = search(view, SearchQuery(request.namespace, text, vector, mode, matcher, top_k))
        size_bytes = 0
        with self._store.read() as transaction:
            for hit in hits:
                # Versions are immutable and kept: the view's are there, whatever came since.
                memory = read_memory(transaction, hit.ordinal, request.include_embedding)
                size_bytes = checked_size(size_bytes, memory, "top_k")
                response.hits.add(score=hit.score).memory.CopyFrom(memory)
        return response

    def _query_vector(
        self, space: NamespaceState, mode: Mode, text: str, given: FloatVector | None
    ) -> FloatVector | None:
        """The question as a vector of the namespace's space; None when the namespace has no vectors."""
        if not space.dimension:
            return None
        if given is not None:
            if len(given) != space.dimension:
                raise InvalidArgument(
                    "DIMENSION_MISMATCH",
                    f"embedding has {len(given)} dimensions; the namespace has {space.dimension}",
                    field="embedding",
                    dimension=str(space.dimension),
                )
            return given
        if not self._embedder.model or self._embedder.model != space.model:
            raise embedding_required(space.model, self._embedder.model, "send one, or search with mode TEXT")
        (vector,) = self._embedder.embed([text])
        if vector is not None and len(vector) != space.dimension:
            raise embedding_required(space.model, self._embedder.model, "send one, or search with mode TEXT")
        if vector is None and mode == "semantic":
            raise invalid_field("text", "has no words that the embedder knows")
        return vector


class NotWriterService(writer_pb2_grpc.WriterServiceServicer):
    """Answers writes with the address of the writer."""

    def __init__(self, writer_address: Callable[[], str]) -> None:
        self._writer_address = writer_address

    def _refuse(self) -> NoReturn:
        address = self._writer_address()
        raise FailedPrecondition(
            "NOT_WRITER", f"this is a replica: write to the writer at {address}", writer_address=address
        )

    async def AddMemories(self, request: writer_pb2.AddMemoriesRequest, context: object) -> NoReturn:
        self._refuse()

    async def UpdateMemory(self, request: writer_pb2.UpdateMemoryRequest, context: object) -> NoReturn:
        self._refuse()

    async def DeleteMemories(self, request: writer_pb2.DeleteMemoriesRequest, context: object) -> NoReturn:
        self._refuse()
