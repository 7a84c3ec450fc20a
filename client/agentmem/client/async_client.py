"""The asynchronous client, and with it everything that the synchronous one does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self, Unpack

from google.protobuf.field_mask_pb2 import FieldMask

from agentmem.client import models, topology, values
from agentmem.client.errors import ClientClosed, invalid_field
from agentmem.client.filters import Filter, Scope, scoped
from agentmem.client.models import (
    AddFields,
    AddResult,
    DeleteResult,
    GetResult,
    Memory,
    NewMemory,
    Page,
    SearchMode,
    SearchResult,
    UpdateFields,
)
from agentmem.client.routing import Router
from agentmem.client.selection import Route
from agentmem.client.topology import Topology
from agentmem.v1 import cluster_pb2, reader_pb2, writer_pb2

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_PAGE_SIZE = 100
DEFAULT_TOP_K = 10
_MAX_INT32 = 2**31 - 1
_MAX_UINT64 = 2**64 - 1


class AsyncClient:
    """A client of an AgentMem cluster, for one event loop.

        async with AsyncClient("127.0.0.1:7600") as client:
            await client.add("demo", "Ana moved to Lisbon", user_id="ana")
            found = await client.search("demo", "where does Ana live?", user_id="ana")

    It follows the topology of the cluster: reads are balanced over the replicas, writes go to the writer, and
    nodes may come and go. A read that a node cannot answer is taken to another one. A write is repeated only
    when it was surely not done; one that was cut off raises OutcomeUnknown.

    Every call may raise:
        InvalidArgument: an argument can never work; found here, nothing was sent.
        Unavailable: no node could answer in time; the error names those tried.
        DeadlineExceeded: a node took too long.
        ResourceExhausted: the server is overloaded, its store is full, or an answer is over 64 MiB.
        ClientClosed: the client is closed.

    Args:
        endpoints: "host:port" of one or more nodes, any of them. A second one helps when the first is down.
        timeout_s: the time for a call and all its retries, unless the call is given its own ``timeout_s``.
    """

    def __init__(self, *endpoints: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        if not endpoints:
            raise invalid_field("endpoints", "must name at least one node, as host:port")
        self._endpoints = tuple(_endpoint(each) for each in endpoints)
        self._timeout_s = _timeout_s(timeout_s)
        self._router = Router(self._endpoints, rng=random.Random())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"AsyncClient({', '.join(map(repr, self._endpoints))}{', closed' if self._closed else ''})"

    async def __aenter__(self) -> Self:
        self._ready_router()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends calls that are on their way with ClientClosed, and the connections. May be called twice."""
        self._closed = True
        await self._router.close()

    # Writes

    async def add(
        self,
        namespace: str,
        memory: str | NewMemory,
        /,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[AddFields],
    ) -> AddResult:
        """Adds one memory: its content with the fields of NewMemory as keywords, or a NewMemory.

        Returns the one id and version in ``memories``, when the memory is on the writer's disk.

        Raises:
            AlreadyExists: the id is taken.
            OutcomeUnknown: the connection broke before the answer came.
        """
        return await self.add_many(namespace, [models.new_memory(memory, fields)], timeout_s=timeout_s)

    async def add_many(
        self, namespace: str, memories: Sequence[str | NewMemory], *, timeout_s: float | None = None
    ) -> AddResult:
        """Adds 1 to 1,000 memories in one commit: all of them or none. Raises what ``add`` raises."""
        if isinstance(memories, str | bytes) or not isinstance(memories, Sequence):
            raise invalid_field("memories", f"must be a sequence of memories, not {values.kind(memories)}")
        request = writer_pb2.AddMemoriesRequest(
            namespace=values.text("namespace", namespace),
            memories=[models.new_memory_to_proto(models.new_memory(each, {})) for each in memories],
        )
        response = await self._ready_router().write(
            lambda endpoint: endpoint.writer.AddMemories, request, timeout_s=self._time(timeout_s)
        )
        return models.add_result_from_proto(response)

    async def update(
        self,
        namespace: str,
        id: str,
        *,
        expected_version: int | None = None,
        timeout_s: float | None = None,
        **fields: Unpack[UpdateFields],
    ) -> Memory:
        """Makes a new version of a memory with the fields given; the others stay.

        New content is embedded again by the server, unless a new embedding is given with it.

        Args:
            expected_version: change it only while this is its newest version.

        Returns the new version, without its embedding.

        Raises:
            NotFound: there is no such memory.
            VersionMismatch: it is at another version.
            OutcomeUnknown: the connection broke before the answer came.
        """
        memory = models.update_to_proto(fields)
        memory.id = values.text("id", id)
        request = writer_pb2.UpdateMemoryRequest(
            namespace=values.text("namespace", namespace),
            memory=memory,
            update_mask=FieldMask(paths=fields),
        )
        if expected_version is not None:
            request.expected_version = values.integer(
                "expected_version", expected_version, low=1, high=_MAX_UINT64
            )
        response = await self._ready_router().write(
            lambda endpoint: endpoint.writer.UpdateMemory, request, timeout_s=self._time(timeout_s)
        )
        return models.memory_from_proto(response.memory)

    async def delete(
        self, namespace: str, ids: str | Sequence[str], *, timeout_s: float | None = None
    ) -> DeleteResult:
        """Deletes one memory, or 1 to 1,000. An id that names no memory is no error.

        Raises:
            OutcomeUnknown: the connection broke before the answer came.
        """
        request = writer_pb2.DeleteMemoriesRequest(
            namespace=values.text("namespace", namespace),
            ids=values.texts("ids", [ids] if isinstance(ids, str) else ids),
        )
        response = await self._ready_router().write(
            lambda endpoint: endpoint.writer.DeleteMemories, request, timeout_s=self._time(timeout_s)
        )
        return DeleteResult(tuple(response.deleted_ids), tuple(response.missing_ids), response.revision)

    # Reads

    async def get(self, namespace: str, id: str, *, timeout_s: float | None = None) -> Memory | None:
        """The newest version of a memory, without its embedding; None when there is no such memory."""
        found = await self.get_many(namespace, [values.text("id", id)], timeout_s=timeout_s)
        return found.memories[0] if found.memories else None

    async def get_many(
        self,
        namespace: str,
        ids: Sequence[str],
        *,
        include_embedding: bool = False,
        timeout_s: float | None = None,
    ) -> GetResult:
        """The newest versions of 1 to 1,000 memories, in the order of their ids in the call."""
        request = reader_pb2.GetMemoriesRequest(
            namespace=values.text("namespace", namespace),
            ids=values.texts("ids", ids),
            include_embedding=values.boolean("include_embedding", include_embedding),
        )
        response = await self._ready_router().read(
            lambda endpoint: endpoint.reader.GetMemories,
            request,
            route=Route.REPLICAS_THEN_WRITER,
            timeout_s=self._time(timeout_s),
        )
        memories = models.memories_from_proto(response.memories)
        return GetResult(memories, tuple(response.missing_ids), response.applied_revision)

    async def list(
        self,
        namespace: str,
        *,
        filter: Filter | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
        page_token: str = "",
        include_embedding: bool = False,
        timeout_s: float | None = None,
        **scope: Unpack[Scope],
    ) -> Page:
        """One page of the memories of a namespace, in the order of their ids.

        Args:
            filter: which ones; narrowed further by the keywords of Scope.
            page_size: 1 to 1,000 memories.
            page_token: ``next_page_token`` of the page before, with the same filter and scope.
        """
        request = reader_pb2.ListMemoriesRequest(
            namespace=values.text("namespace", namespace),
            page_size=values.integer("page_size", page_size, low=1, high=_MAX_INT32),
            page_token=values.text("page_token", page_token),
            include_embedding=values.boolean("include_embedding", include_embedding),
        )
        narrowed = scoped(filter, scope)
        if narrowed is not None:
            request.filter.CopyFrom(narrowed.to_proto())
        response = await self._ready_router().read(
            lambda endpoint: endpoint.reader.ListMemories,
            request,
            route=Route.REPLICAS_THEN_WRITER,
            timeout_s=self._time(timeout_s),
        )
        memories = models.memories_from_proto(response.memories)
        return Page(memories, response.next_page_token, response.applied_revision)

    async def iterate(
        self,
        namespace: str,
        *,
        filter: Filter | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
        include_embedding: bool = False,
        timeout_s: float | None = None,
        **scope: Unpack[Scope],
    ) -> AsyncIterator[Memory]:
        """Every memory that ``list`` has, page by page; ``timeout_s`` is for each page.

        Memories that come or go meanwhile may be there or not; every other one is there once.
        """
        pages = self._pages(
            namespace,
            filter=filter,
            page_size=page_size,
            include_embedding=include_embedding,
            timeout_s=timeout_s,
            **scope,
        )
        async for page in pages:
            for memory in page.memories:
                yield memory

    async def search(
        self,
        namespace: str,
        text: str = "",
        *,
        embedding: Sequence[float] | None = None,
        mode: SearchMode | str = SearchMode.HYBRID,
        top_k: int = DEFAULT_TOP_K,
        filter: Filter | None = None,
        include_embedding: bool = False,
        timeout_s: float | None = None,
        **scope: Unpack[Scope],
    ) -> SearchResult:
        """The memories that fit best, best first. Served by replicas alone: waits for one if need be.

        Args:
            text: the question, up to 16 KiB; required unless an embedding is given.
            embedding: the question's embedding; the server embeds the text when None.
            mode: by meaning and words, by meaning, or by words.
            top_k: 1 to 1,000 hits at most.
            filter: among which memories; narrowed further by the keywords of Scope.
        """
        request = reader_pb2.SearchMemoriesRequest(
            namespace=values.text("namespace", namespace),
            text=values.text("text", text),
            embedding=b"" if embedding is None else values.embedding("embedding", embedding),
            mode=models.search_mode(mode),
            top_k=values.integer("top_k", top_k, low=1, high=_MAX_INT32),
            include_embedding=values.boolean("include_embedding", include_embedding),
        )
        narrowed = scoped(filter, scope)
        if narrowed is not None:
            request.filter.CopyFrom(narrowed.to_proto())
        response = await self._ready_router().read(
            lambda endpoint: endpoint.reader.SearchMemories,
            request,
            route=Route.REPLICAS,
            timeout_s=self._time(timeout_s),
        )
        return models.search_result_from_proto(response)

    async def topology(self, *, timeout_s: float | None = None) -> Topology:
        """The cluster as the writer sees it now, or a replica when the writer does not answer."""
        response = await self._ready_router().read(
            lambda endpoint: endpoint.cluster.GetTopology,
            cluster_pb2.GetTopologyRequest(),
            route=Route.WRITER_THEN_REPLICAS,
            timeout_s=self._time(timeout_s),
        )
        return topology.from_proto(response.topology)

    async def _pages(
        self,
        namespace: str,
        *,
        filter: Filter | None,
        page_size: int,
        include_embedding: bool,
        timeout_s: float | None,
        **scope: Unpack[Scope],
    ) -> AsyncIterator[Page]:
        page_token = ""
        while True:
            page = await self.list(
                namespace,
                filter=filter,
                page_size=page_size,
                page_token=page_token,
                include_embedding=include_embedding,
                timeout_s=timeout_s,
                **scope,
            )
            yield page
            page_token = page.next_page_token
            if not page_token:
                return

    def _ready_router(self) -> Router:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError(
                "an AsyncClient belongs to the event loop of its first call; make one for each loop"
            )
        self._router.start()
        return self._router

    def _time(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else _timeout_s(timeout_s)


def _timeout_s(value: object) -> float:
    seconds = values.number("timeout_s", value)
    if seconds <= 0:
        raise invalid_field("timeout_s", "must be above 0")
    return seconds


def _endpoint(value: object) -> str:
    address = values.text("endpoints", value)
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise invalid_field("endpoints", f"must be host:port, not {address!r}")
    return address
