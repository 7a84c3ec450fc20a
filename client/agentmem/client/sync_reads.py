"""The reads of the synchronous client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Unpack

from agentmem.client.answers import Fuzziness, GetResult, Page, SearchMode, SearchResult
from agentmem.client.async_connection import DEFAULT_PAGE_SIZE
from agentmem.client.async_reads import DEFAULT_TOP_K
from agentmem.client.consistency import Consistency
from agentmem.client.filters import FilterInput, Scope
from agentmem.client.models import Memory
from agentmem.client.namespaces import Stats
from agentmem.client.searching import SearchOrder, SearchWeights
from agentmem.client.sync_connection import SyncConnection, following
from agentmem.client.versions import AsOf, HistoryPage, MemoryVersion


class SyncReads(SyncConnection):
    """What finds memories and tells about the cluster; see AsyncReads."""

    def get(
        self,
        namespace: str,
        id: str,
        *,
        as_of: AsOf = None,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
    ) -> Memory | None:
        """The newest version of a memory, or None; see AsyncClient.get."""
        return self._run(
            self._client.get(namespace, id, as_of=as_of, consistency=consistency, timeout_s=timeout_s)
        )

    def get_many(
        self,
        namespace: str,
        ids: Sequence[str],
        *,
        include_embedding: bool = False,
        as_of: AsOf = None,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
    ) -> GetResult:
        """The newest versions of memories; see AsyncClient.get_many."""
        return self._run(
            self._client.get_many(
                namespace,
                ids,
                include_embedding=include_embedding,
                as_of=as_of,
                consistency=consistency,
                timeout_s=timeout_s,
            )
        )

    def list(
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
        """One page of the memories of a namespace; see AsyncClient.list."""
        return self._run(
            self._client.list(
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
        )

    def iterate(
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
    ) -> Iterator[Memory]:
        """Every memory that ``list`` has, page by page; see AsyncClient.iterate."""
        # A page at a time: a memory at a time would cross to the other thread for each.
        pages = self._client._pages(
            namespace,
            filter=filter,
            page_size=page_size,
            include_embedding=include_embedding,
            as_of=as_of,
            consistency=consistency,
            timeout_s=timeout_s,
            **scope,
        )
        while (page := self._run(following(pages))) is not None:
            yield from page.memories

    def search(
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
        """The memories that fit best; see AsyncClient.search."""
        return self._run(
            self._client.search(
                namespace,
                text,
                embedding=embedding,
                mode=mode,
                fuzziness=fuzziness,
                top_k=top_k,
                filter=filter,
                min_score=min_score,
                order=order,
                weights=weights,
                recency_half_life=recency_half_life,
                conversational=conversational,
                explain=explain,
                include_embedding=include_embedding,
                as_of=as_of,
                consistency=consistency,
                timeout_s=timeout_s,
                **scope,
            )
        )

    def history(
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
        """One page of the versions of a memory, newest first; see AsyncClient.history."""
        return self._run(
            self._client.history(
                namespace,
                id,
                page_size=page_size,
                page_token=page_token,
                include_embedding=include_embedding,
                consistency=consistency,
                timeout_s=timeout_s,
            )
        )

    def iterate_history(
        self,
        namespace: str,
        id: str,
        *,
        page_size: int = DEFAULT_PAGE_SIZE,
        include_embedding: bool = False,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[MemoryVersion]:
        """Every version that ``history`` has, page by page; see AsyncClient.iterate_history."""
        pages = self._client._history_pages(
            namespace,
            id,
            page_size=page_size,
            include_embedding=include_embedding,
            consistency=consistency,
            timeout_s=timeout_s,
        )
        while (page := self._run(following(pages))) is not None:
            yield from page.versions

    def stats(
        self,
        namespace: str,
        *,
        breakdown: bool = False,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
    ) -> Stats:
        """What a namespace and the store hold; see AsyncClient.stats."""
        return self._run(
            self._client.stats(namespace, breakdown=breakdown, consistency=consistency, timeout_s=timeout_s)
        )
