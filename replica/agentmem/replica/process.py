"""The replica process, from its settings to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc

from agentmem.core.data_directory import DataDirectory
from agentmem.core.embedders import make_embedder
from agentmem.core.maintenance import maintain
from agentmem.core.node import open_node
from agentmem.core.process import report_failure
from agentmem.core.serving import CHANNEL_OPTIONS, GrpcServer
from agentmem.core.store import Store
from agentmem.core.times import now_us
from agentmem.replica.bootstrap import fetch_snapshot
from agentmem.replica.follower import Follower, SnapshotRequiredError
from agentmem.replica.indexer import Indexer
from agentmem.replica.membership import ClusterService, Reporter
from agentmem.replica.services import NotWriterService, ReplicaReader
from agentmem.replica.settings import ReplicaSettings
from agentmem.v1 import cluster_pb2_grpc, reader_pb2_grpc, writer_pb2_grpc

SERVICE_NAMES = (
    "agentmem.v1.ReaderService",
    "agentmem.v1.WriterService",
    "agentmem.v1.ClusterService",
)
# After the writer knows that a replica drains, clients need this long to hear it; until then their calls
# are served as ever.
DRAIN_NOTICE_S = 0.25
# Of the log, in each second; the writer writes about as many.
MAX_TRIMMED_ENTRIES = 10_000

_logger = logging.getLogger(__name__)


async def run(settings: ReplicaSettings, shutdown: asyncio.Event) -> int:
    """Serves until ``shutdown`` is set, the indexer fails or the logs diverge; returns the exit code.

    Raises:
        DataDirectoryInUse, StoreFormatError, ListenError: it could not start; nothing was changed.
    """
    while True:
        with open_node(settings) as (directory, store):
            async with grpc.aio.insecure_channel(settings.writer, options=list(CHANNEL_OPTIONS)) as channel:
                end = await _serve(settings, directory, store, channel, shutdown)
        if end.exit_code is not None:
            return end.exit_code
        # A snapshot is there. Open the node again, with the snapshot as its store, at the same address.
        settings = replace(settings, listen=end.listen)


@dataclass(frozen=True, slots=True)
class _End:
    """How serving ended: with an exit code, or with a snapshot to go on with."""

    exit_code: int | None
    listen: str


async def _serve(
    settings: ReplicaSettings,
    directory: DataDirectory,
    store: Store,
    channel: grpc.aio.Channel,
    shutdown: asyncio.Event,
) -> _End:
    loop = asyncio.get_running_loop()
    failures: list[BaseException] = []
    ended = asyncio.Event()

    def fail(error: BaseException) -> None:
        failures.append(error)
        ended.set()

    server = GrpcServer(settings.listen)
    address = settings.advertise or server.address
    node_id = settings.node_id or f"replica-{address}"
    embedder = make_embedder(
        settings.embedder, settings.openai_url, settings.openai_model, settings.openai_api_key
    )
    indexer = Indexer(
        store,
        directory.path / "indexes",
        seal_rows=settings.seal_rows,
        on_publish=lambda view: _call_on(loop, follower.progress.notify),
        on_failure=lambda error: _call_on(loop, fail, error),
    )
    follower = Follower(store, channel, replica_id=node_id, address=address, on_applied=indexer.notify)
    is_serving = asyncio.Event()
    reporter = Reporter(
        channel,
        follower,
        replica_id=node_id,
        searchable_revision=lambda: indexer.view.revision,
        on_serving=is_serving.set,
    )
    cluster = ClusterService(channel, node_id=node_id, writer_address=settings.writer)
    reader = ReplicaReader(
        store,
        embedder,
        view=lambda: indexer.view,
        check_serving=reporter.check_serving,
        search_threads=settings.search_threads,
    )
    reader_pb2_grpc.add_ReaderServiceServicer_to_server(reader, server.grpc)
    writer_pb2_grpc.add_WriterServiceServicer_to_server(
        NotWriterService(lambda: cluster.writer_address), server.grpc
    )
    cluster_pb2_grpc.add_ClusterServiceServicer_to_server(cluster, server.grpc)
    await server.start(SERVICE_NAMES)
    indexer.start()

    async def announce() -> None:
        await is_serving.wait()
        await server.set_serving(True)
        directory.announce(role="replica", node_id=node_id, address=address)
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
        try:
            await follower.run()
        except SnapshotRequiredError as error:
            _logger.warning("%s: taking a snapshot of its store", error)
        await fetch_snapshot(channel, directory.snapshot_path, store.position().cluster_id)
        has_snapshot = True
        ended.set()

    tasks = [
        asyncio.create_task(work)
        for work in (follow(), reporter.run(), cluster.run(), announce(), maintain(store, trim_log))
    ]
    for task in tasks:
        task.add_done_callback(lambda task: report_failure(task, fail))
    ends = [asyncio.create_task(event.wait()) for event in (shutdown, ended)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for waiting in ends:
        waiting.cancel()

    if not failures and not has_snapshot:
        await reporter.drain()
        await asyncio.sleep(DRAIN_NOTICE_S)
    cluster.close()
    await server.stop(settings.drain_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    reader.close()
    await asyncio.to_thread(indexer.stop)
    if failures:
        _logger.critical("stopped: %s: %s", type(failures[0]).__name__, failures[0], exc_info=failures[0])
        return _End(1, server.address)
    return _End(None if has_snapshot and not shutdown.is_set() else 0, server.address)


def _call_on(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    """Calls back on the loop from another thread, unless the loop is gone already."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *arguments)
