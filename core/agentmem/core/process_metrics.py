"""What the process takes of its machine, and how late its event loop is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from agentmem.core.measurements import Histogram, Labels

# Short, so that few of the times that somebody holds the loop up fall between two looks.
LOOP_INTERVAL_S = 0.025
TICK_INTERVALS = 10


class EventLoopWatch:
    """Measures how late a timer is, which is what each call waits for others at each of its steps.

    Args:
        on_tick: called four times a second, on the event loop.
    """

    def __init__(self, on_tick: Callable[[], None] = lambda: None) -> None:
        self.lag = Histogram()
        self._on_tick = on_tick

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(TICK_INTERVALS):
                due_s = loop.time() + LOOP_INTERVAL_S
                await asyncio.sleep(LOOP_INTERVAL_S)
                self.lag.record(max(0.0, loop.time() - due_s))
            self._on_tick()


class ProcessMetrics:
    """Read when somebody asks. What the system does not tell is left out.

    Args:
        port: that connections come to.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._began_s = time.monotonic()

    def collect(self) -> dict[str, Mapping[Labels, float]]:
        """The values by metric."""
        times = os.times()
        values: dict[str, Mapping[Labels, float]] = {
            "process.cpu.time": {("user",): times.user, ("system",): times.system},
            "process.uptime": {(): time.monotonic() - self._began_s},
            "process.thread.count": {(): threading.active_count()},
        }
        with contextlib.suppress(OSError):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            values["process.memory.usage"] = {(): pages * os.sysconf("SC_PAGE_SIZE")}
        with contextlib.suppress(OSError):
            values["process.unix.file_descriptor.count"] = {(): len(os.listdir("/proc/self/fd"))}
        with contextlib.suppress(OSError):
            values["process.thread.count"] = {(): len(os.listdir("/proc/self/task"))}
        with contextlib.suppress(OSError):
            values["agentmem.connections.active"] = {(): connections(self._port)}
        return values


def anonymous_memory_bytes() -> int | None:
    """Physical memory of no file, which cannot be dropped and read again; None where it is not told."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return None


def connections(port: int) -> int:
    """How many open TCP connections to the port this process has. Raises OSError where it is not told.

    gRPC's Python does not count its own. Each descriptor is asked: the kernel's list of all connections
    of the machine takes it tens of milliseconds to make.
    """
    return sum(_is_connection(int(name), port) for name in os.listdir("/proc/self/fd"))


def _is_connection(number: int, port: int) -> bool:
    """Whether a descriptor is a TCP connection to the port; not when it was closed meanwhile."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        # A descriptor of its own: this one is closed here, whoever has the other.
        with socket.socket(fileno=os.dup(number)) as copy:
            if copy.family not in (socket.AF_INET, socket.AF_INET6):
                return False
            copy.getpeername()  # OSError for one that listens
            return bool(copy.getsockname()[1] == port)
    except OSError:
        return False
