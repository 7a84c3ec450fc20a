"""The report of a run: ghz's keys and units, and what is beyond ghz under one more key, "extended"."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from agentmem.bench.load.histograms import nearest_rank
from agentmem.bench.load.options import Options
from agentmem.bench.load.recordings import NOT_DUE, OK, STATUSES, Latencies, Recording, Totals, note_error

GHZ_PERCENTAGES = (10, 25, 50, 75, 90, 95, 99)
PERCENTAGES = (*GHZ_PERCENTAGES, 99.9, 99.99)
HISTOGRAM_BUCKETS = 10
MAX_CACHED_SECONDS = 1000
# A generator process that is busy for a larger part of the time may itself be what is slow.
SATURATED_CPU_PERCENT = 90.0

Json = dict[str, Any]


Whole = npt.NDArray[np.int64]
NONE: Whole = np.empty(0, np.int64)


@dataclass
class Measured:
    """What the processes recorded, together, without the calls that are skipped, by the time they ended.

    Times in ns; `sent_ns` from the start of the run. `errors` are numbers of `error_texts`.
    """

    sent_ns: Whole
    service_ns: Whole
    delay_ns: Whole
    statuses: Whole
    errors: Whole
    error_texts: list[str]
    totals: Totals
    # Of the calls that count, in order; empty when there are more calls than are kept with their details.
    ordered_service_ns: Whole = field(default_factory=lambda: NONE)
    ordered_scheduled_ns: Whole = field(default_factory=lambda: NONE)
    ordered_delay_ns: Whole = field(default_factory=lambda: NONE)


def measure(recordings: Sequence[Recording], skip_first: int, count_errors: bool) -> Measured:
    """Joins the recordings; the calls that ended first are left out."""
    texts = list(dict.fromkeys(text for recording in recordings for text in recording.error_texts))
    numbers = {text: number for number, text in enumerate(texts)}

    def joined(columns: Iterable[Iterable[int]]) -> Whole:
        return np.concatenate([np.asarray(column, np.int64) for column in columns])

    sent_ns = joined(recording.sent_ns for recording in recordings)
    service_ns = joined(recording.service_ns for recording in recordings)
    delay_ns = joined(recording.delay_ns for recording in recordings)
    statuses = joined(recording.statuses for recording in recordings)
    errors = joined(
        np.asarray([numbers[text] for text in recording.error_texts])[np.asarray(recording.error_numbers)]
        for recording in recordings
    )
    kept = np.argsort(sent_ns + service_ns, kind="stable")[skip_first:]
    measured = Measured(
        sent_ns[kept], service_ns[kept], delay_ns[kept], statuses[kept], errors[kept], texts, Totals()
    )
    counted = np.ones(len(kept), bool) if count_errors else measured.statuses == OK
    due = counted & (measured.delay_ns != NOT_DUE)
    ordered = (
        np.sort(measured.service_ns[counted]),
        np.sort((measured.service_ns + measured.delay_ns)[due]),
        np.sort(measured.delay_ns[due]),
    )
    totals = measured.totals
    totals.statuses.update(dict(zip(*_counted(measured.statuses), strict=True)))
    for number, count in zip(*_counted(measured.errors), strict=True):
        if texts[number]:
            note_error(totals.errors, texts[number], count)
    totals.sum_ns = int(measured.service_ns.sum())
    for latencies, values in zip((totals.service, totals.scheduled, totals.delay), ordered, strict=True):
        latencies.record_ordered(values)
    if not any(recording.more.count for recording in recordings):
        measured.ordered_service_ns, measured.ordered_scheduled_ns, measured.ordered_delay_ns = ordered
    for recording in recordings:
        totals.add(recording.more)
    return measured


def _counted(values: Whole) -> tuple[list[int], list[int]]:
    """The different values, and how many there are of each."""
    different, counts = np.unique(values, return_counts=True)
    return different.tolist(), counts.tolist()


def percentile(latencies: Latencies, ordered: Whole, percentage: float) -> int:
    """The nearest rank: exact while every call is kept, else of the histogram (at most 0.1 % too high)."""
    if len(ordered):
        return nearest_rank(ordered, percentage)
    return min(latencies.histogram.percentile(percentage), latencies.slowest_ns)


def build_report(
    options: Options, recordings: Sequence[Recording], ended: datetime, with_details: bool = True
) -> Json:
    """The report as JSON values. The details of a million calls are large: not all formats show them."""
    measured = measure(recordings, options.skip_first, options.count_errors)
    totals = measured.totals
    elapsed_ns = max(recording.elapsed_ns for recording in recordings)
    started_ns = int(ended.timestamp() * 1e9) - elapsed_ns
    report: Json = {
        "endReason": _end_reason(recordings),
        "options": shown_options(options),
        "date": ended.isoformat("T", "seconds"),
        "count": totals.count,
        "total": elapsed_ns,
        "average": totals.sum_ns // totals.count if totals.count else 0,
        "fastest": totals.service.fastest_ns or 0,
        "slowest": totals.service.slowest_ns,
        "rps": totals.count / (elapsed_ns / 1e9) if elapsed_ns else 0.0,
        "errorDistribution": dict(totals.errors.most_common()),
        "statusCodeDistribution": {
            STATUSES[status]: count for status, count in totals.statuses.most_common()
        },
        "latencyDistribution": [
            {
                "percentage": percentage,
                "latency": percentile(totals.service, measured.ordered_service_ns, percentage),
            }
            for percentage in GHZ_PERCENTAGES
            if totals.service.fastest_ns is not None
        ],
        "histogram": _buckets(totals.service, measured.ordered_service_ns),
        "details": _details(measured, started_ns) if with_details else [],
    }
    if options.name:
        report = {"name": options.name, **report}
    if options.tags:
        report["tags"] = dict(options.tags)
    return report | {"extended": _extended(options, recordings, measured)}


def _details(measured: Measured, started_ns: int) -> list[Json]:
    return [
        {
            "timestamp": _timestamp(started_ns + sent_ns),
            "latency": service_ns,
            "error": measured.error_texts[error],
            "status": STATUSES[status],
        }
        for sent_ns, service_ns, error, status in zip(
            measured.sent_ns.tolist(),
            measured.service_ns.tolist(),
            measured.errors.tolist(),
            measured.statuses.tolist(),
            strict=True,
        )
    ]


def _end_reason(recordings: Sequence[Recording]) -> str:
    reasons = {recording.end_reason for recording in recordings}
    return next(reason for reason in ("cancel", "timeout", "normal") if reason in reasons)


def _timestamp(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, as ghz writes it."""
    seconds, part_ns = divmod(time_ns, 10**9)
    return f"{_second(seconds)}.{part_ns:09}Z"


