"""Who is in the cluster: the writer, and the replicas that are subscribed right now."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from agentmem.core.errors import AlreadyExists
from agentmem.core.log import Position
from agentmem.core.signals import Signal
from agentmem.v1 import cluster_pb2, replication_pb2

# Replicas report each second. One that is silent for longer hangs, whatever its connection looks like.
SILENCE_TIMEOUT_S = 4.0
SILENCE_CHECK_INTERVAL_S = 1.0

_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Member:
    """A subscribed replica. One object for each subscription."""

    node: cluster_pb2.Node
    reported_at_s: float  # on the monotonic clock


class Membership:
    """The writer's list of nodes. Belongs to one event loop.

    Attributes:
        changed: notified when a node came, went or changed its state.
        on_progress: called when a replica has reported how far it is.
        is_awaited: says whether somebody waits for that.
    """

    def __init__(
        self,
        node_id: str,
        address: str,
        position: Callable[[], Position],
        *,
        on_join: Callable[[str], None],
    ) -> None:
        """``on_join`` is told the address of each replica that subscribes."""
        self.changed = Signal()
        self._on_join = on_join
        self.on_progress: Callable[[], None] = lambda: None
        self.is_awaited: Callable[[], bool] = lambda: False
        self._node_id = node_id
        self._address = address
        self._position = position
        self._members: dict[str, Member] = {}

    def join(self, replica_id: str, address: str) -> Member:
        """A replica subscribed. It takes the place of its own older subscription, whose stream ends.

        Raises:
            AlreadyExists: ``NODE_ID_TAKEN``, another node has the id.
        """
        known = self._members.get(replica_id)
        if replica_id == self._node_id or (known is not None and known.node.address != address):
            raise AlreadyExists(
                "NODE_ID_TAKEN",
                f"another node of the cluster is called {replica_id!r}: give each its own --node-id",
                node_id=replica_id,
            )
        node = cluster_pb2.Node(
            id=replica_id,
            role=cluster_pb2.NODE_ROLE_REPLICA,
            address=address,
            state=cluster_pb2.NODE_STATE_CATCHING_UP,
        )
        member = self._members[replica_id] = Member(node, time.monotonic())
        self._on_join(address)
        self.changed.notify()
        return member

    def has(self, member: Member) -> bool:
        """Whether this is still the subscription of its replica."""
        return self._members.get(member.node.id) is member

    def leave(self, member: Member) -> None:
        """A subscription ended."""
        if self.has(member):
            del self._members[member.node.id]
            self.changed.notify()

    def report(self, request: replication_pb2.ReportProgressRequest) -> bool:
        """A replica told how far it is; False when it is not subscribed."""
        member = self._members.get(request.replica_id)
        if member is None:
            return False
        changed = member.node.state != request.state
        member.reported_at_s = time.monotonic()
        # A store does not go back while it is subscribed, but one report may overtake another.
        node = member.node
        node.applied_revision = max(node.applied_revision, request.applied_revision)
        node.searchable_revision = max(node.searchable_revision, request.searchable_revision)
        member.node.state = request.state
        member.node.ClearField("staleness")
        if request.HasField("staleness"):
            member.node.staleness.CopyFrom(request.staleness)
        if changed:
            self.changed.notify()
        self.on_progress()
        return True

    def replicas(self) -> list[cluster_pb2.Node]:
        """The subscribed replicas. Any thread may ask."""
        return [member.node for member in list(self._members.values())]

    def progress(self) -> list[tuple[int, int]]:
        """Of each subscribed replica the revision that is on its disk, and the one that its searches show."""
        nodes = [member.node for member in self._members.values()]
        return [(node.applied_revision, node.searchable_revision) for node in nodes]

    async def monitor_silence(self) -> None:
        """Takes replicas that hang out of service, until they report again; runs until cancelled."""
        while True:
            await asyncio.sleep(SILENCE_CHECK_INTERVAL_S)
            silent_since_s = time.monotonic() - SILENCE_TIMEOUT_S
            for member in self._members.values():
                serving = member.node.state == cluster_pb2.NODE_STATE_SERVING
                if serving and member.reported_at_s < silent_since_s:
                    _logger.warning("%s is silent and gets no reads until it reports", member.node.id)
                    member.node.state = cluster_pb2.NODE_STATE_CATCHING_UP
                    self.changed.notify()

    def topology(self) -> cluster_pb2.Topology:
        position = self._position()
        writer = cluster_pb2.Node(
            id=self._node_id,
            role=cluster_pb2.NODE_ROLE_WRITER,
            address=self._address,
            state=cluster_pb2.NODE_STATE_SERVING,
            applied_revision=position.revision,
        )
        return cluster_pb2.Topology(
            cluster_id=str(uuid.UUID(bytes=position.cluster_id)),
            epoch=position.epoch,
            nodes=[writer, *(self._members[key].node for key in sorted(self._members))],
            answered_by=self._node_id,
        )
