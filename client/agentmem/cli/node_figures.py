"""What the nodes of a cluster do now, as documents: each from two reports of a node."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agentmem.client import MethodCalls, Node, NodeReport, NodeRole
from agentmem.client.node_report import calls_between, quantile_s

# What users call. The calls of nodes among themselves, and of those who look at them, are no work.
_USED_SERVICES = ("agentmem.v1.ReaderService/", "agentmem.v1.WriterService/")
# What is the server's doing: overload and faults, not a memory that does not exist.
SERVER_ERRORS = frozenset(
    {
        *("UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "INTERNAL"),
        *("UNAVAILABLE", "DATA_LOSS"),
    }
)

SIZES = (
    *("memory_bytes", "anonymous_memory_bytes", "connections", "open_calls", "store_used_bytes"),
    *("store_file_bytes", "store_max_bytes", "index_bytes", "uptime_s", "cache_hit_ratio"),
)


def described(node: Node, state: str, before: NodeReport | None, after: NodeReport | None) -> dict[str, Any]:
    """One node. What is not known is null: rates at first and after a restart, all without an answer.

    Args:
        node: as the cluster lists it.
        state: of the node when it does not report itself.
        before, after: the report before and the newest one.
    """
    own = node if after is None else after.node
    document: dict[str, Any] = {
        "id": own.id,
        "role": str(own.role),
        "address": node.address,
        "state": state if after is None else str(own.state),
        "epoch": None if after is None else after.epoch,
        "applied_revision": own.applied_revision if after is not None else None,
        "searchable_revision": own.searchable_revision if after is not None else None,
        "staleness_s": None if after is None or own.staleness is None else own.staleness.total_seconds(),
    }
    return document | _rates(before, after) | sizes(after)


def sizes(report: NodeReport | None) -> dict[str, Any]:
    """What a node has of memory, disk and connections; all null without a report."""
    lookups = [] if report is None else [(use.hits, use.misses) for use in report.caches.values()]
    hits, misses = (sum(counts) for counts in zip(*lookups, strict=True)) if lookups else (0, 0)
    document: dict[str, Any] = {name: getattr(report, name, None) for name in SIZES}
    # Since it started: there are few lookups.
    document["cache_hit_ratio"] = _rounded(hits / (hits + misses)) if hits + misses else None
    return document


def _rates(before: NodeReport | None, after: NodeReport | None) -> dict[str, Any]:
    names = ("interval_s", "calls_per_s", "errors_per_s", "p50_ms", "p95_ms", "p99_ms", "cpu_percent")
    calls = calls_between(before, after) if before is not None and after is not None else None
    if before is None or after is None or calls is None:
        return dict.fromkeys(names) | {"methods": None}
    interval_s = after.uptime_s - before.uptime_s
    used = [each for each in calls.values() if each.method.startswith(_USED_SERVICES)]
    total = _call_rates(used, interval_s, after.latency_bounds_s)
    return {
        "interval_s": _rounded(interval_s),
        **total,
        "cpu_percent": _rounded(100 * (after.cpu_s - before.cpu_s) / interval_s),
        "methods": {
            name: _call_rates([each], interval_s, after.latency_bounds_s) | {"codes": dict(each.codes)}
            for name, each in calls.items()
        },
    }


def _call_rates(
    calls: Collection[MethodCalls], interval_s: float, bounds_s: Sequence[float]
) -> dict[str, Any]:
    errors = sum(count for each in calls for code, count in each.codes.items() if code in SERVER_ERRORS)
    figures: dict[str, Any] = {
        "calls_per_s": _rounded(sum(sum(each.codes.values()) for each in calls) / interval_s),
        "errors_per_s": _rounded(errors / interval_s),
    }
    answers = [each for each in calls if not each.is_stream]
    for percent in (50, 95, 99):
        seconds = quantile_s(bounds_s, answers, percent / 100)
        figures[f"p{percent}_ms"] = None if seconds is None else _rounded(1000 * seconds)
    return figures


def _rounded(value: float) -> float:
    return round(value, 3)


def with_lag(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The nodes with how many revisions each is behind the writer; null when that cannot be known."""
    writers = [
        node for node in nodes if node["role"] == NodeRole.WRITER and node["applied_revision"] is not None
    ]
    writer = max(writers, key=lambda node: int(node["epoch"]), default=None)
    return [dict(node) | {"lag_revisions": _lag(writer, node)} for node in nodes]


def _lag(writer: Mapping[str, Any] | None, node: Mapping[str, Any]) -> int | None:
    # Revisions of different epochs cannot be compared.
    if writer is None or node["epoch"] != writer["epoch"]:
        return None
    return max(0, int(writer["applied_revision"]) - int(node["applied_revision"]))
