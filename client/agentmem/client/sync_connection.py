"""What every part of the synchronous client stands on: an asynchronous client on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from agentmem.client.async_client import AsyncClient
from agentmem.client.async_connection import DEFAULT_TIMEOUT_S
from agentmem.client.errors import ClientClosed

Result = TypeVar("Result")

# Calls that close() cut off have this long to tell their threads so.
_CLOSE_GRACE_S = 1.0


class SyncConnection:
    """A connection to a cluster, for any number of threads."""

    def __init__(self, *endpoints: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._client = AsyncClient(*endpoints, timeout_s=timeout_s)
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentmem client", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends calls that are on their way with ClientClosed, the connections and the thread.

        May be called twice, and from any thread.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            closing = asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop)
        closing.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, call: Coroutine[Any, Any, Result]) -> Result:
        # Under the lock, so that nothing is handed to a loop that is about to stop.
        with self._lock:
            if self._closed:
                call.close()
                raise ClientClosed("the client is closed")
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C ends the wait of this thread alone; the call shall not go on behind its back.
            future.cancel()
            raise

    def _end(self, call: Coroutine[Any, Any, None]) -> None:
        """Runs what ends a stream; there is nothing left to end when the client is closed."""
        try:
            self._run(call)
        except ClientClosed:
            return

    async def _shut_down(self) -> None:
        await self._client.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        if calls:
            _, late = await asyncio.wait(calls, timeout=_CLOSE_GRACE_S)
            for call in late:
                call.cancel()
        await self._loop.shutdown_asyncgens()


async def following(items: AsyncIterator[Result]) -> Result | None:
    """The next item; None at the end."""
    return await anext(items, None)
