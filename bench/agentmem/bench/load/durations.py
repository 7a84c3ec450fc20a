"""Durations as ghz reads and prints them."""

import re

from agentmem.bench.load.errors import LoadError

_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


def parse_duration_ns(text: str, option: str) -> int:
    """Nanoseconds of a text like 10s, 1m30s or 100ms. Raises LoadError naming the option."""
    if text == "0":
        return 0
    total, position = 0.0, 0
    while match := _PART.match(text, position):
        total += float(match[1]) * _UNITS_NS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise LoadError(f"{option}: {text!r} is not a duration like 10s, 1m30s or 100ms")
    return round(total)


def show_duration(duration_ns: float) -> str:
    """With the unit that fits, as in ghz's summary."""
    if duration_ns < 10_000:
        return f"{duration_ns:.0f} ns"
    if duration_ns < 10**9:
        return f"{duration_ns / 10**6:4.2f} ms"
    return f"{duration_ns / 10**9:4.2f} s"
