"""What every part of the synchronous client stands on: an asynchronous client on a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import CancelledError
from typing import Any, Generic, TypeVar

from agentmem.client.async_client import AsyncClient
from agentmem.client.async_connection import Link
from agentmem.client.errors import ClientClosed
from agentmem.client.session import AsyncSession

Result = TypeVar("Result")

# Calls that close() cut off have this long to tell their threads so.
_CLOSE_GRACE_S = 1.0
# So late Ctrl-C is heard at the most.
SIGNAL_DELAY_S = 0.5


class _Handed(Generic[Result]):
    """A call that one thread hands to the event loop of another, and waits for."""

    __slots__ = ("_answer", "_call", "_context", "_error", "_is_done", "_task")

    def __init__(self, call: Coroutine[Any, Any, Result]) -> None:
        self._call = call
        # Of the caller's thread, with the trace that it is in.
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[Result] | None = None
        self._answer: Result
        self._error: BaseException | None = None
        # A lock alone: an event is four times as much work.
        self._is_done = threading.Lock()
        self._is_done.acquire()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Comes first of what is done in the event loop."""
        self._task = loop.create_task(self._call, context=self._context)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Result]) -> None:
        if task.cancelled():
            self._error = CancelledError()
        elif (error := task.exception()) is not None:
            self._error = error
        else:
            self._answer = task.result()
        self._task = None
        self._is_done.release()

    def cancel(self) -> None:
        """In the event loop, behind ``begin``."""
        if self._task is not None:
            self._task.cancel()

    def wait(self) -> None:
        """Waits for its end, in the caller's thread, once."""
        # Not without end: a signal that comes just before the thread sleeps does not wake it.
        while not self._is_done.acquire(timeout=SIGNAL_DELAY_S):
            pass

    def outcome(self) -> Result:
        """What the call returns, or raises, once it has ended; or CancelledError."""
        if self._error is None:
            return self._answer
        try:
            raise self._error
        finally:
            self._error = None  # its traceback has this frame


class ClientThread:
    """An event loop on a thread of its own, for the calls of any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        # As many as there are threads. One wake of the event loop is for all that were handed over by then.
        self._handed: list[_Handed[Any]] = []
        self._is_woken = False
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
        handed = _Handed(call)
        try:
            with self._lock:
                if self._closed:
                    call.close()
                    raise ClientClosed("the client is closed")
                self._handed.append(handed)
                # In this order: Ctrl-C between two of these steps takes the wake from nobody.
                if not self._is_woken:
                    self._loop.call_soon_threadsafe(self._begin_handed)
                    self._is_woken = True
            handed.wait()
        except ClientClosed:
            raise
        except BaseException:
            # Ctrl-C ends the wait of this thread alone; the call shall not go on behind its back.
            with self._lock:
                if not self._closed:
                    self._loop.call_soon_threadsafe(self._cancel, handed)
            raise
        return handed.outcome()

    def _begin_handed(self) -> None:
        with self._lock:
            handed, self._handed = self._handed, []
            self._is_woken = False
        for each in handed:
            each.begin(self._loop)

    def _cancel(self, handed: _Handed[Any]) -> None:
        self._begin_handed()
        handed.cancel()

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
