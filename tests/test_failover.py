"""The client while replicas are killed, drained, added: reads go on."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cluster import Cluster, Node, wait_until

from agentmem.client import AsyncClient, Client, NewMemory, Unavailable, calls
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
        async with AsyncClient(cluster.writer.address) as client, load.running(client):
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
    """The node's state as the writer has it; "" while it is not subscribed."""
    states = {each.address: each.state for each in cluster.topology().nodes}
    state = states.get(node.address, cluster_pb2.NODE_STATE_UNSPECIFIED)
    return cluster_pb2.NodeState.Name(state).removeprefix("NODE_STATE_")


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


def test_a_search_waits_for_a_replica_until_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds in which nobody was asked do not count as attempts."""
    monkeypatch.setattr(calls, "MAX_ATTEMPTS", 1)
    with Cluster(tmp_path, replicas=0) as cluster, Client(cluster.writer.address) as client:
        client.add("ns", "memory 1")
        with pytest.raises(Unavailable, match=r"within 0\.5 s; no replica is serving"):
            client.search("ns", "memory 1", timeout_s=0.5)
        with ThreadPoolExecutor(1) as threads:
            found = threads.submit(client.search, "ns", "memory 1", timeout_s=60)
            cluster.begin_replica().wait_ready()
            assert found.result().hits


def test_a_write_waits_for_the_writer_until_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_ATTEMPTS", 1)
    with Cluster(tmp_path, replicas=1) as cluster, Client(cluster.writer.address) as client:
        client.add("ns", "memory 1")
        cluster.writer.kill()

        def is_known_to_be_away() -> bool:
            # The first write may still go out on the connection that was.
            with pytest.raises(Unavailable) as refused:
                client.add("ns", "memory 2", timeout_s=0.5)
            problem = r"no writer took it within 0\.5 s; tried .* could not connect"
            return re.search(problem, refused.value.message) is not None

        wait_until(is_known_to_be_away, "the write is not sent")
        with ThreadPoolExecutor(1) as threads:
            added = threads.submit(client.add, "ns", "memory 2", timeout_s=60)
            cluster.writer.restart()
            assert added.result().revision == 2


def test_a_read_is_sent_a_bounded_number_of_times_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_ATTEMPTS", 1)
    with Cluster(tmp_path, replicas=1) as cluster, Client(cluster.writer.address) as client:
        (replica,) = cluster.replicas
        client.add("ns", "memory 1", id="m1")
        assert client.search("ns", "memory 1", timeout_s=30).applied_revision >= 0  # connects
        replica.pause()
        with pytest.raises(Unavailable) as caught:
            client.get("ns", "m1", timeout_s=0.5)
        assert caught.value.message.startswith(f"no node could answer in 1 attempts; tried {replica.address}")


def test_calls_that_their_callers_cancel_leave_nothing_behind(tmp_path: Path) -> None:
    """While they wait for a connection, an answer, a replica, or their next attempt."""

    async def cancelled(call: Awaitable[object]) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await call

    async def scenario(cluster: Cluster) -> None:
        (replica,) = cluster.replicas
        async with AsyncClient(cluster.writer.address) as client:
            await client.topology()
            replica.pause()
            # Nothing was sent there yet, so the first of them wait for the connection.
            await asyncio.gather(*(cancelled(client.search("ns", "memory")) for _ in range(20)))
            replica.resume()
            await client.search("ns", "memory")
            replica.pause()
            reads = [cancelled(client.get("ns", "m1")) for _ in range(20)]
            reads += [cancelled(client.search("ns", "memory")) for _ in range(20)]
            await asyncio.gather(*reads)
            cluster.writer.pause()
            await asyncio.gather(*(cancelled(client.add("ns", "memory 9")) for _ in range(20)))
            cluster.writer.resume()
            replica.resume()
            router = client._router
            assert {load.outstanding for load in router._loads.values()} == {0}
            users = {each.address: each.users for each in router._channels._endpoints.values()}
            assert sorted(users.values()) == [0, 1]  # the one that the topology comes from
            assert (await client.search("ns", "memory", timeout_s=30)).hits

    with Cluster(tmp_path, replicas=1) as cluster:
        fill(cluster)
        asyncio.run(scenario(cluster))


def test_a_client_finds_the_cluster_through_any_node(shared_cluster: Cluster) -> None:
    for node in shared_cluster.nodes:
        with Client(node.address) as client:
            topology = client.topology()
            assert [member.address for member in topology.nodes] == [
                member.address for member in shared_cluster.nodes
            ]
            assert client.add("any-node", "written through any node").revision
