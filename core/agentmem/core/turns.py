"""Turns of the event loop, for threads that work beside it.

Python's threads share one lock. A thread that works keeps it from the event loop for five milliseconds each
time (``sys.getswitchinterval``), also when the loop lets go of it for a moment only, as each gRPC operation
does. A thread that calls ``Turns.give`` between its items of work hands the lock over as soon as the loop
wants it; while the loop waits for something itself, that costs next to nothing. In the other direction
nothing changes: the loop keeps the lock for up to five milliseconds of what it is at.
"""

from __future__ import annotations

import asyncio
import math
import select
import selectors
import threading
import time

# So long a thread works before it looks again whether the loop wants the lock.
MIN_WORK_S = 0.0005
# For the loop to take it; the system makes some 60 us of it.
TURN_S = 0.00001

_of_thread = threading.local()


class LoopSelector(selectors.EpollSelector):
    """Tells other threads what the loop that selects is at."""

    def __init__(self) -> None:
        super().__init__()
        self._is_selecting = False
        self._until_s = math.inf

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As of any selector."""
        self._until_s = math.inf if timeout is None else time.monotonic() + timeout
        self._is_selecting = True
        try:
            return super().select(timeout)
        finally:
            self._is_selecting = False

    @property
    def has_work(self) -> bool:
        """Whether the loop is among its callbacks, or a timer of it is due; not whether events have come."""
        return not self._is_selecting or time.monotonic() >= self._until_s


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop whose turns other threads can give it."""

    def __init__(self) -> None:
        self.selector = LoopSelector()
        super().__init__(self.selector)


class Turns:
    """The turns that one thread at a time gives to a loop; of another kind of loop, none."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._selector = loop.selector if isinstance(loop, EventLoop) else None
        self._poll = select.poll()
        if self._selector is not None:
            self._poll.register(self._selector.fileno(), select.POLLIN)
        self._looks_at_s = 0.0

    def give(self) -> bool:
        """Lets the loop go on when it wants to; to be called every few microseconds of work.

        Returns:
            Whether it wanted to.
        """
        if self._selector is None or time.monotonic() < self._looks_at_s:
            return False
        is_wanted = self._selector.has_work or bool(self._poll.poll(0))
        if is_wanted:
            time.sleep(TURN_S)
        self._looks_at_s = time.monotonic() + MIN_WORK_S
        return is_wanted

    def begin(self) -> None:
        """From now on the calling thread gives them with ``give_turn``."""
        _of_thread.turns = self


def give_turn() -> None:
    """``Turns.give``, in a thread that has begun with some; in others, nothing."""
    turns: Turns | None = getattr(_of_thread, "turns", None)
    if turns is not None:
        turns.give()
