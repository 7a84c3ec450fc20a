"""The client while replicas are killed, drained, added: reads go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cluster import Cluster, Node, wait_until

from agentmem.client import AsyncClient, Client, NewMemory, Unavailable
from agentmem.v1 import cluster_pb2

READERS = 8


class Load:
    """Readers that read all the time and count how it went."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self._progress = asyncio.Event()

    async def wait_for_reads(self, count: int) -> None:
        """Returns after this many more reads of each kind."""
        goal = {kind: self.done[kind] + count for kind in ("get", "search", "list")}
        async with asyncio.timeout(60):
            while any(self.done[kind] < wanted for kind, wanted in goal.items()) and not self.errors:
                self._progress.clear()
                await self._progress.wait()

    async def _read(self, client: AsyncClient, number: int) -> None:
        kinds: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("get", lambda: client.get("ns", f"m{number}")),
            ("search", lambda: client.search("ns", f"memory {number}", top_k=3)),
            ("list", lambda: client.list("ns", page_size=3)),
        ]
        while True:
            for kind, read in kinds:
                try:
                    assert await read()
                except Exception as error:
                    self.errors.append(error)
                self.done[kind] += 1
                self._progress.set()

    @asynccontextmanager
    async def running(self, client: AsyncClient) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._read(client, number)) for number in range(READERS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def fill(cluster: Cluster) -> None:
    with Client(cluster.writer.address) as client:
        memories = [NewMemory(content=f"memory {number}", id=f"m{number}") for number in range(READERS)]
        cluster.wait_searchable(client.add_many("ns", memories).revision)


def test_reads_go_on_when_a_replica_is_killed(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> Load:
        load = Load()
        async with AsyncClient(cluster.writer.address, timeout_s=30) as client, load.running(client):
            await load.wait_for_reads(50)
            await asyncio.to_thread(cluster.replicas[0].kill)
            await load.wait_for_reads(200)
            await asyncio.to_thread(cluster.replicas[0].restart)
            await load.wait_for_reads(50)
            await asyncio.to_thread(cluster.replicas[1].kill)
            await load.wait_for_reads(200)
        return load

    with Cluster(tmp_path) as cluster:
        fill(cluster)
        load = asyncio.run(scenario(cluster))
    assert load.errors == []


def test_reads_go_on_when_replicas_come_and_go(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> Load:
        load = Load()
        async with AsyncClient(cluster.writer.address, timeout_s=30) as client, load.running(client):
            await load.wait_for_reads(20)
            added = await asyncio.to_thread(lambda: cluster.begin_replica().wait_ready())
            await load.wait_for_reads(50)
            assert added.address in {node.address for node in (await client.topology()).nodes}
            for replica in cluster.replicas[:2]:
                assert await asyncio.to_thread(replica.terminate) == 0
                await load.wait_for_reads(50)
            addresses = [node.address for node in (await client.topology()).nodes]
            assert addresses == [cluster.writer.address, added.address]
        return load

    with Cluster(tmp_path) as cluster:
        fill(cluster)
        load = asyncio.run(scenario(cluster))
    assert load.errors == []


def test_reads_go_on_when_a_replica_hangs(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> Load:
        load = Load()
        paused = cluster.replicas[0]
        async with AsyncClient(cluster.writer.address, timeout_s=20) as client, load.running(client):
            await load.wait_for_reads(20)
            paused.pause()
            await load.wait_for_reads(500)
            await asyncio.to_thread(
                wait_until, lambda: state_of(cluster, paused) == "CATCHING_UP", "its silence shows"
            )
            await load.wait_for_reads(50)
            paused.resume()
            await asyncio.to_thread(wait_until, lambda: state_of(cluster, paused) == "SERVING", "it is back")
            await load.wait_for_reads(50)
        return load

    with Cluster(tmp_path) as cluster:
        fill(cluster)
        load = asyncio.run(scenario(cluster))
    assert load.errors == []


def state_of(cluster: Cluster, node: Node) -> str:
    (found,) = [each for each in cluster.topology().nodes if each.address == node.address]
    return cluster_pb2.NodeState.Name(found.state).removeprefix("NODE_STATE_")


def test_without_replicas_gets_go_to_the_writer_and_searches_wait(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=1) as cluster:
        fill(cluster)
        with Client(cluster.writer.address) as client:
            assert client.search("ns", "memory 1").hits
            cluster.replicas[0].kill()
            assert client.get("ns", "m1") is not None
            assert len(client.list("ns").memories) == READERS
            with pytest.raises(Unavailable):
                client.search("ns", "memory 1", timeout_s=0.5)
            cluster.replicas[0].restart()
            assert client.search("ns", "memory 1", timeout_s=30).hits


def test_a_client_finds_the_cluster_through_any_node(shared_cluster: Cluster) -> None:
    for node in shared_cluster.nodes:
        with Client(node.address) as client:
            topology = client.topology()
            assert [member.address for member in topology.nodes] == [
                member.address for member in shared_cluster.nodes
            ]
            assert client.add("any-node", "written through any node").revision
