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

from agentmem.client import (
    AlreadyExists,
    AsyncClient,
    DataLoss,
    OutcomeUnknown,
    ResourceExhausted,
    Unavailable,
)
from agentmem.client.budget import TokenBucket
from agentmem.core import errors
from agentmem.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    failure_pb2,
    memory_pb2,
    reader_pb2,
    reader_pb2_grpc,
    writer_pb2,
    writer_pb2_grpc,
)

CLUSTER_ID = "12345678-1234-1234-1234-123456789abc"
# An error; the revision of the answer; or, for each request of a batch, one of both.
Answer = errors.AgentMemError | int | list["Answer"]


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
        self.added: list[str] = []
        self.calls = 0
        self.is_silent = False
        self.batch: list[Answer] = []
        self.server = grpc.aio.server()
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(self, self.server)
        reader_pb2_grpc.add_ReaderServiceServicer_to_server(self, self.server)
        writer_pb2_grpc.add_WriterServiceServicer_to_server(self, self.server)

    def _next(self) -> Answer:
        self.calls += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def _answer(self, context: Any) -> int:
        answer = self._next()
        if self.is_silent:
            await asyncio.Event().wait()
        if isinstance(answer, int):
            return answer
        raise await self._abort(context, answer)

    async def _abort(self, context: Any, answer: Answer) -> AssertionError:
        assert isinstance(answer, errors.AgentMemError)
        context.set_trailing_metadata((("grpc-status-details-bin", answer.to_status().SerializeToString()),))
        await context.abort(answer.code, answer.message)
        return AssertionError("abort raises")

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

    async def AddMemories(self, request: Any, context: Any) -> Any:
        self.added.append(request.request_id)
        return writer_pb2.AddMemoriesResponse(revision=await self._answer(context))

    async def BatchAddMemories(self, request: Any, context: Any) -> Any:
        answer = self._next()
        if not isinstance(answer, list):
            raise await self._abort(context, answer)
        response = writer_pb2.BatchAddMemoriesResponse()
        for each in answer:
            if isinstance(each, int):
                response.results.add().response.revision = each
            else:
                response.results.add().failure.CopyFrom(failure_of(each))
        return response

    async def SearchMemories(self, request: Any, context: Any) -> Any:
        return reader_pb2.SearchMemoriesResponse(applied_revision=await self._answer(context))

    async def BatchSearchMemories(self, request: Any, context: Any) -> Any:
        self.calls += 1
        response = reader_pb2.BatchSearchMemoriesResponse()
        for each in self.batch:
            if isinstance(each, int):
                response.results.add().response.applied_revision = each
            else:
                response.results.add().failure.CopyFrom(failure_of(each))
        return response

    async def GetStats(self, request: Any, context: Any) -> Any:
        return reader_pb2.GetStatsResponse(applied_revision=await self._answer(context))


def failure_of(error: Answer) -> failure_pb2.Failure:
    assert isinstance(error, errors.AgentMemError)
    return failure_pb2.Failure(
        code=error.code.value[0], message=error.message, reason=error.reason, metadata=error.metadata
    )


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
        # Such refusals cost nothing, so that a promotion uses no budget up; for an attempt that is on its way
        # when the promotion is heard of there is a token.
        client._router._calls.retries._bucket = TokenBucket(share=0.0, burst=1.0, tokens=1.0)
        write = asyncio.create_task(client.update("ns", "a", content="x"))
        async with asyncio.timeout(30):
            while nodes.writer.calls < 3:
                await asyncio.wait({write}, timeout=0.01)
        nodes.promote()
        updated = await write
        assert (updated.revision, updated.epoch) == (7, 2)
        assert client.statistics().retries >= 3

    scenario(body)


def test_a_write_does_not_wait_for_a_writer_that_was_replaced() -> None:
    async def body(nodes: Nodes, client: AsyncClient) -> None:
        # Its connection is well, and so nothing but the topology tells that no answer will come.
        nodes.writer.is_silent = True
        nodes.next_writer.answers = [7]
        write = asyncio.create_task(client.update("ns", "a", content="x", timeout_s=3600))
        async with asyncio.timeout(60):
            while not nodes.writer.calls:
                await asyncio.wait({write}, timeout=0.01)
            nodes.promote()
            assert (await write).revision == 7

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


OVERLOADED = errors.ResourceExhausted("OVERLOADED", "too much")
EXISTS = errors.AlreadyExists("MEMORY_EXISTS", "memories[0].id exists")
STALE = errors.Unavailable("REPLICA_STALE", "does not show it")


async def settled(*calls: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_after_a_doubt_an_add_of_a_batch_is_sent_until_it_is_answered() -> None:
    async def body(nodes: Nodes, client: AsyncClient) -> None:
        # Without a doubt, being overloaded is an answer.
        nodes.writer.answers = [[OVERLOADED, 3, EXISTS]]
        found = await settled(*(client.add("ns", "x", request_id=f"a{n}") for n in range(3)))
        assert isinstance(found[0], ResourceExhausted)
        assert found[1].revision == 3
        assert isinstance(found[2], AlreadyExists)
        assert nodes.writer.added == []
        # After one, it says nothing of the attempt before. What the writer says once it knows of no such
        # request is an answer.
        nodes.writer.answers = [COMMIT_FAILED, [OVERLOADED, 3, EXISTS], 4]
        found = await settled(*(client.add("ns", "x", request_id=f"b{n}") for n in range(3)))
        assert [found[0].revision, found[1].revision] == [4, 3]
        assert isinstance(found[2], AlreadyExists)
        assert nodes.writer.added == ["b0"]

    scenario(body)


def test_an_add_of_a_batch_that_stays_in_doubt_says_so_by_its_own_request_id() -> None:
    async def body(nodes: Nodes, client: AsyncClient) -> None:
        nodes.writer.answers = [[COMMIT_FAILED, 3], HANDING_OVER]
        found = await settled(*(client.add("ns", "x", request_id=f"a{n}", timeout_s=1) for n in range(2)))
        assert isinstance(found[0], OutcomeUnknown)
        assert found[0].metadata["request_id"] == "a0"
        assert found[1].revision == 3
        nodes.writer.answers = [COMMIT_FAILED]
        found = await settled(*(client.add("ns", "x", request_id=f"b{n}", timeout_s=1) for n in range(2)))
        assert [type(each) for each in found] == [OutcomeUnknown, OutcomeUnknown]
        assert [each.metadata["request_id"] for each in found] == ["b0", "b1"]

    scenario(body)


def test_a_search_of_a_batch_that_one_replica_cannot_answer_goes_to_another() -> None:
    async def body(nodes: Nodes, client: AsyncClient) -> None:
        # Once it knows the cluster, calls that come together go together.
        await client.search("ns", "first")
        for node in (nodes.a, nodes.b):
            node.answers, node.batch, node.calls = [7], [1, STALE, 3], 0
        found = await asyncio.gather(*(client.search("ns", f"x{n}") for n in range(3)))
        assert [each.applied_revision for each in found] == [1, 7, 3]
        assert sorted((nodes.a.calls, nodes.b.calls)) in ([0, 2], [1, 1])

    scenario(body)
