"""Replication between real processes: replicas converge whatever is restarted, and refuse another history."""

from __future__ import annotations

import shutil
import statistics
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from calls import Memory, add, all_ids
from cluster import Cluster, Node, Stubs, client_of, wait_until

from agentmem.client import Client, NewMemory
from agentmem.core.log import Position
from agentmem.core.store import Store
from agentmem.v1 import (
    cluster_pb2,
    memory_pb2,
    reader_pb2,
    replication_pb2,
    replication_pb2_grpc,
    writer_pb2,
)

MIB = 1024**2
ENTRIES = 120


def position_of(data_dir: Path) -> Position:
    """The position of a stopped process's store."""
    store = Store(data_dir / "store", map_size_bytes=64 * MIB, max_map_size_bytes=1024 * MIB)
    try:
        return store.position()
    finally:
        store.close()


def write(client: Client, count: int, prefix: str) -> int:
    """Adds, updates and deletes; returns the last revision."""
    revision = 0
    for number in range(count):
        added = client.add("ns", NewMemory(content=f"{prefix} {number}", id=f"{prefix}-{number}"))
        revision = added.revision
        if number % 5 == 0:
            client.update("ns", f"{prefix}-{number}", content=f"{prefix} {number} changed")
        if number % 7 == 0:
            revision = client.delete("ns", f"{prefix}-{number}").revision
    return revision


def test_replicas_hold_the_writers_log(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        with client_of(cluster) as client:
            cluster.wait_searchable(write(client, ENTRIES, "one"))
        assert [node.terminate() for node in reversed(cluster.nodes)] == [0, 0, 0]
        positions = {position_of(node.data_dir) for node in cluster.nodes}
    assert len(positions) == 1
    assert positions.pop().revision > ENTRIES


def test_a_killed_replica_goes_on_from_where_it_was(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster, client_of(cluster) as client:
        before = write(client, ENTRIES, "one")
        cluster.wait_searchable(before)
        killed = cluster.replicas[0]
        killed.kill()
        revision = write(client, ENTRIES, "two")
        killed.restart()
        cluster.wait_searchable(revision)
        stubs = Stubs(killed.address)
        listed = stubs.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace="ns", page_size=1000))
        found = stubs.reader.SearchMemories(
            reader_pb2.SearchMemoriesRequest(namespace="ns", text="two", mode=reader_pb2.SEARCH_MODE_TEXT)
        )
        stubs.channel.close()
        writer = Stubs(cluster.writer.address)
        expected = writer.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace="ns", page_size=1000))
        writer.channel.close()
        assert list(listed.memories) == list(expected.memories)
        assert len(found.hits) == 10
        assert any(f"replica-1 subscribed behind revision {before}\n" in line for line in cluster.writer.log)


def test_a_killed_writer_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster, client_of(cluster) as client:
        write(client, 20, "one")
        acknowledged = client.add("ns", NewMemory(content="the last one", id="last"))
        cluster.writer.kill()
        cluster.writer.restart()
        writer = Stubs(cluster.writer.address)  # a replica may not have seen the last write yet
        found = writer.reader.GetMemories(
            reader_pb2.GetMemoriesRequest(namespace="ns", ids=["last", "one-1"])
        )
        writer.channel.close()
        assert [memory.id for memory in found.memories] == ["last", "one-1"]
        revision = client.add("ns", "after the crash").revision
        assert revision == acknowledged.revision + 1
        cluster.wait_searchable(revision)


