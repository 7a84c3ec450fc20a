"""Every metric of the servers, in one table: what is exported is compared with it when a node starts.

Names are those of OpenTelemetry's semantic conventions where these have one, else ``agentmem.*``. Labels
have few values, all of which are in the code: never namespaces, owners, ids or addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["histogram", "counter", "gauge"]
Node = Literal["writer", "replica"]

BOTH: tuple[Node, ...] = ("writer", "replica")
WRITER: tuple[Node, ...] = ("writer",)
REPLICA: tuple[Node, ...] = ("replica",)
_UNIT_SUFFIXES = {"s": "_seconds", "By": "_bytes"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table.

    Attributes:
        name: as OpenTelemetry has it.
        unit: in UCUM; in braces what is counted.
        text: what it says.
        labels: that each value has, in the order in which the code gives them.
        nodes: that export it. Without a value yet, such as the lag before the writer was heard of, it is not
            there.
    """

    name: str
    kind: Kind
    unit: str
    text: str
    labels: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = BOTH

    @property
    def prometheus_name(self) -> str:
        """Its name at /metrics. Behind it, samples of a histogram have ``_bucket``, ``_sum``, ``_count``."""
        suffix = _UNIT_SUFFIXES.get(self.unit, "")
        return self.name.replace(".", "_") + suffix + ("_total" if self.kind == "counter" else "")

    @property
    def prometheus_labels(self) -> tuple[str, ...]:
        """Its labels at /metrics."""
        return tuple(label.replace(".", "_") for label in self.labels)


