"""Concurrent calls that travel together.

A unary call costs a client and a server more than what most calls ask for. So while a call is on its way,
those that come gather, and go in one batch when it is back; what comes in the same turn of the event loop
goes together at once. A call that finds nothing on its way is sent as it is: nobody waits for company.

Each caller keeps its own deadline and its own outcome. One that gives up takes nobody along.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, Protocol, TypeVar

from agentmem.client.consistency import EVENTUAL, Consistency
from agentmem.client.errors import AgentMemError, ClientClosed, DeadlineExceeded, Unavailable
from agentmem.client.statistics import Counters

# Of one batch: requests; the memories or ids that they name, or hits that they ask for; and bytes.
MAX_REQUESTS = 100
MAX_ITEMS = 1000
MAX_BYTES = 4 * 1024 * 1024
# So many batches of one lane are on their way at once.
MAX_IN_FLIGHT = 2
# More than so many requests that are ready at once are shared out, that several nodes work on them.
SHARED_REQUESTS = 16
# One that takes longer does not hold up the others: it may be at a node that hangs.
MAX_HOLD_S = 0.1


class Sized(Protocol):
    """What can be sent, or made into what is sent."""

    def ByteSize(self) -> int:
        """About how many bytes it has when it is sent."""
        ...


Request = TypeVar("Request", bound=Sized)
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Entry(Generic[Request, Result]):
    """One call.

    Attributes:
        lane: calls of one lane may travel together.
        items: memories or ids that it names, or hits that it asks for.
        timeout_s: its time, which began at ``begun_at_s`` of time.monotonic.
        is_retry: it was sent already, and that cost something.
        in_doubt: it is a write and may have been done.
        is_apart: it cannot travel with others.
    """

    request: Request
    lane: Hashable
    items: int
    timeout_s: float
    begun_at_s: float
    consistency: Consistency = EVENTUAL
    is_retry: bool = False
    in_doubt: bool = False
    is_apart: bool = False
    flight: _Flight | None = None
    outcome: asyncio.Future[Result | Again] | None = None
    # Of time.monotonic.
    deadline_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline_s = self.begun_at_s + self.timeout_s


class Again(Enum):
    """The outcome of a call that has to be sent once more, alone."""

    AGAIN = "again"


class Kind(Protocol[Request, Result]):
    """How calls of one kind are sent."""

    def can_send_together(self) -> bool:
        """Whether the servers know batches of this kind."""
        ...

    async def alone(self, entry: Entry[Request, Result]) -> Result:
        """Sends one."""
        ...

    async def together(
        self, entries: Sequence[Entry[Request, Result]], deadline_s: float
    ) -> Sequence[Result | AgentMemError | Again]:
        """Sends several as one call; the outcome of each."""
        ...

    def overdue(self, entry: Entry[Request, Result]) -> AgentMemError:
        """The error of one that is on its way and whose own deadline has passed."""
        ...

    def of_its_own(self, entry: Entry[Request, Result], error: AgentMemError) -> AgentMemError:
        """The error of one when that of all is this."""
        ...


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch, or a call alone, that is on its way. ``waiting``: how many callers wait for it."""

    begun_at_s: float
    deadline_s: float
    waiting: int = 1
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class _Lane(Generic[Request, Result]):
    """Calls that may travel together: those on their way, and those that gather.

    Attributes:
        has_leader: one call looks who comes with it.
        timer: ends the wait for calls that take long.
    """

    key: Hashable
    flights: set[_Flight] = field(default_factory=set)
    gathering: deque[Entry[Request, Result]] = field(default_factory=deque)
    has_leader: bool = False
    timer: asyncio.TimerHandle | None = None

    def free(self, now_s: float) -> int:
        """How many batches may be sent now."""
        return MAX_IN_FLIGHT - sum(now_s - each.begun_at_s < MAX_HOLD_S for each in self.flights)


