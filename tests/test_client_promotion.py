"""What a client does while a cluster changes its writer.

The nodes here are gRPC servers that say what a test wants: a cluster says most of it for milliseconds only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from agentmem.client import AsyncClient, DataLoss, OutcomeUnknown, Unavailable
from agentmem.core import errors
from agentmem.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    memory_pb2,
    reader_pb2,
    reader_pb2_grpc,
    writer_pb2,
    writer_pb2_grpc,
)

CLUSTER_ID = "12345678-1234-1234-1234-123456789abc"
Answer = errors.AgentMemError | int


class Scripted(
    cluster_pb2_grpc.ClusterServiceServicer,
    reader_pb2_grpc.ReaderServiceServicer,
    writer_pb2_grpc.WriterServiceServicer,
):
    """A node that answers as it is told: with an error, or with what is of a revision. The last one stays."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.answers: list[Answer] = [1]
        self.epochs: list[str] = []
        self.calls = 0
        self.server = grpc.aio.server()
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(self, self.server)
        reader_pb2_grpc.add_ReaderServiceServicer_to_server(self, self.server)
        writer_pb2_grpc.add_WriterServiceServicer_to_server(self, self.server)

    async def _answer(self, context: Any) -> int:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return answer
        context.set_trailing_metadata((("grpc-status-details-bin", answer.to_status().SerializeToString()),))
        await context.abort(answer.code, answer.message)
        raise AssertionError

    async def WatchTopology(self, request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            changed = self.nodes.changed
            yield cluster_pb2.WatchTopologyResponse(topology=self.nodes.topology())
            await changed.wait()

    async def UpdateMemory(self, request: Any, context: Any) -> Any:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.epochs.append(metadata.get("agentmem-epoch", ""))
        revision = await self._answer(context)
        response = writer_pb2.UpdateMemoryResponse(revision=revision, epoch=self.nodes.epoch)
        response.memory.type = memory_pb2.MEMORY_TYPE_EPISODIC
        return response

    async def GetStats(self, request: Any, context: Any) -> Any:
        return reader_pb2.GetStatsResponse(applied_revision=await self._answer(context))


class Nodes:
    """A writer, the node that is promoted to be the next one, and two replicas."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.epoch = 1
        self.all = [Scripted(self) for _ in range(4)]  # type: ignore[abstract]
        self.writer, self.next_writer, self.a, self.b = self.all

    def topology(self) -> cluster_pb2.Topology:
        topology = cluster_pb2.Topology(cluster_id=CLUSTER_ID, epoch=self.epoch)
        writer = self.writer if self.epoch == 1 else self.next_writer
        for node in (writer, self.a, self.b):
            topology.nodes.add(
                id=node.address,
                address=node.address,
                role=cluster_pb2.NODE_ROLE_WRITER if node is writer else cluster_pb2.NODE_ROLE_REPLICA,
                state=cluster_pb2.NODE_STATE_SERVING,
            )
        return topology

    def promote(self) -> None:
        self.epoch = 2
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


def scenario(body: Callable[[Nodes, AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        nodes = Nodes()
        try:
            for node in nodes.all:
                await node.server.start()
            async with AsyncClient(nodes.a.address, timeout_s=20) as client:
                await body(nodes, client)
        finally:
            await asyncio.gather(*(node.server.stop(None) for node in nodes.all))

    asyncio.run(run())


HANDING_OVER = errors.Unavailable("HANDING_OVER", "a successor begins soon")
STALE_EPOCH = errors.FailedPrecondition("STALE_EPOCH", "there is a later epoch")
NOT_WRITER = errors.FailedPrecondition("NOT_WRITER", "this node is not the writer")
COMMIT_FAILED = errors.Unavailable("COMMIT_FAILED", "the commit failed")
CORRUPT = errors.DataLoss("CORRUPT_RECORD", "ordinal 7 is damaged")


@pytest.mark.parametrize("refusal", [HANDING_OVER, STALE_EPOCH, NOT_WRITER], ids=lambda error: error.reason)
def test_a_write_waits_for_the_next_writer(refusal: errors.AgentMemError) -> None:
    async def body(nodes: Nodes, client: AsyncClient) -> None:
        nodes.writer.answers = [refusal]
        nodes.next_writer.answers = [7]
        write = asyncio.create_task(client.update("ns", "a", content="x"))
        async with asyncio.timeout(30):
            while nodes.writer.calls < 3:
                await asyncio.wait({write}, timeout=0.01)
        nodes.promote()
        updated = await write
        assert (updated.revision, updated.epoch) == (7, 2)
        # Such refusals cost nothing, so that a promotion uses no budget up.
        assert client._router._calls.retries._bucket._tokens >= 100
        assert client.statistics().retries >= 3

    scenario(body)


def test_a_redirection_is_followed_at_once() -> None:
    async def body(nodes: Nodes, client: AsyncClient) -> None:
        nodes.writer.answers = [
            errors.FailedPrecondition("NOT_WRITER", "not any more", writer_address=nodes.next_writer.address)
        ]
        assert (await client.update("ns", "a", content="x")).revision == 1
        assert (nodes.writer.calls, nodes.next_writer.calls) == (1, 1)

    scenario(body)


def test_a_refusal_after_a_doubt_leaves_the_doubt() -> None:
    async def body(nodes: Nodes, client: AsyncClient) -> None:
        nodes.writer.answers = [COMMIT_FAILED, HANDING_OVER]
        with pytest.raises(OutcomeUnknown):
            await client.update("ns", "a", content="x", timeout_s=1)
        nodes.writer.answers = [HANDING_OVER]
        with pytest.raises(Unavailable, match="the write was not done") as caught:
            await client.update("ns", "a", content="x", timeout_s=0.5)
        assert not isinstance(caught.value, OutcomeUnknown)

    scenario(body)


def test_each_write_tells_the_highest_epoch_that_the_client_knows() -> None:
    async def body(nodes: Nodes, client: AsyncClient) -> None:
        await client.update("ns", "a", content="x")
        assert nodes.writer.epochs == ["1"]
        # It learns of the next from an answer, before the topology says so.
        nodes.epoch = 2
        await client.update("ns", "a", content="x")
        await client.update("ns", "a", content="x")
        assert nodes.writer.epochs == ["1", "1", "2"]

    scenario(body)


def test_a_fault_of_one_node_is_not_that_of_another() -> None:
    async def body(nodes: Nodes, client: AsyncClient) -> None:
        nodes.a.answers = [CORRUPT]
        await client.update("ns", "a", content="x")
        loads = client._router._loads
        for _ in range(40):
            # As if all were equally quick, so that each may be asked first.
            loads.update({address: replace(load, latency_s=None) for address, load in loads.items()})
            assert (await client.stats("ns")).applied_revision == 1
        assert nodes.a.calls >= 3
        # After three in a row it is asked no more for a while.
        assert nodes.a.calls < 10
        assert client.statistics().ejections >= 1
        assert client.statistics().retries == nodes.a.calls
        for node in (nodes.b, nodes.writer):
            node.answers = [CORRUPT]
        with pytest.raises(DataLoss):
            await client.stats("ns")

    scenario(body)
