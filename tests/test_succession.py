"""The end of a writer: what it says of it, and for whom it stops taking writes."""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path

from calls import Memory, add
from cluster import Cluster, Node, Stubs, wait_until
from test_promotion import answers, promote, reason_of

from agentmem.core.standing import StandingFile
from agentmem.core.store import Store
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.membership import Membership
from agentmem.server.succession import Succession
from agentmem.v1 import cluster_pb2

MIB = 1024**2
PATIENCE_S = 10.0


def test_a_writer_that_was_replaced_announces_nothing(tmp_path: Path) -> None:
    """The epoch that it knows of then is another's: who believed it would not follow that one."""
    asyncio.run(step_down_and_announce(tmp_path))


async def step_down_and_announce(path: Path) -> None:
    store = Store(path / "store", map_size_bytes=16 * MIB, max_map_size_bytes=64 * MIB)
    store.found_cluster()
    cluster_id = store.position().cluster_id
    ended = asyncio.Event()
    queue = CommitQueue(
        store, max_commands=1, max_bytes=MIB, on_commit=lambda: None, on_failure=lambda error: None
    )
    succession = Succession(
        store,
        queue,
        Membership("old", "127.0.0.1:8", store.position, on_join=lambda address: None),
        StandingFile(path, "writer", cluster_id, 1),
        node_id="old",
        address="127.0.0.1:8",
        on_end=ended.set,
    )
    successor = cluster_pb2.FollowWriterRequest(
        cluster_id=cluster_id, epoch=2, writer_id="new", writer_address="127.0.0.1:9"
    )
    assert succession.follow(successor).accepted
    assert ended.is_set()
    # It would go on until cancelled.
    await asyncio.wait_for(succession.announce(), PATIENCE_S)
    await queue.close()
    store.close()


def test_writes_do_not_wait_for_a_replica_that_does_not_follow(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=1) as cluster, Stubs(cluster.writer.address) as stubs:
        cluster.wait_searchable(add(stubs, "ns", Memory(content="both have it")).revision)
        (replica,) = cluster.replicas
        replica.terminate()
        shutil.copytree(replica.data_dir, tmp_path / "copy")
        replica.restart()
        cluster.wait_searchable(add(stubs, "ns", Memory(content="the copy has not")).revision)
        # The writer refuses it, for its name is taken.
        copy = Node(
            "agentmem.replica",
            tmp_path / "copy",
            *("--node-id", "replica-1", "--writer", cluster.writer.address),
            listen=free_address(),
        )
        try:
            copy.address = copy._listen
            wait_until(lambda: answers(copy), "the copy answers")
            assert reason_of(lambda: promote(copy)) == "HANDOVER_FAILED"
            add(stubs, "ns", Memory(content="at once"))
        finally:
            copy.stop()


def free_address() -> str:
    """An address that is free now: a node that is never ready does not say where it listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"
