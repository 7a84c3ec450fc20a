"""Taking a call to a node that can answer it: retries, redirects, and their bounds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import Message

from agentmem.client import errors, selection
from agentmem.client.channels import CONNECT_TIMEOUT_S, Channels, Endpoint
from agentmem.client.errors import AgentMemError, ClientClosed, DeadlineExceeded, OutcomeUnknown, Unavailable
from agentmem.client.selection import IDLE, Load, Route, Verdict, WriteVerdict
from agentmem.client.topology import Topology, newly_serving
from agentmem.client.watch import TopologyWatch

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
RequestIn = TypeVar("RequestIn", bound=Message, contravariant=True)
ResponseOut = TypeVar("ResponseOut", bound=Message, covariant=True)
Answer = TypeVar("Answer")


class Call(Protocol[RequestIn, ResponseOut]):
    """A method of a stub that sends one request and gets one answer."""

    def __call__(self, request: RequestIn, /, *, timeout: float) -> Awaitable[ResponseOut]: ...


Method: TypeAlias = Callable[[Endpoint], Call[Request, Response]]
StreamMethod: TypeAlias = Callable[[Endpoint], grpc.aio.UnaryStreamMultiCallable[Request, Response]]
# One try of a read on one node, until a time of time.monotonic().
Attempt: TypeAlias = Callable[[Endpoint, float], Awaitable[Answer]]

# One call of the API is sent to nodes this often at most. The waits in between end with its deadline.
MAX_ATTEMPTS = 100
# The wait after every node was tried, the first time and at most. A change of the topology ends it early.
FIRST_WAIT_S = 0.05
MAX_WAIT_S = 1.0


class NotSent(Unavailable):
    """There is no connection, so nothing was sent."""


@dataclass(slots=True)
class _Stream(Generic[Response]):
    """A stream that has begun. ``held`` ends it."""

    address: str
    call: grpc.aio.UnaryStreamCall[Any, Response]
    first: Response | None
    held: ExitStack


class Router:
    """Sends reads to replicas and writes to the writer, over the channels and by the topology that it keeps.

    All of its state belongs to one event loop and changes only between awaits.
    """

    def __init__(self, contact_points: Sequence[str], *, rng: random.Random) -> None:
        self._contact_points = contact_points
        self._rng = rng
        self._channels = Channels(contact_points)
        self._watch = TopologyWatch(self._channels, contact_points, rng=rng, on_change=self._topology_changed)
        self._loads: dict[str, Load] = {}
        self._closed = False

    def start(self) -> None:
        """Begins to follow the topology, on the running event loop. Does nothing the second time."""
        self._watch.start()

    async def close(self) -> None:
        """Ends every call with ClientClosed and closes the channels. Does nothing the second time."""
        self._closed = True
        await self._watch.close()
        await self._channels.close()

    async def read(
        self, method: Method[Request, Response], request: Request, *, route: Route, timeout_s: float
    ) -> Response:
        """The answer of one node of the route, whichever can give it.

        Raises:
            Unavailable: no node could answer within the deadline and MAX_ATTEMPTS.
            AgentMemError: what a node answered, where another node would not answer otherwise.
        """

        async def attempt(endpoint: Endpoint, deadline_s: float) -> Response:
            return await self._call(endpoint, method, request, deadline_s)

        return await self._read(attempt, route, timeout_s)

    async def stream(
        self,
        method: StreamMethod[Request, Response],
        request: Request,
        *,
        route: Route,
        timeout_s: float,
    ) -> AsyncGenerator[Response, None]:
        """The messages of one node of the route, which is found as for ``read``.

        Args:
            timeout_s: for the first message; there is no bound for the others.

        Raises:
            Unavailable: no node sent a first message in time, or the node was lost in the middle.
            AgentMemError: what the node answered.
        """

        async def begin(endpoint: Endpoint, deadline_s: float) -> _Stream[Response]:
            with ExitStack() as held:
                held.enter_context(self._channels.use(endpoint.address))
                call = method(endpoint)(request)
                held.callback(call.cancel)
                try:
                    async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                        first = await self.received(endpoint.address, call)
                except TimeoutError as error:
                    raise _late(endpoint.address) from error
                return _Stream(endpoint.address, call, first, held.pop_all())

        stream = await self._read(begin, route, timeout_s)
        with stream.held:
            message = stream.first
            while message is not None:
                yield message
                message = await self.received(stream.address, stream.call)

    async def received(self, address: str, call: grpc.aio.UnaryStreamCall[Any, Response]) -> Response | None:
        """The next message of a stream; None at its end."""
        with self.translated(address):
            message = await call.read()
        return None if message is grpc.aio.EOF else cast(Response, message)

    async def write(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float,
        is_repeatable: bool = True,
        request_id: str = "",
    ) -> Response:
        """The writer's answer.

        A request is sent until it is answered: to the writer that the topology names then, which may have
        been restarted meanwhile.

        Args:
            is_repeatable: the writer carries it out once, however often it comes, such as by its request_id.
                Otherwise it is not sent again once it may have been carried out.
            request_id: for the error that names it.

        Raises:
            Unavailable: the write was not done; the writer could not be reached within the deadline.
            OutcomeUnknown: it may have been done; no answer came.
            AgentMemError: what the writer answered.
        """
        deadline_s = time.monotonic() + timeout_s
        said: dict[str, str] = {}
        redirected_to = ""
        redirected = in_doubt = False
        rounds = sent = 0
        while sent < MAX_ATTEMPTS:
            topology = await self._watch.current(deadline_s)
            if time.monotonic() >= deadline_s:
                break
            address = redirected_to or (topology.writer.address if topology.writer is not None else "")
            redirected_to = ""
            if address:
                try:
                    return await self._send_write(address, method, request, deadline_s)
                except AgentMemError as error:
                    said[address] = error.message
                    sent += not isinstance(error, NotSent)
                    redirected_to = _redirection(error)
                    if redirected_to and not redirected:
                        redirected = True
                        continue
                    redirected_to = ""
                    verdict = selection.write_verdict(error, in_doubt=in_doubt)
                    if verdict is WriteVerdict.FINAL:
                        raise
                    in_doubt = in_doubt or verdict is WriteVerdict.IN_DOUBT
                    if in_doubt and not is_repeatable:
                        break
            await self._pause(rounds, deadline_s)
            rounds += 1
        if in_doubt:
            raise _unanswered(said, timeout_s, sent, request_id)
        raise _nobody_answered(
            "the write was not done: no writer took it", said, "the cluster has no writer", timeout_s, sent
        )

    @asynccontextmanager
    async def writer(self, timeout_s: float) -> AsyncIterator[Endpoint]:
        """The writer, with a connection to it, for calls that are not simply repeated.

        Raises:
            Unavailable: it could not be reached in time.
        """
        deadline_s = time.monotonic() + timeout_s
        said: dict[str, str] = {}
        rounds = 0
        while True:
            topology = await self._watch.current(deadline_s)
            if topology.writer is not None and topology.writer.address:
                with self._channels.use(topology.writer.address) as endpoint:
                    try:
                        await _connect(endpoint, deadline_s)
                    except NotSent as error:
                        said[endpoint.address] = error.message
                    else:
                        yield endpoint
                        return
            if time.monotonic() >= deadline_s:
                raise _nobody_answered(
                    "the writer could not be reached", said, "the cluster has no writer", timeout_s, 0
                )
            await self._pause(rounds, deadline_s)
            rounds += 1

    @contextmanager
    def translated(self, address: str) -> Iterator[None]:
        """Raises what grpc raises as an AgentMemError."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            failure = errors.from_rpc_error(error)
            if self._closed and not errors.from_server(failure):
                raise _closed() from error
            if isinstance(failure, DeadlineExceeded) and not errors.from_server(failure):
                failure = _late(address)
            raise failure from error
        except asyncio.CancelledError:
            # Closing a channel cancels its calls; the caller's task itself was not cancelled.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise _closed() from None
            raise

    async def _read(self, attempt: Attempt[Answer], route: Route, timeout_s: float) -> Answer:
        """What an attempt returns on one node of the route.

        A read changes nothing, so it goes to node after node, and round after round, until the deadline.
        """
        deadline_s = time.monotonic() + timeout_s
        tried: set[str] = set()
        said: dict[str, str] = {}
        rounds = sent = 0
        refusal: AgentMemError | None = None
        groups = route
        while sent < MAX_ATTEMPTS:
            topology = await self._watch.current(deadline_s)
            now_s = time.monotonic()
            if now_s >= deadline_s:
                break
            node = selection.choose(
                topology, self._loads, route=groups, tried=tried, now_s=now_s, rng=self._rng
            )
            if node is None:
                if refusal is not None:
                    raise refusal
                await self._pause(rounds, deadline_s)
                rounds += 1
                tried.clear()
                continue
            tried.add(node.address)
            alternative = selection.choose(
                topology, self._loads, route=groups, tried=tried, now_s=now_s, rng=self._rng
            )
            attempt_deadline_s = selection.attempt_deadline_s(
                now_s=now_s, deadline_s=deadline_s, has_alternative=alternative is not None
            )
            try:
                return await self._ask(node.address, attempt, attempt_deadline_s, deadline_s)
            except AgentMemError as error:
                said[node.address] = error.message
                if not isinstance(error, NotSent):
                    sent += 1
                verdict = selection.verdict(error)
                if verdict is Verdict.FINAL or (
                    verdict is Verdict.ANOTHER_REPLICA_ONCE and (refusal is not None or route is Route.WRITER)
                ):
                    raise
                if verdict is Verdict.ANOTHER_REPLICA_ONCE:
                    # From now on only another replica is asked: the writer's work is to write.
                    refusal, groups = error, Route.REPLICAS
        nobody = "the cluster has no writer" if route is Route.WRITER else "no replica is serving"
        raise _nobody_answered("no node could answer", said, nobody, timeout_s, sent)

    async def _ask(
        self, address: str, attempt: Attempt[Answer], attempt_deadline_s: float, deadline_s: float
    ) -> Answer:
        """One try of a read, and what it says about the node's load."""
        with self._channels.use(address) as endpoint:
            self._loads[address] = selection.started(self._loads.get(address, IDLE), now_s=time.monotonic())
            ended = selection.abandoned
            try:
                await _connect(endpoint, attempt_deadline_s)
                sent_at_s = time.monotonic()
                try:
                    answer = await attempt(endpoint, attempt_deadline_s)
                except DeadlineExceeded as error:
                    if attempt_deadline_s < deadline_s:
                        raise Unavailable(error.message, reason="NO_ANSWER") from error
                    raise
                except AgentMemError as error:
                    if selection.verdict(error) is not Verdict.ANOTHER_NODE:
                        ended = partial(selection.answered, sent_at_s=sent_at_s)
                    raise
                ended = partial(selection.answered, sent_at_s=sent_at_s)
                return answer
            except AgentMemError as error:
                if selection.verdict(error) is Verdict.ANOTHER_NODE:
                    ended = partial(selection.failed, rng=self._rng)
                raise
            finally:
                # Not there when the node left the cluster meanwhile.
                if address in self._loads:
                    self._loads[address] = ended(self._loads[address], now_s=time.monotonic())

    async def _send_write(
        self, address: str, method: Method[Request, Response], request: Request, deadline_s: float
    ) -> Response:
        """One try of a write."""
        with self._channels.use(address) as endpoint:
            await _connect(endpoint, deadline_s)
            return await self._call(endpoint, method, request, deadline_s)

    async def _call(
        self,
        endpoint: Endpoint,
        method: Method[Request, Response],
        request: Request,
        deadline_s: float,
    ) -> Response:
        """One RPC, its errors translated."""
        with self.translated(endpoint.address):
            return await method(endpoint)(request, timeout=max(0.0, deadline_s - time.monotonic()))

    async def _pause(self, rounds: int, deadline_s: float) -> None:
        """Waits before the next round, until the topology changes, or until the deadline."""
        wait_s = selection.backoff_s(rounds, first_s=FIRST_WAIT_S, cap_s=MAX_WAIT_S, rng=self._rng)
        await self._watch.wait_for_change(min(wait_s, max(0.0, deadline_s - time.monotonic())))

    def _topology_changed(self, before: Topology | None, after: Topology) -> None:
        addresses = {node.address for node in after.nodes}
        self._channels.want({*addresses, *self._contact_points})
        self._loads = selection.after_update(
            self._loads, nodes=addresses, newly_serving=newly_serving(before, after)
        )


