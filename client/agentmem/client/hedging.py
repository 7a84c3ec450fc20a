"""When a slow read is also sent to another node, and which answer counts."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from agentmem.client import verdicts
from agentmem.client.budget import HEDGE_BURST, HEDGE_SHARE, TokenBucket
from agentmem.client.errors import AgentMemError
from agentmem.client.verdicts import Verdict

Answer = TypeVar("Answer")
# One try of a read on one node.
Try = Coroutine[Any, Any, Answer]

# Of the last so many latencies of a method, and not before there are enough of them.
WINDOW_CALLS = 128
LEAST_CALLS = 32
PERCENTILE = 0.95
# The percentile is worked out again after so many calls.
REFRESH_CALLS = 16


class Latencies:
    """The last latencies of one method, in seconds."""

    def __init__(self) -> None:
        self._window: deque[float] = deque(maxlen=WINDOW_CALLS)
        self._percentile_s = math.inf
        self._since_refresh = 0

    def add(self, latency_s: float) -> None:
        """Takes in the latency of a call that was answered."""
        self._window.append(latency_s)
        self._since_refresh += 1
        if len(self._window) >= LEAST_CALLS and self._since_refresh >= REFRESH_CALLS:
            self._since_refresh = 0
            self._percentile_s = sorted(self._window)[int(PERCENTILE * len(self._window))]

    @property
    def slow_s(self) -> float:
        """After this time a call is among the slow ones; infinite while too little is known."""
        return self._percentile_s


class Hedging:
    """The latencies by method, and how many hedges there may be: a twentieth of the calls."""

    def __init__(self) -> None:
        self._latencies: dict[str, Latencies] = {}
        self._bucket = TokenBucket(share=HEDGE_SHARE, burst=HEDGE_BURST)

    def begun(self, method: str) -> float:
        """Counts a call; after which time, in seconds, it should be hedged."""
        self._bucket.called()
        return self._latencies.setdefault(method, Latencies()).slow_s

    def answered(self, method: str, latency_s: float) -> None:
        """Takes in the latency of a call."""
        self._latencies.setdefault(method, Latencies()).add(latency_s)

    def may_hedge(self, now_s: float) -> bool:
        """Takes the place of one hedge, if there is one."""
        return self._bucket.take(now_s)


async def first_answer(
    first: Try[Answer], slow_s: float, another: Callable[[], Try[Answer] | None]
) -> Answer:
    """The first good answer of a try and, when it takes longer than ``slow_s``, of another one.

    An error that any node would give counts as an answer; of others, the last one is raised. What is not
    needed is cancelled.
    """
    tries = [asyncio.create_task(first)]
    try:
        await asyncio.wait(tries, timeout=slow_s)
        if not tries[0].done() and (second := another()) is not None:
            tries.append(asyncio.create_task(second))
        pending = set(tries)
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                error = each.exception()
                if not isinstance(error, AgentMemError) or verdicts.verdict(error) is Verdict.FINAL:
                    return each.result()
            if not pending:
                return done.pop().result()
    finally:
        for each in tries:
            each.cancel()
        # Whatever comes of the other: there is an answer, or nobody waits for one any more.
        await asyncio.gather(*tries, return_exceptions=True)
