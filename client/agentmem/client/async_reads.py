"""The reads of the asynchronous client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Unpack

from agentmem.client import answers, namespaces, searching, values, versions
from agentmem.client.answers import Fuzziness, GetResult, Page, SearchMode, SearchResult
from agentmem.client.async_connection import (
    DEFAULT_PAGE_SIZE,
    MAX_INT32,
    AsyncConnection,
)
from agentmem.client.batches import Get, get_entry, search_entry
from agentmem.client.consistency import Consistency, Position
from agentmem.client.filters import FilterInput, Scope, filter_of, scoped
from agentmem.client.models import Memory
from agentmem.client.namespaces import Stats
from agentmem.client.searching import SearchOrder, SearchWeights
from agentmem.client.versions import AsOf, HistoryPage, MemoryVersion
from agentmem.v1 import reader_pb2

DEFAULT_TOP_K = 10


class AsyncReads(AsyncConnection):
    """What finds memories.

    ``consistency`` says how new the answer must be: EVENTUAL, STRONG, ``at_least(result)``,
    ``max_staleness(seconds)``, or several joined by ``&``; None is the client's own. A node that cannot meet
    it waits for a moment; then others are asked, until the deadline. Strong reads other than searches are
    those of the writer. With at_least they may raise:
        RevisionLost: a promotion left that revision behind.

    ``as_of`` asks for the store as it was: after the commit of a revision, or after every commit up to an
    aware datetime; None is now. A memory whose time was over counts as there until the commit that deleted it
    for a revision, and not for a datetime. Purged memories were never there. For a datetime a replica answers
    with the commits that it has, see ``applied_revision``. Reads with it may raise:
        HistoryPruned: retention has removed a version that would be in the answer.
        InvalidArgument: the revision is behind the newest one.
        Unavailable: of a search, no replica has the revision, or an index of that moment (PAST_NOT_READY), in
            time; it goes on being made.
        ResourceExhausted: of a search, the namespace had more memories then than it is made for
            (PAST_TOO_LARGE).
    """

    async def get(
        self,
        namespace: str,
        id: str,
        *,
        as_of: AsOf = None,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
    ) -> Memory | None:
        """The newest version of a memory, without its embedding; None when there is no such memory."""
        get = Get(
            values.text("namespace", namespace),
            (values.text("id", id),),
            False,
            None if as_of is None else versions.as_of_to_proto(as_of),
        )
        found = await self._get(get, consistency, timeout_s)
        return found.memories[0] if found.memories else None

    async def get_many(
        self,
        namespace: str,
        ids: Sequence[str],
        *,
        include_embedding: bool = False,
        as_of: AsOf = None,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
    ) -> GetResult:
        """The newest versions of 1 to 1,000 memories, in the order of their ids in the call."""
        get = Get(
            values.text("namespace", namespace),
            values.texts("ids", ids),
            values.boolean("include_embedding", include_embedding),
            versions.as_of_to_proto(as_of),
        )
        return await self._get(get, consistency, timeout_s)

    async def _get(self, get: Get, consistency: Consistency | None, timeout_s: float | None) -> GetResult:
        self._ready_router()
        time_s, begun_at_s = self._time(timeout_s), time.monotonic()
        wanted = self._given(consistency)
        if self._has_floor:
            wanted = await self._wanted(get.namespace, wanted, begun_at_s + time_s)
        result = await self._link.batches.gets.call(get_entry(get, wanted, time_s, begun_at_s))
        if self._has_floor:
            self._saw(Position(result.epoch, result.applied_revision))
        return result

    async def list(
        self,
        namespace: str,
        *,
        filter: FilterInput | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
        page_token: str = "",
        include_embedding: bool = False,
        as_of: AsOf = None,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
        **scope: Unpack[Scope],
    ) -> Page:
        """One page of the memories of a namespace, in the order of their ids.

        Args:
            filter: which ones, a Filter or its text; narrowed further by the keywords of Scope.
            page_size: 1 to 1,000 memories.
            page_token: ``next_page_token`` of the page before, with the same filter, scope and as_of.
        """
        request = reader_pb2.ListMemoriesRequest(
            namespace=values.text("namespace", namespace),
            page_size=values.integer("page_size", page_size, low=1, high=MAX_INT32),
            page_token=values.text("page_token", page_token),
            include_embedding=values.boolean("include_embedding", include_embedding),
            as_of=versions.as_of_to_proto(as_of),
        )
        narrowed = scoped(filter, scope)
        if narrowed is not None:
            narrowed.copy_to(request.filter)
        response = await self._read(
            lambda endpoint: endpoint.reader.ListMemories, request, consistency, timeout_s, hedged_as="list"
        )
        return answers.page_from_proto(response)

    async def iterate(
        self,
        namespace: str,
        *,
        filter: FilterInput | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
        include_embedding: bool = False,
        as_of: AsOf = None,
        consistency: Consistency | None = None,
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
            as_of=as_of,
            consistency=consistency,
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
        fuzziness: Fuzziness | None = None,
        top_k: int = DEFAULT_TOP_K,
        filter: FilterInput | None = None,
        min_score: float | None = None,
        order: SearchOrder | str = SearchOrder.SCORE,
        weights: SearchWeights | None = None,
        recency_half_life: timedelta | float | None = None,
        conversational: bool | None = None,
        explain: bool = False,
        include_embedding: bool = False,
        as_of: AsOf = None,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
        **scope: Unpack[Scope],
    ) -> SearchResult:
        """The memories that fit best, best first. Served by replicas alone: waits for one if need be.

        Args:
            text: the question, up to 16 KiB; TEXT, FUZZY and EXACT require it, SEMANTIC unless an embedding
                is given. HYBRID without either is by recency and importance alone.
            embedding: the question's embedding; the server embeds the text when None.
            mode: by meaning and words, by meaning, by words, by words that may be misspelt, or by a phrase.
            fuzziness: how misspelt; FUZZY alone takes it.
            top_k: 1 to 1,000 hits at most.
            filter: among which memories, a Filter or its text; narrowed further by the keywords of Scope.
            min_score: hits with a lower score are left out.
            order: of the hits, a SearchOrder or its name.
            weights, recency_half_life, conversational: of HYBRID alone: what each signal counts for; how old
                a memory is, by event_time, when its recency is one half, a timedelta or seconds (30 days when
                None); whether what is around a memory in its session adds to its score, and that the question
                names its user_id (they do when None).
            explain: the result says how the search was done, and why each hit has its score.
            as_of: what the search would have found then. The first of a moment takes a while, as the replica
                makes an index for it: seconds for 100,000 memories.
        """
        request = reader_pb2.SearchMemoriesRequest(
            namespace=values.text("namespace", namespace),
            text=values.text("text", text),
            embedding=b"" if embedding is None else values.embedding("embedding", embedding),
            mode=answers.search_mode_to_proto(mode),
            fuzziness=answers.fuzziness_to_proto(fuzziness),
            top_k=values.integer("top_k", top_k, low=1, high=MAX_INT32),
            include_embedding=values.boolean("include_embedding", include_embedding),
            as_of=versions.as_of_to_proto(as_of),
            min_score=None if min_score is None else values.number("min_score", min_score),
            order=searching.order_to_proto(order),
            weights=searching.weights_to_proto(weights),
            recency_half_life=(
                None if recency_half_life is None else values.duration("recency_half_life", recency_half_life)
            ),
            conversational=(
                None if conversational is None else values.boolean("conversational", conversational)
            ),
            explain=values.boolean("explain", explain),
        )
        narrowed = scoped(filter, scope)
        if narrowed is not None:
            narrowed.copy_to(request.filter)
        self._ready_router()
        time_s, begun_at_s = self._time(timeout_s), time.monotonic()
        wanted = await self._require(request, consistency, begun_at_s + time_s)
        result = await self._link.batches.searches.call(search_entry(request, wanted, time_s, begun_at_s))
        if self._has_floor:
            self._saw(Position(result.epoch, result.applied_revision))
        return result

    async def history(
        self,
        namespace: str,
        id: str,
        *,
        page_size: int = DEFAULT_PAGE_SIZE,
        page_token: str = "",
        include_embedding: bool = False,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
    ) -> HistoryPage:
        """One page of the versions of a memory, newest first; also of one that was deleted.

        Args:
            page_size: 1 to 1,000 versions.
            page_token: ``next_page_token`` of the page before, of the same memory.

        Raises:
            NotFound: no memory ever had this id, or it was purged, or retention has forgotten it.
        """
        request = reader_pb2.GetMemoryHistoryRequest(
            namespace=values.text("namespace", namespace),
            id=values.text("id", id),
            page_size=values.integer("page_size", page_size, low=1, high=MAX_INT32),
            page_token=values.text("page_token", page_token),
            include_embedding=values.boolean("include_embedding", include_embedding),
        )
        response = await self._read(
            lambda endpoint: endpoint.reader.GetMemoryHistory, request, consistency, timeout_s
        )
        return versions.history_page_from_proto(response)

    async def iterate_history(
        self,
        namespace: str,
        id: str,
        *,
        page_size: int = DEFAULT_PAGE_SIZE,
        include_embedding: bool = False,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[MemoryVersion]:
        """Every version that ``history`` has, page by page; ``timeout_s`` is for each page."""
        pages = self._history_pages(
            namespace,
            id,
            page_size=page_size,
            include_embedding=include_embedding,
            consistency=consistency,
            timeout_s=timeout_s,
        )
        async for page in pages:
            for version in page.versions:
                yield version

    async def stats(
        self,
        namespace: str,
        *,
        breakdown: bool = False,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
    ) -> Stats:
        """What a namespace and the store of one node hold; zeros before the first write to it.

        Args:
            breakdown: counts by type and owner, and the indexes, too. Served by replicas alone: waits for one
                if need be.
        """
        request = reader_pb2.GetStatsRequest(
            namespace=values.text("namespace", namespace), breakdown=values.boolean("breakdown", breakdown)
        )
        response = await self._read(
            lambda endpoint: endpoint.reader.GetStats,
            request,
            consistency,
            timeout_s,
            is_search=breakdown,
        )
        return namespaces.stats_from_proto(response)

    async def _pages(
        self,
        namespace: str,
        *,
        filter: FilterInput | None,
        page_size: int,
        include_embedding: bool,
        as_of: AsOf,
        consistency: Consistency | None,
        timeout_s: float | None,
        **scope: Unpack[Scope],
    ) -> AsyncIterator[Page]:
        page_token = ""
        # Read once: ``now`` in a text is the same for all pages.
        filter = filter_of(filter)
        while True:
            page = await self.list(
                namespace,
                filter=filter,
                page_size=page_size,
                page_token=page_token,
                include_embedding=include_embedding,
                as_of=as_of,
                consistency=consistency,
                timeout_s=timeout_s,
                **scope,
            )
            yield page
            page_token = page.next_page_token
            if not page_token:
                return

    async def _history_pages(
        self,
        namespace: str,
        id: str,
        *,
        page_size: int,
        include_embedding: bool,
        consistency: Consistency | None,
        timeout_s: float | None,
    ) -> AsyncIterator[HistoryPage]:
        page_token = ""
        while True:
            page = await self.history(
                namespace,
                id,
                page_size=page_size,
                page_token=page_token,
                include_embedding=include_embedding,
                consistency=consistency,
                timeout_s=timeout_s,
            )
            yield page
            page_token = page.next_page_token
            if not page_token:
                return
