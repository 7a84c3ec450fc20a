"""Callers who open streams of every kind and go away: nothing of them may stay."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from calls import Memory, add
from cluster import Cluster, Node, Stubs, wait_until
from line_faults import anonymous_bytes

from agentmem.server.process import run
from agentmem.server.settings import WriterSettings
from agentmem.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    reader_pb2,
    reader_pb2_grpc,
    replication_pb2,
    replication_pb2_grpc,
)

NAMESPACE = "ns"
FLAGS = ("--embedder", "none")
OPEN_AT_ONCE = 50
# What a stream that is kept by mistake takes at the least, with its call and its task.
KEPT_STREAM_BYTES = 8 * 1024
FIRST_MESSAGE_TIMEOUT_S = 30.0

MEMORIES = [Memory(content="x" * 1000) for _ in range(50)]

Opening = Callable[[int], Any]


class StreamKinds:
    """How to open each kind of stream that a node serves, on one channel."""

    def __init__(self, channel: grpc.aio.Channel, namespace: str) -> None:
        self._cluster = cluster_pb2_grpc.ClusterServiceStub(channel)
        self._reader = reader_pb2_grpc.ReaderServiceStub(channel)
        self._replication = replication_pb2_grpc.ReplicationServiceStub(channel)
        self._namespace = namespace
        self._snapshot_id = ""

    def of_replica(self) -> list[Opening]:
        return [
            lambda number: self._cluster.WatchTopology(cluster_pb2.WatchTopologyRequest()),
            lambda number: self._reader.ExportMemories(
                reader_pb2.ExportMemoriesRequest(namespace=self._namespace)
            ),
            lambda number: self._reader.WatchMemories(
                reader_pb2.WatchMemoriesRequest(namespace=self._namespace)
            ),
        ]

    async def of_writer(self) -> list[Opening]:
        """Snapshots go on with one copy, as each copy is made by a process."""
        call = self._replication.FetchSnapshot(replication_pb2.FetchSnapshotRequest())
        first: Any = await call.read()
        self._snapshot_id = first.header.snapshot_id
        call.cancel()
        return [
            *self.of_replica(),
            lambda number: self._replication.Subscribe(
                replication_pb2.SubscribeRequest(
                    replica_id=f"cancelled-{number}", address=f"127.0.0.1:{1 + number % 60_000}"
                )
            ),
            lambda number: self._replication.FetchSnapshot(
                replication_pb2.FetchSnapshotRequest(snapshot_id=self._snapshot_id)
            ),
        ]


async def _open_and_cancel(open_stream: Opening, number: int) -> None:
    call = open_stream(number)
    try:
        first = await asyncio.wait_for(call.read(), FIRST_MESSAGE_TIMEOUT_S)
        assert first is not None
        assert first is not grpc.aio.EOF
    finally:
        call.cancel()


async def cancel_streams(kinds: list[Opening], count: int, first_number: int = 0) -> None:
    """Opens streams of the kinds in turns, some at once, and cancels each behind its first message."""
    for start in range(0, count, OPEN_AT_ONCE):
        await asyncio.gather(
            *(
                _open_and_cancel(kinds[number % len(kinds)], first_number + number)
                for number in range(start, min(start + OPEN_AT_ONCE, count))
            )
        )


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds: memory of its own, and open files and sockets."""

    memory_bytes: int
    file_handles: int


def file_handles(node: Node) -> int:
    return len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))


def are_closed(nodes: Sequence[Node], before: Sequence[Resources]) -> bool:
    """Whether each node has no more files and sockets open than before."""
    return all(file_handles(node) <= each.file_handles for node, each in zip(nodes, before, strict=True))


def resources_around(folder: Path, streams: int, *, rounds: int) -> list[list[Resources]]:
    """What a writer and a replica hold after each round, in which so many streams of each were cancelled.

    Raises:
        AssertionError: more files or sockets stay open than after the first round.
    """
    taken: list[list[Resources]] = []
    with Cluster(folder, replicas=0, writer_flags=FLAGS) as cluster:
        cluster.begin_replica(*FLAGS).wait_ready()
        stubs = Stubs(cluster.writer.address)
        cluster.wait_searchable(add(stubs, NAMESPACE, *MEMORIES).revision)
        stubs.channel.close()

        async def cancel(first_number: int) -> None:
            async with (
                grpc.aio.insecure_channel(cluster.writer.address) as to_writer,
                grpc.aio.insecure_channel(cluster.replicas[0].address) as to_replica,
            ):
                of_writer = await StreamKinds(to_writer, NAMESPACE).of_writer()
                await cancel_streams(of_writer, streams, first_number)
                await cancel_streams(StreamKinds(to_replica, NAMESPACE).of_replica(), streams)

        for number in range(rounds):
            asyncio.run(cancel(number * streams))
            # Sockets of a closed channel are closed by the other side a little later.
            if taken:
                wait_until(lambda: are_closed(cluster.nodes, taken[0]), "files and sockets are closed")
            taken.append([Resources(anonymous_bytes(node), file_handles(node)) for node in cluster.nodes])
    return taken


class LocalWriter:
    """A writer in this process, with its event loop in a thread of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self._shutdown = asyncio.Event()
        settings = WriterSettings(data_dir=data_dir, listen="127.0.0.1:0", insecure=True, embedder="none")
        self._thread = threading.Thread(target=self._run, args=(settings,))
        self._thread.start()
        wait_until(lambda: (data_dir / "process.json").exists(), "the writer serves")
        self.address: str = json.loads((data_dir / "process.json").read_text())["address"]

    def _run(self, settings: WriterSettings) -> None:
        self.loop.run_until_complete(run(settings, self._shutdown))

    def tasks(self) -> int:
        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._shutdown.set)
        self._thread.join(30)
        self.loop.close()


def check_tasks_end(folder: Path, streams: int) -> int:
    """Cancels so many streams of a writer; how many tasks its event loop has before, and again after it.

    Raises:
        AssertionError: tasks are left, or a replica is known to the writer that was none.
    """
    writer = LocalWriter(folder / "writer")
    try:
        stubs = Stubs(writer.address)
        add(stubs, NAMESPACE, *MEMORIES)
        before = writer.tasks()

        async def cancel() -> None:
            async with grpc.aio.insecure_channel(writer.address) as channel:
                await cancel_streams(await StreamKinds(channel, NAMESPACE).of_writer(), streams)

        asyncio.run(cancel())
        wait_until(lambda: writer.tasks() <= before, f"there are {before} tasks again")
        topology = stubs.cluster.GetTopology(cluster_pb2.GetTopologyRequest()).topology
        assert [node.role for node in topology.nodes] == [cluster_pb2.NODE_ROLE_WRITER]
        stubs.channel.close()
        return before
    finally:
        writer.stop()
