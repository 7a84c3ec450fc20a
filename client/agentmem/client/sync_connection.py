"""What every part of the synchronous client stands on: an asynchronous client on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from agentmem.client.async_client import AsyncClient
from agentmem.client.async_connection import Link
from agentmem.client.errors import ClientClosed
from agentmem.client.session import AsyncSession

Result = TypeVar("Result")

# Calls that close() cut off have this long to tell their threads so.
_CLOSE_GRACE_S = 1.0


class ClientThread:
    """An event loop on a thread of its own, for the calls of any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentmem client", daemon=True)
        self._thread.start()

    def close(self, link: Link) -> None:
        """Ends calls that are on their way with ClientClosed, the connections and the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            closing = asyncio.run_coroutine_threadsafe(self._shut_down(link), self._loop)
        closing.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, call: Coroutine[Any, Any, Result]) -> Result:
        """Waits for a call. Raises what it raises, and ClientClosed."""
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

    async def _shut_down(self, link: Link) -> None:
        await link.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        if calls:
            _, late = await asyncio.wait(calls, timeout=_CLOSE_GRACE_S)
            for call in late:
                call.cancel()
        await self._loop.shutdown_asyncgens()


class SyncConnection:
    """What the calls of a client, and of a session of it, have in common; for any number of threads."""

    def __init__(self, client: AsyncSession | AsyncClient, thread: ClientThread) -> None:
        self._client = client
        self._thread = thread

    def _run(self, call: Coroutine[Any, Any, Result]) -> Result:
        return self._thread.run(call)

    def _end(self, call: Coroutine[Any, Any, None]) -> None:
        """Runs what ends a stream; there is nothing left to end when the client is closed."""
        try:
            self._run(call)
        except ClientClosed:
            return


async def following(items: AsyncIterator[Result]) -> Result | None:
    """The next item; None at the end."""
    return await anext(items, None)
