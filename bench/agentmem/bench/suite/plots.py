"""Plots as SVG: lines or points with the range of their runs, on linear or logarithmic axes.

Written by hand: what a report needs is a page of code, and a plotting package is a hundred times as large.
The colours are those of Okabe and Ito, which people who see colours differently can tell apart; marks differ,
too. Light or dark is as the reader has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 48
_LEGEND_ROW, _CHARACTER = 18, 6.6
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#a6761d")
_MAX_TICKS = 7
_STYLE = """
text{font:12px system-ui,sans-serif;fill:#444}.title{font-size:14px;font-weight:600;fill:#222}
.grid{stroke:#ddd;stroke-width:1}.axis{stroke:#888;stroke-width:1}.line{fill:none;stroke-width:2}
.range{stroke-width:1.5;opacity:.55}
@media(prefers-color-scheme:dark){text{fill:#bbb}.title{fill:#eee}.grid{stroke:#3a3a3a}.axis{stroke:#777}}
"""


@dataclass(frozen=True)
class Point:
    """A value, and the lowest and highest of its runs where it had several."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one name, in the order of x where they are joined by a line."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Plot:
    """A plot.

    Args:
        ticks_x: (value, text) of the marks on the x axis; chosen when empty.
        has_lines: whether the points of a series are joined.
    """

    title: str
    x: str
    y: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    ticks_x: Sequence[tuple[float, str]] = field(default=())
    has_lines: bool = True


class Axis:
    """One axis: where a value is between two pixels. Values that it cannot show are a ValueError."""

    def __init__(self, values: Sequence[float], begin: float, end: float, *, is_log: bool) -> None:
        if not values or not all(math.isfinite(value) for value in values):
            raise ValueError(f"an axis needs finite values, not {list(values)}")
        if is_log and min(values) <= 0:
            raise ValueError("a logarithmic axis needs values above 0")
        self._is_log, self._begin, self._end = is_log, begin, end
        low, high = min(values), max(values)
        if is_log:
            self._low, self._high = low / 1.15, high * 1.15
        else:
            low = min(0.0, low) if low < 0.75 * high else low
            room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
            self._low, self._high = (low if low == 0 else low - room), high + room

    def place(self, value: float) -> float:
        """The pixel of a value."""
        if self._is_log:
            share = math.log(value / self._low) / math.log(self._high / self._low)
        else:
            share = (value - self._low) / (self._high - self._low)
        return self._begin + share * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """Round values, seven or so."""
        found = self._log_ticks() if self._is_log else self._linear_ticks()
        return [value for value in found if self._low <= value <= self._high * (1 + 1e-9)]

    def _linear_ticks(self) -> list[float]:
        rough = (self._high - self._low) / (_MAX_TICKS - 1)
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * each for each in (1, 2, 5, 10) if size * each >= rough)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        return [number * step for number in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
        steps = (1, 2, 5) if len(decades) <= 4 else (1,)
        return [10.0**decade * step for decade in decades for step in steps]


def svg(plot: Plot) -> str:
    """The plot as an SVG element. Raises ValueError when it has no points, or some cannot be shown."""
    points = [point for series in plot.series for point in series.points]
    rows = _legend_rows(plot.series)
    top = _TOP + _LEGEND_ROW * len(rows)
    across = Axis(
        [point.x for point in points] + [value for value, _ in plot.ticks_x],
        *(_LEFT, WIDTH - _RIGHT),
        is_log=plot.log_x,
    )
    heights = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    up = Axis(heights, HEIGHT - _BOTTOM, top, is_log=plot.log_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(plot.title)}" style="max-width:{WIDTH}px;width:100%">',
        f"<style>{_STYLE}</style>",
        _text(_LEFT, 18, plot.title, "title"),
    ]
    parts += _legend(rows)
    parts += _grid(plot, across, up, top)
    for number, series in enumerate(plot.series):
        parts += _drawn(plot, series, number, across, up)
    return "\n".join([*parts, "</svg>"])


def _grid(plot: Plot, across: Axis, up: Axis, top: float) -> list[str]:
    parts = []
    for value in up.ticks():
        y = up.place(value)
        parts.append(_line(_LEFT, y, WIDTH - _RIGHT, y, "grid"))
        parts.append(_text(_LEFT - 8, y + 4, _number(value), anchor="end"))
    for value, text in plot.ticks_x or [(value, _number(value)) for value in across.ticks()]:
        x = across.place(value)
        parts.append(_line(x, HEIGHT - _BOTTOM, x, HEIGHT - _BOTTOM + 4, "axis"))
        parts.append(_text(x, HEIGHT - _BOTTOM + 18, text, anchor="middle"))
    parts.append(_line(_LEFT, HEIGHT - _BOTTOM, WIDTH - _RIGHT, HEIGHT - _BOTTOM, "axis"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, plot.x, anchor="middle"))
    middle = (top + HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(plot.y)}</text>"
    )
    return parts


def _drawn(plot: Plot, series: Series, number: int, across: Axis, up: Axis) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    places = [(across.place(point.x), up.place(point.y)) for point in series.points]
    parts = []
    if plot.has_lines and len(places) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dash = "" if number < len(_COLOURS) else ' stroke-dasharray="5 4"'
        parts.append(f'<polyline class="line" stroke="{colour}"{dash} points="{path}"/>')
    is_crowded = plot.has_lines and len(places) > 40
    for point, (x, y) in zip(series.points, places, strict=True):
        if point.low is not None and point.high is not None and point.high > point.low:
            parts.append(
                f'<line class="range" stroke="{colour}" x1="{x:.1f}" x2="{x:.1f}" '
                f'y1="{up.place(point.low):.1f}" y2="{up.place(point.high):.1f}"/>'
            )
        if not is_crowded:
            parts.append(_mark(number, x, y, colour, f"{series.name} {point.label}: {_number(point.y)}"))
        if point.label and not plot.has_lines:
            parts.append(_text(x + 7, y - 5, point.label))
    return parts


def _mark(number: int, x: float, y: float, colour: str, said: str) -> str:
    title = f"<title>{escape(said)}</title>"
    if number % 3 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}">{title}</circle>'
    if number % 3 == 1:
        at = f'x="{x - 3.2:.1f}" y="{y - 3.2:.1f}"'
        return f'<rect {at} width="6.4" height="6.4" fill="{colour}">{title}</rect>'
    corners = f"{x:.1f},{y - 4.5:.1f} {x + 4.2:.1f},{y + 3.2:.1f} {x - 4.2:.1f},{y + 3.2:.1f}"
    return f'<polygon points="{corners}" fill="{colour}">{title}</polygon>'


def _legend_rows(series: Sequence[Series]) -> list[list[tuple[int, str, float]]]:
    """The names, as many in a row as fit: (number, name, x)."""
    if len(series) < 2:
        return []
    rows: list[list[tuple[int, str, float]]] = [[]]
    x = float(_LEFT)
    for number, each in enumerate(series):
        width = 26 + len(each.name) * _CHARACTER
        if rows[-1] and x + width > WIDTH - _RIGHT:
            rows.append([])
            x = float(_LEFT)
        rows[-1].append((number, each.name, x))
        x += width
    return rows


def _legend(rows: Sequence[Sequence[tuple[int, str, float]]]) -> list[str]:
    parts = []
    for row, names in enumerate(rows):
        y = _TOP - 2 + _LEGEND_ROW * row
        for number, name, x in names:
            parts.append(_mark(number, x + 5, y - 4, _COLOURS[number % len(_COLOURS)], name))
            parts.append(_text(x + 14, y, name))
    return parts


def _number(value: float) -> str:
    if value and abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
