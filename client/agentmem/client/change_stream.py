"""The changes of one watch, from one node after the other: what AsyncWatch and Watch have in common."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable

import grpc

from agentmem.client import selection
from agentmem.client.changes import MemoryChange, WatchPosition, changes_from_proto
from agentmem.client.errors import (
    AgentMemError,
    DeadlineExceeded,
    HistoryPruned,
    Unavailable,
    from_server,
    invalid_field,
)
from agentmem.client.routing import Router
from agentmem.client.selection import Route
from agentmem.client.verdicts import Verdict, verdict
from agentmem.v1 import reader_pb2

# A node says something at least about once a second; one that is silent for this long hangs.
SILENCE_TIMEOUT_S = 5.0
# A stream that breaks sooner counts as a failure; the second in a row, and each after it, is waited behind.
STEADY_S = 1.0
FIRST_WAIT_S = 0.05
MAX_WAIT_S = 1.0


class ChangeStream:
    """Changes in their order, each once, wherever they come from. Belongs to one event loop.

    Holds the changes of one message at the most, of about 256 KiB or one larger change; the next is asked for
    when these are taken.

    Attributes:
        position: behind every change that was taken, and what lies between it and the next; None before a
            watch from now on, or from a revision on, has heard of a node.
    """

    def __init__(
        self,
        ready_router: Callable[[], Router],
        request: reader_pb2.WatchMemoriesRequest,
        after: WatchPosition | None,
        timeout_s: float,
    ) -> None:
        self.position = after if after is not None and after.cluster_id else None
        self._ready_router = ready_router
        self._request = request
        self._timeout_s = timeout_s
        self._rng = random.Random()
        self._pending: deque[MemoryChange] = deque()
        # Behind the pending changes.
        self._reached = after
        self._messages: AsyncGenerator[reader_pb2.WatchMemoriesResponse, None] | None = None
        self._cluster_id = ""
        self._began_s = 0.0
        self._failures = 0
        self._route = Route.REPLICAS_THEN_WRITER
        # What a replica said that the writer is asked about: it may have kept more.
        self._refusal: HistoryPruned | None = None
        self._filling: asyncio.Task[object] | None = None
        self.closed = False

    def pop(self) -> MemoryChange | None:
        """The next change, if it is here already."""
        if not self._pending:
            return None
        change = self._pending.popleft()
        self.position = change.position if self._pending else self._reached
        return change

    async def fill(self) -> None:
        """Returns when there is a change to take, or the stream is closed.

        When it raises, it may be called again and goes on from the same place.

        Raises:
            Unavailable: no node could be reached for the time that the caller gave.
            AgentMemError: what a node answered, and any other would.
        """
        task = self._filling = asyncio.current_task()
        try:
            await self._fill()
        except asyncio.CancelledError:
            # ``aclose`` ends the wait of whoever waits, and does not cancel the task itself.
            if not self.closed or task is None or task.uncancel():
                raise
        finally:
            self._filling = None

    async def _fill(self) -> None:
        self._route, self._refusal = Route.REPLICAS_THEN_WRITER, None
        # Set while there is no stream.
        give_up_s: float | None = None
        while not self._pending and not self.closed:
            if give_up_s is None and self._messages is None:
                give_up_s = time.monotonic() + self._timeout_s
            try:
                message = await self._next_message(give_up_s)
            except AgentMemError as error:
                if not await self._passes(error, give_up_s):
                    raise
            else:
                give_up_s = None
                self._take(message)

    def _take(self, message: reader_pb2.WatchMemoriesResponse) -> None:
        before = self._reached
        changes, self._reached = changes_from_proto(self._cluster_id, message)
        self._pending.extend(changes)
        if not changes:
            self.position = self._reached
        # The first message of a stream tells the place that it begins at, and not that it gets any further.
        if before is None or _place(self._reached) != _place(before):
            self._route, self._refusal = Route.REPLICAS_THEN_WRITER, None
        if time.monotonic() - self._began_s >= STEADY_S:
            self._failures = 0

    async def _next_message(self, give_up_s: float | None) -> reader_pb2.WatchMemoriesResponse:
        try:
            if self._messages is None:
                left_s = self._timeout_s if give_up_s is None else give_up_s - time.monotonic()
                self._messages = await self._begin(left_s)
            message = await anext(self._messages, None)
            if message is None:
                raise Unavailable("the node ended the stream", reason="STREAM_ENDED")
        except BaseException:
            # A generator that has raised, or was cancelled, is over; so is its call.
            self._messages = None
            raise
        return message

    async def _begin(self, timeout_s: float) -> AsyncGenerator[reader_pb2.WatchMemoriesResponse, None]:
        router = self._ready_router()
        self._began_s = time.monotonic()
        self._cluster_id = (await router.topology(time.monotonic() + timeout_s)).cluster_id
        after = self._reached
        if after is not None:
            if after.cluster_id not in ("", self._cluster_id):
                raise invalid_field("after", f"is of cluster {after.cluster_id}, not of {self._cluster_id}")
            self._request.after.CopyFrom(
                reader_pb2.WatchPosition(
                    epoch=after.epoch, revision=after.revision, operation=after.operation
                )
            )
        return router.stream(
            lambda endpoint: endpoint.reader.WatchMemories,
            self._request,
            route=self._route,
            timeout_s=timeout_s,
            silence_s=SILENCE_TIMEOUT_S,
        )

    async def _passes(self, error: AgentMemError, give_up_s: float | None) -> bool:
        """Whether to go on after an error, at another node or later; waits as long as that takes."""
        if isinstance(error, HistoryPruned) and self._route is not Route.WRITER:
            self._route, self._refusal = Route.WRITER, error
            return True
        if not _is_passing(error):
            return False
        left_s = self._timeout_s if give_up_s is None else give_up_s - time.monotonic()
        if left_s <= 0:
            if self._refusal is not None:
                raise self._refusal from error
            if isinstance(error, DeadlineExceeded):
                raise Unavailable(error.message, reason="NO_NODE_AVAILABLE") from error
            return False
        if self._failures:
            wait_s = selection.backoff_s(
                self._failures - 1, first_s=FIRST_WAIT_S, cap_s=MAX_WAIT_S, rng=self._rng
            )
            await asyncio.sleep(min(wait_s, left_s))
        self._failures += 1
        return True

    async def aclose(self) -> None:
        """Ends the stream, and the wait of whoever waits for it. May be called twice."""
        self.closed = True
        self._pending.clear()
        if self._filling is not None:
            self._filling.cancel()
        elif self._messages is not None:
            messages, self._messages = self._messages, None
            await messages.aclose()


def _place(position: WatchPosition) -> tuple[int, int]:
    return position.revision, position.operation


def _is_passing(error: AgentMemError) -> bool:
    """Whether another node, or this one later, may say otherwise."""
    # grpc gives these for some broken connections.
    is_broken = error.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and not from_server(error)
    return is_broken or isinstance(error, DeadlineExceeded) or verdict(error) is not Verdict.FINAL
