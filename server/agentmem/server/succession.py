"""Whether this process still is the writer: epochs, handing over, stepping down.

There is one writer for each epoch. A promotion begins the next epoch; whoever has heard of it refuses the
writer before. This process hears of it from its successor, from its replicas, or from a client, and then
takes no more writes and goes on as a replica. What it had acknowledged and not shipped is set aside there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from agentmem.core.errors import FailedPrecondition, Unavailable, invalid_field
from agentmem.core.peers import ask_nodes, tell_nodes
from agentmem.core.set_aside import set_aside_entries
from agentmem.core.standing import StandingFile
from agentmem.core.store import Store
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.membership import Membership
from agentmem.v1 import cluster_pb2

# For so long a writer that was asked to hand over takes no writes; then the successor has failed.
HANDOVER_HOLD_S = 10.0
HANDOVER_RETRY_S = 0.1
ANNOUNCE_INTERVAL_S = 2.0
WRITER_METHODS = "/agentmem.v1.WriterService/"
# In the metadata of a write: the highest epoch that the client has heard of.
EPOCH_KEY = "agentmem-epoch"

_logger = logging.getLogger(__name__)


class Succession:
    """The standing of a writer, and what ends it. Belongs to one event loop.

    Args:
        on_end: called once, when this process is the writer no more.
    """

    def __init__(
        self,
        store: Store,
        queue: CommitQueue,
        membership: Membership,
        standing: StandingFile,
        *,
        node_id: str,
        address: str,
        on_end: Callable[[], None],
    ) -> None:
        self._store = store
        self._queue = queue
        self._membership = membership
        self._standing = standing
        self._node_id = node_id
        self._address = address
        self._on_end = on_end
        self._successor_id = ""
        self._inquiry: asyncio.Task[bool] | None = None
        self._release: asyncio.TimerHandle | None = None

    @property
    def has_ended(self) -> bool:
        return not self._standing.now.is_writer

    def describe(self) -> cluster_pb2.GetNodeResponse:
        """This node, for GetNode."""
        now = self._standing.now
        node = self._membership.topology().nodes[0]
        if self.has_ended:
            node.role, node.state = cluster_pb2.NODE_ROLE_REPLICA, cluster_pb2.NODE_STATE_CATCHING_UP
        return cluster_pb2.GetNodeResponse(
            node=node,
            position=self._store.position().to_proto(),
            known_epoch=now.known_epoch,
            set_aside_entries=set_aside_entries(self._standing.folder),
            writer_id=now.writer_id if self.has_ended else self._node_id,
            writer_address=now.writer_address if self.has_ended else self._address,
        )

    async def prepare_handover(
        self, request: cluster_pb2.PrepareHandoverRequest
    ) -> cluster_pb2.PrepareHandoverResponse:
        """Takes no writes from now on, for HANDOVER_HOLD_S; returns what was acknowledged until then.

        Raises:
            FailedPrecondition: CLUSTER_MISMATCH, HANDING_OVER to another one, or NOT_WRITER any more.
        """
        self._check_cluster(request.cluster_id)
        if self.has_ended:
            raise self.refusal()
        if self._successor_id not in ("", request.successor_id):
            raise FailedPrecondition(
                "HANDING_OVER", f"the writer hands over to {self._successor_id!r} just now"
            )
        self._successor_id = request.successor_id
        _logger.info("handing over to %s: no writes for up to %g s", request.successor_id, HANDOVER_HOLD_S)
        self._queue.hold(
            lambda: Unavailable(
                "HANDING_OVER", "the writer hands over to another node", retry_after_s=HANDOVER_RETRY_S
            )
        )
        if self._release is not None:
            self._release.cancel()
        self._release = asyncio.get_running_loop().call_later(HANDOVER_HOLD_S, self._resume)
        await self._queue.committed()
        response = cluster_pb2.PrepareHandoverResponse(position=self._store.position().to_proto())
        response.hold.FromMilliseconds(int(HANDOVER_HOLD_S * 1000))
        return response

    def _resume(self) -> None:
        if not self.has_ended:
            _logger.warning("%s did not take over: writes are taken again", self._successor_id)
            self._successor_id = ""
            self._queue.release()

    def follow(self, request: cluster_pb2.FollowWriterRequest) -> cluster_pb2.FollowWriterResponse:
        """Steps down for the writer of a later epoch; refuses another one. Raises FailedPrecondition."""
        self._check_cluster(request.cluster_id)
        known = self._standing.now.known_epoch
        accepted = request.epoch > known or (
            self.has_ended and request.epoch == known and request.writer_id == self._standing.now.writer_id
        )
        if accepted:
            self._step_down(request.epoch, request.writer_id, request.writer_address)
        return cluster_pb2.FollowWriterResponse(accepted=accepted, known_epoch=self._standing.now.known_epoch)

    def hear_of(self, epoch: int) -> bool:
        """Says whether an epoch that somebody knows is later than the own one; asks the other nodes if so.

        One is not believed alone: a client that is wrong, or a bit that flipped on the way, would be enough
        to take the writer away from all others.
        """
        is_later = epoch > self._standing.now.known_epoch
        if is_later and (self._inquiry is None or self._inquiry.done()):
            self._inquiry = asyncio.create_task(self.find_superseding())
        return is_later or self.has_ended

    def _step_down(self, epoch: int, writer_id: str, writer_address: str) -> None:
        began = not self.has_ended
        self._standing.become(
            replace(
                self._standing.now,
                role="replica",
                known_epoch=epoch,
                writer_id=writer_id,
                writer_address=writer_address,
            )
        )
        self._queue.hold(self.refusal, drop_waiting=True)
        if began:
            _logger.warning("epoch %d has begun elsewhere: this node is the writer no more", epoch)
            self._on_end()

    def refusal(self) -> FailedPrecondition:
        """The answer to writes once this process is the writer no more."""
        now = self._standing.now
        where = (
            f"write to the writer at {now.writer_address}" if now.writer_address else "ask for the topology"
        )
        return FailedPrecondition(
            "NOT_WRITER",
            f"epoch {now.known_epoch} has begun, and this node is the writer no more: {where}",
            writer_address=now.writer_address,
            epoch=str(now.known_epoch),
        )

    def check_call(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Refuses writes of a client that knows of a later epoch. Raises Unavailable (``STALE_EPOCH``)."""
        if not method.startswith(WRITER_METHODS):
            return
        for key, value in metadata:
            if key != EPOCH_KEY:
                continue
            if not isinstance(value, str) or not value.isdecimal():
                raise invalid_field(EPOCH_KEY, "in the metadata must be a number")
            if self.hear_of(int(value)) and not self.has_ended:
                raise Unavailable(
                    "STALE_EPOCH",
                    f"this writer is of epoch {self._standing.now.known_epoch}, the caller knows of {value}",
                    epoch=str(self._standing.now.known_epoch),
                )

    def _check_cluster(self, cluster_id: bytes) -> None:
        own = self._store.position().cluster_id
        if cluster_id != own:
            raise FailedPrecondition("CLUSTER_MISMATCH", f"this node belongs to cluster {own.hex()}")

    async def find_superseding(self) -> bool:
        """Asks the other nodes whether a later epoch has begun; steps down if so, and says so."""
        answers = await ask_nodes(self._standing.now.peers)
        own = self._store.position().cluster_id
        for answer in sorted(answers.values(), key=lambda each: each.known_epoch, reverse=True):
            if answer.position.cluster_id == own and answer.known_epoch > self._standing.now.known_epoch:
                self._step_down(answer.known_epoch, answer.writer_id, answer.writer_address)
        return self.has_ended

    async def announce(self) -> None:
        """Tells the nodes that do not follow this writer of it, again and again, until cancelled."""
        if self._standing.now.known_epoch == 1:
            return  # there was no other writer
        # The epoch that has ended it is not this node's to announce.
        while not self.has_ended:
            following = {node.address for node in self._membership.topology().nodes}
            away = [peer for peer in self._standing.now.peers if peer not in following]
            request = cluster_pb2.FollowWriterRequest(
                cluster_id=self._store.position().cluster_id,
                epoch=self._standing.now.known_epoch,
                writer_id=self._node_id,
                writer_address=self._address,
            )
            for answer in (await tell_nodes(away, request)).values():
                if not answer.accepted:
                    self.hear_of(answer.known_epoch)
            await asyncio.sleep(ANNOUNCE_INTERVAL_S)
