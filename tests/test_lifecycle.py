"""Streams whose callers go away leave nothing behind; those that stay do not keep a process from ending."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from calls import Memory, add
from cancelled_streams import KEPT_STREAM_BYTES, check_tasks_end, resources_around
from cluster import Cluster, Stubs
from stream_faults import FLAGS, NAMESPACE

from agentmem.v1 import cluster_pb2, reader_pb2, replication_pb2, replication_pb2_grpc

STREAMS = 400
OPEN_STREAMS = 100


def test_cancelled_streams_leave_no_task_behind(tmp_path: Path) -> None:
    check_tasks_end(tmp_path, STREAMS)


def test_cancelled_streams_leave_no_memory_behind(tmp_path: Path) -> None:
    """Of a real writer and a real replica: they take after a round what they took after the one before."""
    taken = resources_around(tmp_path, STREAMS, rounds=3)
    for before, after in zip(taken[1], taken[2], strict=True):
        assert after.memory_bytes - before.memory_bytes < STREAMS * KEPT_STREAM_BYTES


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
