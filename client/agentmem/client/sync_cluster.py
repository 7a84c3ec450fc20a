"""What the synchronous client does about the nodes of a cluster."""

from __future__ import annotations

from agentmem.client.async_client import AsyncClient
from agentmem.client.async_cluster import DEFAULT_PROMOTION_TIMEOUT_S, NodeStatus, Promoted
from agentmem.client.node_report import NodeReport
from agentmem.client.sync_connection import SyncConnection
from agentmem.client.topology import Topology


class SyncCluster(SyncConnection):
    """The nodes of the cluster; see AsyncCluster."""

    _client: AsyncClient

    def topology(self, *, timeout_s: float | None = None) -> Topology:
        """The cluster as the writer sees it now, or a replica when the writer does not answer."""
        return self._run(self._client.topology(timeout_s=timeout_s))

    def node_status(self, address: str, *, timeout_s: float | None = None) -> NodeStatus:
        """What one node says of itself; see AsyncClient.node_status."""
        return self._run(self._client.node_status(address, timeout_s=timeout_s))

    def node_report(self, address: str, *, timeout_s: float | None = None) -> NodeReport:
        """What one node uses, and the calls it has answered; see AsyncClient.node_report."""
        return self._run(self._client.node_report(address, timeout_s=timeout_s))

    def promote(
        self, node: str, *, force: bool = False, timeout_s: float = DEFAULT_PROMOTION_TIMEOUT_S
    ) -> Promoted:
        """Makes a replica the writer; see AsyncClient.promote."""
        return self._run(self._client.promote(node, force=force, timeout_s=timeout_s))
