"""Callers who open streams of every kind and go away: nothing of them may stay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from agentmem.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    reader_pb2,
    reader_pb2_grpc,
    replication_pb2,
    replication_pb2_grpc,
)

OPEN_AT_ONCE = 50
FIRST_MESSAGE_TIMEOUT_S = 30.0

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
