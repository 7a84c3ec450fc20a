"""The ReaderService of a replica: gets, lists and searches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.call_metrics import current_call
from agentmem.core.consistency import Demand, demand_of
from agentmem.core.deadlines import allowed_wait_s
from agentmem.core.embedders import Embedders
from agentmem.core.errors import (
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    answerable,
    invalid_field,
)
from agentmem.core.history import Moment, is_expired, moment_of
from agentmem.core.layout import NamespaceState
from agentmem.core.reader_service import MAX_STALE_WAIT_S, StoreReader
from agentmem.core.reading import add_embedding, checked_size
from agentmem.core.records import FloatVector
from agentmem.core.store import Store
from agentmem.core.times import boot_time_s, now_us
from agentmem.core.validation import check_batch
from agentmem.core.watching import Watches
from agentmem.replica.consistent_reads import ConsistentReads, Part
from agentmem.replica.index_stats import add_freshness, breakdown, index_stats
from agentmem.replica.observed_search import ObservedSearch
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.past_namespace import PastMovedError
from agentmem.replica.past_views import RETRY_AFTER_S as PAST_RETRY_AFTER_S
from agentmem.replica.past_views import PastView, PastViews
from agentmem.replica.replacements import replacements
from agentmem.replica.search import WORD_MODES, Mode, ScoredOrdinal, SearchQuery, search
from agentmem.replica.search_requests import explanation_of, query_of, signals_of
from agentmem.replica.trace import Step, Trace
from agentmem.replica.view import View
from agentmem.v1 import (
    memory_pb2,
    reader_pb2,
)

# When what a search found has been removed meanwhile, it is repeated without that.
MAX_SEARCHES_AGAIN = 3
MAX_WAITING_SEARCHES = 1024
# For the index of a moment of the past; what takes longer is found ready by who asks again.
MAX_PAST_WAIT_S = 60.0
# Of what is left of the deadline.
PAST_WAIT_SHARE = 0.9
# Below the 64 MiB that a message may have, with room for the failures of the others.
MAX_BATCH_ANSWER_BYTES = 48 * 1024 * 1024


class ReplicaReader(StoreReader):
    """Gets, lists, histories and exports from the store, searches from the newest view.

    Attributes:
        past_lookups: of views of the past.
    """

    def __init__(
        self,
        store: Store,
        watches: Watches,
        embedders: Embedders,
        *,
        view: Callable[[], View],
        consistent_reads: ConsistentReads,
        store_part: Part,
        view_part: Part,
        check_serving: Callable[[], None],
        search_threads: int,
        index_folder: Path,
    ) -> None:
        super().__init__(store, watches)
        self._searches = BoundedThreads(
            "searches", threads=search_threads, max_calls=search_threads + MAX_WAITING_SEARCHES
        )
        self._embedders = embedders
        self._view = view
        self._consistent_reads = consistent_reads
        self._store_part = store_part
        self._view_part = view_part
        self._check_serving = check_serving
        self._past_views = PastViews(store, view)
        self._index_folder = index_folder
        self.past_lookups = self._past_views.lookups

    @property
    def searches(self) -> int:
        """How many run or wait for a thread."""
        return self._searches.calls

    def close(self) -> None:
        super().close()
        self._searches.close()
        self._past_views.close()

    def check_serving(self) -> None:
        self._check_serving()

    async def reach(self, demand: Demand, wait_s: float) -> None:
        await self._consistent_reads.reach(self._store_part, demand, wait_s)

    async def GetStats(
        self, request: reader_pb2.GetStatsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> reader_pb2.GetStatsResponse:
        response = await super().GetStats(request, context)
        if request.breakdown:
            demand = demand_of(request.consistency)
            if demand is not None:
                wait_s = allowed_wait_s(context, MAX_STALE_WAIT_S)
                await self._consistent_reads.reach(self._view_part, demand, wait_s)
            # In a thread: a namespace may have many thousand sessions.
            await self._searches.run(self._break_down, request.namespace, response)
            add_freshness(response.indexes, self._store_part, self._view_part)
        return response

    def _break_down(self, namespace: str, response: reader_pb2.GetStatsResponse) -> None:
        view = self._view()
        response.breakdown.CopyFrom(breakdown(view, namespace))
        response.indexes.CopyFrom(index_stats(view, namespace, self._index_folder))

    async def SearchMemories(
        self, request: reader_pb2.SearchMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> reader_pb2.SearchMemoriesResponse:
        self.check_serving()
        query, given = query_of(request)
        moment = moment_of(request.as_of, now_us())
        demand = demand_of(request.consistency)
        if demand is not None:
            wait_s = allowed_wait_s(context, MAX_STALE_WAIT_S)
            await self._consistent_reads.reach(self._view_part, demand, wait_s)
        search_in = partial(self._search, request, query, given, ObservedSearch(current_call()))
        if moment.is_now:
            return await self._searches.run(search_in)
        await self._reach_moment(request.as_of, context)
        needs_text = bool(query.text) and query.mode != "semantic"
        trace = Trace()
        has_moved = False
        for _ in range(MAX_SEARCHES_AGAIN):
            past = await self._past_view(
                request.namespace, moment, context, trace, needs_text=needs_text, has_moved=has_moved
            )
            if past is None:
                continue
            try:
                return await self._searches.run(search_in, past, trace.steps)
            except PastMovedError:
                has_moved = True  # it is built anew, or refused
        raise Unavailable(
            "PAST_NOT_READY",
            f"it was built {MAX_SEARCHES_AGAIN} times and then removed or changed: ask again",
            retry_after_s=PAST_RETRY_AFTER_S,
            field="as_of",
        )

    async def _reach_moment(
        self, as_of: reader_pb2.AsOf, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Returns when searches show the revision that is asked for.

        Raises:
            Unavailable: ``REPLICA_STALE``, they do not in time.
            InvalidArgument: there was no such revision yet when the search came.
        """
        if as_of.revision <= self._view().revision:
            return
        wait_s = allowed_wait_s(context, MAX_STALE_WAIT_S)
        # What had been acknowledged by now is waited for. What is not among that cannot be meant.
        everything = Demand(as_of_s=boot_time_s(), fresh_field="as_of.revision")
        try:
            await self._consistent_reads.reach(self._view_part, everything, wait_s)
        except Unavailable as error:
            if as_of.revision > self._view().revision:
                raise self.refuse_revision(as_of.revision, self._view().revision) from error
        newest = self._view().revision
        if as_of.revision > newest:
            raise invalid_field("as_of.revision", f"is {as_of.revision}; the newest revision is {newest}")

    async def _past_view(
        self,
        namespace: str,
        moment: Moment,
        context: grpc.aio.ServicerContext[Any, Any],
        trace: Trace,
        *,
        needs_text: bool,
        has_moved: bool,
    ) -> PastView | None:
        """The namespace at a moment of the past; None when it was changed as soon as it was built.

        Args:
            has_moved: the store lost a part of what was found before, maybe the state of the view itself.
        """
        find = partial(self._past_views.find, namespace, moment, needs_text=needs_text)
        with trace.step("past") as step:
            found = None if has_moved else await self._searches.run(find)
            plan = "an index of that moment, kept"
            if found is None:
                # In time for the answer, and for those of the others in a batch.
                wait_s = PAST_WAIT_SHARE * allowed_wait_s(context, MAX_PAST_WAIT_S)
                built = await self._past_views.build(namespace, moment, needs_text=needs_text, wait_s=wait_s)
                # The build may have begun for somebody else, before what this search has to show was there.
                found = built if has_moved else await self._searches.run(find)
                plan = "an index of that moment, built for this search"
            if found is None:
                step.plan = "built, and changed at once: again"
                return None
            if not found.view.namespaces:
                plan = "a namespace that was never written to"
            elif found.source is None:
                plan = "the present: nothing has changed since"
            step.plan = plan
            step.memories = sum(len(each.live) for each in found.view.namespaces.values())
            return found

    async def BatchSearchMemories(
        self, request: reader_pb2.BatchSearchMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> reader_pb2.BatchSearchMemoriesResponse:
        self.check_serving()
        check_batch(len(request.requests), "requests")
        size_bytes = 0

        async def result_of(each: reader_pb2.SearchMemoriesRequest) -> reader_pb2.BatchSearchResult:
            nonlocal size_bytes
            try:
                response = await self.SearchMemories(each, context)
                # As they come, so that what does not fit is not kept either.
                if size_bytes + response.ByteSize() > MAX_BATCH_ANSWER_BYTES:
                    raise ResourceExhausted(
                        "ANSWER_TOO_LARGE",
                        f"the answers are larger than {MAX_BATCH_ANSWER_BYTES} bytes in all: search alone",
                        field="requests",
                    )
                size_bytes += response.ByteSize()
                return reader_pb2.BatchSearchResult(response=response)
            except Exception as error:
                failure = answerable(error, "BatchSearchMemories").to_failure()
                return reader_pb2.BatchSearchResult(failure=failure)

        results = await asyncio.gather(*(result_of(each) for each in request.requests))
        return reader_pb2.BatchSearchMemoriesResponse(results=results)

    def _search(
        self,
        request: reader_pb2.SearchMemoriesRequest,
        query: SearchQuery,
        given: FloatVector | None,
        observed: ObservedSearch,
        past: PastView | None = None,
        steps: Sequence[Step] = (),
    ) -> reader_pb2.SearchMemoriesResponse:
        """Raises PastMovedError when the store no longer has what a view of the past shows.

        Args:
            steps: what was done before.
        """
        observed.began()
        view, at_us = (self._view(), now_us()) if past is None else (past.view, past.time_us)
        response = reader_pb2.SearchMemoriesResponse(applied_revision=view.revision, epoch=view.epoch)
        namespace = view.namespaces.get(request.namespace)
        if namespace is None:
            if request.explain:
                response.explanation.CopyFrom(explanation_of(Trace([*steps]), ""))
            return response
        state = namespace.state
        has_question = query.mode not in WORD_MODES and (query.text or given is not None)
        with observed.embedding():
            vector = self._query_vector(state, query.mode, query.text, given) if has_question else None
        query = replace(query, vector=vector, now_us=at_us)
        trace = Trace([*steps])
        for _ in range(MAX_SEARCHES_AGAIN):
            trace = Trace([*steps])
            hits = search(view, query, trace)
            response = reader_pb2.SearchMemoriesResponse(applied_revision=view.revision, epoch=view.epoch)
            with trace.step("read") as step:
                gone = self._fill(response, hits, request, query, is_past=past is not None)
                step.memories = len(response.hits)
            if not gone:
                break
            if past is not None:
                raise PastMovedError
            # They were deleted, and removed, since the view was made. The newest view may know.
            view = self._view()
            query = replace(query, excluded=query.excluded | gone)
        observed.ended(request, trace)
        if request.explain:
            model = "" if vector is None or given is not None else state.model
            response.explanation.CopyFrom(explanation_of(trace, model))
        return response

    def _fill(
        self,
        response: reader_pb2.SearchMemoriesResponse,
        hits: Sequence[ScoredOrdinal],
        request: reader_pb2.SearchMemoriesRequest,
        query: SearchQuery,
        *,
        is_past: bool,
    ) -> OrdinalSet:
        """Adds the hits' memories to the response; returns the ordinals that the store has no more.

        A version that was replaced, and removed by retention, since the view was made is shown as what
        replaced it, when that matches the filter too.
        """
        gone = OrdinalSet()
        size_bytes = 0
        with self._store.read() as transaction:
            found = {hit.ordinal: (hit.ordinal, transaction.record(hit.ordinal)) for hit in hits}
            removed = [ordinal for ordinal, (_, record) in found.items() if record is None]
            if removed and not is_past:
                for ordinal, newest in replacements(transaction, removed).items():
                    record = transaction.record(newest)
                    if record is not None and _matches(query, record.memory):
                        found[ordinal] = newest, record
            for hit in hits:
                ordinal, record = found[hit.ordinal]
                if record is None:
                    gone.add(ordinal)
                    continue
                if request.include_embedding:
                    add_embedding(transaction, ordinal, record.memory)
                size_bytes = checked_size(size_bytes, record.memory.ByteSize(), "top_k")
                added = response.hits.add(score=hit.score, memory=record.memory)
                if request.explain:
                    added.signals.CopyFrom(signals_of(hit))
        return gone

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
        name = self._embedders.name_of(space.model)
        if not name:
            raise self._embedders.required(space, "send one, or search with mode TEXT")
        (vector,) = self._embedders.named(name).embed([text])
        if vector is not None and len(vector) != space.dimension:
            raise self._embedders.required(space, "send one, or search with mode TEXT")
        if vector is None and mode == "semantic":
            raise invalid_field("text", "has no words that the embedder knows")
        return vector


def _matches(query: SearchQuery, memory: memory_pb2.Memory) -> bool:
    return not is_expired(memory, query.now_us) and (query.filter is None or query.filter.matches(memory))
