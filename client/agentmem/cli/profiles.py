"""Where the time of calls goes, from what nodes count of their stages at /metrics."""

from __future__ import annotations

import math
import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any
from urllib.error import URLError

from agentmem.cli.failures import CommandError, ExitCode
from agentmem.client import node_report

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024**2
CALL = "(call)"
_CALLS = "rpc_server_call_duration_seconds"
_STAGES = "agentmem_call_stage_duration_seconds"
_SAMPLE = re.compile(rf"(?:{_CALLS}|{_STAGES})_(bucket|sum)\{{(.*)\}} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(slots=True)
class Timings:
    """Of one method's calls, or one of their stages: seconds, and counts up to each bound."""

    seconds: float = 0.0
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))


# By method and stage; CALL for the calls themselves.
Checkpoint = Mapping[tuple[str, str], Timings]


@dataclass(frozen=True, slots=True)
class Row:
    """What a report says of a stage. ``share`` is of the time of the method's calls; stages may overlap."""

    method: str
    stage: str
    count: int
    total_s: float
    mean_ms: float
    p95_ms: float
    share: float


def checkpoint(addresses: Sequence[str]) -> Checkpoint:
    """What some nodes have counted so far, together. Raises CommandError when one cannot be asked."""
    found: dict[tuple[str, str], Timings] = defaultdict(Timings)
    for address in addresses:
        for line in _text(address).splitlines():
            match = _SAMPLE.fullmatch(line)
            if match is None:
                continue
            kind, labels_text, value = match.groups()
            labels = dict(_LABEL.findall(labels_text))
            timings = found[labels["rpc_method"], labels.get("agentmem_stage", CALL)]
            if kind == "sum":
                timings.seconds += float(value)
            else:
                timings.buckets[float(labels["le"])] += float(value)
    return found


def _text(address: str) -> str:
    url = f"http://{address}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            return str(response.read(MAX_ANSWER_BYTES).decode())
    except (URLError, OSError, ValueError) as error:
        raise CommandError(f"{url} cannot be read: {error}", ExitCode.UNREACHABLE) from error


def report(after: Checkpoint, before: Checkpoint | None = None) -> list[Row]:
    """What came between two checkpoints, or up to the first: methods and stages that took longest first."""
    grown = {key: _difference(timings, (before or {}).get(key)) for key, timings in after.items()}
    totals = {method: timings.seconds for (method, stage), timings in grown.items() if stage == CALL}
    rows = []
    for (method, stage), timings in grown.items():
        count = timings.buckets.get(math.inf, 0.0)
        if count <= 0:
            continue
        seconds = timings.seconds
        p95_ms = quantile(timings.buckets, 0.95) * 1000
        share = seconds / totals[method] if totals.get(method) else 0.0
        rows.append(Row(method, stage, int(count), seconds, seconds / count * 1000, p95_ms, share))
    return sorted(
        rows, key=lambda row: (-totals.get(row.method, 0.0), row.method, row.stage != CALL, -row.total_s)
    )


def _difference(after: Timings, before: Timings | None) -> Timings:
    """Of a node that was started again in between, what it has counted since."""
    if before is None or after.seconds < before.seconds:
        return after
    buckets = {bound: count - before.buckets.get(bound, 0.0) for bound, count in after.buckets.items()}
    return Timings(after.seconds - before.seconds, buckets)


def quantile(buckets: Mapping[float, float], share: float) -> float:
    """The value below which that share lies, of counts up to each bound that have those below in them."""
    bounds = sorted(buckets)
    up_to = [0.0, *(buckets[bound] for bound in bounds)]
    counts = [here - before for before, here in pairwise(up_to)]
    return node_report.quantile(bounds[:-1], counts, share) or 0.0


def as_documents(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """For programs."""
    return [asdict(row) for row in rows]
