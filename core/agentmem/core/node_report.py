"""What a node says of itself by gRPC, to who operates it: what /metrics says, for whom has no Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import grpc
from google.protobuf import descriptor_pool

from agentmem.core.call_metrics import CallMetrics
from agentmem.core.measurements import Distribution, Labels
from agentmem.core.node_metrics import NodeMetrics, Values
from agentmem.core.process_metrics import anonymous_memory_bytes
from agentmem.core.times import now_us
from agentmem.v1 import cluster_pb2


class NodeReporter:
    """Makes the reports of one process, from when it was made on.

    Args:
        calls: of the server.
    """

    def __init__(self, metrics: NodeMetrics, calls: CallMetrics) -> None:
        self._metrics = metrics
        self._calls = calls
        self._started_us = now_us()
        self._started_s = time.monotonic()

    async def report(self, described: cluster_pb2.GetNodeResponse) -> cluster_pb2.GetNodeReportResponse:
        """The report of now.

        Args:
            described: the answer of ``GetNode``.
        """
        result = cluster_pb2.GetNodeReportResponse(
            node=described.node,
            epoch=described.position.epoch,
            known_epoch=described.known_epoch,
            open_calls=int(sum(self._calls.active().values())),
            latency_bounds_s=self._calls.durations.bounds,
        )
        # Looks at files and at each descriptor, of which there may be many.
        values = await asyncio.to_thread(self._metrics.values)
        _add_use(result, values)
        for lag in self._metrics.histograms["agentmem.event_loop.lag"].distributions().values():
            result.event_loop_lag_counts.extend(lag.counts)
        _add_lookups(result, values.get("agentmem.cache.lookups", {}))
        _add_methods(result, self._calls.durations.distributions(), self._calls.stages.distributions())
        result.start_time.FromMicroseconds(self._started_us)
        result.uptime.FromMicroseconds(int((time.monotonic() - self._started_s) * 1_000_000))
        # Finer than what is exported, which is in hundredths of a second.
        result.cpu_time.FromMicroseconds(int(time.process_time() * 1_000_000))
        return result


def _add_use(result: cluster_pb2.GetNodeReportResponse, values: Values) -> None:
    def known(name: str) -> int | None:
        return int(sum(values[name].values())) if name in values else None

    for field, value in (
        ("resident_memory_bytes", known("process.memory.usage")),
        ("anonymous_memory_bytes", anonymous_memory_bytes()),
        ("connections", known("agentmem.connections.active")),
        ("index_bytes", known("agentmem.index.size")),
    ):
        if value is not None:
            setattr(result, field, value)
    result.store.used_bytes = known("agentmem.store.used") or 0
    result.store.file_bytes = known("agentmem.store.file") or 0
    result.store.max_bytes = known("agentmem.store.limit") or 0


def _add_lookups(result: cluster_pb2.GetNodeReportResponse, lookups: Mapping[Labels, float]) -> None:
    for cache in sorted({cache for cache, _ in lookups}):
        hits, misses = (int(lookups.get((cache, outcome), 0)) for outcome in ("hit", "miss"))
        result.caches.add(name=cache, hits=hits, misses=misses)


def _add_methods(
    result: cluster_pb2.GetNodeReportResponse,
    durations: Mapping[Labels, Distribution],
    stages: Mapping[Labels, Distribution],
) -> None:
    """Adds each method that has been called, in the order of their names."""
    ended: dict[str, dict[int, Distribution]] = {}
    for (_, method, status), distribution in durations.items():
        ended.setdefault(method, {})[grpc.StatusCode[status].value[0]] = distribution
    for method, codes in sorted(ended.items()):
        report = result.methods.add(method=method, is_stream=_is_stream(method))
        for code, distribution in sorted(codes.items()):
            report.codes.add(code=code, calls=sum(distribution.counts))
        counts = zip(*(distribution.counts for distribution in codes.values()), strict=True)
        report.latency_counts.extend(sum(bucket) for bucket in counts)
        total_s = sum(distribution.total for distribution in codes.values())
        report.total_time.FromMicroseconds(int(total_s * 1_000_000))
    by_method = {report.method: report for report in result.methods}
    for (method, name), distribution in sorted(stages.items(), key=lambda item: item[0]):
        stage = by_method[method].stages.add(name=name, latency_counts=distribution.counts)
        stage.total_time.FromMicroseconds(int(distribution.total * 1_000_000))


def _is_stream(method: str) -> bool:
    described = descriptor_pool.Default().FindMethodByName(method.replace("/", "."))
    return bool(described.client_streaming or described.server_streaming)