@lru_cache(maxsize=MAX_CACHED_SECONDS)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _buckets(latencies: Latencies, ordered: Whole) -> list[Json]:
    """ghz's histogram: marks in seconds from the fastest to the slowest; each counts the calls up to it."""
    if latencies.fastest_ns is None:
        return []
    fastest, slowest = latencies.fastest_ns, latencies.slowest_ns
    width = (slowest - fastest) / HISTOGRAM_BUCKETS
    marks = [fastest + width * number for number in range(HISTOGRAM_BUCKETS)] + [slowest]
    if len(ordered):
        values, weights = ordered, np.ones(len(ordered), np.int64)
    else:
        values, weights = (np.asarray(column) for column in zip(*latencies.histogram.recorded(), strict=True))
    # The histogram's values may be a little more than the slowest.
    numbers = np.minimum(np.searchsorted(marks, values, side="left"), HISTOGRAM_BUCKETS)
    counts = np.bincount(numbers, weights, len(marks)).astype(int).tolist()
    total = sum(counts)
    return [
        {"mark": mark / 1e9, "count": count, "frequency": count / total}
        for mark, count in zip(marks, counts, strict=True)
    ]


def _summary(latencies: Latencies, ordered: Whole) -> Json | None:
    """None when there is nothing, as of scheduled latency without a schedule."""
    if latencies.fastest_ns is None:
        return None
    count = latencies.histogram.count
    return {
        "count": count,
        "average": latencies.sum_ns // count,
        "fastest": latencies.fastest_ns,
        "slowest": latencies.slowest_ns,
        "latencyDistribution": [
            {"percentage": percentage, "latency": percentile(latencies, ordered, percentage)}
            for percentage in PERCENTAGES
        ],
        "hdr": latencies.histogram.encoded(),
    }


