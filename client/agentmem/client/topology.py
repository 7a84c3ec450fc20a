"""Who belongs to the cluster: immutable descriptions, and one function that decides what replaces them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from agentmem.v1 import cluster_pb2


class NodeRole(StrEnum):
    """What a node does. UNKNOWN comes from a newer server."""

    WRITER = "writer"
    REPLICA = "replica"
    UNKNOWN = "unknown"


class NodeState(StrEnum):
    """Whether a node takes calls: only SERVING ones do. UNKNOWN comes from a newer server."""

    CATCHING_UP = "catching_up"
    SERVING = "serving"
    DRAINING = "draining"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Node:
    """One process of the cluster.

    Attributes:
        address: host:port for clients.
        applied_revision: up to here its store has every write; at most about a second old when it was sent.
        searchable_revision: up to here its searches show every write.
        staleness: of a replica: its searches show every write that was acknowledged longer ago than this;
            None when that is not known.
    """

    id: str
    role: NodeRole
    address: str
    state: NodeState
    applied_revision: int
    searchable_revision: int
    staleness: timedelta | None = None


@dataclass(frozen=True)
class Topology:
    """The cluster as one of its nodes described it.

    Attributes:
        nodes: the writer first, then the replicas in the order of their ids.
        answered_by: the id of the node that gave the description.
    """

    cluster_id: str
    epoch: int
    nodes: tuple[Node, ...]
    answered_by: str

    @property
    def writer(self) -> Node | None:
        """The writer, if the cluster has one now."""
        return next((node for node in self.nodes if node.role is NodeRole.WRITER), None)

    @property
    def replicas(self) -> tuple[Node, ...]:
        """The replicas, whatever their state."""
        return tuple(node for node in self.nodes if node.role is NodeRole.REPLICA)


class Refused(Exception):
    """A description that must not replace the one known."""


def updated(known: Topology | None, received: Topology) -> Topology:
    """The description to go by from now on.

    Raises:
        Refused: the description is of another cluster, or older than a promotion that is known of: a node cut
            off from the cluster would lead the client back to a writer that is not the writer any more.
    """
    if known is not None and received.cluster_id != known.cluster_id:
        raise Refused(f"belongs to cluster {received.cluster_id}, not to {known.cluster_id}")
    if known is not None and received.epoch < known.epoch:
        raise Refused(f"is at epoch {received.epoch}, behind {known.epoch}")
    return received


def newly_serving(known: Topology | None, received: Topology) -> frozenset[str]:
    """The addresses of nodes that serve now and did not before, as far as this client knew."""
    before = _serving(known) if known is not None else frozenset[tuple[str, str]]()
    return frozenset(address for _, address in _serving(received) - before)


def _serving(topology: Topology) -> frozenset[tuple[str, str]]:
    return frozenset((node.id, node.address) for node in topology.nodes if node.state is NodeState.SERVING)


def watch_order(known: Topology | None, contact_points: Sequence[str], last: str) -> tuple[str, ...]:
    """Whom to ask for the topology, in this order.

    The writer hears of changes first, and the replicas relay them; then come the contact points. The node
    that failed last comes after all others.
    """
    nodes = [node.address for node in known.nodes] if known is not None else []
    order = dict.fromkeys([*nodes, *contact_points])
    return tuple(sorted(order, key=lambda address: address == last))


_ROLES = {cluster_pb2.NODE_ROLE_WRITER: NodeRole.WRITER, cluster_pb2.NODE_ROLE_REPLICA: NodeRole.REPLICA}
_STATES = {
    cluster_pb2.NODE_STATE_CATCHING_UP: NodeState.CATCHING_UP,
    cluster_pb2.NODE_STATE_SERVING: NodeState.SERVING,
    cluster_pb2.NODE_STATE_DRAINING: NodeState.DRAINING,
}


def role_from_proto(role: cluster_pb2.NodeRole) -> NodeRole:
    """The role that a node said it has."""
    return _ROLES.get(role, NodeRole.UNKNOWN)


def node_from_proto(message: cluster_pb2.Node) -> Node:
    """The description of a node."""
    return Node(
        id=message.id,
        role=role_from_proto(message.role),
        address=message.address,
        state=_STATES.get(message.state, NodeState.UNKNOWN),
        applied_revision=message.applied_revision,
        searchable_revision=message.searchable_revision,
        staleness=message.staleness.ToTimedelta() if message.HasField("staleness") else None,
    )


def from_proto(message: cluster_pb2.Topology) -> Topology:
    """The topology that a node sent."""
    nodes = tuple(map(node_from_proto, message.nodes))
    return Topology(message.cluster_id, message.epoch, nodes, message.answered_by)
