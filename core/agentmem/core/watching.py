"""WatchMemories: a stream for each watcher, which reads the store's own log from its own place.

There is no queue for a watcher. News of its namespace set a signal (log_tail.py); the stream that waits on it
reads on, a message at a time, and gRPC's flow control holds it back when the watcher is slow.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.changes import ChangeReader, Place, PositionAhead, Step, WatchQuery, start_place
from agentmem.core.errors import AgentMemError, DataLoss, ResourceExhausted, Unavailable, invalid_field
from agentmem.core.filters import compile_filter
from agentmem.core.log_tail import LogTail, Topic
from agentmem.core.purged_ordinals import PurgedOrdinals
from agentmem.core.signals import Signal
from agentmem.core.store import Store
from agentmem.core.validation import check_namespace
from agentmem.v1 import reader_pb2

MAX_WATCHES = 1000
MAX_WATCH_THREADS = 2
# A watcher without news is told so, and how far its position has moved.
QUIET_INTERVAL_S = 1.0
# How long a replica may take to reach the position that a watcher comes with; another node may be there.
MAX_START_WAIT_S = 0.5
# How long the entry that removed a version may be on its way to a replica that lacks the version already.
MAX_GAP_WAIT_S = 5.0
RETRY_AFTER_S = 1.0


class Watches:
    """All watches of a node.

    Args:
        news: notified when the store has new entries. ``drain`` notifies it, too.
        is_writer: what this node does not have, no other has.
    """

    def __init__(self, store: Store, news: Signal, *, is_writer: bool) -> None:
        self._store = store
        self._news = news
        self._is_writer = is_writer
        # Of their own: a thousand watchers that wake at once shall not be in the way of reads.
        self._threads = BoundedThreads("watches", threads=MAX_WATCH_THREADS, max_calls=MAX_WATCHES + 1)
        self._tail = LogTail(store, news, self._threads)
        self._purged = PurgedOrdinals()
        self._open = 0
        self._closing = False

    async def watch(
        self, request: reader_pb2.WatchMemoriesRequest
    ) -> AsyncGenerator[reader_pb2.WatchMemoriesResponse, None]:
        """The changes behind the position of the request, as they come; the first message has none.

        Raises:
            InvalidArgument: the request can never work.
            FailedPrecondition: ``HISTORY_PRUNED``, what comes next is not there any more; ``REVISION_LOST``.
            ResourceExhausted: ``OVERLOADED``, too many watches are open.
            Unavailable: ``REPLICA_STALE`` or ``SHUTTING_DOWN``: go on at another node.
        """
        check_namespace(request.namespace)
        query = WatchQuery(
            request.namespace,
            compile_filter(request.filter),
            include_embedding=request.include_embedding,
            skip_pruned=request.skip_pruned,
        )
        if self._open >= MAX_WATCHES:
            raise ResourceExhausted(
                "OVERLOADED", f"{self._open} watches are open", retry_after_s=RETRY_AFTER_S
            )
        self._open += 1
        try:
            place = await self._start(request)
            yield reader_pb2.WatchMemoriesResponse(position=place.to_proto())
            reader = ChangeReader(self._store, query, place, self._purged)
            with self._tail.topic(query.namespace) as topic:
                async with aclosing(self._messages(reader, topic)) as messages:
                    async for message in messages:
                        yield message
        finally:
            self._open -= 1

    async def _start(self, request: reader_pb2.WatchMemoriesRequest) -> Place:
        """The place to begin at, once the store has reached it."""
        after = request.after if request.HasField("after") else None
        give_up_s = time.monotonic() + MAX_START_WAIT_S
        while True:
            self._check_open()
            seen = self._news.count
            with self._store.read() as transaction:
                position = transaction.position
                try:
                    return start_place(transaction, after)
                except PositionAhead:
                    error = self._ahead(request.after, position.epoch, position.revision)
            wait_s = give_up_s - time.monotonic()
            if self._is_writer or wait_s <= 0:
                raise error
            await self._news.wait_beyond(seen, wait_s)

    def _ahead(self, after: reader_pb2.WatchPosition, epoch: int, revision: int) -> AgentMemError:
        """The error for a position that the store has not reached."""
        if self._is_writer and after.epoch <= epoch:
            return invalid_field("after.revision", f"is {after.revision}; the newest revision is {revision}")
        return Unavailable(
            "REPLICA_STALE",
            f"after is revision {after.revision} of epoch {after.epoch}; this node is at revision {revision} "
            f"of epoch {epoch}",
            applied_revision=str(revision),
            epoch=str(epoch),
            field="after",
        )

    async def _messages(
        self, reader: ChangeReader, topic: Topic
    ) -> AsyncGenerator[reader_pb2.WatchMemoriesResponse, None]:
        quiet_until_s = time.monotonic() + QUIET_INTERVAL_S
        gap_until_s: float | None = None
        while True:
            self._check_open()
            seen = topic.news.count
            step = await self._step(reader, topic)
            now_s = time.monotonic()
            if step.changes or now_s >= quiet_until_s:
                yield reader_pb2.WatchMemoriesResponse(changes=step.changes, position=step.place.to_proto())
                # The watcher may have taken its time.
                quiet_until_s = time.monotonic() + QUIET_INTERVAL_S
            if not reader.has_gap:
                gap_until_s = None
            if not step.is_level:
                continue
            if reader.has_gap:
                gap_until_s = gap_until_s or now_s + MAX_GAP_WAIT_S
                if now_s >= gap_until_s:
                    raise self._unexplained(step.place)
            await topic.news.wait_beyond(seen, quiet_until_s - time.monotonic())

    async def _step(self, reader: ChangeReader, topic: Topic) -> Step:
        """What comes next, without a look at the log when it is known that nothing does."""
        if self._tail.failure is not None:
            raise self._tail.failure
        place = reader.place
        if place.operation or not self._tail.is_nothing_new(topic, place.revision):
            return await self._threads.run(reader.step)
        if self._tail.revision > place.revision:
            reader.place = Place(self._tail.epoch, self._tail.revision)
        return Step((), reader.place, is_level=True)

    def _check_open(self) -> None:
        if self._closing:
            raise Unavailable("SHUTTING_DOWN", "this node is shutting down: go on at another one")

    def _unexplained(self, place: Place) -> AgentMemError:
        problem = f"a version behind revision {place.revision} is missing, and no entry says why"
        if self._is_writer:
            return DataLoss("MISSING_RECORD", problem)
        return Unavailable("REPLICA_STALE", f"{problem} yet: ask another node", field="after")

    def drain(self) -> None:
        """Ends the watches, each as soon as the message on its way is sent."""
        self._closing = True
        self._tail.end()
        self._news.notify()

    def close(self) -> None:
        """Drops what waits for a thread."""
        self._threads.close()
