"""The replica's place in the cluster: its state, told to the writer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc

from agentmem.core.errors import Unavailable
from agentmem.replica.follower import Follower
from agentmem.replica.writer_link import WriterLink
from agentmem.v1 import cluster_pb2, replication_pb2

REPORT_INTERVAL_S = 1.0
MIN_REPORT_INTERVAL_S = 0.02
REPORT_TIMEOUT_S = 1.0

_logger = logging.getLogger(__name__)


class Reporter:
    """Decides the replica's state and tells the writer about it and about progress.

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
    ) -> None:
        self.state: cluster_pb2.NodeState = cluster_pb2.NODE_STATE_CATCHING_UP
        self._link = link
        self._follower = follower
        self._replica_id = replica_id
        self._searchable_revision = searchable_revision
        self._on_serving = on_serving
        self._goal_revision: int | None = None

    def check_serving(self) -> None:
        """Raises Unavailable (``REPLICA_NOT_READY``) while the replica would show an old past."""
        if self.state == cluster_pb2.NODE_STATE_CATCHING_UP:
            raise Unavailable(
                "REPLICA_NOT_READY", "this replica is catching up with the writer: ask another node"
            )

    async def run(self) -> None:
        """Reports each change, and once a second, until cancelled."""
        while True:
            seen = self._follower.progress.count
            self._advance()
            if self._follower.is_connected:
                await self._report()
            # Under load many commits share one report.
            await asyncio.sleep(MIN_REPORT_INTERVAL_S)
            await self._follower.progress.wait_beyond(seen, REPORT_INTERVAL_S)

    def _advance(self) -> None:
        if self._goal_revision is None:
            self._goal_revision = self._follower.head_revision
        caught_up = self._goal_revision is not None and self._searchable_revision() >= self._goal_revision
        if caught_up and self.state == cluster_pb2.NODE_STATE_CATCHING_UP:
            self.state = cluster_pb2.NODE_STATE_SERVING
            self._on_serving()

    async def drain(self) -> None:
        """Tells the writer, and through it the clients, to send nothing more."""
        self.state = cluster_pb2.NODE_STATE_DRAINING
        if self._follower.is_connected:
            await self._report()

    async def _report(self) -> None:
        request = replication_pb2.ReportProgressRequest(
            replica_id=self._replica_id,
            applied_revision=self._follower.applied_revision,
            searchable_revision=self._searchable_revision(),
            state=self.state,
            known_epoch=self._link.known_epoch,
        )
        try:
            await self._link.replication.ReportProgress(request, timeout=REPORT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            # The next report says it all again, and the follower notices a writer that is gone.
            _logger.warning("progress was not reported: %s: %s", error.code().name, error.details())
            if error.code() is grpc.StatusCode.NOT_FOUND:
                self._follower.reconnect()  # the writer no longer counts the stream as ours
