"""How a server process begins and ends: settings, signals, exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agentmem.core.config import SettingsError, load_settings
from agentmem.core.data_directory import DataDirectoryInUse
from agentmem.core.errors import AgentMemError
from agentmem.core.serving import ListenError
from agentmem.core.store import StoreFormatError

EXIT_FAILED = 1
EXIT_USAGE = 2

S = TypeVar("S")


def run_process(
    settings_kind: type[S],
    section: str,
    description: str,
    run: Callable[[S, asyncio.Event], Awaitable[int]],
) -> int:
    """Reads the settings and runs the process until SIGTERM, SIGINT or its own end; returns the exit code."""
    try:
        settings = load_settings(settings_kind, section, description, sys.argv[1:], os.environ)
    except SettingsError as error:
        print(f"error: {error} (--help lists the settings)", file=sys.stderr)
        return EXIT_USAGE
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )

    async def serve() -> int:
        shutdown = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, shutdown.set)
        return await run(settings, shutdown)

    try:
        code = asyncio.run(serve())
    except (DataDirectoryInUse, StoreFormatError, ListenError, SettingsError, AgentMemError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    # Store and data directory are closed. Python would still wait for threads that search or embed for
    # callers who have gone.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def report_failure(task: asyncio.Task[None], fail: Callable[[BaseException], None]) -> None:
    """Done-callback for tasks that last as long as the process: one that ends with an error ends it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        fail(error)
