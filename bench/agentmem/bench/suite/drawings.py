"""The plots of the report, by section."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.plots import Plot, Point, Series

# Percentiles stand by how many calls are slower, so that the slow ones have room.
_SHOWN_PERCENTILES = (10, 50, 75, 90, 95, 99, 99.9)
_LATENCY_SIZE_CASES = ("text", "semantic", "hybrid", "exact", "fuzzy")


def _beyond(percent: float) -> float:
    return -math.log10(1 - percent / 100)


def _latencies(title: str, named: Sequence[tuple[str, Section]]) -> Plot:
    series = []
    for name, case in named:
        curve = [(float(percent), value) for percent, value in case["latency_ms"].items()]
        points = [Point(_beyond(at), value) for at, value in curve if 10 <= at < 100 and value > 0]
        if points:
            series.append(Series(name, points))
    ticks = [(_beyond(percent), f"{percent:g} %") for percent in _SHOWN_PERCENTILES]
    most = max((point.x for each in series for point in each.points), default=0.0)
    ticks = [(at, text) for at, text in ticks if at <= most + 0.01]
    return Plot(title, "share of calls that are answered by then", "ms", series, log_y=True, ticks_x=ticks)


def _points(case: Section, x: float, name: str) -> Point:
    figure = case["figures"][name]
    return Point(x, figure["median"], figure["low"], figure["high"])


def memory_operations(section: Section) -> list[Plot]:
    named = [
        (f"{case['name']}, {case['callers']} callers", case)
        for case in section["cases"]
        if case["items"] == 1
    ]
    named = [(name.replace(" 1 callers", " 1 caller"), case) for name, case in named]
    return [_latencies("Latency of memory operations", named)]


def search(section: Section) -> list[Plot]:
    largest = section["sizes"][-1]
    cases = [case for case in largest["cases"] if case["name"] in _LATENCY_SIZE_CASES]
    by_size = [
        Series(
            name,
            [
                _points(case, each["memories"], "p50_ms")
                for each in section["sizes"]
                for case in each["cases"]
                if case["name"] == name
            ],
        )
        for name in [case["name"] for case in largest["cases"]]
    ]
    recall = [
        Series(
            f"{each['memories']:,} memories",
            [
                Point(row["p50_ms"], row["accuracy"], label=row["filter"] or "all")
                for row in each["accuracy"]
                if row["mode"] == "semantic"
            ],
        )
        for each in section["sizes"]
    ]
    return [
        _latencies(
            f"Latency of searches among {largest['memories']:,} memories",
            [(case["name"], case) for case in cases],
        ),
        Plot("Median wait by the number of memories", "memories", "ms", by_size, log_x=True, log_y=True),
        Plot(
            "Recall@10 of semantic searches over their latency, by what the filter leaves",
            *("median wait of one caller, ms", "recall@10 against exact"),
            recall,
            has_lines=False,
        ),
    ]


def owners(section: Section) -> list[Plot]:
    title = f"Latency of {section['together'][0]['callers']} callers of one client"
    return [_latencies(title, [(case["name"], case) for case in section["together"]])]


def concurrency(section: Section) -> list[Plot]:
    curve = section["curve"]
    throughput = [
        Series("operations", [_points(case, case["callers"], "per_s") for case in curve]),
        Series("empty calls", [_points(case, case["callers"], "empty_per_s") for case in curve]),
    ]
    waits = [
        Series(name, [_points(case, case["callers"], key) for case in curve if key in case["figures"]])
        for name, key in (("p50", "p50_ms"), ("p95", "p95_ms"), ("p99", "p99_ms"))
    ]
    waits = [each for each in waits if each.points]
    return [
        Plot("Throughput over concurrency", "callers", "per second", throughput, log_x=True),
        Plot("Latency over concurrency", "callers", "ms", waits, log_x=True, log_y=True),
        _latencies("Latency of the mixed load", [(f"{section['users']['callers']} users", section["users"])]),
    ]


def replication(section: Section) -> list[Plot]:
    scaling = section["scaling"]
    ticks = [(float(case["replicas"]), str(case["replicas"])) for case in scaling]
    return [
        Plot(
            "Searches per second by the number of replicas",
            *("replicas", "searches per second"),
            [Series("hybrid search", [_points(case, case["replicas"], "per_s") for case in scaling])],
            ticks_x=ticks,
        )
    ]


def soak(section: Section) -> list[Plot]:
    samples = section["samples"]
    nodes = list(samples[-1]["nodes"])

    def over_time(title: str, y: str, series: Sequence[Series]) -> Plot:
        return Plot(title, "seconds of load", y, series)

    def of_nodes(name: str) -> list[Series]:
        return [
            Series(node, [Point(each["at_s"], each["nodes"][node][name]) for each in samples])
            for node in nodes
        ]

    return [
        over_time("Memory over time: what each node holds itself", "MB", of_nodes("anonymous_mb")),
        over_time("Memory over time: resident, mapped files too", "MB", of_nodes("rss_mb")),
        over_time("Open files over time", "files", of_nodes("open_files")),
        over_time(
            "Operations per second over time",
            "per second",
            [Series("operations", [Point(each["at_s"], each["per_s"]) for each in samples])],
        ),
        over_time(
            "Commits that searches were behind",
            "commits",
            [Series("lag", [Point(each["at_s"], each["lag_revisions"]) for each in samples])],
        ),
    ]