class Coalescer(Generic[Request, Result]):
    """The calls of one kind of one client. Its state belongs to one event loop."""

    def __init__(
        self,
        kind: Kind[Request, Result],
        counters: Counters,
        *,
        is_enabled: bool,
        least_requests: int = SHARED_REQUESTS,
    ) -> None:
        """``least_requests``: what is ready at once is not parted into smaller batches than this."""
        self._kind = kind
        self._counters = counters
        self._is_enabled = is_enabled
        self._least_requests = least_requests
        self._lanes: dict[Hashable, _Lane[Request, Result]] = {}
        # Those who wait, as many as there are callers; one timer watches over all their deadlines.
        self._waiting: dict[Entry[Request, Result], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf

    async def call(self, entry: Entry[Request, Result]) -> Result:
        """Sends a call, alone or with others, and returns its own outcome."""
        is_apart = entry.is_apart or entry.items > MAX_ITEMS
        if is_apart or not self._is_enabled or not self._kind.can_send_together():
            return await self._kind.alone(entry)
        lane = self._lanes.get(entry.lane)
        if lane is None:
            lane = self._lanes[entry.lane] = _Lane(entry.lane)
        if not lane.has_leader and not lane.gathering and lane.free(time.monotonic()) > 0:
            lane.has_leader = True
            try:
                # Calls that are ready in this turn of the event loop gather meanwhile.
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                lane.has_leader = False
                self._send_gathered(lane)
                raise
            lane.has_leader = False
            if not lane.gathering:
                return await self._alone(entry, lane)
            lane.gathering.appendleft(entry)
            self._send_gathered(lane)
        else:
            lane.gathering.append(entry)
            # Behind others that gather there is nothing to send: they would have gone.
            if len(lane.gathering) == 1 and not lane.has_leader:
                self._send_gathered(lane)
        outcome = await self._with_others(entry, lane)
        return await self._kind.alone(entry) if isinstance(outcome, Again) else outcome

    async def _alone(self, entry: Entry[Request, Result], lane: _Lane[Request, Result]) -> Result:
        flight = _Flight(time.monotonic(), entry.deadline_s)
        lane.flights.add(flight)
        try:
            return await self._kind.alone(entry)
        finally:
            lane.flights.discard(flight)
            self._send_gathered(lane)

    async def _with_others(
        self, entry: Entry[Request, Result], lane: _Lane[Request, Result]
    ) -> Result | Again:
        outcome: asyncio.Future[Result | Again] = asyncio.get_running_loop().create_future()
        entry.outcome = outcome
        self._waiting[entry] = None
        if entry.deadline_s < self._timer_at_s:
            self._watch_deadlines()
        try:
            return await outcome
        finally:
            del self._waiting[entry]
            outcome.cancel()
            flight = entry.flight
            if flight is None:
                lane.gathering.remove(entry)
            else:
                flight.waiting -= 1
                if not flight.waiting and flight.task is not None:
                    flight.task.cancel()

    def _watch_deadlines(self) -> None:
        """Ends the wait of those whose time is over, and sets the timer for the next of them."""
        now_s = time.monotonic()
        next_s = math.inf
        for entry in self._waiting:
            if entry.deadline_s > now_s:
                next_s = min(next_s, entry.deadline_s)
            elif entry.flight is None:
                _settle(entry, _never_sent(entry.timeout_s))
            elif entry.deadline_s < entry.flight.deadline_s:
                _settle(entry, self._kind.overdue(entry))
            # The last deadline is that of the batch, which ends with an error that says more.
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at_s = next_s
        if next_s < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, next_s - now_s), self._watch_deadlines)

    def _send_gathered(self, lane: _Lane[Request, Result]) -> None:
        """Sends what has gathered, as far as something may be sent now."""
        now_s = time.monotonic()
        while lane.gathering and (free := lane.free(now_s)) > 0:
            entries = _taken(lane.gathering, max(self._least_requests, -(-len(lane.gathering) // free)))
            flight = _Flight(now_s, max(each.deadline_s for each in entries), waiting=len(entries))
            for entry in entries:
                entry.flight = flight
            lane.flights.add(flight)
            flight.task = asyncio.create_task(self._fly(lane, flight, entries))
        if lane.gathering and lane.timer is None:
            held_since_s = min(
                each.begun_at_s for each in lane.flights if now_s - each.begun_at_s < MAX_HOLD_S
            )
            loop = asyncio.get_running_loop()
            lane.timer = loop.call_later(held_since_s + MAX_HOLD_S - now_s, self._held_long, lane)
        elif not lane.gathering and not lane.flights and not lane.has_leader:
            if lane.timer is not None:
                lane.timer.cancel()
            self._lanes.pop(lane.key, None)

    def _held_long(self, lane: _Lane[Request, Result]) -> None:
        lane.timer = None
        self._send_gathered(lane)

    async def _fly(
        self,
        lane: _Lane[Request, Result],
        flight: _Flight,
        entries: Sequence[Entry[Request, Result]],
    ) -> None:
        """Sends a batch and gives out its outcomes."""
        try:
            outcomes = await self._outcomes(entries, flight.deadline_s)
        except BaseException as error:
            # Cancelled, for nobody waits any more; or a fault in here, which each caller shall see.
            for entry in entries:
                _settle(entry, error)
            if not isinstance(error, Exception):
                raise
        else:
            for entry, outcome in zip(entries, outcomes, strict=True):
                _settle(entry, outcome)
        finally:
            lane.flights.discard(flight)
            self._send_gathered(lane)

    async def _outcomes(
        self, entries: Sequence[Entry[Request, Result]], deadline_s: float
    ) -> Sequence[Result | AgentMemError | Again]:
        try:
            if len(entries) == 1:
                return [await self._kind.alone(entries[0])]
            self._counters.coalesced += len(entries)
            return await self._kind.together(entries, deadline_s)
        except (Unavailable, DeadlineExceeded, ClientClosed) as error:
            return [self._kind.of_its_own(entry, error) for entry in entries]
        except AgentMemError as error:
            # What is wrong with one of them fails all: alone, each finds out whether it is the one.
            return [error] if len(entries) == 1 else [Again.AGAIN] * len(entries)


def _taken(gathering: deque[Entry[Request, Result]], most: int) -> list[Entry[Request, Result]]:
    """The next batch: the first of them, and as many more as fit, up to ``most``."""
    entries = [gathering.popleft()]
    items, size_bytes = entries[0].items, entries[0].request.ByteSize()
    while gathering and len(entries) < min(most, MAX_REQUESTS):
        items += gathering[0].items
        size_bytes += gathering[0].request.ByteSize()
        if items > MAX_ITEMS or size_bytes > MAX_BYTES:
            break
        entries.append(gathering.popleft())
    return entries


def _settle(entry: Entry[Request, Result], outcome: Result | BaseException | Again) -> None:
    """Tells the caller of an entry, if it still waits."""
    future = entry.outcome
    if future is None or future.done():
        return
    if not isinstance(outcome, BaseException):
        future.set_result(outcome)
    elif isinstance(outcome, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(outcome)


def _never_sent(timeout_s: float) -> Unavailable:
    return Unavailable(
        f"not sent within {timeout_s:g} s: earlier calls were still on their way", reason="NO_NODE_AVAILABLE"
    )
