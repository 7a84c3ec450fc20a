"""The replica's place in the cluster: its state, told to the writer, and the topology, told to clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import grpc

from agentmem.core.errors import Unavailable
from agentmem.core.signals import Signal
from agentmem.replica.follower import Follower
from agentmem.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    replication_pb2,
    replication_pb2_grpc,
)

REPORT_INTERVAL_S = 1.0
MIN_REPORT_INTERVAL_S = 0.02
REPORT_TIMEOUT_S = 1.0
TOPOLOGY_TIMEOUT_S = 1.0
WATCH_RETRY_S = 0.5
WATCH_RECHECK_S = 60.0

_logger = logging.getLogger(__name__)


class Reporter:
    """Decides the replica's state and tells the writer about it and about progress.

    A replica is CATCHING_UP until its searches show what the writer had when the replica first reached it;
    then it is SERVING, also while the writer is away; DRAINING is the last state.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        follower: Follower,
        *,
        replica_id: str,
        searchable_revision: Callable[[], int],
        on_serving: Callable[[], None],
    ) -> None:
        self.state: cluster_pb2.NodeState = cluster_pb2.NODE_STATE_CATCHING_UP
        self._stub = replication_pb2_grpc.ReplicationServiceStub(channel)
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
        )
        try:
            await self._stub.ReportProgress(request, timeout=REPORT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            # The next report says it all again, and the follower notices a writer that is gone.
            _logger.warning("progress was not reported: %s: %s", error.code().name, error.details())
            if error.code() is grpc.StatusCode.NOT_FOUND:
                self._follower.reconnect()  # the writer no longer counts the stream as ours


class ClusterService(cluster_pb2_grpc.ClusterServiceServicer):
    """The replica's ClusterService: passes on what the writer says, or last said."""

    def __init__(self, channel: grpc.aio.Channel, *, node_id: str, writer_address: str) -> None:
        self._stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        self._node_id = node_id
        self._writer_address = writer_address
        self._topology: cluster_pb2.Topology | None = None
        self._changed = Signal()
        self._closing = False

    @property
    def writer_address(self) -> str:
        """Where clients reach the writer."""
        for node in self._topology.nodes if self._topology else ():
            if node.role == cluster_pb2.NODE_ROLE_WRITER:
                return node.address
        return self._writer_address

    async def run(self) -> None:
        """Watches the writer's topology until cancelled."""
        while True:
            # A writer that cannot be reached is the follower's to report; the last topology stays.
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for response in self._stub.WatchTopology(cluster_pb2.WatchTopologyRequest()):
                    self._topology = self._own(response.topology)
                    self._changed.notify()
            await asyncio.sleep(WATCH_RETRY_S)

    def _own(self, topology: cluster_pb2.Topology) -> cluster_pb2.Topology:
        topology.answered_by = self._node_id
        return topology

    def _known(self) -> cluster_pb2.Topology:
        if self._topology is None:
            raise Unavailable("REPLICA_NOT_READY", "this replica has not reached the writer yet")
        return self._topology

    async def GetTopology(
        self, request: cluster_pb2.GetTopologyRequest, context: object
    ) -> cluster_pb2.GetTopologyResponse:
        try:
            response = await self._stub.GetTopology(request, timeout=TOPOLOGY_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return cluster_pb2.GetTopologyResponse(topology=self._known())
        return cluster_pb2.GetTopologyResponse(topology=self._own(response.topology))

    async def WatchTopology(
        self, request: cluster_pb2.WatchTopologyRequest, context: object
    ) -> AsyncIterator[cluster_pb2.WatchTopologyResponse]:
        while not self._closing:
            seen = self._changed.count
            yield cluster_pb2.WatchTopologyResponse(topology=self._known())
            while self._changed.count == seen and not self._closing:
                await self._changed.wait_beyond(seen, WATCH_RECHECK_S)

    def close(self) -> None:
        """Ends the watches."""
        self._closing = True
        self._changed.notify()
