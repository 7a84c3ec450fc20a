"""Group commit: one thread, one transaction for everything that queued while the last one was flushed.

There is no timer: an idle writer commits a lone request at once, and under load the group grows by itself to
what arrives during one sync. A command is answered only after the commit that holds it is on disk.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agentmem.core.call_metrics import ObservedCall, current_call
from agentmem.core.errors import AgentMemError, ResourceExhausted, Unavailable
from agentmem.core.measurements import SIZE_BOUNDS, Histogram
from agentmem.core.spans import ShippedTraces
from agentmem.core.store import Store, WriteTransaction
from agentmem.core.trace_context import TraceContext
from agentmem.server.commands import Command

MAX_GROUP_COMMANDS = 1024
MAX_GROUP_BYTES = 32 * 1024 * 1024
RETRY_AFTER_S = 0.2

A = TypeVar("A")


@dataclass(slots=True, eq=False)
class _Waiting:
    """A command, or what came of it.

    Attributes:
        answer: of all commands that were submitted with it.
        outcome: what it returned, or the error that it raised.
    """

    command: Command[Any]
    answer: _Answer
    outcome: Any = None


@dataclass(slots=True, eq=False)
class _Answer:
    """Of commands that were submitted together.

    Attributes:
        missing: commands without outcome.
        commit: that of the last of them.
    """

    is_complete: asyncio.Future[None]
    missing: int
    trace: TraceContext | None
    submitted_s: float = field(default_factory=time.perf_counter)
    commit: _Commit | None = None


class CommitMetrics:
    """What is measured of commits; see the table of metrics."""

    def __init__(self) -> None:
        self.durations = Histogram()
        self.sync_durations = Histogram()
        self.sizes = Histogram(SIZE_BOUNDS)
        self.waits = Histogram()


@dataclass(slots=True)
class _Commit:
    """The times of a commit, on the performance counter."""

    began_s: float
    ran_s: float = 0.0
    ended_s: float = 0.0

    def add_stages(self, call: ObservedCall, submitted_s: float) -> None:
        """Tells the call of a command how long it waited, and how long what it shared took."""
        call.add_stage("queue", submitted_s, self.began_s)
        call.add_stage("commit", self.began_s, self.ran_s)
        call.add_stage("sync", self.ran_s, self.ended_s)


class CommitQueue:
    """The way to the store for every write of the process.

    Attributes:
        metrics: of its commits.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_commands: int,
        max_bytes: int,
        on_commit: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        traces: ShippedTraces | None = None,
    ) -> None:
        """Belongs to the running event loop, on which both callbacks are called.

        Args:
            store: the store, written by nobody else.
            max_commands: how many commands may wait.
            max_bytes: how much they may be about to write.
            on_commit: the log has new entries, on disk.
            traces: are told those of writes that are recorded.
            on_failure: a commit failed; what is on disk is unknown, and the process has to end.
        """
        self._store = store
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._on_commit = on_commit
        self._on_failure = on_failure
        self.metrics = CommitMetrics()
        self._traces = ShippedTraces() if traces is None else traces
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._is_committing = False
        self._refusal: Callable[[], AgentMemError] | None = None
        self._closed = False
        with store.read() as transaction:
            self._last_time_us = transaction.last_time_us
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    async def submit(self, command: Command[A]) -> A:
        """Runs the command; returns its answer once it is on disk.

        A caller that goes away does not take the command back.

        Raises:
            ResourceExhausted: ``OVERLOADED``, too much is waiting already; nothing was written.
            AgentMemError: what the command itself raised, or what ``hold`` was given; nothing was written.
            Unavailable: ``SHUTTING_DOWN``, nothing was written; ``COMMIT_FAILED``, it may have been.
        """
        (outcome,) = await self.submit_each([command])
        if isinstance(outcome, AgentMemError):
            raise outcome
        return outcome

    async def submit_each(self, commands: Sequence[Command[A]]) -> list[A | AgentMemError]:
        """Runs commands that do not depend on one another; of each, what ``submit`` returns or raises."""
        if not commands:
            return []
        call = current_call()
        answer = _Answer(self._loop.create_future(), len(commands), None if call is None else call.span)
        together = [_Waiting(command, answer) for command in commands]
        with self._changed:
            for waiting in together:
                refusal = self._refusal_of(waiting.command)
                if refusal is None:
                    self._waiting.append(waiting)
                    self._waiting_bytes += waiting.command.size_bytes
                else:
                    waiting.outcome = refusal
                    answer.missing -= 1
            self._changed.notify_all()
        if answer.missing:
            await answer.is_complete
        if call is not None and answer.commit is not None:
            answer.commit.add_stages(call, answer.submitted_s)
        return [waiting.outcome for waiting in together]

    def _refusal_of(self, command: Command[Any]) -> AgentMemError | None:
        """Why a command is not taken."""
        if self._closed:
            return Unavailable("SHUTTING_DOWN", "the writer is shutting down")
        if self._refusal is not None:
            return self._refusal()
        # One command is always let in, however large.
        if len(self._waiting) >= self._max_commands or (
            self._waiting and self._waiting_bytes + command.size_bytes > self._max_bytes
        ):
            return ResourceExhausted(
                "OVERLOADED",
                f"{len(self._waiting)} writes are waiting to be committed",
                retry_after_s=RETRY_AFTER_S,
            )
        return None

    def waiting(self) -> tuple[int, int]:
        """How many commands wait, and how many bytes they are about to write."""
        with self._changed:
            return len(self._waiting), self._waiting_bytes

    def hold(self, refusal: Callable[[], AgentMemError], *, drop_waiting: bool = False) -> None:
        """Refuses what comes, with the error, until ``release``.

        Args:
            drop_waiting: refuses what waits already, too. What is being committed is committed and answered.
        """
        with self._changed:
            self._refusal = refusal
            dropped = list(self._waiting) if drop_waiting else []
            if drop_waiting:
                self._waiting.clear()
                self._waiting_bytes = 0
        for waiting in dropped:
            waiting.outcome = refusal()
        self._acknowledge(dropped, False)

    def release(self) -> None:
        """Takes commands again."""
        with self._changed:
            self._refusal = None

    async def committed(self) -> None:
        """Returns when nothing waits and nothing is being committed. For a queue that is held."""
        await asyncio.to_thread(self._wait_committed)

    def _wait_committed(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._is_committing)

    async def close(self) -> None:
        """Takes nothing new, commits what waits, and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while group := self._take_group():
            try:
                moved = self._commit(group)
            except BaseException as error:
                self._fail(group, error)
                return
            self._loop.call_soon_threadsafe(self._acknowledge, group, moved)

    def _commit(self, group: list[_Waiting]) -> bool:
        """Commits what it can of the group and sets the outcomes; says whether there are new entries."""
        commit = _Commit(time.perf_counter())
        try:
            moved = self._store.commit(functools.partial(self._run_group, group, commit))
            self._measure(group, commit)
            return moved
        except AgentMemError as error:
            # The store is full, and nothing of the group was written. What is small may still find room.
            if len(group) > 1:
                each_moved = [self._commit([waiting]) for waiting in group]
                return any(each_moved)
            group[0].outcome = error
            return False

    def _measure(self, group: list[_Waiting], commit: _Commit) -> None:
        commit.ended_s = time.perf_counter()
        for waiting in group:
            waiting.answer.commit = commit
        self.metrics.waits.record(commit.began_s - group[0].answer.submitted_s)
        self.metrics.durations.record(commit.ended_s - commit.began_s)
        self.metrics.sync_durations.record(commit.ended_s - commit.ran_s)
        self.metrics.sizes.record(len(group))

    def _take_group(self) -> list[_Waiting]:
        """What waits, up to the bounds of a group; empty when closed and done."""
        with self._changed:
            self._is_committing = False
            if not self._waiting:
                self._changed.notify_all()
            while not self._waiting and not self._closed:
                self._changed.wait()
            group: list[_Waiting] = []
            size_bytes = 0
            while self._waiting and len(group) < MAX_GROUP_COMMANDS:
                size_bytes += self._waiting[0].command.size_bytes
                if group and size_bytes > MAX_GROUP_BYTES:
                    break
                waiting = self._waiting.popleft()
                self._waiting_bytes -= waiting.command.size_bytes
                group.append(waiting)
            self._is_committing = bool(group)
            return group

    def _run_group(self, group: list[_Waiting], commit: _Commit, transaction: WriteTransaction) -> bool:
        before = transaction.revision
        # Never back, so that the log can be searched by time.
        self._last_time_us = max(self._last_time_us, time.time_ns() // 1000)
        for waiting in group:
            try:
                waiting.outcome = waiting.command.run(transaction, self._last_time_us)
            except AgentMemError as error:
                waiting.outcome = error
        commit.ran_s = time.perf_counter()
        return transaction.revision > before

    def _acknowledge(self, group: list[_Waiting], moved: bool) -> None:
        for waiting in group:
            revision = getattr(waiting.outcome, "revision", 0)
            if waiting.answer.trace is not None and revision:
                self._traces.add(revision, waiting.answer.trace)
            _settle(waiting)
        if moved:
            self._on_commit()

    def _fail(self, group: list[_Waiting], error: BaseException) -> None:
        with self._changed:
            self._closed = True
            unwritten = list(self._waiting)
            self._waiting.clear()
            self._is_committing = False
            self._changed.notify_all()

        def tell() -> None:
            for waiting in (*group, *unwritten):
                waiting.outcome = Unavailable(
                    "COMMIT_FAILED", f"the commit failed and the writer stops: {error}"
                )
                _settle(waiting)
            self._on_failure(error)

        self._loop.call_soon_threadsafe(tell)


def _settle(waiting: _Waiting) -> None:
    """Wakes who submitted the command, when it was the last of his."""
    answer = waiting.answer
    answer.missing -= 1
    if not answer.missing and not answer.is_complete.done():  # cancelled, when he has gone
        answer.is_complete.set_result(None)
