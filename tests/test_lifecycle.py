"""Streams whose callers go away leave nothing behind; those that stay do not keep a process from ending."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import grpc
from calls import Memory, add
from cancelled_streams import StreamKinds, cancel_streams
from cluster import Cluster, Stubs, wait_until
from line_faults import anonymous_bytes
from stream_faults import FLAGS, NAMESPACE

from agentmem.server.process import run
from agentmem.server.settings import WriterSettings
from agentmem.v1 import cluster_pb2, reader_pb2, replication_pb2, replication_pb2_grpc

STREAMS = 400
OPEN_STREAMS = 100
# What a stream that is kept by mistake takes at the least, with its call and its task.
KEPT_STREAM_BYTES = 8 * 1024


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


def test_cancelled_streams_leave_no_task_behind(tmp_path: Path) -> None:
    writer = LocalWriter(tmp_path / "writer")
    try:
        stubs = Stubs(writer.address)
        add(stubs, NAMESPACE, *(Memory(content="x" * 1000) for _ in range(50)))
        before = writer.tasks()

        async def cancel(count: int) -> None:
            async with grpc.aio.insecure_channel(writer.address) as channel:
                await cancel_streams(await StreamKinds(channel, NAMESPACE).of_writer(), count)

        asyncio.run(cancel(STREAMS))
        wait_until(lambda: writer.tasks() <= before, f"there are {before} tasks again")
        topology = stubs.cluster.GetTopology(cluster_pb2.GetTopologyRequest()).topology
        assert [node.role for node in topology.nodes] == [cluster_pb2.NODE_ROLE_WRITER]
        stubs.channel.close()
    finally:
        writer.stop()


def test_cancelled_streams_leave_no_memory_behind(tmp_path: Path) -> None:
    """Of a real writer and a real replica: they take after a round what they took after the one before."""
    with Cluster(tmp_path, replicas=0, writer_flags=FLAGS) as cluster:
        cluster.begin_replica(*FLAGS).wait_ready()
        stubs = Stubs(cluster.writer.address)
        revision = add(stubs, NAMESPACE, *(Memory(content="x" * 1000) for _ in range(50))).revision
        cluster.wait_searchable(revision)
        stubs.channel.close()

        async def cancel(first_number: int) -> None:
            async with (
                grpc.aio.insecure_channel(cluster.writer.address) as to_writer,
                grpc.aio.insecure_channel(cluster.replicas[0].address) as to_replica,
            ):
                of_writer = await StreamKinds(to_writer, NAMESPACE).of_writer()
                await cancel_streams(of_writer, STREAMS, first_number)
                await cancel_streams(StreamKinds(to_replica, NAMESPACE).of_replica(), STREAMS)

        taken_bytes: list[list[int]] = []
        for number in range(3):
            asyncio.run(cancel(number * STREAMS))
            taken_bytes.append([anonymous_bytes(node) for node in cluster.nodes])
        print(f"anonymous bytes of writer and replica after each round: {taken_bytes}")
        for before, after in zip(taken_bytes[1], taken_bytes[2], strict=True):
            assert after - before < STREAMS * KEPT_STREAM_BYTES


def test_termination_with_a_hundred_open_streams(tmp_path: Path) -> None:
    """Of all kinds, most read by nobody: the process ends in order, within what calls in flight are given."""
    with Cluster(tmp_path, replicas=0, writer_flags=(*FLAGS, "--drain-s", "2")) as cluster:
        cluster.begin_replica(*FLAGS, "--drain-s", "2").wait_ready()
        stubs = [Stubs(cluster.writer.address) for _ in range(10)]
        # More than flow control lets through to who does not read.
        memories = [Memory(content="x" * 100_000) for _ in range(100)]
        cluster.wait_searchable(add(stubs[0], NAMESPACE, *memories).revision)
        calls: list[Any] = []
        for number in range(OPEN_STREAMS):
            each = stubs[number % len(stubs)]
            feed = replication_pb2_grpc.ReplicationServiceStub(each.channel)
            if number % 4 == 0:
                calls.append(each.cluster.WatchTopology(cluster_pb2.WatchTopologyRequest()))
            elif number % 4 == 1:
                subscription = replication_pb2.SubscribeRequest(
                    replica_id=f"open-{number}", address=f"127.0.0.1:{number}"
                )
                calls.append(feed.Subscribe(subscription))
            elif number == 2:
                calls.append(feed.FetchSnapshot(replication_pb2.FetchSnapshotRequest()))
            else:
                calls.append(
                    each.reader.ExportMemories(reader_pb2.ExportMemoriesRequest(namespace=NAMESPACE))
                )
        for call in calls:
            next(iter(call))
        began_s = time.monotonic()
        codes = [node.terminate() for node in reversed(cluster.nodes)]
        print(f"writer and replica ended in {time.monotonic() - began_s:.1f} s")
        assert codes == [0, 0]
        assert not (cluster.writer.data_dir / "process.json").exists()
        for call in calls:
            call.cancel()
        for each in stubs:
            each.channel.close()
