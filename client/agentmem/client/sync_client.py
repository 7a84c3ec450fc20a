"""The synchronous client: each method runs its namesake of AsyncClient on a background event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from agentmem.client.async_client import DEFAULT_PAGE_SIZE, DEFAULT_TIMEOUT_S, DEFAULT_TOP_K, AsyncClient
from agentmem.client.errors import ClientClosed
from agentmem.client.filters import Filter, Scope
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
from agentmem.client.topology import Topology

Result = TypeVar("Result")

# Calls that close() cut off have this long to tell their threads so.
_CLOSE_GRACE_S = 1.0


class Client:
    """A client of an AgentMem cluster, for any number of threads.

        with Client("127.0.0.1:7600") as client:
            client.add("demo", "Ana moved to Lisbon", user_id="ana")
            found = client.search("demo", "where does Ana live?", user_id="ana")

    It behaves as AsyncClient, whose methods say what each takes, returns and raises. It owns one thread
    until it is closed.
    """

    def __init__(self, *endpoints: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._client = AsyncClient(*endpoints, timeout_s=timeout_s)
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentmem client", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return repr(self._client).removeprefix("Async")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends calls that are on their way with ClientClosed, the connections and the thread.

        May be called twice, and from any thread.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            closing = asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop)
        closing.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(
        self,
        namespace: str,
        memory: str | NewMemory,
        /,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[AddFields],
    ) -> AddResult:
        """Adds one memory; see AsyncClient.add."""
        return self._run(self._client.add(namespace, memory, timeout_s=timeout_s, **fields))

    def add_many(
        self, namespace: str, memories: Sequence[str | NewMemory], *, timeout_s: float | None = None
    ) -> AddResult:
        """Adds memories in one commit; see AsyncClient.add_many."""
        return self._run(self._client.add_many(namespace, memories, timeout_s=timeout_s))

    def update(
        self,
        namespace: str,
        id: str,
        *,
        expected_version: int | None = None,
        timeout_s: float | None = None,
        **fields: Unpack[UpdateFields],
    ) -> Memory:
        """Makes a new version of a memory; see AsyncClient.update."""
        return self._run(
            self._client.update(
                namespace, id, expected_version=expected_version, timeout_s=timeout_s, **fields
            )
        )

    def delete(
        self, namespace: str, ids: str | Sequence[str], *, timeout_s: float | None = None
    ) -> DeleteResult:
        """Deletes memories; see AsyncClient.delete."""
        return self._run(self._client.delete(namespace, ids, timeout_s=timeout_s))

    def get(self, namespace: str, id: str, *, timeout_s: float | None = None) -> Memory | None:
        """The newest version of a memory, or None; see AsyncClient.get."""
        return self._run(self._client.get(namespace, id, timeout_s=timeout_s))

    def get_many(
        self,
        namespace: str,
        ids: Sequence[str],
        *,
        include_embedding: bool = False,
        timeout_s: float | None = None,
    ) -> GetResult:
        """The newest versions of memories; see AsyncClient.get_many."""
        return self._run(
            self._client.get_many(namespace, ids, include_embedding=include_embedding, timeout_s=timeout_s)
        )

    def list(
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
        """One page of the memories of a namespace; see AsyncClient.list."""
        return self._run(
            self._client.list(
                namespace,
                filter=filter,
                page_size=page_size,
                page_token=page_token,
                include_embedding=include_embedding,
                timeout_s=timeout_s,
                **scope,
            )
        )

    def iterate(
        self,
        namespace: str,
        *,
        filter: Filter | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
        include_embedding: bool = False,
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
            timeout_s=timeout_s,
            **scope,
        )
        while (page := self._run(_next(pages))) is not None:
            yield from page.memories

    def search(
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
        """The memories that fit best; see AsyncClient.search."""
        return self._run(
            self._client.search(
                namespace,
                text,
                embedding=embedding,
                mode=mode,
                top_k=top_k,
                filter=filter,
                include_embedding=include_embedding,
                timeout_s=timeout_s,
                **scope,
            )
        )

    def topology(self, *, timeout_s: float | None = None) -> Topology:
        """The cluster as the writer sees it now; see AsyncClient.topology."""
        return self._run(self._client.topology(timeout_s=timeout_s))

    def _run(self, call: Coroutine[Any, Any, Result]) -> Result:
        # Under the lock, so that nothing is handed to a loop that is about to stop.
        with self._lock:
            if self._closed:
                call.close()
                raise ClientClosed("the client is closed")
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C ends the wait of this thread alone; the call shall not go on behind its back.
            future.cancel()
            raise

    async def _shut_down(self) -> None:
        await self._client.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        if calls:
            _, late = await asyncio.wait(calls, timeout=_CLOSE_GRACE_S)
            for call in late:
                call.cancel()
        await self._loop.shutdown_asyncgens()


async def _next(pages: AsyncIterator[Page]) -> Page | None:
    return await anext(pages, None)