METRICS: tuple[Metric, ...] = (
    # Calls
    Metric(
        "rpc.server.call.duration",
        "histogram",
        "s",
        "Calls by method and status, from the request to the end of the answer; operations per second "
        "are the rate of its count. Streams count when they end.",
        ("rpc.system.name", "rpc.method", "rpc.response.status_code"),
    ),
    Metric(
        "agentmem.call.stage.duration",
        "histogram",
        "s",
        "Parts of the time of calls: of searches those that explain names, and what went before",
        ("rpc.method", "agentmem.stage"),
    ),
    Metric("agentmem.calls.active", "gauge", "{call}", "Calls that are being answered", ("rpc.type",)),
    Metric(
        "agentmem.call.failures",
        "counter",
        "{call}",
        "Calls that ended with an error, by its reason; OVERLOADED are those that were shed",
        ("agentmem.reason",),
    ),
    Metric(
        "agentmem.calls.again",
        "counter",
        "{call}",
        "Calls that clients sent again after a failure (retry), or to a second node to be quicker (hedge)",
        ("agentmem.attempt",),
    ),
    Metric("agentmem.calls.slow", "counter", "{call}", "Calls in the slow-query log", ("rpc.method",)),
    Metric("agentmem.connections.active", "gauge", "{connection}", "Connections of clients and nodes; Linux"),
    # The process
    Metric("agentmem.event_loop.lag", "histogram", "s", "How late a timer of the event loop is"),
    Metric(
        "process.cpu.time",
        "counter",
        "s",
        "CPU that the process has used; 100 times its rate is CPU %",
        ("cpu.mode",),
    ),
    Metric("process.memory.usage", "gauge", "By", "Physical memory of the process"),
    Metric("process.unix.file_descriptor.count", "gauge", "{file_descriptor}", "Open file descriptors"),
    Metric("process.thread.count", "gauge", "{thread}", "Threads of the process"),
    Metric("process.uptime", "gauge", "s", "Time since the node began to serve in its role"),
    # The node
    Metric("agentmem.node.role", "gauge", "1", "1 for the role that the node has", ("agentmem.role",)),
    Metric("agentmem.node.serving", "gauge", "1", "Whether the node takes calls: 1, else 0"),
    Metric("agentmem.node.epoch", "gauge", "{epoch}", "Epoch of the newest entry in the store"),
    Metric("agentmem.revision.applied", "gauge", "{revision}", "Newest revision in the store"),
    Metric("agentmem.store.used", "gauge", "By", "Pages of the store's file in use, free ones included"),
    Metric("agentmem.store.file", "gauge", "By", "Length of the store's file"),
    Metric("agentmem.store.map", "gauge", "By", "Memory map of the store as it is; doubled when full"),
    Metric("agentmem.store.limit", "gauge", "By", "Memory map of the store at the most"),
    Metric("agentmem.store.disk_free", "gauge", "By", "Room on the disk of the data directory"),
    Metric("agentmem.log.size", "gauge", "By", "Log that is kept"),
    Metric("agentmem.namespaces", "gauge", "{namespace}", "Namespaces of the store"),
    Metric(
        "agentmem.cache.lookups",
        "counter",
        "{lookup}",
        "Lookups in caches: dictionaries; on replicas vocabularies, the past, answers and scopes, too",
        ("agentmem.cache", "agentmem.result"),
    ),
    # Writes
    Metric(
        "agentmem.commit.duration",
        "histogram",
        "s",
        "A commit of the writer from its first command until it is on disk",
        (),
        WRITER,
    ),
    Metric(
        "agentmem.commit.sync.duration",
        "histogram",
        "s",
        "The end of a commit: writing its pages and syncing the disk",
        (),
        WRITER,
    ),
    Metric("agentmem.commit.size", "histogram", "{write}", "Writes that share a commit", (), WRITER),
    Metric(
        "agentmem.commit.queue.duration",
        "histogram",
        "s",
        "How long the oldest write of a commit waited for it",
        (),
        WRITER,
    ),
    Metric("agentmem.commit.queue.length", "gauge", "{write}", "Writes that wait for a commit", (), WRITER),
    Metric("agentmem.commit.queue.size", "gauge", "By", "Size of the writes that wait", (), WRITER),
    # Replication
    Metric(
        "agentmem.replicas",
        "gauge",
        "{replica}",
        "Replicas that are subscribed, by state",
        ("agentmem.state",),
        WRITER,
    ),
    Metric(
        "agentmem.replicas.lag",
        "gauge",
        "{revision}",
        "Revisions that the slowest subscribed replica has not applied; absent without replicas",
        (),
        WRITER,
    ),
    Metric(
        "agentmem.replication.connected",
        "gauge",
        "1",
        "Whether the replica has a stream of the writer: 1, else 0",
        (),
        REPLICA,
    ),
    Metric("agentmem.replication.streams", "counter", "{stream}", "Streams begun with a writer", (), REPLICA),
    Metric(
        "agentmem.replication.lag",
        "gauge",
        "{revision}",
        "Revisions that the writer spoke of and this replica has not applied",
        (),
        REPLICA,
    ),
    Metric(
        "agentmem.replication.staleness",
        "gauge",
        "s",
        "How old what gets and lists show may be, as far as the writer has said so",
        (),
        REPLICA,
    ),
    Metric(
        "agentmem.replication.apply.duration",
        "histogram",
        "s",
        "Applying a frame of entries until it is on disk",
        (),
        REPLICA,
    ),
    Metric(
        "agentmem.replication.apply.size", "histogram", "{entry}", "Entries applied together", (), REPLICA
    ),
    # Searches
    Metric("agentmem.revision.searchable", "gauge", "{revision}", "Revision that searches show", (), REPLICA),
    Metric(
        "agentmem.search.staleness",
        "gauge",
        "s",
        "How old what searches show may be, as far as the writer has said so",
        (),
        REPLICA,
    ),
    Metric(
        "agentmem.search.queue.length",
        "gauge",
        "{search}",
        "Searches that run or wait for a thread",
        (),
        REPLICA,
    ),
    # Indexes
    Metric("agentmem.index.memories", "gauge", "{memory}", "Live memories that are indexed", (), REPLICA),
    Metric("agentmem.index.documents", "gauge", "{document}", "Documents of the text index", (), REPLICA),
    Metric(
        "agentmem.index.vectors",
        "gauge",
        "{vector}",
        "Vectors in the parts that are searched one by one (tail) and in sealed segments",
        ("agentmem.part",),
        REPLICA,
    ),
    Metric(
        "agentmem.index.vectors.dead",
        "gauge",
        "{vector}",
        "Those of them whose memories are gone, until they are rewritten",
        ("agentmem.part",),
        REPLICA,
    ),
    Metric("agentmem.index.segments", "gauge", "{segment}", "Sealed segments of vectors", (), REPLICA),
    Metric(
        "agentmem.index.size", "gauge", "By", "Files of the indexes on disk", ("agentmem.index",), REPLICA
    ),
    Metric(
        "agentmem.index.publish.duration",
        "histogram",
        "s",
        "Making what was indexed searchable",
        (),
        REPLICA,
    ),
    Metric(
        "agentmem.index.builds",
        "counter",
        "{segment}",
        "Segments that were built, or adopted from another replica, and builds that failed",
        ("agentmem.result",),
        REPLICA,
    ),
    Metric("agentmem.index.build.duration", "histogram", "s", "Building a segment of vectors", (), REPLICA),
)


def metrics_of(node: Node) -> dict[str, Metric]:
    """The rows of the table for a kind of node, by name."""
    return {metric.name: metric for metric in METRICS if node in metric.nodes}
