"""ClusterService of the writer: who is in the cluster, and who its writer is to be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

from agentmem.core.errors import FailedPrecondition
from agentmem.core.validation import check_id
from agentmem.server.membership import Membership
from agentmem.server.succession import Succession
from agentmem.v1 import cluster_pb2, cluster_pb2_grpc

Report = Callable[[cluster_pb2.GetNodeResponse], Awaitable[cluster_pb2.GetNodeReportResponse]]
# The topology is sent again this often without a change: a watch that is silent hangs.
WATCH_INTERVAL_S = 2.0


class ClusterService(cluster_pb2_grpc.ClusterServiceServicer):
    """The writer's ClusterService.

    Args:
        report: makes the node's report of what ``GetNode`` answers.
    """

    def __init__(self, membership: Membership, succession: Succession, report: Report) -> None:
        self._membership = membership
        self._succession = succession
        self._report = report
        self._closing = False

    async def GetNode(
        self, request: cluster_pb2.GetNodeRequest, context: object
    ) -> cluster_pb2.GetNodeResponse:
        return self._succession.describe()

    async def GetNodeReport(
        self, request: cluster_pb2.GetNodeReportRequest, context: object
    ) -> cluster_pb2.GetNodeReportResponse:
        return await self._report(self._succession.describe())

    async def Promote(self, request: cluster_pb2.PromoteRequest, context: object) -> NoReturn:
        raise FailedPrecondition("ALREADY_WRITER", "this node is the writer")

    async def PrepareHandover(
        self, request: cluster_pb2.PrepareHandoverRequest, context: object
    ) -> cluster_pb2.PrepareHandoverResponse:
        check_id(request.successor_id, "successor_id")
        return await self._succession.prepare_handover(request)

    async def FollowWriter(
        self, request: cluster_pb2.FollowWriterRequest, context: object
    ) -> cluster_pb2.FollowWriterResponse:
        check_id(request.writer_id, "writer_id")
        check_id(request.writer_address, "writer_address")
        return self._succession.follow(request)

    async def GetTopology(
        self, request: cluster_pb2.GetTopologyRequest, context: object
    ) -> cluster_pb2.GetTopologyResponse:
        return cluster_pb2.GetTopologyResponse(topology=self._membership.topology())

    async def WatchTopology(
        self, request: cluster_pb2.WatchTopologyRequest, context: object
    ) -> AsyncIterator[cluster_pb2.WatchTopologyResponse]:
        while not self._closing:
            seen = self._membership.changed.count
            yield cluster_pb2.WatchTopologyResponse(topology=self._membership.topology())
            await self._membership.changed.wait_beyond(seen, WATCH_INTERVAL_S)

    def close(self) -> None:
        """Ends the watches."""
        self._closing = True
        self._membership.changed.notify()
