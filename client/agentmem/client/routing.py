"""Taking a call to a node that can answer it: retries, redirects, and their bounds."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import grpc

from agentmem.client import calls, selection, verdicts
from agentmem.client.calls import Call, Calls, Method, NotSent, Request, Response, StreamMethod
from agentmem.client.channels import Endpoint
from agentmem.client.errors import AgentMemError, DeadlineExceeded, Unavailable
from agentmem.client.hedging import Hedging, first_answer
from agentmem.client.selection import IDLE, UNBOUND, Bound, Load, Route
from agentmem.client.statistics import Counters
from agentmem.client.topology import Node, NodeRole, Topology, newly_serving
from agentmem.client.tracing import attempt_kind, attempt_span, call_span
from agentmem.client.verdicts import Verdict
from agentmem.client.write_path import Doubt, WritePath

__all__ = ["Call", "Method", "Request", "Response", "Router", "StreamMethod"]

Answer = TypeVar("Answer")
# One try of a read on one node, until a time of time.monotonic().
Attempt: TypeAlias = Callable[[Endpoint, float], Awaitable[Answer]]


@dataclass(slots=True)
class _Stream(Generic[Response]):
    """A stream that has begun. ``held`` ends it."""

    address: str
    call: grpc.aio.UnaryStreamCall[Any, Response]
    first: Response | None
    held: ExitStack


@dataclass(slots=True)
class _Reading(Generic[Answer]):
    """A read that is going on.

    Attributes:
        hedged_as: the method whose latencies tell when to hedge; empty when it is not hedged.
        tried: the addresses asked in this round.
        said: what each node asked said last, by address.
        sent: how often it was sent to a node.
        refusal: what one node would not do; one other is asked.
    """

    attempt: Attempt[Answer]
    route: Route
    bound: Bound
    deadline_s: float
    hedged_as: str
    tried: set[str] = field(default_factory=set)
    said: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    rounds: int = 0
    refusal: AgentMemError | None = None
    owes_a_retry: bool = False


class Router:
    """Sends reads to replicas and writes to the writer, over the channels and by the topology that it keeps.

    All of its state belongs to one event loop and changes only between awaits.
    """

    def __init__(
        self, contact_points: Sequence[str], *, rng: random.Random, hedge_reads: bool = False
    ) -> None:
        self._calls = Calls(contact_points, rng=rng, on_change=self._topology_changed)
        self._writes = WritePath(self._calls)
        self._hedging = Hedging() if hedge_reads else None
        self._loads: dict[str, Load] = {}
        self._topology_at_s = -math.inf
        self._channels = self._calls.channels
        self.translated = self._calls.translated
        self.received = self._calls.received
        self.learn = self._calls.learn

    @property
    def counters(self) -> Counters:
        """What was done besides the calls."""
        return self._calls.counters

    def start(self) -> None:
        """Begins to follow the topology, on the running event loop. Does nothing the second time."""
        self._calls.watch.start()

    async def close(self) -> None:
        """Ends every call with ClientClosed and closes the channels. Does nothing the second time."""
        await self._calls.close()

    async def topology(self, deadline_s: float) -> Topology:
        """The last known topology; waits for the first one until the deadline (of time.monotonic)."""
        return await self._calls.watch.current(deadline_s)

    async def read(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        route: Route,
        timeout_s: float,
        bound: Bound = UNBOUND,
        hedged_as: str = "",
        is_retry: bool = False,
        begun_at_s: float | None = None,
    ) -> Response:
        """The answer of one node of the route, whichever can give it.

        Args:
            bound: what the answer must show, as a hint which node to ask.
            hedged_as: a name for reads that take equally long; empty for one that shall not be hedged.
            is_retry: it was sent already, in a batch.
            begun_at_s: of time.monotonic, when the time began; now when None.

        Raises:
            Unavailable: no node could answer within the deadline and MAX_ATTEMPTS.
            AgentMemError: what a node answered, where another node would not answer otherwise.
        """

        async def attempt(endpoint: Endpoint, deadline_s: float) -> Response:
            return await self._calls.call(endpoint, method, request, deadline_s)

        deadline_s = (time.monotonic() if begun_at_s is None else begun_at_s) + timeout_s
        reading = _Reading(attempt, route, bound, deadline_s, hedged_as)
        reading.owes_a_retry = is_retry
        with call_span(request):
            return await self._read(reading, timeout_s)

    async def ask(
        self, address: str, method: Method[Request, Response], request: Request, *, timeout_s: float
    ) -> Response:
        """The answer of one node and no other.

        Raises:
            Unavailable: there is no connection to it, or it was lost.
            AgentMemError: what the node answered.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._channels.use(address) as endpoint:
            await calls.connect(endpoint, deadline_s)
            return await self._calls.call(endpoint, method, request, deadline_s)

    async def stream(
        self,
        method: StreamMethod[Request, Response],
        request: Request,
        *,
        route: Route,
        timeout_s: float,
        bound: Bound = UNBOUND,
        silence_s: float | None = None,
    ) -> AsyncGenerator[Response, None]:
        """The messages of one node of the route, which is found as for ``read``.

        Args:
            timeout_s: for the first message.
            silence_s: for each of the others; None for no bound.

        Raises:
            Unavailable: no node sent a first message in time, or the node was lost in the middle, or silent.
            AgentMemError: what the node answered.
        """

        async def begin(endpoint: Endpoint, deadline_s: float) -> _Stream[Response]:
            # Its span is until the first message; the node's own lasts as long as the stream.
            with attempt_span(request, endpoint.address) as marks, ExitStack() as held:
                held.enter_context(self._channels.use(endpoint.address))
                call = method(endpoint)(request, metadata=marks)
                held.callback(call.cancel)
                try:
                    async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                        first = await self.received(endpoint.address, call)
                except TimeoutError as error:
                    raise calls.late(endpoint.address) from error
                return _Stream(endpoint.address, call, first, held.pop_all())

        reading = _Reading(begin, route, bound, time.monotonic() + timeout_s, "")
        with call_span(request):
            stream = await self._read(reading, timeout_s)
        with stream.held:
            message = stream.first
            while message is not None:
                yield message
                message = await self._following(stream, silence_s)

    async def _following(self, stream: _Stream[Response], silence_s: float | None) -> Response | None:
        """The next message of a stream; a node that is lost in the middle is passed over for a while."""
        try:
            try:
                async with asyncio.timeout(silence_s):
                    return await self.received(stream.address, stream.call)
            except TimeoutError as error:
                silent = f"{stream.address} sent nothing for {silence_s:g} s"
                raise Unavailable(silent, reason="NO_ANSWER") from error
        except AgentMemError as error:
            load = self._loads.get(stream.address)
            if load is not None and verdicts.verdict(error) is Verdict.ANOTHER_NODE:
                now_s = time.monotonic()
                # The call that was counted has ended with its first message; what failed now is another one.
                again = selection.started(load, now_s=now_s)
                self._loads[stream.address] = selection.failed(again, now_s=now_s, rng=self._calls.rng)
            raise

    async def write(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float,
        is_repeatable: bool = True,
        request_id: str = "",
        doubt: Doubt | None = None,
        is_retry: bool = False,
        begun_at_s: float | None = None,
    ) -> Response:
        """The writer's answer.

        A request is sent until it is answered: to the writer that the topology names then, which may have
        been restarted meanwhile, or be another one since a promotion.

        Args:
            is_repeatable: the writer carries it out once, however often it comes, such as by its request_id.
                Otherwise it is not sent again once it may have been carried out.
            request_id: for the error that names it.
            doubt: tells whether it may have been done before, and is told when an attempt was not answered.
            is_retry, begun_at_s: as of ``read``.

        Raises:
            Unavailable: the write was not done; the writer could not be reached within the deadline.
            OutcomeUnknown: it may have been done; no answer came.
            AgentMemError: what the writer answered.
        """
        with call_span(request):
            return await self._writes.write(
                method,
                request,
                timeout_s=timeout_s,
                is_repeatable=is_repeatable,
                request_id=request_id,
                doubt=Doubt() if doubt is None else doubt,
                is_retry=is_retry,
                begun_at_s=begun_at_s,
            )

    def writer(self, timeout_s: float) -> AbstractAsyncContextManager[Endpoint]:
        """The writer, with a connection to it, for calls that are not simply repeated.

        Raises:
            Unavailable: it could not be reached in time.
        """
        return self._writes.writer(timeout_s)

    async def _read(self, reading: _Reading[Answer], timeout_s: float) -> Answer:
        """What an attempt returns on one node of the route.

        A read changes nothing, so it goes to node after node, and round after round, until the deadline.
        """
        self._calls.begin()
        out_of_retries = False
        while reading.sent < calls.MAX_ATTEMPTS:
            # A refusal is an answer: what another node says is not waited for.
            until_s = reading.deadline_s if reading.refusal is None else 0.0
            if reading.owes_a_retry and not await self._calls.retries.take(until_s):
                if reading.refusal is not None:
                    raise reading.refusal
                out_of_retries = True
                break
            reading.owes_a_retry = False
            topology = await self._calls.watch.current(reading.deadline_s)
            if time.monotonic() >= reading.deadline_s:
                break
            node = self._choose(topology, reading)
            if node is None:
                if reading.refusal is not None:
                    raise reading.refusal
                await self._calls.pause(reading.rounds, reading.deadline_s)
                reading.rounds += 1
                reading.tried.clear()
                continue
            try:
                return await self._attempt(node, topology, reading)
            except AgentMemError as error:
                self._judge(node.address, error, reading)
        nobody = "the cluster has no writer" if reading.route is Route.WRITER else "no replica is serving"
        raise calls.nobody_answered(
            "no node could answer",
            reading.said,
            nobody,
            timeout_s,
            reading.sent,
            out_of_retries=out_of_retries,
        )

    def _choose(
        self, topology: Topology, reading: _Reading[Answer], route: Route | None = None
    ) -> Node | None:
        now_s = time.monotonic()
        return selection.choose(
            topology,
            self._loads,
            route=route or reading.route,
            tried=reading.tried,
            now_s=now_s,
            rng=self._calls.rng,
            bound=reading.bound,
            topology_age_s=now_s - self._topology_at_s,
        )

    def _judge(self, address: str, error: AgentMemError, reading: _Reading[Answer]) -> None:
        """Takes in the end of an attempt. Raises the error when it is the end of the read."""
        reading.said[address] = error.message
        reading.sent += not isinstance(error, NotSent)
        reading.owes_a_retry = verdicts.costs_a_retry(error)
        verdict = verdicts.verdict(error)
        is_once = verdict in (Verdict.ANOTHER_REPLICA_ONCE, Verdict.ANOTHER_NODE_ONCE)
        if verdict is Verdict.FINAL or (
            is_once and (reading.refusal is not None or reading.route is Route.WRITER)
        ):
            raise error
        if is_once:
            reading.refusal = error
        if verdict is Verdict.ANOTHER_REPLICA_ONCE:
            # From now on only another replica is asked: the writer's work is to write.
            reading.route = Route.REPLICAS

    async def _attempt(self, node: Node, topology: Topology, reading: _Reading[Answer]) -> Answer:
        """One try of a read on a node, and if that is slow, on another."""
        reading.tried.add(node.address)
        self._calls.counters.retries += reading.sent > 0
        attempt_kind.set("retry" if reading.sent else "")
        attempt_deadline_s = selection.attempt_deadline_s(
            now_s=time.monotonic(),
            deadline_s=reading.deadline_s,
            has_alternative=selection.has_another(topology, route=reading.route, tried=reading.tried),
        )
        if self._hedging is None or not reading.hedged_as:
            return await self._ask(node.address, reading, attempt_deadline_s)
        hedging, begun_at_s = self._hedging, time.monotonic()

        def another() -> Coroutine[Any, Any, Answer] | None:
            # Never the writer: its work is to write.
            other = self._choose(topology, reading, Route.REPLICAS) if node.role is NodeRole.REPLICA else None
            if other is None or not hedging.may_hedge(time.monotonic()):
                return None
            reading.tried.add(other.address)
            self._calls.counters.hedges += 1
            return self._hedge(other.address, reading, attempt_deadline_s)

        first = self._ask(node.address, reading, attempt_deadline_s)
        slow_s = min(hedging.begun(reading.hedged_as), attempt_deadline_s - begun_at_s)
        answer = await first_answer(first, slow_s, another)
        hedging.answered(reading.hedged_as, time.monotonic() - begun_at_s)
        return answer

    async def _hedge(self, address: str, reading: _Reading[Answer], attempt_deadline_s: float) -> Answer:
        # In a task of its own, so the first try keeps its kind.
        attempt_kind.set("hedge")
        return await self._ask(address, reading, attempt_deadline_s)

    async def _ask(self, address: str, reading: _Reading[Answer], attempt_deadline_s: float) -> Answer:
        """One try of a read, and what it says about the node's load."""
        with self._channels.use(address) as endpoint:
            self._loads[address] = selection.started(self._loads.get(address, IDLE), now_s=time.monotonic())
            ended: Callable[..., Load] = selection.abandoned
            sent_at_s = time.monotonic()
            try:
                await calls.connect(endpoint, attempt_deadline_s)
                sent_at_s = time.monotonic()
                try:
                    answer = await reading.attempt(endpoint, attempt_deadline_s)
                except DeadlineExceeded as error:
                    if attempt_deadline_s < reading.deadline_s:
                        raise Unavailable(error.message, reason="NO_ANSWER") from error
                    raise
                ended = partial(selection.answered, sent_at_s=sent_at_s)
                return answer
            except AgentMemError as error:
                ended = self._ended(error, sent_at_s)
                raise
            finally:
                # Not there when the node left the cluster meanwhile.
                if address in self._loads:
                    self._load_changed(address, ended(self._loads[address], now_s=time.monotonic()))

    def _ended(self, error: AgentMemError, sent_at_s: float) -> Callable[..., Load]:
        """What an error of a node says about its load."""
        verdict = verdicts.verdict(error)
        if verdict is Verdict.ANOTHER_NODE:
            return partial(selection.failed, rng=self._calls.rng)
        if verdict is Verdict.FRESHER_NODE:
            return selection.stale
        if verdict is Verdict.ANOTHER_NODE_ONCE:
            return partial(selection.faulty, sent_at_s=sent_at_s, rng=self._calls.rng)
        if isinstance(error, DeadlineExceeded):
            return selection.abandoned
        return partial(selection.answered, sent_at_s=sent_at_s)

    def _load_changed(self, address: str, load: Load) -> None:
        now_s = time.monotonic()
        before = self._loads[address]
        was_out = selection.blocked(before, now_s) or selection.ejected(before, now_s)
        is_out = selection.blocked(load, now_s) or selection.ejected(load, now_s)
        self._calls.counters.ejections += is_out and not was_out
        self._loads[address] = load

    def _topology_changed(self, before: Topology | None, after: Topology) -> None:
        addresses = {node.address for node in after.nodes}
        self._calls.learn(after)
        if before is not None and before.writer is not None and after.epoch > before.epoch:
            self._calls.end_writes(before.writer.address)
        self._topology_at_s = time.monotonic()
        self._channels.want({*addresses, *self._calls.contact_points})
        # At first all of them are new to this client, and none is cold for that.
        back = newly_serving(before, after) if before is not None else frozenset[str]()
        self._loads = selection.after_update(
            self._loads, nodes=addresses, newly_serving=back, now_s=time.monotonic()
        )
