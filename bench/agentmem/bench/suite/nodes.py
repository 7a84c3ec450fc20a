"""The cluster that is measured: its processes, and when they have done what they were given."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from agentmem.bench.suite import process_trees
from agentmem.bench.suite.process_trees import Usage
from agentmem.cli import processes
from agentmem.cli.cluster import LocalCluster
from agentmem.cli.failures import CommandError
from agentmem.cli.processes import Announcement, NodeFolder
from agentmem.client import AsyncClient
from agentmem.v1 import cluster_pb2, cluster_pb2_grpc, reader_pb2_grpc

SETTLE_TIMEOUT_S = 600.0
# Of segments, a second apart: the next one is begun sooner than that.
QUIET_LOOKS = 3
_POLL_S = 0.01
_CALL_TIMEOUT_S = 30.0
CLIENT_TIMEOUT_S = 120.0


# Questions come again and again here. Answers that were kept would say nothing of what a search costs.
_KEEP_NO_ANSWERS = ("AGENTMEM_REPLICA_ANSWER_CACHE_BYTES", "0")


class Nodes:
    """A writer and replicas on this machine, with their data in one folder. Replicas keep no answers."""

    def __init__(self, folder: Path) -> None:
        name, value = _KEEP_NO_ANSWERS
        os.environ.setdefault(name, value)
        self.cluster = LocalCluster(folder)
        self._channels: dict[str, grpc.aio.Channel] = {}

    def start(self, replicas: int) -> None:
        """Raises CommandError when a node does not start."""
        self.cluster.start(self.cluster.free_ports(replicas, port=0))

    def start_replica(self, folder: NodeFolder) -> Announcement:
        """Starts one again; it is ready when this returns. Raises CommandError when it does not start."""
        child = self.cluster.start_replica(folder, 0, self.cluster.writer_address())
        processes.wait_ready([child])
        announced = folder.live()
        if announced is None:
            raise CommandError(f"{folder.name} ended when it was ready")
        return announced

    def living(self) -> dict[str, Announcement]:
        """The nodes that run, by their names, the writer first."""
        found = {folder.name: folder.live() for folder in self.cluster.folders()}
        return {name: process for name, process in found.items() if process is not None}

    def replicas(self) -> dict[str, Announcement]:
        return {name: process for name, process in self.living().items() if process.role == "replica"}

    def usage(self) -> dict[str, Usage]:
        """What each node and its children use."""
        return {name: process_trees.usage(process.pid) for name, process in self.living().items()}

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel of one's own to one node."""
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address)
        return self._channels[address]

    def reader(self, address: str) -> reader_pb2_grpc.ReaderServiceAsyncStub:
        return reader_pb2_grpc.ReaderServiceStub(self.channel(address))

    async def node(self, address: str) -> cluster_pb2.GetNodeResponse:
        """What a node knows of itself."""
        stub: cluster_pb2_grpc.ClusterServiceAsyncStub = cluster_pb2_grpc.ClusterServiceStub(
            self.channel(address)
        )
        return await stub.GetNode(cluster_pb2.GetNodeRequest(), timeout=_CALL_TIMEOUT_S)

    async def report(self, address: str) -> cluster_pb2.GetNodeReportResponse:
        """What a node says to who operates it."""
        stub: cluster_pb2_grpc.ClusterServiceAsyncStub = cluster_pb2_grpc.ClusterServiceStub(
            self.channel(address)
        )
        return await stub.GetNodeReport(cluster_pb2.GetNodeReportRequest(), timeout=_CALL_TIMEOUT_S)

    async def settle(self) -> None:
        """Returns when every replica's searches show what the writer has now. Raises TimeoutError."""
        head = (await self.node(self.cluster.writer_address())).position.revision
        give_up_s = time.monotonic() + SETTLE_TIMEOUT_S
        for name, process in self.replicas().items():
            while (await self.node(process.address)).node.searchable_revision < head:
                if time.monotonic() > give_up_s:
                    raise TimeoutError(f"{name} does not show revision {head} after {SETTLE_TIMEOUT_S:.0f} s")
                await asyncio.sleep(_POLL_S)

    async def wait_sealed(self) -> None:
        """Returns when no replica builds a segment, or is about to begin one. Raises TimeoutError."""
        give_up_s = time.monotonic() + SETTLE_TIMEOUT_S
        quiet, before = 0, None
        while quiet < QUIET_LOOKS:
            seen = self._segments()
            quiet, before = quiet + 1 if seen == before and not self.is_building() else 0, seen
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"segments are built still after {SETTLE_TIMEOUT_S:.0f} s")
            await asyncio.sleep(1.0)  # the pace of the looks

    def is_building(self) -> bool:
        """Whether a replica builds a segment now."""
        return any(not (path / "segment.json").exists() for path in self._segments())

    def _segments(self) -> list[Path]:
        folders = [folder.path / "indexes" / "segments" for folder in self.cluster.replicas()]
        return sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir())

    def stored_bytes(self) -> dict[str, int]:
        """What each node's folder takes on the disk."""
        return {
            folder.name: sum(path.stat().st_blocks * 512 for path in folder.path.rglob("*") if path.is_file())
            for folder in self.cluster.folders()
        }

    async def close(self) -> None:
        """Ends the nodes, whatever runs of them."""
        for channel in self._channels.values():
            await channel.close()
        self.cluster.stop()


@asynccontextmanager
async def running(replicas: int) -> AsyncIterator[tuple[Nodes, AsyncClient]]:
    """A fresh cluster and a client of it, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="agentmem-bench-") as folder:
        nodes = Nodes(Path(folder))
        try:
            nodes.start(replicas)
            async with AsyncClient(*nodes.cluster.endpoints(), timeout_s=CLIENT_TIMEOUT_S) as client:
                yield nodes, client
        finally:
            await nodes.close()
