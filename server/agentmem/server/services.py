"""The writer's gRPC services: requests to commands, errors named before anything is queued."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any, NoReturn

import grpc

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.consistency import Demand, check_not_lost, revision_lost
from agentmem.core.embedders import Embedders
from agentmem.core.errors import (
    AgentMemError,
    FailedPrecondition,
    NotFound,
    Unavailable,
    invalid_field,
)
from agentmem.core.filters import Filter, compile_filter
from agentmem.core.reader_service import StoreReader
from agentmem.core.store import Store
from agentmem.core.validation import check_namespace
from agentmem.server.acknowledgement import Acknowledgements, LocalAcknowledgement
from agentmem.server.adding import Adding, check_batch_of_adds
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.deletion import (
    check_batch_of_deletions,
    check_deletions,
    check_expected_version,
    delete_by_filter,
)
from agentmem.server.embedding import TextEmbedder
from agentmem.server.importing import import_memories
from agentmem.server.membership import Membership
from agentmem.server.namespaces import UpdateNamespace, checked_fields
from agentmem.server.reembedder import Reembedder
from agentmem.server.reembedding import ReembedNamespace
from agentmem.server.requests import request_key_of
from agentmem.server.sweeper import Sweeper
from agentmem.server.updating import Updating
from agentmem.server.writing import Writing
from agentmem.v1 import cluster_pb2, reader_pb2, writer_pb2, writer_pb2_grpc

MAX_THREADS = 2
MAX_WAITING_CALLS = 256


class WriterService(writer_pb2_grpc.WriterServiceServicer):
    """Every write: checks of requests, embeddings, and the way into the commit queue."""

    def __init__(
        self,
        store: Store,
        queue: CommitQueue,
        embedders: Embedders,
        membership: Membership,
        sweeper: Sweeper,
        reembedder: Reembedder,
    ) -> None:
        self._store = store
        self._queue = queue
        self._membership = membership
        self._sweeper = sweeper
        self._embedders = embedders
        self._reembedder = reembedder
        self._acknowledgements = Acknowledgements(membership)
        self._threads = BoundedThreads("writes", threads=MAX_THREADS, max_calls=MAX_WAITING_CALLS)
        embedder = TextEmbedder(store, embedders, self._threads)
        self._writing = Writing(queue, embedder, self._threads, self._acknowledgements)
        self._adding = Adding()
        self._updating = Updating(lambda namespace: embedder.namespace(namespace).model)

    def close(self) -> None:
        """Drops what waits to be checked or embedded."""
        self._threads.close()

    def answer_waiting(self) -> None:
        """Answers the writes that wait for replicas with what is known of them."""
        self._acknowledgements.close()

    async def AddMemories(
        self, request: writer_pb2.AddMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.AddMemoriesResponse:
        return await self._writing.alone(request, context, self._adding.check)

    async def BatchAddMemories(
        self, request: writer_pb2.BatchAddMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.BatchAddMemoriesResponse:
        check_batch_of_adds(request)
        response = writer_pb2.BatchAddMemoriesResponse()
        await self._writing.batch("BatchAddMemories", request, context, self._adding.check, response.results)
        return response

    async def UpdateMemory(
        self, request: writer_pb2.UpdateMemoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.UpdateMemoryResponse:
        return await self._writing.alone(request, context, self._updating.check)

    async def BatchUpdateMemories(
        self, request: writer_pb2.BatchUpdateMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.BatchUpdateMemoriesResponse:
        # The answer has every memory; so many of the largest fit.
        response = writer_pb2.BatchUpdateMemoriesResponse()
        await self._writing.batch(
            "BatchUpdateMemories", request, context, self._updating.check, response.results
        )
        return response

    async def DeleteMemories(
        self, request: writer_pb2.DeleteMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.DeleteMemoriesResponse:
        matcher = compile_filter(request.filter)
        if matcher is None:
            return await self._writing.alone(request, context, check_deletions)
        with self._acknowledgements.begin(request, context) as acknowledgement:
            return await acknowledgement.complete(await self._delete_by_filter(request, matcher))

    async def BatchDeleteMemories(
        self, request: writer_pb2.BatchDeleteMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.BatchDeleteMemoriesResponse:
        check_batch_of_deletions(request)
        response = writer_pb2.BatchDeleteMemoriesResponse()
        await self._writing.batch("BatchDeleteMemories", request, context, check_deletions, response.results)
        return response

    async def _delete_by_filter(
        self, request: writer_pb2.DeleteMemoriesRequest, matcher: Filter
    ) -> writer_pb2.DeleteMemoriesResponse:
        check_namespace(request.namespace)
        key = request_key_of("DeleteMemories", request.namespace, request.request_id, request)
        check_expected_version(request)
        if request.ids:
            raise invalid_field("filter", "is given with ids: give one of them")
        return await delete_by_filter(
            self._store,
            self._queue,
            self._threads,
            request.namespace,
            matcher,
            is_purge=request.purge,
            request=key,
        )

    async def GetPurgeReceipt(
        self, request: writer_pb2.GetPurgeReceiptRequest, context: object
    ) -> writer_pb2.GetPurgeReceiptResponse:
        check_namespace(request.namespace)
        with self._store.read() as transaction:
            receipt = transaction.receipt(request.revision)
        if receipt is None or receipt.namespace != request.namespace:
            raise NotFound(
                "RECEIPT_NOT_FOUND",
                f"no purge of namespace {request.namespace!r} ended at revision {request.revision}",
                revision=str(request.revision),
            )
        # The writer has no index; a replica's searches may lag behind its store.
        applied = [
            (node.id, node.applied_revision)
            if node.role == cluster_pb2.NODE_ROLE_WRITER
            else (node.id, min(node.applied_revision, node.searchable_revision))
            for node in self._membership.topology().nodes
        ]
        return writer_pb2.GetPurgeReceiptResponse(
            receipt=receipt,
            nodes=[
                writer_pb2.PurgeProgress(
                    node_id=node_id, applied_revision=revision, applied=revision >= request.revision
                )
                for node_id, revision in applied
            ],
        )

    async def ImportMemories(
        self,
        requests: AsyncIterable[writer_pb2.ImportMemoriesRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> writer_pb2.ImportMemoriesResponse:
        def acknowledgement_of(first: writer_pb2.ImportMemoriesRequest) -> LocalAcknowledgement:
            return self._acknowledgements.begin(first, context)

        return await import_memories(requests, self._queue, self._threads, acknowledgement_of)

    async def UpdateNamespace(
        self, request: writer_pb2.UpdateNamespaceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.UpdateNamespaceResponse:
        with self._acknowledgements.begin(request, context) as acknowledgement:
            return await acknowledgement.complete(await self._update_namespace(request))

    async def _update_namespace(
        self, request: writer_pb2.UpdateNamespaceRequest
    ) -> writer_pb2.UpdateNamespaceResponse:
        check_namespace(request.namespace)
        key = request_key_of("UpdateNamespace", request.namespace, request.request_id, request)
        fields = checked_fields(request, self._embedders)
        model = self._embedders.model_of(request.settings.embedder)
        command = UpdateNamespace(request.namespace, request.settings, fields, key, model)

        async def change() -> writer_pb2.UpdateNamespaceResponse:
            response = await self._queue.submit(command)
            self._sweeper.watch(request.namespace)
            return response

        # A caller that goes away takes neither the change back, nor what has to follow it.
        return await asyncio.shield(change())

    async def ReembedNamespace(
        self, request: writer_pb2.ReembedNamespaceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> writer_pb2.ReembedNamespaceResponse:
        with self._acknowledgements.begin(request, context) as acknowledgement:
            return await acknowledgement.complete(await self._reembed_namespace(request))

    async def _reembed_namespace(
        self, request: writer_pb2.ReembedNamespaceRequest
    ) -> writer_pb2.ReembedNamespaceResponse:
        check_namespace(request.namespace)
        key = request_key_of("ReembedNamespace", request.namespace, request.request_id, request)
        model, dimension = await self._reembedder.probed(request.embedder)
        command = ReembedNamespace(request.namespace, model, dimension, key)

        async def change() -> writer_pb2.ReembedNamespaceResponse:
            response = await self._queue.submit(command)
            self._reembedder.watch(request.namespace, response.revision)
            return response

        return await asyncio.shield(change())


class WriterReader(StoreReader):
    """The reads of the writer: all but the search, for which it keeps no index."""

    async def reach(self, demand: Demand, wait_s: float) -> None:
        """Waits for nothing: what was acknowledged is in the store, and fresher than the writer is nobody."""
        with self._store.read() as transaction:
            position = transaction.position
            check_not_lost(transaction, demand)
        if demand.min_epoch > position.epoch:
            raise Unavailable(
                "STALE_EPOCH",
                f"this writer is of epoch {position.epoch}; {demand.min_epoch} has begun elsewhere",
                epoch=str(position.epoch),
                field="consistency.min_epoch",
            )
        if demand.min_revision > position.revision:
            # As after a restore of a backup: nobody will ever write that revision again.
            raise revision_lost(demand, position.epoch, position.revision)

    def refuse_revision(self, asked: int, newest: int) -> AgentMemError:
        return invalid_field("as_of.revision", f"is {asked}; the newest revision is {newest}")

    async def GetStats(
        self, request: reader_pb2.GetStatsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> reader_pb2.GetStatsResponse:
        if request.breakdown:
            # To count, it would have to read every memory, while it has writes to do.
            raise FailedPrecondition(
                "NOT_REPLICA",
                "breakdown: the writer has no indexes to count in: ask a replica, see GetTopology",
                field="breakdown",
            )
        return await super().GetStats(request, context)

    async def SearchMemories(self, request: reader_pb2.SearchMemoriesRequest, context: object) -> NoReturn:
        raise _not_replica()

    async def BatchSearchMemories(
        self, request: reader_pb2.BatchSearchMemoriesRequest, context: object
    ) -> NoReturn:
        raise _not_replica()


def _not_replica() -> FailedPrecondition:
    return FailedPrecondition(
        "NOT_REPLICA", "the writer does not search: send searches to a replica, see GetTopology"
    )
