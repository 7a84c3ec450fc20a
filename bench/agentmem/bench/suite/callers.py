"""Callers who each make one call after the other: what many users of one client do.

A closed loop: a slow answer also delays the caller's next call. ``python -m agentmem.bench load`` measures an
open one, and raw calls.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agentmem.client.errors import AgentMemError

# 80 MB of latencies.
MAX_CALLS = 10_000_000

# Gets a number that no other call of the run has.
Call = Callable[[int], Awaitable[object]]


@dataclass(slots=True)
class Calls:
    """What some callers did.

    Attributes:
        latencies_s: of the calls that were answered, in the order of the answers.
        errors: how many calls failed, by the name of the error.
        elapsed_s: from the first call to the last answer.
        client_cpu_s: of this process meanwhile.
    """

    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    elapsed_s: float = 0.0
    client_cpu_s: float = 0.0

    @property
    def attempts(self) -> int:
        return len(self.latencies_s) + self.errors.total()

    async def made(self, call: Call, number: int) -> None:
        """Makes one call. An error of AgentMem counts; any other is raised, as is one of too many calls."""
        if self.attempts >= MAX_CALLS:
            raise OverflowError(f"a run may have {MAX_CALLS} calls")
        began_s = time.perf_counter()
        try:
            await call(number)
        except AgentMemError as error:
            self.errors[type(error).__name__] += 1
        else:
            self.latencies_s.append(time.perf_counter() - began_s)


async def run_callers(
    call: Call,
    callers: int,
    *,
    seconds: float | None = None,
    calls_each: int | None = None,
    numbers: itertools.count[int] | None = None,
) -> Calls:
    """Lets so many callers make calls, for so long or so many each; each caller makes one at least.

    Args:
        numbers: to go on with, lest a later run repeats the calls of this one.

    Raises ValueError unless exactly one of seconds and calls_each is given.
    """
    if (seconds is None) == (calls_each is None):
        raise ValueError("give either seconds or calls_each")
    numbers = itertools.count() if numbers is None else numbers
    done = Calls()
    # A full garbage collection of the texts and vectors here takes 45 ms, in which nobody calls.
    gc.collect()
    gc.freeze()
    began_s, cpu_s = time.perf_counter(), time.process_time()

    async def caller() -> None:
        await done.made(call, next(numbers))
        made = 1
        while made < calls_each if calls_each is not None else time.perf_counter() < began_s + (seconds or 0):
            await done.made(call, next(numbers))
            made += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    done.elapsed_s, done.client_cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    gc.unfreeze()
    return done
