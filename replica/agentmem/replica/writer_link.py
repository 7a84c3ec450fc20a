"""The way to the writer: which node that is, as far as this replica knows, and a channel to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

import grpc

from agentmem.core.peers import ask_nodes
from agentmem.core.serving import CHANNEL_OPTIONS
from agentmem.core.signals import Signal
from agentmem.core.standing import StandingFile
from agentmem.v1 import cluster_pb2, cluster_pb2_grpc, replication_pb2_grpc

# Calls on a channel that was left may end by themselves; closing it at once would cancel who waits for them.
LEFT_CHANNEL_S = 5.0

_logger = logging.getLogger(__name__)


class WriterLink:
    """Belongs to one event loop.

    Attributes:
        moved: notified when the writer is another one, or elsewhere.
        address: of the writer.
    """

    def __init__(self, standing: StandingFile, configured: str) -> None:
        """``configured`` is the address of any node of the cluster; what the standing knows is newer."""
        self.moved = Signal()
        self.standing = standing
        self.address = standing.now.writer_address or configured
        self._configured = configured
        self._leaving: set[asyncio.Task[None]] = set()
        self._open(self.address)

    def _open(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=list(CHANNEL_OPTIONS))
        self.replication = replication_pb2_grpc.ReplicationServiceStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(self.channel)

    @property
    def known_epoch(self) -> int:
        """The highest epoch that this replica has heard of."""
        return self.standing.now.known_epoch

    def follow(self, request: cluster_pb2.FollowWriterRequest) -> bool:
        """Takes a writer from now on, and remembers it; False when a later one, or another, is known."""
        now = self.standing.now
        is_other = now.is_writer or now.writer_id not in ("", request.writer_id)
        if request.epoch < now.known_epoch or (request.epoch == now.known_epoch and is_other):
            return False
        if (request.epoch, request.writer_address) != (now.known_epoch, self.address):
            _logger.info("the writer of epoch %d is at %s", request.epoch, request.writer_address)
        self.standing.become(
            replace(
                now,
                role="replica",
                cluster_id=request.cluster_id.hex(),
                known_epoch=request.epoch,
                # Before the first promotion a writer may change its name.
                writer_id=request.writer_id if request.epoch > 1 else "",
                writer_address=request.writer_address,
            )
        )
        if request.writer_address != self.address:
            self._leave(self.channel)
            self._open(request.writer_address)
            self.moved.notify()
        return True

    def hear_of(self, cluster_id: bytes, epoch: int) -> None:
        """Remembers the epoch of the writer that this link leads to."""
        now = self.standing.now
        if epoch > now.known_epoch:
            now = replace(now, known_epoch=epoch, writer_id="", writer_address=self.address)
        self.standing.become(replace(now, cluster_id=cluster_id.hex()))

    def _leave(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.create_task(channel.close(LEFT_CHANNEL_S))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def ask_around(self, own_address: str) -> None:
        """Asks the other nodes who the writer is; takes what those of the newest epoch say."""
        known = (self._configured, *self.standing.now.peers)
        answers = await self._answers(address for address in known if address != own_address)
        # Whoever only names a writer may have heard of it long ago; so it is asked itself, too.
        named = {answer.writer_address for answer in answers.values()} - {"", own_address, *known}
        answers |= await self._answers(named)
        requests = []
        for address, answer in answers.items():
            is_writer = answer.node.role == cluster_pb2.NODE_ROLE_WRITER
            # A writer is where it answered, wherever it says that it is.
            where = address if is_writer else answer.writer_address
            if where not in ("", own_address) and (is_writer or answer.known_epoch > self.known_epoch):
                request = cluster_pb2.FollowWriterRequest(
                    cluster_id=answer.position.cluster_id,
                    epoch=answer.known_epoch,
                    writer_id=answer.writer_id,
                    writer_address=where,
                )
                requests.append((answer.known_epoch, is_writer, request))
        if requests:
            # Of equal ones the first, which is what was configured.
            self.follow(max(requests, key=lambda each: each[:2])[2])

    async def _answers(self, addresses: Iterable[str]) -> dict[str, cluster_pb2.GetNodeResponse]:
        """What the nodes of this cluster say of themselves, by address."""
        own = self.standing.now.cluster_id
        answers = await ask_nodes(addresses)
        return {
            address: answer
            for address, answer in answers.items()
            if own in ("", answer.position.cluster_id.hex())
        }

    async def close(self) -> None:
        for task in self._leaving:
            task.cancel()
        await self.channel.close()
