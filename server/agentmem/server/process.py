"""The writer process, from its settings to its end."""

from __future__ import annotations

import asyncio
import logging

from agentmem.core.call_metrics import CallMetrics
from agentmem.core.data_directory import DataDirectory
from agentmem.core.logs import describe
from agentmem.core.maintenance import maintain
from agentmem.core.node import open_node
from agentmem.core.node_report import NodeReporter
from agentmem.core.node_telemetry import NodeTelemetry
from agentmem.core.process import Successor, cancel_all, first_of, report_failure
from agentmem.core.process_metrics import EventLoopWatch
from agentmem.core.serving import GrpcServer
from agentmem.core.spans import ShippedTraces
from agentmem.core.standing import StandingFile
from agentmem.core.store import Store
from agentmem.core.times import now_us
from agentmem.core.watching import Watches
from agentmem.server.cluster_service import ClusterService
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.feed import ReplicationService
from agentmem.server.membership import Membership
from agentmem.server.node_metrics import writer_metrics
from agentmem.server.reembedder import Reembedder
from agentmem.server.services import WriterReader, WriterService
from agentmem.server.settings import WriterSettings
from agentmem.server.snapshots import Snapshots
from agentmem.server.succession import Succession
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


async def run(settings: WriterSettings, shutdown: asyncio.Event) -> int | Successor:
    """Serves until ``shutdown`` is set, a commit fails, or another node is the writer.

    Returns the exit code, or that the node goes on as a replica.

    Raises:
        DataDirectoryInUse, StoreFormatError, StandingError, ListenError: it could not start; nothing was
            changed.
    """
    with open_node(settings) as (directory, store):
        store.found_cluster()
        position = store.position()
        standing = StandingFile(directory.path, "writer", position.cluster_id, position.epoch)
        if not standing.now.is_writer:
            return _as_replica(settings, standing, settings.listen)
        standing.become(standing.now)
        return await _serve(settings, directory, store, standing, shutdown)


def _as_replica(settings: WriterSettings, standing: StandingFile, listen: str) -> Successor:
    now = standing.now
    _logger.warning("epoch %d has another writer: this node goes on as a replica", now.known_epoch)
    # Whichever other node it is: it can be asked for the writer.
    writer = now.writer_address or next(reversed(now.peers), listen)
    return Successor("replica", settings, {"listen": listen, "writer": writer})


async def _serve(
    settings: WriterSettings,
    directory: DataDirectory,
    store: Store,
    standing: StandingFile,
    shutdown: asyncio.Event,
) -> int | Successor:
    failures: list[BaseException] = []
    ended = asyncio.Event()

    def fail(error: BaseException) -> None:
        failures.append(error)
        ended.set()

    calls = CallMetrics(settings.slow_query_ms / 1000)
    server = GrpcServer(
        settings.listen, calls, lambda method, metadata: succession.check_call(method, metadata)
    )
    address = settings.advertise or server.address
    embedders = settings.embedders()
    embedders.load_first()

    node_id = settings.node_id or f"writer-{address}"
    if standing.now.known_epoch > store.position().epoch:
        revision = store.commit(
            lambda transaction: transaction.begin_epoch(standing.now.known_epoch, node_id, now_us())
        )
        _logger.info("epoch %d begins at revision %d", standing.now.known_epoch, revision)
    membership = Membership(node_id, address, store.position, on_join=lambda peer: standing.meet([peer]))
    snapshots = Snapshots(
        directory.store_path,
        directory.path / "snapshots",
        chunk_bytes=settings.max_frame_bytes,
        revision=lambda: store.position().revision,
    )
    traces = ShippedTraces()
    replication = ReplicationService(
        store,
        membership,
        snapshots,
        max_frame_bytes=settings.max_frame_bytes,
        hear_of=lambda epoch: succession.hear_of(epoch),
        traces=traces,
        sampling=calls.sampling,
    )
    queue = CommitQueue(
        store,
        max_commands=settings.max_queue_commands,
        max_bytes=settings.max_queue_bytes,
        on_commit=replication.committed.notify,
        on_failure=fail,
        traces=traces,
    )
    succession = Succession(
        store, queue, membership, standing, node_id=node_id, address=address, on_end=ended.set
    )
    cluster = ClusterService(membership, succession, lambda described: node_reporter.report(described))
    sweeper = Sweeper(
        store,
        queue,
        max_log_bytes=settings.max_log_bytes,
        max_log_age_s=settings.max_log_age_s,
        needed_revision=snapshots.needed_revision,
    )
    reembedder = Reembedder(
        store,
        queue,
        embedders,
        searchable_revisions=lambda: [searchable for _, searchable in membership.progress()],
    )
    writer = WriterService(store, queue, embedders, membership, sweeper, reembedder)
    watches = Watches(store, replication.committed, is_writer=True)
    reader = WriterReader(store, watches)
    server.add(writer_pb2_grpc.add_WriterServiceServicer_to_server, writer)
    server.add(reader_pb2_grpc.add_ReaderServiceServicer_to_server, reader)
    server.add(replication_pb2_grpc.add_ReplicationServiceServicer_to_server, replication)
    server.add(cluster_pb2_grpc.add_ClusterServiceServicer_to_server, cluster)
    loop_watch = EventLoopWatch()
    metrics = writer_metrics(
        node_id=node_id,
        server=server,
        store=store,
        folder=directory.store_path,
        queue=queue,
        membership=membership,
        loop_watch=loop_watch,
    )
    node_reporter = NodeReporter(metrics, server.calls)
    telemetry = NodeTelemetry(settings, metrics, calls.sampling)
    # While it was away, another node may have been promoted.
    if not await succession.find_superseding():
        await server.start(SERVICE_NAMES)
        await server.set_serving(True)
        directory.announce(
            role="writer", node_id=node_id, address=address, metrics_address=telemetry.metrics_address
        )
        print(f"agentmem writer ready on {address}", flush=True)

    housekeeping = [
        asyncio.create_task(maintain(store)),
        asyncio.create_task(membership.monitor_silence()),
        asyncio.create_task(sweeper.run()),
        asyncio.create_task(reembedder.run()),
        asyncio.create_task(snapshots.run()),
        asyncio.create_task(succession.announce()),
        asyncio.create_task(loop_watch.run()),
    ]
    for task in housekeeping:
        task.add_done_callback(lambda task: report_failure(task, fail))
    await first_of(shutdown, ended)
    for task in housekeeping:
        task.cancel()
    # While the replicas are still subscribed.
    writer.answer_waiting()
    replication.close()
    cluster.close()
    watches.drain()
    # Everything that waits is committed and answered; what comes now is told so, for as long as clients need
    # to hear it.
    await queue.close()
    await asyncio.sleep(DRAIN_NOTICE_S)
    await server.stop(settings.drain_s)
    await cancel_all(housekeeping)
    await asyncio.to_thread(telemetry.close)
    snapshots.close()
    writer.close()
    reader.close()
    if failures:
        _logger.critical("stopped: %s", describe(failures[0]), exc_info=failures[0])
        return 1
    if succession.has_ended and not shutdown.is_set():
        return _as_replica(settings, standing, server.address)
    return 0
