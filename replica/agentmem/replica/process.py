"""The replica process, from its settings to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

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
from agentmem.core.set_aside import set_aside
from agentmem.core.standing import StandingFile
from agentmem.core.store import Store
from agentmem.core.times import boot_time_s, now_us
from agentmem.core.watching import Watches
from agentmem.replica.bootstrap import fetch_snapshot
from agentmem.replica.cluster_service import ClusterService
from agentmem.replica.consistent_reads import ConsistentReads, Part
from agentmem.replica.follower import Follower, SnapshotRequiredError, SupersededError
from agentmem.replica.freshness import Freshness
from agentmem.replica.indexer import Indexer
from agentmem.replica.membership import Reporter
from agentmem.replica.node_metrics import SeenFreshness, replica_metrics
from agentmem.replica.not_writer import NotWriterReplication, NotWriterService
from agentmem.replica.promotion import Promotion
from agentmem.replica.reader_service import ReplicaReader
from agentmem.replica.settings import ReplicaSettings
from agentmem.replica.writer_link import WriterLink
from agentmem.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    reader_pb2_grpc,
    replication_pb2_grpc,
    writer_pb2_grpc,
)

SERVICE_NAMES = (
    "agentmem.v1.ReaderService",
    "agentmem.v1.WriterService",
    "agentmem.v1.ReplicationService",
    "agentmem.v1.ClusterService",
)
# After the writer knows that a replica drains, clients need this long to hear it; until then their calls
# are served as ever.
DRAIN_NOTICE_S = 0.25
# Of the log, in each second; the writer writes about as many.
MAX_TRIMMED_ENTRIES = 10_000
INDEXES_FOLDER = "indexes"

_logger = logging.getLogger(__name__)


async def run(settings: ReplicaSettings, shutdown: asyncio.Event) -> int | Successor:
    """Serves until ``shutdown`` is set, the indexer fails, or this node is the writer.

    Returns the exit code, or that the node goes on as the writer.

    Raises:
        DataDirectoryInUse, StoreFormatError, StandingError, ListenError: it could not start; nothing was
            changed.
    """
    while True:
        with open_node(settings) as (directory, store):
            position = store.position()
            standing = StandingFile(directory.path, "replica", position.cluster_id, position.epoch)
            if standing.now.is_writer:
                return Successor("writer", settings, {"listen": settings.listen})
            standing.become(standing.now)
            link = WriterLink(standing, settings.writer)
            try:
                end = await _serve(settings, directory, store, link, shutdown)
            finally:
                await link.close()
        if end.exit_code is not None:
            return end.exit_code
        if standing.now.is_writer:
            return Successor("writer", settings, {"listen": end.listen})
        # A snapshot is there. Open the node again, with the snapshot as its store, at the same address.
        settings = replace(settings, listen=end.listen)


@dataclass(frozen=True, slots=True)
class _End:
    """How serving ended: with an exit code, or with another role or store to go on with."""

    exit_code: int | None
    listen: str


async def _serve(
    settings: ReplicaSettings,
    directory: DataDirectory,
    store: Store,
    link: WriterLink,
    shutdown: asyncio.Event,
) -> _End:
    loop = asyncio.get_running_loop()
    failures: list[BaseException] = []
    ended = asyncio.Event()

    def fail(error: BaseException) -> None:
        failures.append(error)
        ended.set()

    server = GrpcServer(settings.listen, CallMetrics(settings.slow_query_ms / 1000))
    address = settings.advertise or server.address
    node_id = settings.node_id or f"replica-{address}"
    embedders = settings.embedders()
    embedders.load_first()
    indexer = Indexer(
        store,
        directory.path / INDEXES_FOLDER,
        seal_rows=settings.seal_rows,
        vector_index=settings.vector_index,
        shared_segments=Path(settings.shared_segments) if settings.shared_segments else None,
        on_publish=lambda view: _call_on(loop, follower.progress.notify),
        on_failure=lambda error: _call_on(loop, fail, error),
        loop=loop,
    )
    follower = Follower(
        store,
        link,
        replica_id=node_id,
        address=address,
        on_applied=indexer.take,
        on_awaited=indexer.hurry,
        sampling=server.calls.sampling,
    )
    store_part = Part(
        "store",
        lambda: follower.applied_revision,
        Freshness(store.position, lambda: follower.applied_revision),
    )
    view_part = Part(
        "view",
        lambda: indexer.view.revision,
        Freshness(store.position, lambda: indexer.view.revision),
        hurry=indexer.hurry,
    )
    is_serving = asyncio.Event()
    reporter = Reporter(
        link,
        follower,
        replica_id=node_id,
        searchable_revision=lambda: indexer.view.revision,
        on_serving=is_serving.set,
        store_freshness=store_part.freshness,
        view_freshness=view_part.freshness,
    )
    promotion = Promotion(store, link, follower, node_id=node_id, address=address, on_promoted=ended.set)

    def own_node() -> cluster_pb2.Node:
        node = cluster_pb2.Node(
            id=node_id,
            role=cluster_pb2.NODE_ROLE_REPLICA,
            address=address,
            state=reporter.state,
            applied_revision=follower.applied_revision,
            searchable_revision=indexer.view.revision,
        )
        as_of_s = view_part.freshness.as_of_s
        if as_of_s is not None:
            node.staleness.FromMicroseconds(max(0, int((boot_time_s() - as_of_s) * 1_000_000)))
        return node

    cluster = ClusterService(
        store,
        link,
        promotion,
        node_id=node_id,
        own_node=own_node,
        report=lambda described: node_reporter.report(described),
    )
    watches = Watches(store, follower.progress, is_writer=False)
    reader = ReplicaReader(
        store,
        watches,
        embedders,
        view=lambda: indexer.view,
        consistent_reads=ConsistentReads(store, follower, reporter),
        store_part=store_part,
        view_part=view_part,
        check_serving=reporter.check_serving,
        search_threads=settings.search_threads,
        answer_cache_bytes=settings.answer_cache_bytes,
        index_folder=directory.path / INDEXES_FOLDER,
    )
    server.add(reader_pb2_grpc.add_ReaderServiceServicer_to_server, reader)
    server.add(
        writer_pb2_grpc.add_WriterServiceServicer_to_server, NotWriterService(lambda: cluster.writer_address)
    )
    server.add(
        replication_pb2_grpc.add_ReplicationServiceServicer_to_server,
        NotWriterReplication(lambda: cluster.writer_address),
    )
    server.add(cluster_pb2_grpc.add_ClusterServiceServicer_to_server, cluster)
    freshness = SeenFreshness(store_part, view_part)
    loop_watch = EventLoopWatch(freshness.look)
    metrics = replica_metrics(
        node_id=node_id,
        server=server,
        store=store,
        store_folder=directory.store_path,
        index_folder=directory.path / INDEXES_FOLDER,
        follower=follower,
        indexer=indexer,
        reader=reader,
        freshness=freshness,
        loop_watch=loop_watch,
    )
    node_reporter = NodeReporter(metrics, server.calls)
    telemetry = NodeTelemetry(settings, metrics, server.calls.sampling)
    await server.start(SERVICE_NAMES)
    indexer.start()

    async def announce() -> None:
        await is_serving.wait()
        await server.set_serving(True)
        directory.announce(
            role="replica", node_id=node_id, address=address, metrics_address=telemetry.metrics_address
        )
        print(f"agentmem replica ready on {address}", flush=True)

    def trim_log() -> None:
        # The indexer follows the log, and must not lose its place.
        keep_from_revision = indexer.view.revision + 1
        store.commit(
            lambda transaction: transaction.trim_log(
                max_bytes=settings.max_log_bytes,
                before_us=now_us() - int(settings.max_log_age_s * 1_000_000),
                keep_from_revision=keep_from_revision,
                limit=MAX_TRIMMED_ENTRIES,
            )
        )

    has_snapshot = False

    async def follow() -> None:
        nonlocal has_snapshot
        discards: tuple[str, ...] = ()
        try:
            await follower.run()
        except SnapshotRequiredError as error:
            _logger.warning("%s: taking a snapshot of its store", error)
        except SupersededError as error:
            path = await asyncio.to_thread(set_aside, store, directory.path, error.common_revision)
            _logger.warning("%s: what comes after that is kept in %s", error, path or "no file: it is empty")
            # Their ordinals name other versions in the log that goes on.
            discards = (INDEXES_FOLDER,)
        cluster_id = store.position().cluster_id
        await fetch_snapshot(link, directory.snapshot_path, cluster_id, discards=discards)
        has_snapshot = True
        ended.set()

    async def turn_to_another_writer() -> None:
        while True:
            await link.moved.wait_beyond(link.moved.count)
            follower.reconnect()

    tasks = [
        asyncio.create_task(work)
        for work in (
            follow(),
            turn_to_another_writer(),
            reporter.run(),
            cluster.run(),
            announce(),
            maintain(store, trim_log),
            loop_watch.run(),
        )
    ]
    for task in tasks:
        task.add_done_callback(lambda task: report_failure(task, fail))
    await first_of(shutdown, ended)

    if not failures and not has_snapshot:
        await reporter.drain()
        await asyncio.sleep(DRAIN_NOTICE_S)
    cluster.close()
    watches.drain()
    await server.stop(settings.drain_s)
    await cancel_all(tasks)
    await asyncio.to_thread(telemetry.close)
    reader.close()
    await asyncio.to_thread(indexer.stop)
    if failures:
        _logger.critical("stopped: %s", describe(failures[0]), exc_info=failures[0])
        return _End(1, server.address)
    return _End(0 if shutdown.is_set() else None, server.address)


def _call_on(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    """Calls back on the loop from another thread, unless the loop is gone already."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *arguments)
