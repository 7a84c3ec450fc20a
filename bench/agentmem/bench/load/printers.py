"""Reports as text: ghz's summary, CSV, JSON and Prometheus' text format."""

import csv
import io
import json
from typing import Any

from agentmem.bench.load.durations import show_duration
from agentmem.bench.load.pages import html_page

# The formats that show each call.
DETAILED_FORMATS = ("csv", "json", "pretty")
BAR = "∎"
MAX_BAR_CHARS = 40

Json = dict[str, Any]


def print_report(report: Json, form: str) -> str:
    """The report in one of the formats of the options."""
    return _PRINTERS[form](report)


def summary(report: Json) -> str:
    lines = ["", "Summary:"]
    if name := report.get("name"):
        lines.append(f"  Name:\t\t{name}")
    lines.append(f"  Count:\t{report['count']}")
    lines.append(f"  Total:\t{show_duration(report['total'])}")
    lines += [
        f"  {key.capitalize()}:\t{show_duration(report[key])}" for key in ("slowest", "fastest", "average")
    ]
    lines.append(f"  Requests/sec:\t{report['rps']:.2f}")
    lines += ["", "Response time histogram:", *_bars(report["histogram"]), "", "Latency distribution:"]
    lines += [_percentile(one) for one in report["latencyDistribution"]]
    lines += _extended_lines(report["extended"])
    if statuses := report["statusCodeDistribution"]:
        lines += ["", "Status code distribution:"]
        width = max(map(len, statuses)) + 2
        lines += [f"  {f'[{status}]':{width}}   {count} responses" for status, count in statuses.items()]
    if errors := report["errorDistribution"]:
        lines += ["", "Error distribution:"]
        lines += [f"  [{count}]   {error}" for error, count in errors.items()]
    return "\n".join(lines) + "\n"


def _bars(buckets: list[Json]) -> list[str]:
    most = max((bucket["count"] for bucket in buckets), default=0) or 1
    rows = [(f"  {bucket['mark'] * 1e3:.3f} [{bucket['count']}]", bucket["count"]) for bucket in buckets]
    width = max((len(label) for label, _ in rows), default=0)
    return [
        f"{label:{width}} |{BAR * ((count * MAX_BAR_CHARS + most // 2) // most)}" for label, count in rows
    ]


def _percentile(one: Json) -> str:
    return f"  {one['percentage']} % in {show_duration(one['latency'])}"


def _extended_lines(extended: Json) -> list[str]:
    """What ghz does not say: latency from when calls were due, and whether the generator kept up."""
    lines = []
    if (service := extended["service"]) is not None:
        lines += [_percentile(one) for one in service["latencyDistribution"] if one["percentage"] > 99]
    if (scheduled := extended["scheduled"]) is not None:
        lines += ["", "Latency from when each call was due (waiting for its turn included):"]
        lines.append(f"  Slowest:\t{show_duration(scheduled['slowest'])}")
        lines.append(f"  Average:\t{show_duration(scheduled['average'])}")
        lines += [_percentile(one) for one in scheduled["latencyDistribution"] if one["percentage"] >= 50]
    if extended["unsent"]:
        lines.append(
            f"  {extended['unsent']} calls were due before the end and never sent: all workers were waiting"
        )
    if len(extended["endpoints"]) > 1:
        lines += ["", "Endpoints:"]
        for endpoint in extended["endpoints"]:
            average = show_duration(endpoint["average"])
            counts = f"{endpoint['count']} calls, {endpoint['errors']} errors"
            lines.append(f"  {endpoint['host']}   {counts}, average {average}")
    generator, warmup = extended["generator"], extended["warmup"]
    count = len(generator["processes"])
    lines += [
        "",
        f"Generator: {count} process{'es' if count > 1 else ''}, {generator['cpuPercent']:.0f} % CPU",
    ]
    if (lag := generator["lag"]) is not None:
        late = {one["percentage"]: show_duration(one["latency"]) for one in lag["latencyDistribution"]}
        lines.append(f"  Sent late though a worker was free: 50 % by {late[50]}, 99 % by {late[99]}")
    if generator["saturated"]:
        lines.append("  It was busy nearly all the time: what it measured may be itself. Use more processes.")
    if warmup["count"]:
        lines.append(
            f"  Warm-up: {warmup['count']} calls in {show_duration(warmup['duration'])}, not counted above"
        )
    return lines


def csv_lines(report: Json) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["duration (ms)", "status", "error"])
    for detail in report["details"]:
        writer.writerow([f"{detail['latency'] / 1e6:.2f}", detail["status"], detail["error"]])
    return out.getvalue()


def _label(text: object) -> str:
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def prometheus(report: Json) -> str:
    """As ghz: gauges, a histogram (cumulative, in seconds) and a summary (in ns) of the run."""
    options = report["options"]
    names = {"name": report.get("name", ""), "end_reason": report["endReason"]}
    names |= {key: options.get(key, "") for key in ("call", "host", "concurrency", "rps", "total")}
    names |= report.get("tags", {})
    common = ",".join(f"{_identifier(key)}={_label(value)}" for key, value in names.items())
    lines = []
    for key in ("count", "total", "average", "fastest", "slowest", "rps"):
        lines += [f"# TYPE ghz_run_{key} gauge", f"ghz_run_{key}{{{common}}} {report[key]}"]
    lines.append("# TYPE ghz_run_histogram histogram")
    cumulative = 0
    for bucket in report["histogram"]:
        cumulative += bucket["count"]
        lines.append(f'ghz_run_histogram_bucket{{{common},le="{bucket["mark"]}"}} {cumulative}')
    service = report["extended"]["service"] or {"count": 0, "average": 0}
    sum_ns = service["count"] * service["average"]
    lines.append(f'ghz_run_histogram_bucket{{{common},le="+Inf"}} {service["count"]}')
    lines.append(f"ghz_run_histogram_sum{{{common}}} {sum_ns / 1e9}")
    lines.append(f"ghz_run_histogram_count{{{common}}} {service['count']}")
    for name, latencies in (("latency", service), ("scheduled_latency", report["extended"]["scheduled"])):
        if latencies is None or not latencies["count"]:
            continue
        lines.append(f"# TYPE ghz_run_{name} summary")
        for one in latencies["latencyDistribution"]:
            lines.append(
                f'ghz_run_{name}{{{common},quantile="{one["percentage"] / 100:g}"}} {one["latency"]}'
            )
        lines.append(f"ghz_run_{name}_sum{{{common}}} {latencies['count'] * latencies['average']}")
        lines.append(f"ghz_run_{name}_count{{{common}}} {latencies['count']}")
    lines += [
        "# TYPE ghz_run_errors gauge",
        f"ghz_run_errors{{{common}}} {sum(report['errorDistribution'].values())}",
    ]
    return "\n".join(lines) + "\n"


def _identifier(text: str) -> str:
    name = "".join(char if char.isascii() and char.isalnum() else "_" for char in text)
    return f"_{name}" if name[:1].isdigit() or not name else name


_PRINTERS = {
    "summary": summary,
    "csv": csv_lines,
    "json": lambda report: json.dumps(report, ensure_ascii=False),
    "pretty": lambda report: json.dumps(report, ensure_ascii=False, indent=2) + "\n",
    "html": html_page,
    "prometheus": prometheus,
}
