"""The writer killed under load: what it acknowledged is there, and no batch is there by half."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import grpc
from calls import all_ids
from cluster import Cluster, Stubs, wait_until

from agentmem.v1 import memory_pb2, writer_pb2

KILLS = 4
WRITERS = 4
BATCH = 3
MIN_WRITES_BEFORE_KILL = 20
SEED = 7


class Writes:
    """Batches added one after another by one thread until the writer is gone."""

    def __init__(self, name: str) -> None:
        self.acknowledged: list[str] = []
        self.attempted: list[str] = []
        self._name = name

    def run(self, address: str) -> None:
        stubs = Stubs(address)
        while True:
            batch = f"{self._name}-{len(self.attempted):05}"
            self.attempted.append(batch)
            memories = [memory_pb2.Memory(id=f"{batch}.{part}", content=batch) for part in range(BATCH)]
            try:
                stubs.writer.AddMemories(
                    writer_pb2.AddMemoriesRequest(namespace="ns", memories=memories), timeout=30
                )
            except grpc.RpcError:
                break
            self.acknowledged.append(batch)
        stubs.channel.close()


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    every: list[Writes] = []
    with Cluster(tmp_path, replicas=0, writer_flags=("--embedder", "none")) as cluster:
        for kill in range(KILLS):
            writes = [Writes(f"{kill}-{number}") for number in range(WRITERS)]
            threads = [threading.Thread(target=each.run, args=(cluster.writer.address,)) for each in writes]
            for thread in threads:
                thread.start()
            enough = MIN_WRITES_BEFORE_KILL + chance.randrange(200)

            def done(writes: list[Writes] = writes, enough: int = enough) -> bool:
                return sum(len(each.acknowledged) for each in writes) >= enough

            wait_until(done, f"{enough} writes acknowledged")
            cluster.writer.kill()
            for thread in threads:
                thread.join(60)
            cluster.writer.restart()
            every += writes
            stubs = Stubs(cluster.writer.address)
            ids = all_ids(stubs, "ns")
            stubs.channel.close()
            lost = {
                f"{batch}.{part}" for each in every for batch in each.acknowledged for part in range(BATCH)
            } - ids
            assert lost == set()
            halves = [
                batch
                for each in every
                for batch in each.attempted
                if len({f"{batch}.{part}" for part in range(BATCH)} & ids) not in (0, BATCH)
            ]
            assert halves == []