def test_replicas_serve_while_the_writer_is_away(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster, client_of(cluster) as client:
        cluster.wait_searchable(client.add("ns", NewMemory(content="still here", id="a")).revision)
        cluster.writer.kill()
        assert client.search("ns", "still here").hits[0].memory.id == "a"
        assert client.get("ns", "a") is not None


def test_replicas_start_before_their_writer(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster, client_of(cluster) as client:
        revision = client.add("ns", NewMemory(content="early", id="a")).revision
        cluster.wait_searchable(revision)
        for node in cluster.nodes:
            node.kill()
        for replica in cluster.replicas:
            replica._start()
        cluster.writer.restart()
        for replica in cluster.replicas:
            replica.wait_ready()
        cluster.wait_searchable(revision)
        assert client.search("ns", "early").hits[0].memory.id == "a"


def test_a_replica_refuses_a_writer_that_lost_its_log(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=1) as cluster:
        with client_of(cluster) as client:
            revision = write(client, 10, "one")
            cluster.wait_searchable(revision)
            copy = tmp_path / "copy"
            cluster.writer.terminate()
            shutil.copytree(cluster.writer.data_dir / "store", copy)
            cluster.writer.restart()
            revision = write(client, 10, "two")
            cluster.wait_searchable(revision)
        replica = cluster.replicas[0]
        before = revision
        # The writer comes back with an older store of the same cluster.
        cluster.writer.terminate()
        shutil.rmtree(cluster.writer.data_dir / "store")
        shutil.copytree(copy, cluster.writer.data_dir / "store")
        cluster.writer.restart()
        wait_until(lambda: "the writer only at" in "".join(replica.log), "the writer is refused")
        # It gives up nothing, goes on serving what it has, and can be made the writer.
        with Stubs(replica.address) as stubs:
            assert stubs.reader.GetMemories(
                reader_pb2.GetMemoriesRequest(namespace="ns", ids=["two-1"])
            ).memories
        replica.kill()
        assert position_of(replica.data_dir).revision == before


def test_a_replica_refuses_another_cluster(tmp_path: Path) -> None:
    with Cluster(tmp_path / "one", replicas=1) as one, Cluster(tmp_path / "two", replicas=0) as two:
        with client_of(one) as client:
            one.wait_searchable(client.add("ns", "text").revision)
        one.replicas[0].terminate()
        stray = Node(
            "agentmem.replica", one.replicas[0].data_dir, "--node-id", "stray", "--writer", two.writer.address
        )
        wait_until(lambda: "belongs to cluster" in "".join(stray.log), "the writer is refused")
        before = position_of(one.writer.data_dir) if one.writer.terminate() == 0 else None
        assert stray.terminate() == 0
        assert position_of(stray.data_dir) == before


def test_a_second_replica_of_one_name_is_refused(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=1) as cluster:
        second = Node(
            "agentmem.replica",
            tmp_path / "second",
            *("--node-id", "replica-1", "--writer", cluster.writer.address),
        )
        wait_until(lambda: any("--node-id" in line for line in second.log), "the replica is told")
        second.kill()
        (replica,) = [node for node in cluster.topology().nodes if node.id == "replica-1"]
        assert replica.address == cluster.replicas[0].address
        assert replica.state == cluster_pb2.NODE_STATE_SERVING


def test_writes_that_change_nothing_do_not_silence_the_feed(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0) as cluster:
        stubs = Stubs(cluster.writer.address)
        feed = replication_pb2_grpc.ReplicationServiceStub(stubs.channel)
        frames = feed.Subscribe(
            replication_pb2.SubscribeRequest(replica_id="test", address="127.0.0.1:1"), timeout=30
        )
        request = writer_pb2.DeleteMemoriesRequest(namespace="ns", ids=["never there"])
        heartbeats: list[replication_pb2.Heartbeat] = []

        def listen() -> None:
            for frame in frames:
                heartbeats.append(frame.heartbeat)
                if len(heartbeats) == 4:
                    return

        listening = threading.Thread(target=listen)
        listening.start()
        while listening.is_alive():
            stubs.writer.DeleteMemories(request)
        listening.join()
        frames.cancel()
        stubs.channel.close()
        assert len(heartbeats) == 4


def test_a_writer_that_ends_answers_what_it_took(tmp_path: Path) -> None:
    """Each write is either acknowledged and there, or refused with SHUTTING_DOWN and not."""
    with Cluster(tmp_path, replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        outcomes: dict[str, str] = {}

        def attempt(number: int) -> None:
            try:
                add(stubs, "ns", Memory(id=str(number), content="x" * 1000))
                outcomes[str(number)] = "ok"
            except grpc.RpcError as error:
                outcomes[str(number)] = str(error.details())

        with ThreadPoolExecutor(32) as pool:
            attempts = [pool.submit(attempt, number) for number in range(5000)]
            wait_until(lambda: len(outcomes) > 200, "writes are going on")
            assert cluster.writer.terminate() == 0
            for pending in attempts:
                pending.cancel()
        stubs.channel.close()
        cluster.writer.restart()
        stubs = Stubs(cluster.writer.address)
        stored = all_ids(stubs, "ns")
        stubs.channel.close()
    assert {number for number, outcome in outcomes.items() if outcome == "ok"} == stored
    assert "the writer is shutting down" in outcomes.values()


def test_a_second_process_on_one_folder_is_refused(shared_cluster: Cluster) -> None:
    second = Node("agentmem.server", shared_cluster.writer.data_dir)
    with pytest.raises(AssertionError, match="another process is using the data directory"):
        second.wait_ready()
    second.kill()


def test_a_port_in_use_is_refused(shared_cluster: Cluster, tmp_path: Path) -> None:
    second = Node("agentmem.server", tmp_path, listen=shared_cluster.writer.address)
    with pytest.raises(AssertionError, match="is the port in use"):
        second.wait_ready()
    second.kill()


def test_a_paused_replica_does_not_hold_the_writer_back(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster, client_of(cluster) as client:
        cluster.replicas[0].pause()
        content = "x" * 100_000
        for _ in range(20):
            revision = client.add_many(
                "ns", [NewMemory(content=content, embedding=(1.0, 0.0)) for _ in range(10)]
            ).revision
        cluster.replicas[0].resume()
        cluster.wait_searchable(revision)


def test_a_write_is_searchable_soon(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    """Prints how soon; the bound is for a machine that does other work too."""
    delays_ms = []
    replica = Stubs(shared_cluster.replicas[0].address)
    for number in range(20):
        began = time.monotonic()
        revision = client.add(namespace, f"number {number}").revision
        request = reader_pb2.SearchMemoriesRequest(
            namespace=namespace, text="number", mode=reader_pb2.SEARCH_MODE_TEXT
        )

        while replica.reader.SearchMemories(request).applied_revision < revision:
            assert time.monotonic() < began + 30
        delays_ms.append((time.monotonic() - began) * 1000)
    replica.channel.close()
    print(f"write to searchable: median {statistics.median(delays_ms):.0f} ms, max {max(delays_ms):.0f} ms")
    assert statistics.median(delays_ms) < 2000


def test_a_large_batch_reaches_replicas(shared_cluster: Cluster, namespace: str) -> None:
    stubs = Stubs(shared_cluster.writer.address)
    embedding = struct.pack("<2f", 1, 0)
    memories = [
        memory_pb2.Memory(content=f"{number} " + "word " * 2500, embedding=embedding)
        for number in range(1000)
    ]
    response = stubs.writer.AddMemories(writer_pb2.AddMemoriesRequest(namespace=namespace, memories=memories))
    shared_cluster.wait_searchable(response.revision)
    too_large = writer_pb2.AddMemoriesRequest(
        namespace=namespace, memories=[memory_pb2.Memory(content="word " * 10_000)] * 700
    )
    with pytest.raises(grpc.RpcError) as refused:
        stubs.writer.AddMemories(too_large)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    stubs.channel.close()
