"""The writer process, from its settings to its end."""

from __future__ import annotations

import asyncio
import logging

from agentmem.core.data_directory import DataDirectory
from agentmem.core.embedders import make_embedder
from agentmem.core.maintenance import maintain
from agentmem.core.node import open_node
from agentmem.core.process import report_failure
from agentmem.core.serving import GrpcServer
from agentmem.core.store import Store
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.feed import ReplicationService
from agentmem.server.membership import ClusterService, Membership
from agentmem.server.services import WriterReader, WriterService
from agentmem.server.settings import WriterSettings
from agentmem.server.snapshots import Snapshots
from agentmem.server.sweeper import Sweeper
from agentmem.v1 import (
    cluster_pb2_grpc,
    reader_pb2_grpc,
    replication_pb2_grpc,
    writer_pb2_grpc,
)

DRAIN_NOTICE_S = 0.25
SERVICE_NAMES = (
    "agentmem.v1.WriterService",
    "agentmem.v1.ReaderService",
    "agentmem.v1.ReplicationService",
    "agentmem.v1.ClusterService",
)

_logger = logging.getLogger(__name__)


async def run(settings: WriterSettings, shutdown: asyncio.Event) -> int:
    """Serves until ``shutdown`` is set or a commit fails; returns the exit code.

    Raises:
        DataDirectoryInUse, StoreFormatError, ListenError: it could not start; nothing was changed.
    """
    with open_node(settings) as (directory, store):
        return await _serve(settings, directory, store, shutdown)


async def _serve(
    settings: WriterSettings, directory: DataDirectory, store: Store, shutdown: asyncio.Event
) -> int:
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        shutdown.set()

    server = GrpcServer(settings.listen)
    address = settings.advertise or server.address
    embedder = make_embedder(
        settings.embedder, settings.openai_url, settings.openai_model, settings.openai_api_key
    )
    store.found_cluster()

    node_id = settings.node_id or f"writer-{address}"
    membership = Membership(node_id, address, store.position)
    snapshots = Snapshots(directory.store_path, directory.path / "snapshots")
    replication = ReplicationService(store, membership, snapshots)
    queue = CommitQueue(
        store,
        max_commands=settings.max_queue_commands,
        max_bytes=settings.max_queue_bytes,
        on_commit=replication.committed.notify,
        on_failure=fail,
    )
    cluster = ClusterService(membership)
    sweeper = Sweeper(
        store,
        queue,
        max_log_bytes=settings.max_log_bytes,
        max_log_age_s=settings.max_log_age_s,
    )
    writer = WriterService(store, queue, embedder, membership, sweeper)
    reader = WriterReader(store)
    writer_pb2_grpc.add_WriterServiceServicer_to_server(writer, server.grpc)
    reader_pb2_grpc.add_ReaderServiceServicer_to_server(reader, server.grpc)
    replication_pb2_grpc.add_ReplicationServiceServicer_to_server(replication, server.grpc)
    cluster_pb2_grpc.add_ClusterServiceServicer_to_server(cluster, server.grpc)
    await server.start(SERVICE_NAMES)
    await server.set_serving(True)
    directory.announce(role="writer", node_id=node_id, address=address)
    print(f"agentmem writer ready on {address}", flush=True)

    housekeeping = [
        asyncio.create_task(maintain(store)),
        asyncio.create_task(membership.monitor_silence()),
        asyncio.create_task(sweeper.run()),
        asyncio.create_task(snapshots.run()),
    ]
    for task in housekeeping:
        task.add_done_callback(lambda task: report_failure(task, fail))
    await shutdown.wait()
    for task in housekeeping:
        task.cancel()
    replication.close()
    cluster.close()
    # Everything that waits is committed and answered; what comes now is told so, for as long as clients need
    # to hear it.
    await queue.close()
    await asyncio.sleep(DRAIN_NOTICE_S)
    await server.stop(settings.drain_s)
    snapshots.close()
    writer.close()
    reader.close()
    if failures:
        _logger.critical("stopped: %s: %s", type(failures[0]).__name__, failures[0], exc_info=failures[0])
        return 1
    return 0