async def _connect(endpoint: Endpoint, deadline_s: float) -> None:
    timeout_s = min(CONNECT_TIMEOUT_S, max(0.0, deadline_s - time.monotonic()))
    if not await endpoint.connected(timeout_s):
        raise NotSent("could not connect", reason="NOT_CONNECTED")


def _redirection(error: AgentMemError) -> str:
    """The address of the writer, when a node that is not said so."""
    return error.metadata.get("writer_address", "") if error.reason == "NOT_WRITER" else ""


def _late(address: str) -> DeadlineExceeded:
    return DeadlineExceeded(f"{address} did not answer in time")


def _closed() -> ClientClosed:
    return ClientClosed("the client was closed during the call")


def _nobody_answered(
    problem: str, said: Mapping[str, str], nobody: str, timeout_s: float, sent: int
) -> Unavailable:
    return Unavailable(
        f"{problem} {_bound(timeout_s, sent)}; {f'tried {_joined(said)}' if said else nobody}",
        reason="NO_NODE_AVAILABLE",
        attempts=said,
    )


def _unanswered(said: Mapping[str, str], timeout_s: float, sent: int, request_id: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the write may or may not have been done: no answer {_bound(timeout_s, sent)}; {_joined(said)}",
        reason="OUTCOME_UNKNOWN",
        metadata={"request_id": request_id} if request_id else {},
        attempts=said,
    )


def _bound(timeout_s: float, sent: int) -> str:
    return f"within {timeout_s:g} s" if sent < MAX_ATTEMPTS else f"in {sent} attempts"


def _joined(said: Mapping[str, str]) -> str:
    return "; ".join(f"{address}: {message}" for address, message in said.items())
