"""What the process takes of its machine, and how late its event loop is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from agentmem.core.measurements import Histogram, Labels

LOOP_INTERVAL_S = 0.25
_TCP_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = "01"


class EventLoopWatch:
    """Measures how late a timer is, which is what each call waits for others at each of its steps.

    Args:
        on_tick: called each time, on the event loop.
    """

    def __init__(self, on_tick: Callable[[], None] = lambda: None) -> None:
        self.lag = Histogram()
        self._on_tick = on_tick

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
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
            values["agentmem.connections.active"] = {(): self._connections()}
        return values

    def _connections(self) -> int:
        """Connections to the port, as the kernel has them: gRPC's Python does not count its own."""
        count = 0
        for table in _TCP_TABLES:
            if not table.exists():
                continue
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                port = int(fields[1].rpartition(":")[2], 16)
                count += port == self._port and fields[3] == _ESTABLISHED
        return count
