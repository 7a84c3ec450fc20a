"""AddMemories, alone and in batches: checks, embeddings, and the way into the commit queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.errors import AgentMemError, answerable, invalid_field
from agentmem.core.records import FloatVector, IdSource
from agentmem.core.validation import (
    MAX_BATCH,
    check_batch,
    check_count,
    check_id,
    check_memory,
    check_namespace,
    decode_embedding,
    decode_embeddings,
)
from agentmem.server.acknowledgement import LOCAL, Acknowledgements, LocalAcknowledgement
from agentmem.server.commands import AddMemories
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.embedding import (
    MAX_EMBEDDINGS_AGAIN,
    EmbeddingOutdated,
    Made,
    TextEmbedder,
    Wish,
)
from agentmem.server.requests import RequestKey, request_key_of
from agentmem.v1 import memory_pb2, writer_pb2

# What is larger is checked in a thread: it would hold up the event loop.
MAX_INLINE_BYTES = 64 * 1024
_POLICIES = frozenset(writer_pb2.DuplicatePolicy.values())


@dataclass(slots=True)
class _Add:
    """A request on its way.

    Attributes:
        vectors: for each memory, the embedding that it came with.
        made: for each memory, what was made of its content.
    """

    request: writer_pb2.AddMemoriesRequest
    policy: writer_pb2.DuplicatePolicy
    key: RequestKey | None
    size_bytes: int
    vectors: list[FloatVector | None]
    acknowledgement: LocalAcknowledgement = LOCAL
    made: Sequence[Made] = ()

    @property
    def is_embedded(self) -> bool:
        """Whether all of its memories came with an embedding."""
        return all(vector is not None for vector in self.vectors)

    @property
    def wish(self) -> Wish:
        """What is to be embedded."""
        return Wish(
            self.request.namespace,
            [memory.content for memory in self.request.memories],
            [vector is not None for vector in self.vectors],
        )

    @property
    def command(self) -> AddMemories:
        request = self.request
        return AddMemories(
            *(request.namespace, request.memories, self.vectors, self.policy, self.key, self.size_bytes),
            self.made,
        )


class Adding:
    """Adds the memories of requests."""

    def __init__(
        self,
        queue: CommitQueue,
        embedder: TextEmbedder,
        threads: BoundedThreads,
        acknowledgements: Acknowledgements,
    ) -> None:
        self._queue = queue
        self._embedder = embedder
        self._threads = threads
        self._acknowledgements = acknowledgements
        self._ids = IdSource()

    async def add(
        self, request: writer_pb2.AddMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.AddMemoriesResponse:
        with self._acknowledgements.begin(request, context) as acknowledgement:
            (add,) = await self._prepared([request], request.ByteSize())
            if isinstance(add, Exception):
                raise add
            add.acknowledgement = acknowledgement
            if not add.is_embedded:
                add.made = await self._embedder.embed(add.wish)
            (outcome,) = await self._queue.submit_each([add.command])
            return await self._completed(add, outcome)

    async def add_batch(
        self, batch: writer_pb2.BatchAddMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.BatchAddMemoriesResponse:
        """Adds each request's memories, as ``add`` would; their texts are embedded together, and they are
        committed together."""
        check_batch(len(batch.requests), "requests")
        memories = sum(len(request.memories) for request in batch.requests)
        if memories > MAX_BATCH:
            raise invalid_field("requests", f"have {memories} memories; at most {MAX_BATCH} are allowed")
        with ExitStack() as held:
            begun = [self._begun(request, context, held) for request in batch.requests]
            prepared = iter(
                await self._prepared(
                    [
                        request
                        for request, each in zip(batch.requests, begun, strict=True)
                        if not isinstance(each, Exception)
                    ],
                    batch.ByteSize(),
                )
            )
            adds: list[_Add | AgentMemError] = []
            for each in begun:
                add = each if isinstance(each, Exception) else next(prepared)
                if isinstance(add, Exception):
                    adds.append(answerable(add, "BatchAddMemories"))
                    continue
                assert isinstance(each, LocalAcknowledgement)
                add.acknowledgement = each
                adds.append(add)
            await self._embed(adds)
            return await self._results(adds)

    def _begun(
        self,
        request: writer_pb2.AddMemoriesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
        held: ExitStack,
    ) -> LocalAcknowledgement | Exception:
        """The acknowledgement of a request of a batch, or its error."""
        try:
            acknowledgement = self._acknowledgements.begin(request, context)
            return held.enter_context(acknowledgement) if acknowledgement.waits else acknowledgement
        except Exception as error:
            return error

    async def _embed(self, adds: list[_Add | AgentMemError]) -> None:
        """Gives the adds their embeddings; an error takes the place of one that gets none."""
        namespaces = {add.request.namespace for add in adds if isinstance(add, _Add)}
        filling = self._embedder.filling(namespaces)
        waiting = [
            (place, add)
            for place, add in enumerate(adds)
            if isinstance(add, _Add) and (not add.is_embedded or add.request.namespace in filling)
        ]
        outcomes = await self._embedder.embed_each([add.wish for _, add in waiting])
        for (place, add), made in zip(waiting, outcomes, strict=True):
            if isinstance(made, AgentMemError):
                adds[place] = made
            else:
                add.made = made

    async def _results(self, adds: Sequence[_Add | AgentMemError]) -> writer_pb2.BatchAddMemoriesResponse:
        """Commits what was prepared; the result of each request, once it may be sent."""
        committed = iter(
            await self._queue.submit_each([add.command for add in adds if isinstance(add, _Add)])
        )
        outcomes = [next(committed) if isinstance(add, _Add) else add for add in adds]
        # A task for each would cost more than what most of them have to do.
        tasks = {
            place: asyncio.create_task(self._completed(add, outcome))
            for place, (add, outcome) in enumerate(zip(adds, outcomes, strict=True))
            if isinstance(add, _Add) and (add.acknowledgement.waits or isinstance(outcome, EmbeddingOutdated))
        }
        completed = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for place, outcome in zip(tasks, completed, strict=True):
            outcomes[place] = (
                outcome if isinstance(outcome, writer_pb2.AddMemoriesResponse) else _failed(outcome)
            )
        response = writer_pb2.BatchAddMemoriesResponse()
        for outcome in outcomes:
            result = response.results.add()
            if isinstance(outcome, AgentMemError):
                result.failure.CopyFrom(outcome.to_failure())
            else:
                result.response.CopyFrom(outcome)
        return response

    async def _completed(
        self, add: _Add, outcome: writer_pb2.AddMemoriesResponse | AgentMemError
    ) -> writer_pb2.AddMemoriesResponse:
        """The answer, once it may be sent.

        Args:
            outcome: of its first way through the commit queue.
        """
        attempts = 0
        while isinstance(outcome, EmbeddingOutdated):
            attempts += 1
            if attempts > MAX_EMBEDDINGS_AGAIN:
                break
            add.made = await self._embedder.embed(add.wish)
            (outcome,) = await self._queue.submit_each([add.command])
        if isinstance(outcome, AgentMemError):
            raise outcome
        return await add.acknowledgement.complete(outcome)

    async def _prepared(
        self, requests: Sequence[writer_pb2.AddMemoriesRequest], size_bytes: int
    ) -> list[_Add | Exception]:
        """What each request, of this size together, asks for, or what is wrong with it."""
        if size_bytes > MAX_INLINE_BYTES:
            try:
                return await self._threads.run(self._prepare_each, requests)
            except AgentMemError as error:
                return [error] * len(requests)
        return self._prepare_each(requests)

    def _prepare_each(self, requests: Sequence[writer_pb2.AddMemoriesRequest]) -> list[_Add | Exception]:
        embeddings = [memory.embedding for request in requests for memory in request.memories]
        # One alone is decoded faster by itself.
        vectors = decode_embeddings(embeddings if len(embeddings) > 1 else [b""] * len(embeddings))
        prepared: list[_Add | Exception] = []
        end = 0
        for request in requests:
            start, end = end, end + len(request.memories)
            try:
                prepared.append(self._prepare(request, embeddings[start:end], vectors[start:end]))
            except Exception as error:
                prepared.append(error)
        return prepared

    def _prepare(
        self,
        request: writer_pb2.AddMemoriesRequest,
        embeddings: Sequence[bytes],
        vectors: list[FloatVector | None],
    ) -> _Add:
        """Checks a request, and gives its memories ids and types; takes their embeddings out.

        Args:
            embeddings: of its memories, empty where one came without.
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
        for index, (memory, given) in enumerate(zip(request.memories, embeddings, strict=True)):
            path = f"memories[{index}]"
            _check_new(memory, namespace, path)
            memory.id = memory.id or self._ids.next()
            memory.namespace = namespace
            memory.type = memory.type or memory_pb2.MEMORY_TYPE_EPISODIC
            if memory.id in seen:
                raise invalid_field(f"{path}.id", f"repeats {memory.id!r}")
            seen.add(memory.id)
            if given:
                if vectors[index] is None:
                    vectors[index] = decode_embedding(given, f"{path}.embedding")
                memory.ClearField("embedding")
        return _Add(request, policy, key, size_bytes, vectors)


def _failed(error: BaseException) -> AgentMemError:
    """The error of one request of a batch; raises what is not of the request."""
    if not isinstance(error, Exception):
        raise error
    return answerable(error, "BatchAddMemories")


def _check_new(memory: memory_pb2.Memory, namespace: str, path: str) -> None:
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
