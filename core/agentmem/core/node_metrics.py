"""What a node measures, gathered from where it is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from agentmem.core.measurements import Counter, Histogram, Labels
from agentmem.core.metrics import Metric, Node, metrics_of
from agentmem.core.store import Store

Values: TypeAlias = Mapping[str, Mapping[Labels, float]]
# Gives the values of some gauges and counters as they are now. Called from the thread that scrapes.
Collector: TypeAlias = Callable[[], Values]


class NodeMetrics:
    """The metrics of one node.

    Args:
        histograms, counters: by metric.
        collectors: for all other metrics of the table.

    Attributes:
        table: what the node exports, by name.
    """

    def __init__(
        self,
        node: Node,
        node_id: str,
        *,
        histograms: Mapping[str, Histogram],
        counters: Mapping[str, Counter],
        collectors: Sequence[Collector],
    ) -> None:
        """Raises ValueError when a histogram or counter is not in the table as such."""
        self.node = node
        self.node_id = node_id
        self.table: dict[str, Metric] = metrics_of(node)
        self.histograms = histograms
        self._counters = counters
        self._collectors = collectors
        declared = {name for name, metric in self.table.items() if metric.kind == "histogram"}
        if declared != set(histograms):
            raise ValueError(f"not in the table, or not kept: {sorted(declared ^ set(histograms))}")
        self._check({name for name, metric in self.table.items() if metric.kind == "counter"} & set(counters))

    def values(self) -> Values:
        """The gauges and counters as they are now. Raises ValueError for one that is not in the table."""
        found: dict[str, Mapping[Labels, float]] = {
            name: counter.counts() for name, counter in self._counters.items()
        }
        for collect in self._collectors:
            found |= collect()
        self._check(found)
        return found

    def _check(self, names: set[str] | Mapping[str, object]) -> None:
        unknown = sorted(set(names) - set(self.table))
        if unknown:
            raise ValueError(f"not in the table of metrics: {', '.join(unknown)}")


class StoreMetrics:
    """Those of the store of a node.

    Args:
        folder: where the store is.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def collect(self) -> Values:
        with self._store.read() as transaction:
            position = transaction.position
            log_bytes = transaction.log_bytes
            namespaces = transaction.namespace_count()
        use = self._store.file_use()
        disk = os.statvfs(self._folder)
        return {
            "agentmem.node.epoch": {(): position.epoch},
            "agentmem.revision.applied": {(): position.revision},
            "agentmem.log.size": {(): log_bytes},
            "agentmem.namespaces": {(): namespaces},
            "agentmem.store.used": {(): use.used_bytes},
            "agentmem.store.file": {(): use.file_bytes},
            "agentmem.store.map": {(): self._store.map_size_bytes},
            "agentmem.store.limit": {(): use.max_bytes},
            "agentmem.store.disk_free": {(): disk.f_bavail * disk.f_frsize},
        }
