"""``python -m agentmem.bench compare A.json B.json``: two reports side by side."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentmem.bench.load.durations import show_duration
from agentmem.bench.load.errors import LoadError

Json = dict[str, Any]


def main(words: Sequence[str]) -> int:
    """0; 1 when B is worse than A by more than what is asked for; 2 when a file is no report."""
    parser = argparse.ArgumentParser(
        prog="python -m agentmem.bench compare",
        description="Compares two JSON reports, of this generator or of ghz.",
    )
    parser.add_argument("a", metavar="A.json")
    parser.add_argument("b", metavar="B.json")
    parser.add_argument(
        "--fail-above",
        type=float,
        metavar="PERCENT",
        help="exit with 1 when B is slower, or has a lower rate or more errors, by more than this",
    )
    options = parser.parse_args(words)
    try:
        a, b = _read(options.a), _read(options.b)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 2
    rows = list(compare(a, b))
    print(f"{'':24}{'A':>12}{'B':>12}{'B / A':>10}")
    for row in rows:
        print(f"{row.name:24}{row.shown(row.a):>12}{row.shown(row.b):>12}{row.ratio_text():>10}")
    if options.fail_above is None:
        return 0
    worse = [row.name for row in rows if row.worse_percent() > options.fail_above]
    for name in worse:
        print(f"worse by more than {options.fail_above:g} %: {name}", file=sys.stderr)
    return 1 if worse else 0


class Row:
    """One figure of both reports."""

    def __init__(self, name: str, a: float, b: float, kind: str) -> None:
        self.name = name
        self.a = a
        self.b = b
        self._kind = kind

    def shown(self, value: float) -> str:
        if self._kind == "time":
            return show_duration(value)
        return f"{value:.2f} %" if self._kind == "share" else f"{value:.2f}"

    def ratio_text(self) -> str:
        return f"{self.b / self.a:.3f}" if self.a else "-"

    def worse_percent(self) -> float:
        """How much worse B is: of A's value; for shares, in points."""
        if self._kind == "share":
            return self.b - self.a
        if not self.a:
            return 0.0
        change = 100 * (self.b / self.a - 1)
        return change if self._kind == "time" else -change


def compare(a: Json, b: Json) -> Iterator[Row]:
    """The figures that both reports have."""
    yield Row("requests/sec", a["rps"], b["rps"], "rate")
    yield Row("errors", _error_percent(a), _error_percent(b), "share")
    yield Row("average", a["average"], b["average"], "time")
    yield from _percentiles("", a, b)
    for key, name in (("service", "sent, "), ("scheduled", "due, ")):
        ours, theirs = a.get("extended", {}).get(key), b.get("extended", {}).get(key)
        if ours and theirs:
            yield from _percentiles(name, ours, theirs, least=99.5 if key == "service" else 0)


def _percentiles(prefix: str, a: Json, b: Json, least: float = 0) -> Iterator[Row]:
    others = {one["percentage"]: one["latency"] for one in b["latencyDistribution"]}
    for one in a["latencyDistribution"]:
        percentage = one["percentage"]
        if percentage in others and percentage > least:
            yield Row(f"{prefix}{percentage} %", one["latency"], others[percentage], "time")


def _error_percent(report: Json) -> float:
    errors: int = sum(report["errorDistribution"].values())
    count: int = report["count"]
    return 100 * errors / max(count, 1)


def _read(path: str) -> Json:
    """Raises LoadError when it is not a report."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        report["rps"], report["latencyDistribution"], report["errorDistribution"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{path}: not a report of a run: {error}") from error
    checked: Json = report
    return checked
