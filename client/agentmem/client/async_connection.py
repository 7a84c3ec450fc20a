"""What every part of the asynchronous client stands on: the router, its event loop, the time of a call."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from agentmem.client import acknowledgement as acknowledgements
from agentmem.client import consistency as consistencies
from agentmem.client import values
from agentmem.client.acknowledgement import LOCAL, Acknowledgement, AcknowledgementInput
from agentmem.client.batches import Batches, bound_of, read_route
from agentmem.client.calls import Method, Request, Response
from agentmem.client.consistency import EVENTUAL, NOWHERE, Consistency, Position
from agentmem.client.errors import ClientClosed, invalid_field
from agentmem.client.routing import Router
from agentmem.client.selection import Route

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_PAGE_SIZE = 100
MAX_INT32 = 2**31 - 1
MAX_UINT64 = 2**64 - 1


class Link:
    """The way to a cluster, which a client shares with its sessions: for one event loop."""

    def __init__(
        self,
        *endpoints: str,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        consistency: Consistency = EVENTUAL,
        acknowledgement: AcknowledgementInput = LOCAL,
        hedge_reads: bool = False,
        coalesce: bool = True,
    ) -> None:
        if not endpoints:
            raise invalid_field("endpoints", "must name at least one node, as host:port")
        self.endpoints = tuple(_endpoint(each) for each in endpoints)
        self.timeout_s = _timeout_s(timeout_s)
        self.consistency = consistencies.checked(consistency)
        self.acknowledgement = acknowledgements.checked_acknowledgement(acknowledgement)
        self.router = Router(
            self.endpoints, rng=random.Random(), hedge_reads=values.boolean("hedge_reads", hedge_reads)
        )
        self.batches = Batches(self.router, coalesce=values.boolean("coalesce", coalesce))
        self.closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        """Ends calls that are on their way with ClientClosed, and the connections."""
        self.closed = True
        await self.router.close()

    def ready_router(self) -> Router:
        """The router, on the event loop that it belongs to."""
        loop = asyncio.get_running_loop()
        if self.closed:
            raise ClientClosed("the client is closed")
        if self._loop is None:
            self._loop = loop
            self.router.start()
        if self._loop is not loop:
            raise RuntimeError(
                "an AsyncClient belongs to the event loop of its first call; make one for each loop"
            )
        return self.router


class AsyncConnection:
    """What the calls of a client, and of a session of it, have in common."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def _router(self) -> Router:
        return self._link.router

    @property
    def _endpoints(self) -> tuple[str, ...]:
        return self._link.endpoints

    # Whether calls build on each other: those of a session do.
    _has_floor = False

    async def _admit(self, deadline_s: float) -> None:
        """Comes before each call, until ``deadline_s`` of time.monotonic. A session looks where it is."""

    async def _floor(self, namespace: str, deadline_s: float) -> Position:
        """What a read shows at least. A session has one."""
        return NOWHERE

    def _saw(self, position: Position) -> None:
        """Takes in where an answer to a read was. A session keeps it."""

    def _wrote(self, position: Position) -> None:
        """Takes in where a write is. A session keeps it."""

    def _ready_router(self) -> Router:
        return self._link.ready_router()

    def _time(self, timeout_s: float | None) -> float:
        return self._link.timeout_s if timeout_s is None else _timeout_s(timeout_s)

    def _given(self, consistency: Consistency | None) -> Consistency:
        """The consistency of one read that the caller or the client asks for."""
        return self._link.consistency if consistency is None else consistencies.checked(consistency)

    async def _wanted(self, namespace: str, given: Consistency, deadline_s: float) -> Consistency:
        """The consistency of one read: what is asked for, and what a session needs."""
        await self._admit(deadline_s)
        floor = await self._floor(namespace, deadline_s)
        return given if floor == NOWHERE else given & Consistency(at_least=floor)

    async def _read(
        self,
        method: Method[Request, Response],
        request: Request,
        consistency: Consistency | None,
        timeout_s: float | None,
        *,
        hedged_as: str = "",
        is_search: bool = False,
    ) -> Response:
        """The answer to a read that any node can give, or any replica when it is done in the indexes."""
        router = self._ready_router()
        time_s, begun_at_s = self._time(timeout_s), time.monotonic()
        wanted = await self._require(request, consistency, begun_at_s + time_s)
        response = await router.read(
            method,
            request,
            route=Route.REPLICAS if is_search else read_route(wanted),
            timeout_s=time_s,
            bound=bound_of(wanted, is_search=is_search),
            hedged_as=hedged_as,
            begun_at_s=begun_at_s,
        )
        self._saw(position_of(response))
        return response

    async def _require(self, request: Any, consistency: Consistency | None, deadline_s: float) -> Consistency:
        """Sets the consistency of a request, and returns it."""
        wanted = self._given(consistency)
        if self._has_floor:
            wanted = await self._wanted(request.namespace, wanted, deadline_s)
        if wanted is EVENTUAL:
            return wanted
        message = consistencies.to_proto(wanted)
        if message is not None:
            request.consistency.CopyFrom(message)
        return wanted

    def _acknowledgement(self, given: AcknowledgementInput | None) -> Acknowledgement:
        return (
            self._link.acknowledgement if given is None else acknowledgements.checked_acknowledgement(given)
        )


def position_of(response: Any) -> Position:
    """Where the answer to a read, or a write, is in the history."""
    revision = getattr(response, "applied_revision", None)
    return Position(response.epoch, response.revision if revision is None else revision)


def _timeout_s(value: object) -> float:
    seconds = values.number("timeout_s", value)
    if seconds <= 0:
        raise invalid_field("timeout_s", "must be above 0")
    return seconds


def _endpoint(value: object) -> str:
    address = values.text("endpoints", value)
    host, _, port = address.rpartition(":")
    if not host or "," in host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise invalid_field("endpoints", f"must be host:port, not {address!r}")
    return address
