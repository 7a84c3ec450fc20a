"""Becoming the writer.

What has to be decided is decided here, in this order: the writer hands over, if it is there; nobody else has
more; the epoch is one that nobody has heard of. Then the standing says so on disk, the others are told, and
the process goes on as the writer's program.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace

import grpc

from agentmem.core.errors import FailedPrecondition, Unavailable
from agentmem.core.peers import ask_nodes, tell_nodes
from agentmem.core.store import Store
from agentmem.replica.follower import Follower
from agentmem.replica.writer_link import WriterLink
from agentmem.v1 import cluster_pb2

HANDOVER_TIMEOUT_S = 5.0
# The writer holds its writes for longer than this.
CATCH_UP_TIMEOUT_S = 8.0
MAX_EPOCH_ATTEMPTS = 5
MAX_EPOCH_PAUSE_S = 0.2
# Of a writer that is not there, or hangs.
_ABSENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)

_logger = logging.getLogger(__name__)


class Promotion:
    """The way of one replica to become the writer.

    Args:
        on_promoted: called when this node is the writer, and its program has to change.
    """

    def __init__(
        self,
        store: Store,
        link: WriterLink,
        follower: Follower,
        *,
        node_id: str,
        address: str,
        on_promoted: Callable[[], None],
    ) -> None:
        self._store = store
        self._link = link
        self._follower = follower
        self._node_id = node_id
        self._address = address
        self._on_promoted = on_promoted
        self._busy = asyncio.Lock()

    async def promote(self, *, force: bool) -> cluster_pb2.PromoteResponse:
        """Makes this node the writer of a new epoch; the process changes its program after the answer.

        Args:
            force: also when another replica has more, or the writer is there and does not hand over.

        Raises:
            FailedPrecondition: NO_CLUSTER; ALREADY_WRITER; PROMOTION_BEHIND, another replica has more;
                HANDOVER_REFUSED by the writer.
            Unavailable: HANDOVER_FAILED, this replica did not catch up in time. The writer goes on.
        """
        async with self._busy:
            position = self._store.position()
            if not position.cluster_id:
                raise FailedPrecondition("NO_CLUSTER", "this replica has never followed a writer")
            if self._link.standing.now.is_writer:
                raise FailedPrecondition("ALREADY_WRITER", "this node is the writer")
            if self._follower.is_superseded and not force:
                # What was written since would be left behind in turn.
                raise FailedPrecondition(
                    "PROMOTION_BEHIND",
                    f"what this replica has was left behind when epoch {self._link.known_epoch} began: "
                    "promote one that has followed that",
                )
            handed_over = await self._handed_over(position.cluster_id, force=force)
            previous = self._link.address
            peers = dict.fromkeys((*self._link.standing.now.peers, previous))
            peers.pop(self._address, None)
            epoch = await self._next_epoch(list(peers), force=force or handed_over)
            told = await self._take(epoch, list(peers))
            _logger.warning("this node is the writer of epoch %d", self._link.known_epoch)
            self._on_promoted()
            return cluster_pb2.PromoteResponse(
                epoch=self._link.known_epoch,
                revision=self._store.position().revision,
                handed_over=handed_over,
                previous_writer_address=previous,
                told_addresses=sorted(told),
                untold_addresses=sorted(set(peers) - told),
            )

    async def _handed_over(self, cluster_id: bytes, *, force: bool) -> bool:
        """Whether the writer stopped taking writes, and this store has all that it acknowledged."""
        if not self._follower.is_connected and not force:
            await self._check_can_catch_up()
        request = cluster_pb2.PrepareHandoverRequest(cluster_id=cluster_id, successor_id=self._node_id)
        try:
            response = await self._link.cluster.PrepareHandover(request, timeout=HANDOVER_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in _ABSENT or force:
                _logger.warning("the writer does not hand over: %s", error.details())
                return False
            raise FailedPrecondition(
                "HANDOVER_REFUSED", f"the writer does not hand over: {error.details()}"
            ) from error
        deadline_s = time.monotonic() + CATCH_UP_TIMEOUT_S
        while True:
            seen = self._follower.progress.count
            position = self._store.position()
            if position.revision >= response.position.revision:
                return position.chain_hash == response.position.chain_hash
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0 and force:
                return False
            if remaining_s <= 0:
                raise Unavailable(
                    "HANDOVER_FAILED",
                    f"this replica is at revision {position.revision}, the writer at "
                    f"{response.position.revision}, and it did not catch up in {CATCH_UP_TIMEOUT_S:g} s",
                )
            await self._follower.progress.wait_beyond(seen, remaining_s)

    async def _check_can_catch_up(self) -> None:
        """Writes would wait for nothing while a replica that does not follow the writer tries to catch up."""
        own = self._store.position()
        answer = (await ask_nodes([self._link.address])).get(self._link.address)
        if answer is None or answer.position.cluster_id != own.cluster_id:
            return
        is_writer = answer.node.role == cluster_pb2.NODE_ROLE_WRITER
        if is_writer and answer.position.revision > own.revision and not self._follower.is_connected:
            raise Unavailable(
                "HANDOVER_FAILED",
                f"the writer is at revision {answer.position.revision}, this replica at {own.revision}, "
                "and it does not follow the writer just now",
            )

    async def _next_epoch(self, peers: list[str], *, force: bool) -> int:
        """An epoch that no node has heard of."""
        own = self._store.position()
        epoch = self._link.known_epoch
        for address, answer in (await ask_nodes(peers)).items():
            theirs = answer.position
            if theirs.cluster_id != own.cluster_id:
                continue
            epoch = max(epoch, answer.known_epoch)
            is_replica = answer.node.role == cluster_pb2.NODE_ROLE_REPLICA
            if is_replica and (theirs.epoch, theirs.revision) > (own.epoch, own.revision) and not force:
                raise FailedPrecondition(
                    "PROMOTION_BEHIND",
                    f"{answer.node.id} at {address} has revision {theirs.revision} of epoch {theirs.epoch}, "
                    f"this replica {own.revision} of epoch {own.epoch}: promote that one",
                    node_id=answer.node.id,
                    address=address,
                )
        return epoch + 1

    async def _take(self, epoch: int, peers: list[str]) -> set[str]:
        """Takes the epoch on disk, then tells the others; returns who knows of it now.

        When another node takes the same epoch at the same moment, the later epoch wins.
        """
        for _ in range(MAX_EPOCH_ATTEMPTS):
            self._link.standing.become(
                replace(
                    self._link.standing.now,
                    role="writer",
                    known_epoch=epoch,
                    writer_id="",
                    writer_address="",
                    peers=tuple(peers),
                )
            )
            request = cluster_pb2.FollowWriterRequest(
                cluster_id=self._store.position().cluster_id,
                epoch=epoch,
                writer_id=self._node_id,
                writer_address=self._address,
            )
            answers = await tell_nodes(peers, request)
            if all(answer.accepted for answer in answers.values()):
                return set(answers)
            epoch = max(answer.known_epoch for answer in answers.values()) + 1
            await asyncio.sleep(random.uniform(0, MAX_EPOCH_PAUSE_S))
        return {address for address, answer in answers.items() if answer.accepted}
