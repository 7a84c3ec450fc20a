"""What every part of the asynchronous client stands on: the router, its event loop, the time of a call."""

from __future__ import annotations

import asyncio
import random

from agentmem.client import values
from agentmem.client.errors import ClientClosed, invalid_field
from agentmem.client.routing import Router

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_PAGE_SIZE = 100
MAX_INT32 = 2**31 - 1
MAX_UINT64 = 2**64 - 1


class AsyncConnection:
    """A connection to a cluster, for one event loop."""

    def __init__(self, *endpoints: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        if not endpoints:
            raise invalid_field("endpoints", "must name at least one node, as host:port")
        self._endpoints = tuple(_endpoint(each) for each in endpoints)
        self._timeout_s = _timeout_s(timeout_s)
        self._router = Router(self._endpoints, rng=random.Random())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def close(self) -> None:
        """Ends calls that are on their way with ClientClosed, and the connections. May be called twice."""
        self._closed = True
        await self._router.close()

    def _ready_router(self) -> Router:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError(
                "an AsyncClient belongs to the event loop of its first call; make one for each loop"
            )
        self._router.start()
        return self._router

    def _time(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else _timeout_s(timeout_s)


def _timeout_s(value: object) -> float:
    seconds = values.number("timeout_s", value)
    if seconds <= 0:
        raise invalid_field("timeout_s", "must be above 0")
    return seconds


def _endpoint(value: object) -> str:
    address = values.text("endpoints", value)
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise invalid_field("endpoints", f"must be host:port, not {address!r}")
    return address
