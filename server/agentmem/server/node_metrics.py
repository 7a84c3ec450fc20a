"""What the writer measures, in terms of the table of metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from agentmem.core.measurements import Labels
from agentmem.core.node_metrics import NodeMetrics, StoreMetrics, Values
from agentmem.core.process_metrics import EventLoopWatch, ProcessMetrics
from agentmem.core.serving import GrpcServer
from agentmem.core.store import Store
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.membership import Membership
from agentmem.v1 import cluster_pb2

_STATES: dict[cluster_pb2.NodeState, str] = {
    cluster_pb2.NODE_STATE_CATCHING_UP: "catching_up",
    cluster_pb2.NODE_STATE_SERVING: "serving",
    cluster_pb2.NODE_STATE_DRAINING: "draining",
}


def writer_metrics(
    *,
    node_id: str,
    server: GrpcServer,
    store: Store,
    folder: Path,
    queue: CommitQueue,
    membership: Membership,
    loop_watch: EventLoopWatch,
) -> NodeMetrics:
    """All of them. ``folder`` is where the store is."""
    commits = queue.metrics

    def collect() -> Values:
        length, size_bytes = queue.waiting()
        values: dict[str, Mapping[Labels, float]] = {
            "agentmem.node.role": {("writer",): 1.0},
            "agentmem.node.serving": {(): float(server.is_serving)},
            "agentmem.calls.active": server.calls.active(),
            "agentmem.cache.lookups": store.lookups(),
            "agentmem.commit.queue.length": {(): length},
            "agentmem.commit.queue.size": {(): size_bytes},
        }
        return values | _of_replicas(store, membership)

    return NodeMetrics(
        "writer",
        node_id,
        histograms={
            "rpc.server.call.duration": server.calls.durations,
            "agentmem.call.stage.duration": server.calls.stages,
            "agentmem.event_loop.lag": loop_watch.lag,
            "agentmem.commit.duration": commits.durations,
            "agentmem.commit.sync.duration": commits.sync_durations,
            "agentmem.commit.size": commits.sizes,
            "agentmem.commit.queue.duration": commits.waits,
        },
        counters={
            "agentmem.call.failures": server.calls.failures,
            "agentmem.calls.again": server.calls.again,
            "agentmem.calls.slow": server.calls.slow,
        },
        collectors=[collect, ProcessMetrics(server.port).collect, StoreMetrics(store, folder).collect],
    )


def _of_replicas(store: Store, membership: Membership) -> dict[str, Mapping[Labels, float]]:
    nodes = membership.replicas()
    states = Counter(node.state for node in nodes)
    values: dict[str, Mapping[Labels, float]] = {
        "agentmem.replicas": {(name,): states[state] for state, name in _STATES.items()}
    }
    if nodes:
        slowest = min(node.applied_revision for node in nodes)
        values["agentmem.replicas.lag"] = {(): max(0, store.position().revision - slowest)}
    return values
