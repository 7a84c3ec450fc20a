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
            _wake(waiter)

    async def wait_beyond(self, seen: int, timeout_s: float | None = None) -> None:
        """Returns when ``count`` is more than ``seen``, or after the timeout if there is one."""
        if self.count > seen:
            return
        # Once for each commit and subscriber: asyncio.wait takes three times as long.
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
