"""What every process does beside serving: its store's dictionaries, its own log, slots of dead readers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

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
    said = ""
    readers_checked_at_s = time.monotonic()
    while True:
        await asyncio.sleep(MAINTENANCE_INTERVAL_S)
        try:
            await asyncio.to_thread(maintain_dictionaries, store)
            if trim_log is not None:
                await asyncio.to_thread(trim_log)
            said = ""
        except AgentMemError as error:
            # A full store, or a damaged record, which reads will name. Nothing is lost by trying again.
            if error.message != said:
                _logger.error("maintenance is held up, trying on: %s", error.message)
                said = error.message
        # Backups and tools read the store from other processes, and may be killed.
        if time.monotonic() > readers_checked_at_s + READER_CHECK_INTERVAL_S:
            store.clear_stale_readers()
            readers_checked_at_s = time.monotonic()
