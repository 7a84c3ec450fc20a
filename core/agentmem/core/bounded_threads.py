"""Threads for work that would hold up the event loop, with a bound on what may wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from agentmem.core.errors import ResourceExhausted

RETRY_AFTER_S = 0.2

P = ParamSpec("P")
T = TypeVar("T")


class BoundedThreads:
    """A few threads, and a bounded number of calls that run in them or wait for them."""

    def __init__(self, name: str, *, threads: int, max_calls: int) -> None:
        self._name = name
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._max_calls = max_calls
        self._calls = 0

    @property
    def calls(self) -> int:
        """How many run or wait."""
        return self._calls

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The outcome of ``work`` in a thread. Work that has begun goes on when the caller is cancelled.

        Raises:
            ResourceExhausted: ``OVERLOADED``, too many calls are waiting already.
        """
        self._check_room(1)
        return await self._wrapped(self._executor.submit(work, *args, **kwargs), 1)

    async def run_each(self, works: Sequence[Callable[[], T]]) -> list[T | Exception]:
        """The outcomes of several calls in one thread, as handing over each may cost more than it does.

        What has not begun does not when the caller is cancelled.

        Raises:
            ResourceExhausted: ``OVERLOADED``, as ``run``.
        """
        self._check_room(len(works))
        is_over = False

        def run() -> list[T | Exception]:
            outcomes: list[T | Exception] = []
            for work in works:
                if is_over:
                    break
                try:
                    outcomes.append(work())
                except Exception as error:
                    outcomes.append(error)
            return outcomes

        try:
            return await self._wrapped(self._executor.submit(run), len(works))
        finally:
            is_over = True

    def _check_room(self, calls: int) -> None:
        if self._calls + calls > self._max_calls:
            raise ResourceExhausted(
                "OVERLOADED", f"{self._calls} calls wait for {self._name}", retry_after_s=RETRY_AFTER_S
            )

    async def _wrapped(self, future: Future[T], calls: int) -> T:
        self._calls += calls

        def done(_: object) -> None:
            self._calls -= calls

        wrapped = asyncio.wrap_future(future)
        wrapped.add_done_callback(done)
        return await wrapped

    def close(self) -> None:
        """Drops what waits; does not wait for what runs."""
        self._executor.shutdown(wait=False, cancel_futures=True)
