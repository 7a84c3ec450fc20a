"""The replica's place in the cluster: its state, told to the writer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import grpc

from agentmem.core.errors import Unavailable
from agentmem.core.times import boot_time_s
from agentmem.replica.follower import Follower
from agentmem.replica.freshness import Freshness, Head
from agentmem.replica.writer_link import WriterLink
from agentmem.v1 import cluster_pb2, replication_pb2

REPORT_INTERVAL_S = 1.0
# A report costs both ends as much as a few commits do. Who waits for one does not wait so long.
MIN_REPORT_INTERVAL_S = 0.1
REPORT_TIMEOUT_S = 1.0

_logger = logging.getLogger(__name__)


class Reporter:
    """Decides the replica's state, tells the writer about it and about progress, and learns how fresh it is.

    A replica is CATCHING_UP until its searches show what the writer had when the replica first reached it;
    then it is SERVING, also while the writer is away; DRAINING is the last state.
    """

    def __init__(
        self,
        link: WriterLink,
        follower: Follower,
        *,
        replica_id: str,
        searchable_revision: Callable[[], int],
        on_serving: Callable[[], None],
        store_freshness: Freshness,
        view_freshness: Freshness,
    ) -> None:
        self.state: cluster_pb2.NodeState = cluster_pb2.NODE_STATE_CATCHING_UP
        self._link = link
        self._follower = follower
        self._replica_id = replica_id
        self._searchable_revision = searchable_revision
        self._on_serving = on_serving
        self._store_freshness = store_freshness
        self._view_freshness = view_freshness
        self._goal_revision: int | None = None
        # One report at a time. It is nobody's own: a caller that goes away takes it from none of the others.
        self._report_task: asyncio.Task[None] | None = None
        self._asked_at_s = 0.0
        # What was logged of reports that failed since the last one that did not.
        self._said = ""

    def check_serving(self) -> None:
        """Raises Unavailable (``REPLICA_NOT_READY``) while the replica would show an old past."""
        if self.state == cluster_pb2.NODE_STATE_CATCHING_UP:
            raise Unavailable(
                "REPLICA_NOT_READY", "this replica is catching up with the writer: ask another node"
            )

    async def run(self) -> None:
        """Reports each change, and once a second, until cancelled."""
        try:
            while True:
                seen = self._follower.progress.count
                self._advance()
                # Before the report: while it is on its way searches come to show more, which it does not say.
                reported_revision = self._searchable_revision()
                if self._follower.is_connected:
                    await self.ask_writer(boot_time_s(), REPORT_TIMEOUT_S)
                await self._pause(reported_revision)
                await self._follower.progress.wait_beyond(seen, REPORT_INTERVAL_S)
        finally:
            if self._report_task is not None:
                self._report_task.cancel()

    async def _pause(self, reported_revision: int) -> None:
        """Lets many commits share one report; ends when somebody waits for the next one."""
        ends_s, state = time.monotonic() + MIN_REPORT_INTERVAL_S, self.state
        while self._follower.awaited_revision <= reported_revision and self.state == state:
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                return
            await self._follower.progress.wait_beyond(self._follower.progress.count, left_s)
            self._advance()

    def _advance(self) -> None:
        head_revision = self._follower.head_revision
        # A writer's head only rises: one that was higher once was damaged on the way.
        if self._goal_revision is None or (head_revision or 0) < self._goal_revision:
            self._goal_revision = head_revision
        caught_up = self._goal_revision is not None and self._searchable_revision() >= self._goal_revision
        if caught_up and self.state == cluster_pb2.NODE_STATE_CATCHING_UP:
            self.state = cluster_pb2.NODE_STATE_SERVING
            self._on_serving()

    async def drain(self) -> None:
        """Tells the writer, and through it the clients, to send nothing more."""
        self.state = cluster_pb2.NODE_STATE_DRAINING
        if self._follower.is_connected:
            await self.ask_writer(boot_time_s(), REPORT_TIMEOUT_S)

    async def ask_writer(self, since_s: float, timeout_s: float) -> None:
        """Returns after one report that began at or after a moment, or after the timeout.

        Callers share reports: who comes while one is on its way waits for the next one, with all the others.
        """
        ends_s = boot_time_s() + timeout_s
        while True:
            if self._report_task is None or self._report_task.done():
                self._asked_at_s = boot_time_s()
                self._report_task = asyncio.create_task(self._report(self._asked_at_s))
            task, is_new_enough = self._report_task, self._asked_at_s >= since_s
            await asyncio.wait((task,), timeout=max(0.0, ends_s - boot_time_s()))
            if not task.done():
                return
            task.result()
            if is_new_enough:
                return

    async def _report(self, asked_at_s: float) -> None:
        request = replication_pb2.ReportProgressRequest(
            replica_id=self._replica_id,
            applied_revision=self._follower.applied_revision,
            searchable_revision=self._searchable_revision(),
            state=self.state,
            known_epoch=self._link.known_epoch,
        )
        stream = self._follower.streams if self._follower.is_connected else None
        fresh_as_of_s = self._view_freshness.as_of_s
        if fresh_as_of_s is not None:
            request.staleness.FromMicroseconds(int((asked_at_s - fresh_as_of_s) * 1_000_000))
        try:
            answer = await self._link.replication.ReportProgress(request, timeout=REPORT_TIMEOUT_S)
            if answer is None:
                return  # what gRPC gives for bytes that cannot be parsed; the next report says it all again
            head = Head(asked_at_s, answer.epoch, answer.head_revision)
            self._said = ""
            self._store_freshness.learn(head)
            self._view_freshness.learn(head)
        except grpc.aio.AioRpcError as error:
            # The next report says it all again, and the follower notices a writer that is gone.
            problem = f"{error.code().name}: {error.details()}"
            if problem != self._said:
                # Once, not for each read that has to know how fresh this replica is.
                _logger.warning("progress was not reported: %s", problem)
                self._said = problem
            # The writer no longer counts the stream as ours, unless there is a newer one meanwhile.
            if error.code() is grpc.StatusCode.NOT_FOUND and self._follower.streams == stream:
                self._follower.reconnect()
