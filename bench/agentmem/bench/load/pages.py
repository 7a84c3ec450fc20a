"""The report as one HTML page that needs nothing else: no scripts, no fonts, no network."""

import html
import json
from typing import Any

from agentmem.bench.load.durations import show_duration

Json = dict[str, Any]

WIDTH, ROW = 720, 24
PLOT_HEIGHT, LEFT, BOTTOM = 260, 80, 40

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 780px;
  padding: 0 1rem; color: #123; }
h1 { margin-bottom: 0; } h2 { margin-top: 2rem; font-size: 1.15rem; } .date { color: #5b6b7b; margin-top: 0; }
table { border-collapse: collapse; } td, th { padding: .25rem .9rem .25rem 0; text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } tr { border-bottom: 1px solid #e3e8ee; }
pre { background: #f5f7f9; padding: 1rem; overflow: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #1c2733; }
.warn { background: #fff4d6; padding: .5rem 1rem; }
"""


def html_page(report: Json) -> str:
    title = html.escape(report.get("name") or report["options"]["call"])
    extended = report["extended"]
    parts = [
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title>",
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1><p class=date>{html.escape(report['date'] + ', ' + report['options']['host'])}</p>",
        _tags(report.get("tags", {})),
        "<h2>Summary</h2>",
        _table(
            ["", ""],
            [
                ["Count", report["count"]],
                ["Total", show_duration(report["total"])],
                ["Slowest", show_duration(report["slowest"])],
                ["Fastest", show_duration(report["fastest"])],
                ["Average", show_duration(report["average"])],
                ["Requests/sec", f"{report['rps']:.2f}"],
                ["Ended", report["endReason"]],
                ["Generator CPU", f"{extended['generator']['cpuPercent']:.0f} %"],
            ],
        ),
        _warnings(extended),
        "<h2>Response times</h2>",
        _bar_chart(report["histogram"]),
        "<h2>Latency distribution</h2>",
        _distribution(extended),
        _percentile_plot(extended),
        "<h2>Status codes</h2>",
        _counts(["Status", "Count", "Share"], report["statusCodeDistribution"], report["count"]),
    ]
    if report["errorDistribution"]:
        parts += [
            "<h2>Errors</h2>",
            _counts(["Error", "Count", "Share"], report["errorDistribution"], report["count"]),
        ]
    if len(extended["endpoints"]) > 1:
        rows = [
            [e["host"], e["count"], e["errors"], show_duration(e["average"])] for e in extended["endpoints"]
        ]
        parts += ["<h2>Endpoints</h2>", _table(["Host", "Count", "Errors", "Average"], rows)]
    options = html.escape(json.dumps(report["options"], ensure_ascii=False, indent=2))
    parts += ["<h2>Options</h2>", f"<pre>{options}</pre>", "</body></html>\n"]
    return "\n".join(parts)


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    def row(tag: str, values: list[Any]) -> str:
        cells = [
            f"<{tag}{' class=n' if index else ''}>{html.escape(str(v))}</{tag}>"
            for index, v in enumerate(values)
        ]
        return f"<tr>{''.join(cells)}</tr>"

    head = row("th", heads) if any(heads) else ""
    return f"<table>{head}{''.join(row('td', values) for values in rows)}</table>"


def _counts(heads: list[str], counts: dict[str, int], total: int) -> str:
    return _table(heads, [[name, count, f"{100 * count / total:.2f} %"] for name, count in counts.items()])


def _tags(tags: dict[str, str]) -> str:
    return (
        f"<p>{html.escape(', '.join(f'{key}: {value}' for key, value in tags.items()))}</p>" if tags else ""
    )


def _warnings(extended: Json) -> str:
    texts = []
    if extended["unsent"]:
        texts.append(
            f"{extended['unsent']} calls were due before the end and never sent: all workers were waiting."
        )
    if extended["generator"]["saturated"]:
        texts.append("The generator was busy nearly all the time: what it measured may be itself.")
    return "".join(f"<p class=warn>{text}</p>" for text in texts)


def _bar_chart(buckets: list[Json]) -> str:
    """A row for each bucket: up to which time, how many."""
    if not buckets:
        return "<p>No call succeeded.</p>"
    most, total = max(bucket["count"] for bucket in buckets), sum(bucket["count"] for bucket in buckets)
    rows = []
    for index, bucket in enumerate(buckets):
        y, count = index * ROW, bucket["count"]
        width = (WIDTH - LEFT - 150) * count / most
        mark = show_duration(bucket["mark"] * 1e9)
        rows.append(
            f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end">{mark}</text>'
            f'<rect x="{LEFT}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}" fill="#2a9d8f"/>'
            f'<text x="{LEFT + width + 6:.1f}" y="{y + 16}">{count} ({100 * count / total:.1f} %)</text>'
        )
    height = len(buckets) * ROW
    label = "Number of calls by response time"
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(rows)}</svg>'


def _curves(extended: Json) -> list[tuple[str, str, Json]]:
    curves = [("from when it was sent", "#2a9d8f", extended["service"])]
    curves.append(("from when it was due", "#d1495b", extended["scheduled"]))
    return [curve for curve in curves if curve[2] is not None]


def _distribution(extended: Json) -> str:
    curves = _curves(extended)
    if not curves:
        return "<p>No call succeeded.</p>"
    rows = []
    for index, one in enumerate(curves[0][2]["latencyDistribution"]):
        values = [show_duration(curve["latencyDistribution"][index]["latency"]) for _, _, curve in curves]
        rows.append([f"{one['percentage']} %", *values])
    return _table(["Calls", *(name for name, _, _ in curves)], rows)


def _percentile_plot(extended: Json) -> str:
    """Latency over percentile; each step to the right is a percentile ten times rarer at the top end."""
    curves = _curves(extended)
    if not curves:
        return ""
    ticks = [one["percentage"] for one in curves[0][2]["latencyDistribution"]]
    most = max(curve["latencyDistribution"][-1]["latency"] for _, _, curve in curves) or 1
    step = (WIDTH - LEFT - 40) / (len(ticks) - 1)
    height = PLOT_HEIGHT + BOTTOM
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = 10 + (PLOT_HEIGHT - 10) * (1 - share)
        parts.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - 40}" y2="{y:.1f}" stroke="#e3e8ee"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{show_duration(most * share)}</text>'
        )
    parts += [
        f'<text x="{LEFT + index * step:.1f}" y="{PLOT_HEIGHT + 18}" text-anchor="middle">{tick} %</text>'
        for index, tick in enumerate(ticks)
    ]
    for index, (name, color, curve) in enumerate(curves):
        points = " ".join(
            f"{LEFT + number * step:.1f},{10 + (PLOT_HEIGHT - 10) * (1 - one['latency'] / most):.1f}"
            for number, one in enumerate(curve["latencyDistribution"])
        )
        x = LEFT + 10 + index * 190
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
            f'<rect x="{x}" y="{height - 14}" width="12" height="12" fill="{color}"/>'
            f'<text x="{x + 18}" y="{height - 4}">{name}</text>'
        )
    label = "Latency over percentile"
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