def _extended(options: Options, recordings: Sequence[Recording], measured: Measured) -> Json:
    totals = measured.totals
    processes = [_process(recording) for recording in recordings]
    lag = Latencies()
    for recording in recordings:
        lag.add(recording.lag)
    return {
        # Whether percentiles are of the calls themselves or of the histogram.
        "percentiles": "histogram" if any(recording.more.count for recording in recordings) else "exact",
        "service": _summary(totals.service, measured.ordered_service_ns),
        "scheduled": _summary(totals.scheduled, measured.ordered_scheduled_ns),
        "sendDelay": _summary(totals.delay, measured.ordered_delay_ns),
        "unsent": sum(recording.unsent for recording in recordings),
        "endpoints": [
            {
                "host": host,
                "count": (calls := sum(recording.endpoints[index].calls for recording in recordings)),
                "errors": sum(recording.endpoints[index].errors for recording in recordings),
                "average": sum(recording.endpoints[index].sum_ns for recording in recordings)
                // max(calls, 1),
            }
            for index, host in enumerate(options.hosts)
        ],
        "generator": {
            "processes": processes,
            "cpuPercent": sum(process["cpuPercent"] for process in processes),
            # Of the calls for which a worker was free when they were due.
            "lag": _summary(lag, NONE),
            "saturated": any(process["cpuPercent"] > SATURATED_CPU_PERCENT for process in processes),
        },
        "warmup": {
            "count": sum(recording.warmup_calls for recording in recordings),
            "duration": max(recording.warmup_ns for recording in recordings),
        },
        "seed": options.seed,
    }


def _process(recording: Recording) -> Json:
    elapsed_ns = recording.elapsed_ns or 1
    return {
        "count": sum(endpoint.calls for endpoint in recording.endpoints),
        "cpu": recording.cpu_ns,
        "cpuPercent": round(100 * recording.cpu_ns / elapsed_ns, 1),
    }


def shown_options(options: Options) -> Json:
    """With ghz's keys, and its way of leaving out what is not set. Durations in ns."""
    load, concurrency = options.load, options.concurrency
    shown: Json = {
        "call": options.call,
        "host": ",".join(options.hosts),
        "proto": options.proto,
        "protoset": options.protoset,
        "import-paths": list(options.import_paths),
        "enable-compression": options.enable_compression,
        "cacert": options.cacert,
        "cert": options.cert,
        "key": options.key,
        "cname": options.cname,
        "authority": options.authority,
        "rps": load.start if load is not None and load.kind == "const" else 0,
        "concurrency": concurrency.start if concurrency.kind == "const" else 0,
        "total": options.total or 0,
        "async": options.asynchronous,
        "connections": options.connections,
        "duration": options.end_ns,
        "timeout": options.timeout_ns,
        "dial-timeout": options.connect_timeout_ns,
        "keepalive": options.keepalive_ns,
        "metadata": dict(options.metadata),
        "skipFirst": options.skip_first,
        "count-errors": options.count_errors,
        "name": options.name,
    }
    always: Json = {
        "insecure": options.insecure,
        "binary": bool(options.binary_data),
        "CPUs": options.processes,
    }
    for prefix, ramp in (("load", load), ("concurrency", concurrency)):
        stepped = ramp if ramp is not None and ramp.kind != "const" else None
        always |= {
            f"{prefix}-schedule": stepped.kind if stepped else "const",
            f"{prefix}-start": stepped.start if stepped else 0,
            f"{prefix}-end": stepped.end if stepped else 0,
            f"{prefix}-step": stepped.step if stepped else 0,
            f"{prefix}-step-duration": stepped.step_duration_ns if stepped else 0,
            f"{prefix}-max-duration": stepped.max_duration_ns if stepped else 0,
        }
    if not options.binary_data:
        always["data"] = _data_value(options.data)
    return {key: value for key, value in shown.items() if value} | always


def _data_value(data: str) -> Any:
    """As JSON, or as its text when it is JSON only with its actions filled in."""
    try:
        return json.loads(data)
    except ValueError:
        return data
