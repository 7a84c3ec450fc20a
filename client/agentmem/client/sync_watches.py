"""Watches of the synchronous client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, Unpack

from agentmem.client.async_client import AsyncClient
from agentmem.client.change_stream import ChangeStream
from agentmem.client.changes import After, MemoryChange, WatchPosition
from agentmem.client.filters import FilterInput, Scope
from agentmem.client.sync_connection import SyncConnection


class Watch:
    """The changes of a namespace, as they come, until it is closed; see AsyncWatch.

        with client.watch("demo", after=token) as watch:
            for change in watch:
                ...  # deal with the change, then keep change.position.token

    One thread iterates over it; any may close it.
    """

    def __init__(
        self,
        stream: ChangeStream,
        run: Callable[[Coroutine[Any, Any, None]], None],
        end: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._stream = stream
        self._run = run
        self._end = end

    @property
    def position(self) -> WatchPosition | None:
        """Behind every change that was handed out; see AsyncWatch.position."""
        return self._stream.position

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MemoryChange:
        while (change := self._stream.pop()) is None:
            if self._stream.closed:
                raise StopIteration
            self._run(self._stream.fill())
        return change

    def close(self) -> None:
        """Ends the watch, also for a thread that waits for the next change. May be called twice."""
        self._end(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class SyncWatches(SyncConnection):
    """What follows changes; see AsyncWatches."""

    _client: AsyncClient

    def watch(
        self,
        namespace: str,
        *,
        after: After = None,
        filter: FilterInput | None = None,
        include_embedding: bool = False,
        skip_pruned: bool = False,
        timeout_s: float | None = None,
        **scope: Unpack[Scope],
    ) -> Watch:
        """The changes of a namespace in their order; see AsyncClient.watch."""
        watch = self._client.watch(
            namespace,
            after=after,
            filter=filter,
            include_embedding=include_embedding,
            skip_pruned=skip_pruned,
            timeout_s=timeout_s,
            **scope,
        )
        return Watch(watch._stream, self._run, self._end)
