"""The ReaderService of a replica: gets, lists and searches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.consistency import Demand, demand_of
from agentmem.core.deadlines import allowed_wait_s
from agentmem.core.embedders import Embedders
from agentmem.core.errors import ResourceExhausted, Unavailable, answerable, invalid_field
from agentmem.core.history import Moment, moment_of
from agentmem.core.reader_service import MAX_STALE_WAIT_S, StoreReader
from agentmem.core.store import Store
from agentmem.core.times import boot_time_s, now_us
from agentmem.core.validation import check_batch
from agentmem.core.watching import Watches
from agentmem.replica.consistent_reads import ConsistentReads, Part
from agentmem.replica.index_stats import add_freshness, breakdown, index_stats
from agentmem.replica.past_namespace import PastMovedError
from agentmem.replica.past_views import RETRY_AFTER_S as PAST_RETRY_AFTER_S
from agentmem.replica.past_views import PastView, PastViews
from agentmem.replica.search_answers import outcome_bytes
from agentmem.replica.searcher import MAX_SEARCHES_AGAIN, Asked, Searcher
from agentmem.replica.trace import Trace
from agentmem.replica.view import View
from agentmem.v1 import reader_pb2

MAX_WAITING_SEARCHES = 1024
# For the index of a moment of the past; what takes longer is found ready by who asks again.
MAX_PAST_WAIT_S = 60.0
# Of what is left of the deadline.
PAST_WAIT_SHARE = 0.9
# Below the 64 MiB that a message may have, with room for the failures of the others.
MAX_BATCH_ANSWER_BYTES = 48 * 1024 * 1024
# Of a batch, light searches go on for so long before other calls have their turn.
MAX_HOLD_S = 0.002


class ReplicaReader(StoreReader):
    """Gets, lists, histories and exports from the store, searches from the newest view.

    Attributes:
        past_lookups: of views of the past.
        answer_lookups: of answers that were given before.
        scope_lookups: of what filters leave.
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
        answer_cache_bytes: int,
        index_folder: Path,
    ) -> None:
        super().__init__(store, watches)
        self._searches = BoundedThreads(
            "searches", threads=search_threads, max_calls=search_threads + MAX_WAITING_SEARCHES
        )
        self._search_threads = search_threads
        self._searcher = Searcher(
            store,
            embedders,
            view=view,
            applied_revision=store_part.revision,
            answer_cache_bytes=answer_cache_bytes,
        )
        self._view = view
        self._consistent_reads = consistent_reads
        self._store_part = store_part
        self._view_part = view_part
        self._check_serving = check_serving
        self._past_views = PastViews(store, view)
        self._index_folder = index_folder
        self.past_lookups = self._past_views.lookups
        self.answer_lookups = self._searcher.lookups
        self.scope_lookups = self._searcher.scope_lookups

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

    async def SearchMemories(  # type: ignore[override]
        self, request: reader_pb2.SearchMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        """A SearchMemoriesResponse, serialized."""
        self.check_serving()
        asked = Asked.by(request)
        moment = moment_of(request.as_of, now_us())
        demand = demand_of(request.consistency)
        if demand is not None:
            wait_s = allowed_wait_s(context, MAX_STALE_WAIT_S)
            await self._consistent_reads.reach(self._view_part, demand, wait_s)
        if not moment.is_now:
            return await self._search_past(asked, moment, context)
        known = self._searcher.known(asked)
        if known is not None:
            return known
        if self._searcher.is_light(asked):
            return self._searcher.answer(asked)
        return await self._searches.run(self._searcher.answer, asked)

    async def _search_past(
        self, asked: Asked, moment: Moment, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        query = asked.query
        await self._reach_moment(asked.request.as_of, context)
        needs_text = bool(query.text) and query.mode != "semantic"
        trace = Trace()
        has_moved = False
        for _ in range(MAX_SEARCHES_AGAIN):
            past = await self._past_view(
                query.namespace, moment, context, trace, needs_text=needs_text, has_moved=has_moved
            )
            if past is None:
                continue
            try:
                return await self._searches.run(self._searcher.answer, asked, past, trace.steps)
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

    async def BatchSearchMemories(  # type: ignore[override]
        self, request: reader_pb2.BatchSearchMemoriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        """A BatchSearchMemoriesResponse, serialized."""
        self.check_serving()
        check_batch(len(request.requests), "requests")
        batch = _Batch(len(request.requests))
        light: list[tuple[int, Asked]] = []
        heavy: list[tuple[int, Asked]] = []
        others: list[Awaitable[None]] = []
        for place, each in enumerate(request.requests):
            if each.HasField("consistency") or each.HasField("as_of"):
                others.append(batch.settle(place, self.SearchMemories(each, context)))
                continue
            try:
                asked = Asked.by(each)
            except Exception as error:
                batch.put(place, error)
                continue
            known = self._searcher.known(asked)
            if known is not None:
                batch.put(place, known)
            else:
                is_light = self._searcher.is_light(asked, is_alone=len(request.requests) == 1)
                (light if is_light else heavy).append((place, asked))
        # As many as there are threads, and each thread some of them.
        shares = [share for at in range(self._search_threads) if (share := heavy[at :: self._search_threads])]
        others += [self._answer_heavy(share, batch) for share in shares]
        await asyncio.gather(self._answer_light(light, batch), *others)
        return b"".join(batch.outcomes)

    async def _answer_heavy(self, heavy: Sequence[tuple[int, Asked]], batch: _Batch) -> None:
        works = [partial(self._searcher.answer, asked) for _, asked in heavy]
        try:
            outcomes: Sequence[bytes | Exception] = await self._searches.run_each(works)
        except ResourceExhausted as error:
            outcomes = [error] * len(heavy)
        for (place, _), outcome in zip(heavy, outcomes, strict=True):
            batch.put(place, outcome)

    async def _answer_light(self, light: Sequence[tuple[int, Asked]], batch: _Batch) -> None:
        began_s = time.perf_counter()
        for place, asked in light:
            try:
                batch.put(place, self._searcher.answer(asked))
            except Exception as error:
                batch.put(place, error)
            if time.perf_counter() - began_s > MAX_HOLD_S:
                await asyncio.sleep(0)  # lets the other calls have a turn
                began_s = time.perf_counter()


class _Batch:
    """The outcomes of the searches of a batch, each as a field of the answer to all."""

    def __init__(self, count: int) -> None:
        self.outcomes = [b""] * count
        self._size_bytes = 0

    async def settle(self, place: int, answering: Awaitable[bytes]) -> None:
        """Waits for the answer to one of them."""
        try:
            self.put(place, await answering)
        except Exception as error:
            self.put(place, error)

    def put(self, place: int, outcome: bytes | Exception) -> None:
        """The answer to one of them, unless it is too large beside the others, or why there is none."""
        # As they come, so that what does not fit is not kept either.
        if isinstance(outcome, bytes) and self._size_bytes + len(outcome) > MAX_BATCH_ANSWER_BYTES:
            outcome = ResourceExhausted(
                "ANSWER_TOO_LARGE",
                f"the answers are larger than {MAX_BATCH_ANSWER_BYTES} bytes in all: search alone",
                field="requests",
            )
        if isinstance(outcome, Exception):
            failure = answerable(outcome, "BatchSearchMemories").to_failure()
            self.outcomes[place] = outcome_bytes(failure)
            return
        self._size_bytes += len(outcome)
        self.outcomes[place] = outcome_bytes(outcome)
