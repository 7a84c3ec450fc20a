"""A counter that coroutines wait on: something changed, look again."""

from __future__ import annotations

import asyncio


class Signal:
    """Counts notifications. Belongs to one event loop; all methods are called on it.

    A waiter remembers the count it has seen, so a notification between two waits is never missed, and no
    queue grows for a waiter that is slow.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        self.count += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_beyond(self, seen: int, timeout_s: float | None = None) -> None:
        """Returns when ``count`` is more than ``seen``, or after the timeout if there is one."""
        if self.count > seen:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout_s)
        finally:
            self._waiters.discard(waiter)
