"""What a replica measures, in terms of the table of metrics."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentmem.core.measurements import Labels
from agentmem.core.node_metrics import NodeMetrics, StoreMetrics, Values
from agentmem.core.process_metrics import EventLoopWatch, ProcessMetrics
from agentmem.core.serving import GrpcServer
from agentmem.core.store import Store
from agentmem.core.times import boot_time_s
from agentmem.replica.consistent_reads import Part
from agentmem.replica.follower import Follower
from agentmem.replica.index_directory import SEGMENTS_FOLDER, TEXT_FOLDER
from agentmem.replica.index_stats import folder_bytes
from agentmem.replica.indexer import Indexer
from agentmem.replica.reader_service import ReplicaReader
from agentmem.replica.view import View


@dataclass(slots=True)
class SeenFreshness:
    """As of when store and view are fresh, as the event loop saw it last: it alone may ask for it."""

    store_part: Part
    view_part: Part
    store_as_of_s: float | None = None
    view_as_of_s: float | None = None

    def look(self) -> None:
        """For the event loop alone."""
        self.store_as_of_s = self.store_part.freshness.as_of_s
        self.view_as_of_s = self.view_part.freshness.as_of_s

    def values(self) -> Values:
        """Nothing for what is not known."""
        found = {
            "agentmem.replication.staleness": self.store_as_of_s,
            "agentmem.search.staleness": self.view_as_of_s,
        }
        now_s = boot_time_s()
        return {
            name: {(): max(0.0, now_s - as_of_s)} for name, as_of_s in found.items() if as_of_s is not None
        }


def replica_metrics(
    *,
    node_id: str,
    server: GrpcServer,
    store: Store,
    store_folder: Path,
    index_folder: Path,
    follower: Follower,
    indexer: Indexer,
    reader: ReplicaReader,
    freshness: SeenFreshness,
    loop_watch: EventLoopWatch,
) -> NodeMetrics:
    """All of them."""

    def collect() -> Values:
        view = indexer.view
        values: dict[str, Mapping[Labels, float]] = {
            "agentmem.node.role": {("replica",): 1.0},
            "agentmem.node.serving": {(): float(server.is_serving)},
            "agentmem.calls.active": server.calls.active(),
            "agentmem.cache.lookups": store.lookups()
            | reader.past_lookups.values("past")
            | reader.answer_lookups.values("answers")
            | reader.scope_lookups.values("scopes")
            | ({} if view.text is None else view.text.vocabulary_lookups.values("vocabularies")),
            "agentmem.replication.connected": {(): float(follower.is_connected)},
            "agentmem.replication.streams": {(): follower.streams},
            "agentmem.revision.searchable": {(): view.revision},
            "agentmem.search.queue.length": {(): reader.searches},
        }
        head_revision = follower.head_revision
        if head_revision is not None:
            values["agentmem.replication.lag"] = {(): max(0, head_revision - follower.applied_revision)}
        values.update(freshness.values())
        values.update(_of_indexes(view, index_folder))
        return values

    return NodeMetrics(
        "replica",
        node_id,
        histograms={
            "rpc.server.call.duration": server.calls.durations,
            "agentmem.call.stage.duration": server.calls.stages,
            "agentmem.event_loop.lag": loop_watch.lag,
            "agentmem.replication.apply.duration": follower.apply_durations,
            "agentmem.replication.apply.size": follower.apply_sizes,
            "agentmem.index.publish.duration": indexer.publish_durations,
            "agentmem.index.build.duration": indexer.builds.durations,
        },
        counters={
            "agentmem.call.failures": server.calls.failures,
            "agentmem.calls.again": server.calls.again,
            "agentmem.calls.slow": server.calls.slow,
            "agentmem.index.builds": indexer.builds.outcomes,
        },
        collectors=[collect, ProcessMetrics(server.port).collect, StoreMetrics(store, store_folder).collect],
    )


def _of_indexes(view: View, folder: Path) -> Values:
    memories = tail = dead_tail = sealed = dead_sealed = segments = 0
    for namespace in view.namespaces.values():
        memories += len(namespace.live)
        if namespace.vectors is not None:
            tail += len(namespace.vectors.tail.rows)
            dead_tail += len(namespace.vectors.tail.dead)
            for part in namespace.vectors.segments:
                segments += 1
                sealed += len(part.rows)
                dead_sealed += len(part.dead)
    segments_bytes = 0
    # A segment may end meanwhile.
    with contextlib.suppress(FileNotFoundError), os.scandir(folder / SEGMENTS_FOLDER) as entries:
        segments_bytes = sum(folder_bytes(Path(entry.path)) for entry in entries if entry.is_dir())
    return {
        "agentmem.index.memories": {(): memories},
        "agentmem.index.documents": {(): 0 if view.text is None else view.text.documents},
        "agentmem.index.vectors": {("tail",): tail, ("segments",): sealed},
        "agentmem.index.vectors.dead": {("tail",): dead_tail, ("segments",): dead_sealed},
        "agentmem.index.segments": {(): segments},
        "agentmem.index.size": {
            ("text",): folder_bytes(folder / TEXT_FOLDER),
            ("segments",): segments_bytes,
        },
    }
