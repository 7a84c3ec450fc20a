"""What every process does beside serving: its store's dictionaries, its own log, slots of dead readers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from agentmem.core.errors import AgentMemError
from agentmem.core.recompression import maintain_dictionaries
from agentmem.core.store import Store

MAINTENANCE_INTERVAL_S = 1.0
READER_CHECK_INTERVAL_S = 30.0

_logger = logging.getLogger(__name__)


async def maintain(store: Store, trim_log: Callable[[], None] | None = None) -> None:
    """Does it once a second, in a thread, until cancelled.

    Args:
        trim_log: for a process whose log nobody else trims.

    Raises:
        lmdb.Error: a commit failed; nothing can be said of the disk any more.
    """
    jobs: list[Callable[[], None]] = [partial(maintain_dictionaries, store)]
    if trim_log is not None:
        jobs.append(trim_log)
    said = [""] * len(jobs)
    readers_checked_at_s = time.monotonic()
    while True:
        await asyncio.sleep(MAINTENANCE_INTERVAL_S)
        for number, job in enumerate(jobs):
            try:
                await asyncio.to_thread(job)
                said[number] = ""
            except AgentMemError as error:
                # A full store, or a damaged record, which reads will name. Nothing is lost by trying again,
                # and the other jobs go on.
                if error.message != said[number]:
                    _logger.error("maintenance is held up, trying on: %s", error.message)
                    said[number] = error.message
        # Backups and tools read the store from other processes, and may be killed.
        if time.monotonic() > readers_checked_at_s + READER_CHECK_INTERVAL_S:
            store.clear_stale_readers()
            readers_checked_at_s = time.monotonic()
