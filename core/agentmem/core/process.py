"""How a server process begins and ends: settings, signals, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar

from agentmem.core import logs
from agentmem.core.allocator import limit_arenas
from agentmem.core.call_metrics import current_trace
from agentmem.core.config import SettingsError, as_environment, config_path, load_settings
from agentmem.core.data_directory import DataDirectoryInUse
from agentmem.core.errors import AgentMemError
from agentmem.core.metrics_endpoint import MetricsListenError
from agentmem.core.serving import ListenError
from agentmem.core.settings import NodeSettings
from agentmem.core.standing import Role, StandingError
from agentmem.core.store import StoreFormatError
from agentmem.core.turns import EventLoop

EXIT_FAILED = 1
EXIT_USAGE = 2
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
CANCEL_AGAIN_S = 0.5
# The programs, and the sections of their settings.
_MODULES: Mapping[Role, str] = {"writer": "agentmem.server", "replica": "agentmem.replica"}

S = TypeVar("S", bound=NodeSettings)


@dataclass(frozen=True, slots=True)
class Successor:
    """The program that goes on with a node whose role changed: on the same folder, at the same address.

    Attributes:
        settings: those of the node; what both programs have of them is passed on.
        changes: settings to set besides, by name.
    """

    role: Role
    settings: NodeSettings
    changes: Mapping[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        """What ps shows; all other settings come by environment."""
        return [
            *(sys.executable, "-m", _MODULES[self.role]),
            *("--data-dir", str(self.settings.data_dir)),
            *("--listen", self.changes.get("listen", self.settings.listen)),
        ]

    def environment(self) -> dict[str, str]:
        """Settings of the node, as the other program reads them."""
        changes = {
            f"AGENTMEM_{self.role.upper()}_{name.upper()}": value for name, value in self.changes.items()
        }
        return as_environment(self.settings, NodeSettings, self.role) | changes


def _go_on_as(successor: Successor, config: str) -> NoReturn:
    """Makes this process the other program. Does not return."""
    environment = dict(os.environ) | successor.environment()
    if config:
        environment[f"AGENTMEM_{successor.role.upper()}_CONFIG"] = str(Path(config).resolve())
    command = successor.command()
    os.execve(command[0], command, environment)


def run_process(
    settings_kind: type[S],
    section: str,
    description: str,
    run: Callable[[S, asyncio.Event], Awaitable[int | Successor]],
) -> int:
    """Reads the settings and runs the process until SIGTERM, SIGINT or its own end; returns the exit code.

    A node that changed its role goes on as the other program, in the same process.
    """
    try:
        settings = load_settings(settings_kind, section, description, sys.argv[1:], os.environ)
    except SettingsError as error:
        print(f"error: {error} (--help lists the settings)", file=sys.stderr)
        return EXIT_USAGE
    logs.configure(settings.log_format, current_trace)
    limit_arenas()

    # For a process that hangs: kill -USR1 makes it print where each of its threads is.
    faulthandler.register(signal.SIGUSR1, all_threads=True)

    stop = _StopRequest()

    async def serve() -> int | Successor:
        stop.heard = asyncio.Event()
        stop.loop = asyncio.get_running_loop()
        stop.loop.set_exception_handler(logs.log_loop_error)
        if stop.is_made:
            stop.heard.set()
        return await run(settings, stop.heard)

    try:
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            end = runner.run(serve())
    except (
        DataDirectoryInUse,
        StoreFormatError,
        StandingError,
        ListenError,
        MetricsListenError,
        SettingsError,
        AgentMemError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    # Store and data directory are closed. Python would still wait for threads that search or embed for
    # callers who have gone.
    logging.shutdown()
    sys.stdout.flush()
    if isinstance(end, Successor):
        # What comes from now on is for the other program, which gets it when it can hear it.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        if not stop.is_made:
            _go_on_as(end, config_path(section, sys.argv[1:], os.environ))
        end = 0
    os._exit(end)


class _StopRequest:
    """SIGTERM and SIGINT, whenever they come: also before the event loop runs, and after it has ended."""

    def __init__(self) -> None:
        self.is_made = False
        self.heard: asyncio.Event | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._hear)
        # Blocked when this program goes on with a node of another one.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _hear(self, number: int, frame: object) -> None:
        self.is_made = True
        if self.loop is not None and self.heard is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(self.heard.set)


async def first_of(*events: asyncio.Event) -> None:
    """Returns when one of them is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def cancel_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels tasks until all have ended.

    Once is not enough: gRPC may take the cancellation of who waits for a call for one of the call, and raise
    its own error; a task that tries again after errors would go on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


def report_failure(task: asyncio.Task[None], fail: Callable[[BaseException], None]) -> None:
    """Done-callback for tasks that last as long as the process: one that ends with an error ends it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        fail(error)
