"""What a node uses and which calls it has answered, and what two such reports say of the time between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from agentmem.client import topology
from agentmem.client.topology import Node
from agentmem.v1 import cluster_pb2

_CODE_NAMES: Mapping[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True)
class StageTimes:
    """What parts of calls took, such as reading or ranking.

    Attributes:
        latency_counts: as those of the calls.
        total_s: of all together. Stages of the searches of one batch overlap.
    """

    latency_counts: Sequence[int]
    total_s: float


@dataclass(frozen=True)
class MethodCalls:
    """The calls of one method that have ended.

    Attributes:
        method: as in ``agentmem.v1.ReaderService/GetMemories``.
        is_stream: a stream lasts as long as its caller wants; its latency says nothing.
        codes: how many, by the name of the status code.
        latency_counts: how many took no longer than each of the report's ``latency_bounds_s`` and longer than
            the one before; the last is of those that took longer than all.
        total_s: what they took together.
        stages: their parts, by name.
    """

    method: str
    is_stream: bool
    codes: Mapping[str, int]
    latency_counts: Sequence[int]
    total_s: float
    stages: Mapping[str, StageTimes]


@dataclass(frozen=True)
class CacheUse:
    """How often a cache had what was looked for."""

    hits: int
    misses: int


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself to who operates it.

    Attributes:
        node: as the node itself knows it.
        epoch: of the newest entry of its log.
        known_epoch: the highest epoch it has heard of.
        start_time: since when it counts.
        uptime_s: seconds since then, on a clock that is never set.
        cpu_s: processor time of all threads of the process; not of child processes.
        memory_bytes: what is resident; None where the system does not say.
        anonymous_memory_bytes: of those the ones of no file, which cannot be dropped and read again.
        connections: open ones to the address it serves on; None where the system does not say.
        open_calls: calls that have begun and not ended.
        store_used_bytes: of the memory map, pages that are free again included.
        store_file_bytes: length of the store's file.
        store_max_bytes: what the map may grow to.
        index_bytes: files of the indexes; None for a node without any.
        methods: calls by method.
        caches: by name.
        event_loop_lag_counts: how late a timer of its event loop was, forty times a second: one count for
            each bound, and one for what was later than the last; empty where the node does not say.
    """

    node: Node
    epoch: int
    known_epoch: int
    start_time: datetime
    uptime_s: float
    cpu_s: float
    memory_bytes: int | None
    anonymous_memory_bytes: int | None
    connections: int | None
    open_calls: int
    store_used_bytes: int
    store_file_bytes: int
    store_max_bytes: int
    index_bytes: int | None
    latency_bounds_s: Sequence[float]
    methods: Mapping[str, MethodCalls]
    caches: Mapping[str, CacheUse]
    event_loop_lag_counts: Sequence[int]


def from_proto(message: cluster_pb2.GetNodeReportResponse) -> NodeReport:
    """The report that a node sent."""

    def known(name: str) -> int | None:
        return getattr(message, name) if message.HasField(name) else None

    return NodeReport(
        node=topology.node_from_proto(message.node),
        epoch=message.epoch,
        known_epoch=message.known_epoch,
        start_time=message.start_time.ToDatetime(tzinfo=UTC),
        uptime_s=message.uptime.ToTimedelta().total_seconds(),
        cpu_s=message.cpu_time.ToTimedelta().total_seconds(),
        memory_bytes=known("resident_memory_bytes"),
        anonymous_memory_bytes=known("anonymous_memory_bytes"),
        connections=known("connections"),
        open_calls=message.open_calls,
        store_used_bytes=message.store.used_bytes,
        store_file_bytes=message.store.file_bytes,
        store_max_bytes=message.store.max_bytes,
        index_bytes=known("index_bytes"),
        latency_bounds_s=tuple(message.latency_bounds_s),
        methods={each.method: _method_from_proto(each) for each in message.methods},
        caches={each.name: CacheUse(each.hits, each.misses) for each in message.caches},
        event_loop_lag_counts=tuple(message.event_loop_lag_counts),
    )


def _method_from_proto(message: cluster_pb2.MethodReport) -> MethodCalls:
    return MethodCalls(
        method=message.method,
        is_stream=message.is_stream,
        codes={_CODE_NAMES.get(each.code, str(each.code)): each.calls for each in message.codes},
        latency_counts=tuple(message.latency_counts),
        total_s=message.total_time.ToTimedelta().total_seconds(),
        stages={
            each.name: StageTimes(tuple(each.latency_counts), each.total_time.ToTimedelta().total_seconds())
            for each in message.stages
        },
    )


def calls_between(before: NodeReport, after: NodeReport) -> dict[str, MethodCalls] | None:
    """The calls that ended between two reports of a node, by method; of methods without any none.

    None when the node began to count anew between them.
    """
    if before.start_time != after.start_time or before.uptime_s >= after.uptime_s:
        return None
    ended = {}
    for name, calls in after.methods.items():
        earlier = before.methods.get(name)
        if earlier is not None:
            calls = MethodCalls(
                method=name,
                is_stream=calls.is_stream,
                codes=Counter(calls.codes) - Counter(earlier.codes),
                latency_counts=_grown(earlier.latency_counts, calls.latency_counts),
                total_s=calls.total_s - earlier.total_s,
                stages={
                    stage: _times_between(earlier.stages.get(stage), times)
                    for stage, times in calls.stages.items()
                },
            )
        if calls.codes:
            ended[name] = calls
    return ended


def _times_between(before: StageTimes | None, after: StageTimes) -> StageTimes:
    if before is None:
        return after
    counts = _grown(before.latency_counts, after.latency_counts)
    return StageTimes(counts, after.total_s - before.total_s)


def _grown(before: Sequence[int], after: Sequence[int]) -> Sequence[int]:
    return [now - then for then, now in zip(before, after, strict=True)]


def quantile_s(bounds_s: Sequence[float], calls: Iterable[MethodCalls], share: float) -> float | None:
    """The latency in seconds that a share of calls did not exceed; None without calls.

    Within a bucket calls are taken to be spread evenly, so the true latency is in the same bucket. Of calls
    slower than the last bound no more is known than that: it is given.

    Args:
        share: more than 0, at most 1.
    """
    counts: list[int] = [sum(column) for column in zip(*(each.latency_counts for each in calls), strict=True)]
    return quantile(bounds_s, counts, share)


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """``quantile_s`` of counts up to each bound and above the last; what Prometheus estimates, too."""
    rank = share * sum(counts)
    if not rank:
        return None
    lower, below = 0.0, 0.0
    for upper, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return min(upper, lower + (upper - lower) * (rank - below) / count)
        lower, below = upper, below + count
    return lower
