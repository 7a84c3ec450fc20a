"""ReaderService as far as it needs no index."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import grpc

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.consistency import Demand, demand_of
from agentmem.core.deadlines import allowed_wait_s
from agentmem.core.errors import AgentMemError, Unavailable
from agentmem.core.exporting import ExportPlace, ExportQuery, export_frame
from agentmem.core.filters import compile_filter
from agentmem.core.history import Moment
from agentmem.core.reading import LongAnswerError, get_history, get_memories, get_stats, list_memories
from agentmem.core.store import Store
from agentmem.core.times import now_us
from agentmem.core.validation import check_ids, check_namespace
from agentmem.core.watching import Watches
from agentmem.v1 import consistency_pb2, reader_pb2, reader_pb2_grpc

MAX_READ_THREADS = 2
MAX_WAITING_READS = 256
# A millisecond of the event loop at most, about the turn that light searches have; what is more goes to a
# thread.
MAX_INLINE_GETS = 100
MAX_INLINE_BYTES = 1024 * 1024
# A read that this node cannot answer now can be answered by another; so it does not wait for longer.
MAX_STALE_WAIT_S = 0.5


class StoreReader(reader_pb2_grpc.ReaderServiceServicer):
    """Gets, lists, histories, exports, watches and stats over a store."""

    def __init__(self, store: Store, watches: Watches) -> None:
        self._store = store
        self._watches = watches
        self._threads = BoundedThreads("reads", threads=MAX_READ_THREADS, max_calls=MAX_WAITING_READS)

    def close(self) -> None:
        """Drops the reads that wait for a thread."""
        self._threads.close()
        self._watches.close()

    def check_serving(self) -> None:
        """Raises when this node takes no reads now."""

    def refuse_revision(self, asked: int, newest: int) -> AgentMemError:
        """The error for a read as of a revision that this node does not have."""
        return Unavailable(
            "REPLICA_STALE",
            f"as_of.revision is {asked}; this node has applied {newest}",
            applied_revision=str(newest),
            field="as_of.revision",
        )

    @abstractmethod
    async def reach(self, demand: Demand, wait_s: float) -> None:
        """Returns when the store shows what is demanded.

        Raises:
            FailedPrecondition: ``REVISION_LOST``, it never will.
            Unavailable: it does not within ``wait_s``.
            ResourceExhausted: ``OVERLOADED``, too many reads wait already.
        """

    async def _reached(
        self, consistency: consistency_pb2.Consistency, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Returns when the store shows what the request demands; raises as ``reach``, and InvalidArgument."""
        demand = demand_of(consistency)
        if demand is not None:
            await self.reach(demand, allowed_wait_s(context, MAX_STALE_WAIT_S))

    async def GetMemories(  # type: ignore[override]
        self, request: reader_pb2.GetMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        """A GetMemoriesResponse, serialized."""
        self.check_serving()
        check_namespace(request.namespace)
        check_ids(request.ids, "ids")
        if request.HasField("consistency"):
            await self._reached(request.consistency, context)
        is_past = request.HasField("as_of")
        if is_past:
            self._check_reached(request.as_of)
        # As of then, a memory is looked for among its versions, however many these are.
        if not is_past and len(request.ids) <= MAX_INLINE_GETS:
            with suppress(LongAnswerError):
                return get_memories(self._store, request, now_us(), MAX_INLINE_BYTES)
        return await self._threads.run(get_memories, self._store, request, now_us())

    async def ListMemories(
        self, request: reader_pb2.ListMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> reader_pb2.ListMemoriesResponse:
        self.check_serving()
        await self._reached(request.consistency, context)
        self._check_reached(request.as_of)
        # In a thread: a page may read thousands of records.
        return await self._threads.run(list_memories, self._store, request, now_us())

    async def GetMemoryHistory(
        self, request: reader_pb2.GetMemoryHistoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> reader_pb2.GetMemoryHistoryResponse:
        self.check_serving()
        await self._reached(request.consistency, context)
        return await self._threads.run(get_history, self._store, request)

    async def ExportMemories(
        self, request: reader_pb2.ExportMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[reader_pb2.ExportMemoriesResponse]:
        self.check_serving()
        check_namespace(request.namespace)
        matcher = compile_filter(request.filter)
        await self._reached(request.consistency, context)
        with self._store.read() as transaction:
            position, space = transaction.position, transaction.namespace(request.namespace)
        query = ExportQuery(
            namespace=request.namespace,
            moment=Moment(now_us(), revision=position.revision),
            matcher=matcher,
            newest_only=request.newest_only,
            epoch=position.epoch,
            space=None if space is None else space.space,
        )
        place: ExportPlace | None = ExportPlace()
        is_first = True
        while place is not None:
            frame, place = await self._threads.run(export_frame, self._store, query, place)
            # The first tells the revision, also when there is nothing.
            if frame.versions or is_first:
                yield frame
            is_first = False

    async def WatchMemories(
        self, request: reader_pb2.WatchMemoriesRequest, context: object
    ) -> AsyncIterator[reader_pb2.WatchMemoriesResponse]:
        self.check_serving()
        async with aclosing(self._watches.watch(request)) as messages:
            async for message in messages:
                yield message

    async def GetStats(
        self, request: reader_pb2.GetStatsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> reader_pb2.GetStatsResponse:
        self.check_serving()
        await self._reached(request.consistency, context)
        return get_stats(self._store, request)

    def _check_reached(self, as_of: reader_pb2.AsOf) -> None:
        if as_of.WhichOneof("point") == "revision":
            newest = self._store.position().revision
            if as_of.revision > newest:
                raise self.refuse_revision(as_of.revision, newest)
