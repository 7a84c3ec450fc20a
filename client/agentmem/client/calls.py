"""What each call of a client goes through: channels, topology, retry budget, errors."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import Message

from agentmem.client import errors, selection
from agentmem.client.budget import RetryBudget
from agentmem.client.channels import CONNECT_TIMEOUT_S, Channels, Endpoint
from agentmem.client.errors import ClientClosed, DeadlineExceeded, OutcomeUnknown, Unavailable
from agentmem.client.statistics import Counters
from agentmem.client.topology import Topology
from agentmem.client.tracing import attempt_span
from agentmem.client.watch import TopologyWatch

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
RequestIn = TypeVar("RequestIn", bound=Message, contravariant=True)
ResponseOut = TypeVar("ResponseOut", bound=Message, covariant=True)
Metadata: TypeAlias = tuple[tuple[str, str], ...]


class Call(Protocol[RequestIn, ResponseOut]):
    """A method of a stub that sends one request and gets one answer."""

    def __call__(
        self, request: RequestIn, /, *, timeout: float, metadata: Metadata = ()
    ) -> Awaitable[ResponseOut]: ...


Method: TypeAlias = Callable[[Endpoint], Call[Request, Response]]
StreamMethod: TypeAlias = Callable[[Endpoint], grpc.aio.UnaryStreamMultiCallable[Request, Response]]

# One call of the API is sent to nodes this often at most. The waits in between end with its deadline.
MAX_ATTEMPTS = 100
# The wait after every node was tried, the first time and at most. A change of the topology ends it early.
FIRST_WAIT_S = 0.05
MAX_WAIT_S = 1.0


class NotSent(Unavailable):
    """There is no connection, so nothing was sent."""


@dataclass(slots=True, eq=False)
class _Write:
    """A write that is on its way."""

    address: str
    call: Any
    is_ended: bool = False


class Calls:
    """What the calls of one client share.

    All of its state belongs to one event loop and changes only between awaits.

    Attributes:
        retries: bounds how much is sent again.
        counters: what was done besides the calls.
        epoch: the highest that any answer or topology has told of.
    """

    def __init__(
        self,
        contact_points: Sequence[str],
        *,
        rng: random.Random,
        on_change: Callable[[Topology | None, Topology], None],
    ) -> None:
        self.contact_points = contact_points
        self.rng = rng
        self.channels = Channels(contact_points)
        self.watch = TopologyWatch(self.channels, contact_points, rng=rng, on_change=on_change)
        self.retries = RetryBudget()
        self.counters = Counters()
        self.epoch = 0
        # As many as there are callers.
        self._writes: set[_Write] = set()
        self._closed = False

    async def close(self) -> None:
        """Ends every call with ClientClosed and closes the channels. Does nothing the second time."""
        self._closed = True
        await self.watch.close()
        await self.channels.close()

    def begin(self) -> None:
        """Counts a call."""
        self.counters.calls += 1
        self.retries.called()

    async def call(
        self,
        endpoint: Endpoint,
        method: Method[Request, Response],
        request: Request,
        deadline_s: float,
        metadata: Metadata = (),
    ) -> Response:
        """One RPC, its errors translated."""
        timeout_s = max(0.0, deadline_s - time.monotonic())
        address = endpoint.address
        with attempt_span(request, address) as marks, self.translated(address):
            response = await method(endpoint)(request, timeout=timeout_s, metadata=(*metadata, *marks))
        self.learn(response)
        return response

    async def write(
        self,
        endpoint: Endpoint,
        method: Method[Request, Response],
        request: Request,
        deadline_s: float,
        metadata: Metadata,
    ) -> Response:
        """One RPC to the writer, which ends when a promotion makes another node the writer.

        Raises:
            Unavailable: WRITER_REPLACED; whether it was done is not known.
        """
        timeout_s = max(0.0, deadline_s - time.monotonic())
        address = endpoint.address
        with attempt_span(request, address) as marks, self.translated(address):
            call = method(endpoint)(request, timeout=timeout_s, metadata=(*metadata, *marks))
            write = _Write(address, call)
            self._writes.add(write)
            try:
                response: Response = await write.call
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not write.is_ended or (task is not None and task.cancelling()):
                    raise
                raise Unavailable(
                    f"{address} did not answer, and is the writer no more", reason="WRITER_REPLACED"
                ) from None
            finally:
                self._writes.discard(write)
        self.learn(response)
        return response

    def end_writes(self, address: str) -> None:
        """Ends the writes that are on their way to a node that was replaced as the writer."""
        for write in self._writes:
            if write.address == address:
                write.is_ended = True
                write.call.cancel()

    def learn(self, answer: Any) -> None:
        """Keeps the epoch of an answer, if it has one."""
        self.epoch = max(self.epoch, getattr(answer, "epoch", 0))

    async def received(self, address: str, call: grpc.aio.UnaryStreamCall[Any, Response]) -> Response | None:
        """The next message of a stream; None at its end."""
        with self.translated(address):
            message = await call.read()
        return None if message is grpc.aio.EOF else cast(Response, message)

    async def pause(self, rounds: int, deadline_s: float) -> None:
        """Waits before the next round, until the topology changes, or until the deadline."""
        wait_s = selection.backoff_s(rounds, first_s=FIRST_WAIT_S, cap_s=MAX_WAIT_S, rng=self.rng)
        await self.watch.wait_for_change(min(wait_s, max(0.0, deadline_s - time.monotonic())))

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
                failure = late(address)
            raise failure from error
        except asyncio.CancelledError:
            # Closing a channel cancels its calls; the caller's task itself was not cancelled.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise _closed() from None
            raise


async def connect(endpoint: Endpoint, deadline_s: float) -> None:
    """Waits for the connection.

    Raises:
        NotSent: there was none in time.
    """
    timeout_s = min(CONNECT_TIMEOUT_S, max(0.0, deadline_s - time.monotonic()))
    if not await endpoint.connected(timeout_s):
        raise NotSent("could not connect", reason="NOT_CONNECTED")


def late(address: str) -> DeadlineExceeded:
    """The error when a node takes too long."""
    return DeadlineExceeded(f"{address} did not answer in time")


def _closed() -> ClientClosed:
    return ClientClosed("the client was closed during the call")


def nobody_answered(
    problem: str,
    said: Mapping[str, str],
    nobody: str,
    timeout_s: float,
    sent: int,
    *,
    out_of_retries: bool = False,
) -> Unavailable:
    """The error when no node could do it. ``nobody``: what to say when none was asked."""
    budget = "; retries had to wait, for they are a share of the calls" if out_of_retries else ""
    return Unavailable(
        f"{problem} {_bound(timeout_s, sent)}{budget}; {f'tried {_joined(said)}' if said else nobody}",
        reason="NO_NODE_AVAILABLE",
        metadata={"retry_budget": "empty"} if out_of_retries else {},
        attempts=said,
    )


def unanswered(
    said: Mapping[str, str], timeout_s: float, sent: int, request_id: str, *, out_of_retries: bool = False
) -> OutcomeUnknown:
    """The error when it is not known whether a write was done."""
    budget = "; retries had to wait, for they are a share of the calls" if out_of_retries else ""
    return OutcomeUnknown(
        "the write may or may not have been done: "
        f"no answer {_bound(timeout_s, sent)}{budget}; {_joined(said)}",
        reason="OUTCOME_UNKNOWN",
        metadata={"request_id": request_id} if request_id else {},
        attempts=said,
    )


def _bound(timeout_s: float, sent: int) -> str:
    return f"within {timeout_s:g} s" if sent < MAX_ATTEMPTS else f"in {sent} attempts"


def _joined(said: Mapping[str, str]) -> str:
    return "; ".join(f"{address}: {message}" for address, message in said.items())
