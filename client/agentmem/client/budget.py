"""How much a client may add to the load of a cluster: token buckets for retries and hedges.

When nodes fail, each call that is repeated is work on top of work. So retries are a share of the calls:
enough for one node that dies with many calls open, too few to keep a sick cluster from getting well.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

# Retries for each call, the most that is saved up, and what comes in a second whatever is called.
RETRY_SHARE = 0.2
RETRY_BURST = 100
RETRY_FLOOR_PER_S = 10.0

# Hedges for each call of a kind that is hedged, and the most that is saved up.
HEDGE_SHARE = 0.05
HEDGE_BURST = 10


class TokenBucket:
    """A share of a token for each call, up to a burst, and a floor of tokens each second.

    It starts with ``tokens``. Times are seconds of one monotonic clock.
    """

    def __init__(self, *, share: float, burst: float, floor_per_s: float = 0.0, tokens: float = 0.0) -> None:
        self._share = share
        self._burst = burst
        self._floor_per_s = floor_per_s
        self._tokens = tokens
        self._filled_at_s = -math.inf

    def called(self) -> None:
        """Adds the share of one call."""
        self._tokens = min(self._burst, self._tokens + self._share)

    def take(self, now_s: float) -> bool:
        """Takes a token, if there is one."""
        self._fill(now_s)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def wait_s(self, now_s: float) -> float:
        """When there is a token at the latest; infinite without a floor."""
        self._fill(now_s)
        if self._tokens >= 1:
            return 0.0
        return (1 - self._tokens) / self._floor_per_s if self._floor_per_s else math.inf

    def _fill(self, now_s: float) -> None:
        if self._filled_at_s > -math.inf:
            grown = self._tokens + self._floor_per_s * (now_s - self._filled_at_s)
            self._tokens = min(self._burst, grown)
        self._filled_at_s = now_s


class RetryBudget:
    """The retries of one client. A retry without a token waits for one, first come, first served.

    Those who wait are calls that are open, so there are no more of them than these.
    """

    def __init__(self) -> None:
        self._bucket = TokenBucket(
            share=RETRY_SHARE, burst=RETRY_BURST, floor_per_s=RETRY_FLOOR_PER_S, tokens=RETRY_BURST
        )
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def called(self) -> None:
        """Counts a call that was begun."""
        self._bucket.called()
        if self._waiting:
            self._serve()

    async def take(self, deadline_s: float) -> bool:
        """Takes a token; False when there was none until the deadline, of time.monotonic."""
        if not self._waiting and self._bucket.take(time.monotonic()):
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._serve()
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                await turn
        except TimeoutError:
            return False
        finally:
            turn.cancel()
        return True

    def _serve(self) -> None:
        """Gives out what there is, and comes back when there is more."""
        now_s = time.monotonic()
        while self._waiting:
            if self._waiting[0].done():
                # Whoever waited has given up.
                self._waiting.popleft()
            elif self._bucket.take(now_s):
                self._waiting.popleft().set_result(None)
            else:
                break
        if self._waiting and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._bucket.wait_s(now_s), self._timed)

    def _timed(self) -> None:
        self._timer = None
        self._serve()
