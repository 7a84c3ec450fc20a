"""Points in time: microseconds since 1970 inside, protobuf's Timestamp outside."""

from __future__ import annotations

import time

from google.protobuf import duration_pb2, timestamp_pb2


def boot_time_s() -> float:
    """Seconds on a clock that never goes back and, where the system has one, goes on in suspend.

    A machine that wakes up must not take for fresh what it knew before.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def now_us() -> int:
    return time.time_ns() // 1000


def timestamp_us(timestamp: timestamp_pb2.Timestamp) -> int:
    """Microseconds since 1970."""
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1000


def set_timestamp(timestamp: timestamp_pb2.Timestamp, time_us: int) -> None:
    """Sets it to microseconds since 1970, of the years that a Timestamp has.

    ``FromMicroseconds`` takes three times as long, for it checks them.
    """
    timestamp.seconds, rest_us = divmod(time_us, 1_000_000)
    timestamp.nanos = rest_us * 1000


def duration_us(duration: duration_pb2.Duration) -> int:
    """Microseconds."""
    return duration.seconds * 1_000_000 + duration.nanos // 1000
