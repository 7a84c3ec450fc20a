"""What the asynchronous client does about the nodes of a cluster."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from agentmem.client import node_report, topology, values
from agentmem.client.async_connection import AsyncConnection
from agentmem.client.errors import AgentMemError, Unavailable, invalid_field
from agentmem.client.node_report import NodeReport
from agentmem.client.selection import Route
from agentmem.client.topology import NodeRole, Topology
from agentmem.v1 import cluster_pb2

PROMOTION_POLL_S = 0.1
DEFAULT_PROMOTION_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Promoted:
    """A promotion that is done.

    Attributes:
        node_id, address: of the writer.
        epoch: that it began.
        revision: what it had before; the epoch's first entry is the next.
        handed_over: whether the writer before had given it all that it had acknowledged. Otherwise the writer
            before keeps what it had not shipped in a file when it comes back.
        previous_address: of the writer before.
        untold: addresses of nodes that could not be told; they are, when they can be reached.
    """

    node_id: str
    address: str
    epoch: int
    revision: int
    handed_over: bool
    previous_address: str
    untold: tuple[str, ...]


@dataclass(frozen=True)
class NodeStatus:
    """What a node says of itself.

    Attributes:
        role: what it is now.
        epoch, revision, chain_hash: where its log ends.
        known_epoch: the highest epoch it has heard of.
        set_aside_entries: acknowledged writes that a promotion left behind, kept in files of this node.
    """

    node_id: str
    role: NodeRole
    epoch: int
    revision: int
    chain_hash: str
    known_epoch: int
    set_aside_entries: int


class AsyncCluster(AsyncConnection):
    """The nodes of the cluster."""

    async def topology(self, *, timeout_s: float | None = None) -> Topology:
        """The cluster as the writer sees it now, or a replica when the writer does not answer."""
        response = await self._ready_router().read(
            lambda endpoint: endpoint.cluster.GetTopology,
            cluster_pb2.GetTopologyRequest(),
            route=Route.WRITER_THEN_REPLICAS,
            timeout_s=self._time(timeout_s),
        )
        return topology.from_proto(response.topology)

    async def node_status(self, address: str, *, timeout_s: float | None = None) -> NodeStatus:
        """What one node says of itself.

        Args:
            address: host:port.

        Raises:
            Unavailable: it cannot be reached.
            DeadlineExceeded: it does not answer.
        """
        response = await self._ready_router().ask(
            values.text("address", address),
            lambda endpoint: endpoint.cluster.GetNode,
            cluster_pb2.GetNodeRequest(),
            timeout_s=self._time(timeout_s),
        )
        return NodeStatus(
            node_id=response.node.id,
            role=topology.role_from_proto(response.node.role),
            epoch=response.position.epoch,
            revision=response.position.revision,
            chain_hash=response.position.chain_hash.hex(),
            known_epoch=response.known_epoch,
            set_aside_entries=response.set_aside_entries,
        )

    async def node_report(self, address: str, *, timeout_s: float | None = None) -> NodeReport:
        """What one node uses, and the calls it has answered.

        Args:
            address: host:port.

        Raises:
            Unavailable: it cannot be reached.
            DeadlineExceeded: it does not answer.
        """
        response = await self._ready_router().ask(
            values.text("address", address),
            lambda endpoint: endpoint.cluster.GetNodeReport,
            cluster_pb2.GetNodeReportRequest(),
            timeout_s=self._time(timeout_s),
        )
        return node_report.from_proto(response)

    async def promote(
        self, node: str, *, force: bool = False, timeout_s: float = DEFAULT_PROMOTION_TIMEOUT_S
    ) -> Promoted:
        """Makes a replica the writer, and returns when it takes writes.

        A writer that is there hands over: it takes no more writes, and nothing is left behind. One that is
        not there is refused by all others when it comes back; what it had acknowledged and not shipped it
        then keeps in a file.

        Args:
            node: the replica's id, or its address (host:port).
            force: also when another replica has more, or the writer is there and does not hand over.

        Raises:
            InvalidArgument: the cluster has no such node.
            FailedPrecondition: PROMOTION_BEHIND, another replica has more; HANDOVER_REFUSED; ALREADY_WRITER;
                NO_CLUSTER.
            Unavailable: the replica cannot be reached, could not catch up with the writer (HANDOVER_FAILED),
                or did not take writes in time.
        """
        deadline_s = time.monotonic() + timeout_s
        address = await self._address_of(values.text("node", node), timeout_s)
        response = await self._ready_router().ask(
            address,
            lambda endpoint: endpoint.cluster.Promote,
            cluster_pb2.PromoteRequest(force=values.boolean("force", force)),
            timeout_s=timeout_s,
        )
        status = await self._wait_for_writer(address, deadline_s)
        return Promoted(
            node_id=status.node_id,
            address=address,
            epoch=response.epoch,
            revision=response.revision,
            handed_over=response.handed_over,
            previous_address=response.previous_writer_address,
            untold=tuple(response.untold_addresses),
        )

    async def _address_of(self, node: str, timeout_s: float) -> str:
        known = await self._ready_router().topology(time.monotonic() + timeout_s)
        for each in known.nodes:
            if node in (each.id, each.address):
                return each.address
        if node.rpartition(":")[2].isdecimal():
            return node  # of a replica that follows nobody now
        names = ", ".join(each.id for each in known.nodes)
        raise invalid_field("node", f"is {node!r}; the cluster has {names}")

    async def _wait_for_writer(self, address: str, deadline_s: float) -> NodeStatus:
        """Its program changes, which takes about a second."""
        said = "it is a replica still"
        while (remaining_s := deadline_s - time.monotonic()) > 0:
            try:
                status = await self.node_status(address, timeout_s=remaining_s)
                if status.role is NodeRole.WRITER:
                    return status
            except AgentMemError as error:
                said = error.message
            await asyncio.sleep(PROMOTION_POLL_S)
        raise Unavailable(
            f"{address} was promoted and does not take writes yet: {said}", reason="PROMOTION_UNFINISHED"
        )
