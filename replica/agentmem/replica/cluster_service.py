"""ClusterService of a replica: passes on what the writer says, or last said, and becomes the writer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

import grpc

from agentmem.core.errors import FailedPrecondition, Unavailable
from agentmem.core.set_aside import set_aside_entries
from agentmem.core.signals import Signal
from agentmem.core.store import Store
from agentmem.core.validation import check_id
from agentmem.replica.promotion import Promotion
from agentmem.replica.writer_link import WriterLink
from agentmem.v1 import cluster_pb2, cluster_pb2_grpc

Report = Callable[[cluster_pb2.GetNodeResponse], Awaitable[cluster_pb2.GetNodeReportResponse]]
TOPOLOGY_TIMEOUT_S = 1.0
WATCH_RETRY_S = 0.5
# As the writer does; a watch that is silent hangs.
WATCH_INTERVAL_S = 2.0


class ClusterService(cluster_pb2_grpc.ClusterServiceServicer):
    """The replica's ClusterService.

    Args:
        own_node: describes this replica.
        report: makes the node's report of what ``GetNode`` answers.
    """

    def __init__(
        self,
        store: Store,
        link: WriterLink,
        promotion: Promotion,
        *,
        node_id: str,
        own_node: Callable[[], cluster_pb2.Node],
        report: Report,
    ) -> None:
        self._store = store
        self._link = link
        self._promotion = promotion
        self._node_id = node_id
        self._own_node = own_node
        self._report = report
        self._topology: cluster_pb2.Topology | None = None
        self._changed = Signal()
        self._closing = False

    @property
    def writer_address(self) -> str:
        """Where clients reach the writer."""
        for node in self._topology.nodes if self._topology else ():
            if node.role == cluster_pb2.NODE_ROLE_WRITER:
                return node.address
        return self._link.address

    async def run(self) -> None:
        """Watches the writer's topology until cancelled."""
        while True:
            seen = self._link.moved.count
            watching = asyncio.create_task(self._follow_topology())
            moving = asyncio.create_task(self._link.moved.wait_beyond(seen))
            try:
                await asyncio.wait((watching, moving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                watching.cancel()
                moving.cancel()
            if self._link.moved.count == seen:
                await asyncio.sleep(WATCH_RETRY_S)
            elif self._topology is not None:
                # What is known of the new writer, until it says more itself.
                self._topology = self._own(self._topology)
                self._changed.notify()

    async def _follow_topology(self) -> None:
        # A writer that cannot be reached is the follower's to report; the last topology stays.
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for response in self._link.cluster.WatchTopology(cluster_pb2.WatchTopologyRequest()):
                if response is None:
                    return  # what gRPC gives for bytes that cannot be parsed
                if response.topology.epoch >= self._link.known_epoch:
                    self._topology = self._own(response.topology)
                    self._link.standing.meet(
                        node.address for node in self._topology.nodes if node.id != self._node_id
                    )
                    self._changed.notify()

    def _own(self, topology: cluster_pb2.Topology) -> cluster_pb2.Topology:
        """A writer's topology as this replica passes it on: with what it knows of a later epoch."""
        own = cluster_pb2.Topology()
        own.CopyFrom(topology)
        own.answered_by = self._node_id
        if own.epoch < self._link.known_epoch:
            address = self._link.standing.now.writer_address
            others = [
                node
                for node in own.nodes
                if node.role != cluster_pb2.NODE_ROLE_WRITER and node.address != address
            ]
            del own.nodes[:]
            if address:
                own.nodes.add(
                    id=self._link.standing.now.writer_id or f"writer-{address}",
                    role=cluster_pb2.NODE_ROLE_WRITER,
                    address=address,
                    state=cluster_pb2.NODE_STATE_CATCHING_UP,
                )
            own.nodes.extend(others)
            own.epoch = self._link.known_epoch
        return own

    def _known(self) -> cluster_pb2.Topology:
        if self._topology is None:
            raise Unavailable("REPLICA_NOT_READY", "this replica has not reached the writer yet")
        return self._topology

    async def GetTopology(
        self, request: cluster_pb2.GetTopologyRequest, context: object
    ) -> cluster_pb2.GetTopologyResponse:
        try:
            response = await self._link.cluster.GetTopology(request, timeout=TOPOLOGY_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            response = None
        if response is None:  # no answer, or bytes that cannot be parsed
            return cluster_pb2.GetTopologyResponse(topology=self._known())
        return cluster_pb2.GetTopologyResponse(topology=self._own(response.topology))

    async def GetNode(
        self, request: cluster_pb2.GetNodeRequest, context: object
    ) -> cluster_pb2.GetNodeResponse:
        return self._describe()

    async def GetNodeReport(
        self, request: cluster_pb2.GetNodeReportRequest, context: object
    ) -> cluster_pb2.GetNodeReportResponse:
        return await self._report(self._describe())

    def _describe(self) -> cluster_pb2.GetNodeResponse:
        now = self._link.standing.now
        return cluster_pb2.GetNodeResponse(
            node=self._own_node(),
            position=self._store.position().to_proto(),
            known_epoch=now.known_epoch,
            set_aside_entries=set_aside_entries(self._link.standing.folder),
            writer_id=now.writer_id,
            writer_address=self.writer_address,
        )

    async def Promote(
        self, request: cluster_pb2.PromoteRequest, context: object
    ) -> cluster_pb2.PromoteResponse:
        # Whoever asked for it may be gone before it is done.
        return await asyncio.shield(self._promotion.promote(force=request.force))

    async def PrepareHandover(self, request: cluster_pb2.PrepareHandoverRequest, context: object) -> NoReturn:
        raise FailedPrecondition("NOT_WRITER", "this node is a replica", writer_address=self.writer_address)

    async def FollowWriter(
        self, request: cluster_pb2.FollowWriterRequest, context: object
    ) -> cluster_pb2.FollowWriterResponse:
        check_id(request.writer_id, "writer_id")
        check_id(request.writer_address, "writer_address")
        own = self._store.position().cluster_id
        if own and request.cluster_id != own:
            raise FailedPrecondition("CLUSTER_MISMATCH", f"this node belongs to cluster {own.hex()}")
        return cluster_pb2.FollowWriterResponse(
            accepted=self._link.follow(request), known_epoch=self._link.known_epoch
        )

    async def WatchTopology(
        self, request: cluster_pb2.WatchTopologyRequest, context: object
    ) -> AsyncIterator[cluster_pb2.WatchTopologyResponse]:
        while not self._closing:
            seen = self._changed.count
            yield cluster_pb2.WatchTopologyResponse(topology=self._known())
            await self._changed.wait_beyond(seen, WATCH_INTERVAL_S)

    def close(self) -> None:
        """Ends the watches."""
        self._closing = True
        self._changed.notify()
