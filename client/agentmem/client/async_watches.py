"""Watches of the asynchronous client."""

from __future__ import annotations

from types import TracebackType
from typing import Self, Unpack

from agentmem.client import changes, values
from agentmem.client.async_connection import AsyncConnection
from agentmem.client.change_stream import ChangeStream
from agentmem.client.changes import After, MemoryChange, WatchPosition
from agentmem.client.filters import FilterInput, Scope, scoped
from agentmem.v1 import reader_pb2


class AsyncWatch:
    """The changes of a namespace, as they come, until it is closed.

        async with client.watch("demo", after=token) as watch:
            async for change in watch:
                ...  # deal with the change, then keep change.position.token

    After an error it can be iterated over again, and goes on from the same place.
    """

    def __init__(self, stream: ChangeStream) -> None:
        self._stream = stream

    @property
    def position(self) -> WatchPosition | None:
        """Behind every change that was handed out; while somebody waits for the next, it moves on.

        None before a watch from now on has heard of a node.
        """
        return self._stream.position

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MemoryChange:
        while (change := self._stream.pop()) is None:
            if self._stream.closed:
                raise StopAsyncIteration
            await self._stream.fill()
        return change

    async def aclose(self) -> None:
        """Ends the watch, also for a task that waits for the next change. May be called twice."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncWatches(AsyncConnection):
    """What follows changes."""

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
    ) -> AsyncWatch:
        """The changes of a namespace in their order: each once, and none left out.

        They come from a replica, or from the writer when there is none. When that node is lost, hangs or
        shuts down, the watch goes on at another one. The changes of a purged memory are no longer there for
        those who come later; what they get is the purge.

        Args:
            after: the position of the last change that was dealt with, its token, or a revision, such as that
                of a write; 0 is the beginning. None is now: the position of the first node that answers.
            filter: memories that match after or before the change; narrowed further by the keywords of Scope.
                Purges come whatever it says.
            skip_pruned: leave out versions that retention has removed, instead of raising HistoryPruned.
            timeout_s: how long there may be no node to go on with.

        Raises, when it is iterated over:
            HistoryPruned: what comes next is not there any more: retention has removed a version, or the log
                does not reach back so far. List the namespace, and watch from now on.
            RevisionLost: a promotion has left the position behind.
            InvalidArgument: ``after`` is of another cluster, or in its future.
            Unavailable: no node could be reached for ``timeout_s``.
        """
        request = reader_pb2.WatchMemoriesRequest(
            namespace=values.text("namespace", namespace),
            include_embedding=values.boolean("include_embedding", include_embedding),
            skip_pruned=values.boolean("skip_pruned", skip_pruned),
        )
        narrowed = scoped(filter, scope)
        if narrowed is not None:
            narrowed.copy_to(request.filter)
        start = changes.start_of(after)
        return AsyncWatch(ChangeStream(self._ready_router, request, start, self._time(timeout_s)))
