"""Taking a call to a node that can answer it: retries, redirects, and their bounds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from agentmem.client import errors, selection
from agentmem.client.channels import CONNECT_TIMEOUT_S, Channels, Endpoint
from agentmem.client.errors import AgentMemError, ClientClosed, DeadlineExceeded, OutcomeUnknown, Unavailable
from agentmem.client.selection import IDLE, Load, Route, Verdict
from agentmem.client.topology import Topology, newly_serving
from agentmem.client.watch import TopologyWatch

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Method: TypeAlias = Callable[[Endpoint], grpc.aio.UnaryUnaryMultiCallable[Request, Response]]

# One call of the API is sent to nodes this often at most. The waits in between end with its deadline.
MAX_ATTEMPTS = 100
# The wait after every node was tried, the first time and at most. A change of the topology ends it early.
FIRST_WAIT_S = 0.05
MAX_WAIT_S = 1.0


class NotSent(Unavailable):
    """There is no connection, so nothing was sent."""


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

        A read changes nothing, so it goes to node after node, and round after round, until the deadline.

        Raises:
            Unavailable: no node could answer within the deadline and MAX_ATTEMPTS.
            AgentMemError: what a node answered, where another node would not answer otherwise.
        """
        deadline_s = time.monotonic() + timeout_s
        tried: set[str] = set()
        said: dict[str, str] = {}
        rounds = sent = 0
        refusal: AgentMemError | None = None
        while sent < MAX_ATTEMPTS:
            topology = await self._watch.current(deadline_s)
            now_s = time.monotonic()
            if now_s >= deadline_s:
                break
            # After a refusal only another replica is asked: the writer's work is to write.
            groups = Route.REPLICAS if refusal is not None else route
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
                return await self._ask(node.address, method, request, attempt_deadline_s, deadline_s)
            except AgentMemError as error:
                said[node.address] = error.message
                if not isinstance(error, NotSent):
                    sent += 1
                verdict = selection.verdict(error)
                if verdict is Verdict.FINAL or (
                    verdict is Verdict.ANOTHER_REPLICA_ONCE and refusal is not None
                ):
                    raise
                if verdict is Verdict.ANOTHER_REPLICA_ONCE:
                    refusal = error
        raise _nobody_answered("no node could answer", said, "no replica is serving", timeout_s, sent)

    async def write(
        self, method: Method[Request, Response], request: Request, *, timeout_s: float
    ) -> Response:
        """The writer's answer.

        A write may be repeated only when it was surely not done: it was never sent, or the server says so
        (SHUTTING_DOWN, and NOT_WRITER, which names the writer and is followed once). What was cut off after
        it was sent may be on disk.

        Raises:
            Unavailable: the write was not done; the writer could not be reached within the deadline.
            OutcomeUnknown: the connection broke after the write was sent.
            AgentMemError: what the writer answered.
        """
        deadline_s = time.monotonic() + timeout_s
        said: dict[str, str] = {}
        redirected_to = ""
        redirected = False
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
                except errors.FailedPrecondition as error:
                    redirected_to = error.metadata.get("writer_address", "")
                    if error.reason != "NOT_WRITER" or not redirected_to or redirected:
                        raise
                    redirected = True
                    continue
                except NotSent as error:
                    said[address] = error.message
                except Unavailable as error:
                    if error.reason != "SHUTTING_DOWN":
                        raise
                    said[address] = error.message
                    sent += 1
            await self._pause(rounds, deadline_s)
            rounds += 1
        raise _nobody_answered(
            "the write was not done: no writer took it", said, "the cluster has no writer", timeout_s, sent
        )

    async def _ask(
        self,
        address: str,
        method: Method[Request, Response],
        request: Request,
        attempt_deadline_s: float,
        deadline_s: float,
    ) -> Response:
        """One try of a read, and what it says about the node's load."""
        with self._channels.use(address) as endpoint:
            self._loads[address] = selection.started(self._loads.get(address, IDLE), now_s=time.monotonic())
            ended = selection.abandoned
            try:
                await _connect(endpoint, attempt_deadline_s)
                sent_at_s = time.monotonic()
                try:
                    response = await self._call(endpoint, method, request, attempt_deadline_s)
                except DeadlineExceeded as error:
                    if attempt_deadline_s < deadline_s:
                        raise Unavailable(error.message, reason="NO_ANSWER") from error
                    raise
                except AgentMemError as error:
                    if selection.verdict(error) is not Verdict.ANOTHER_NODE:
                        ended = partial(selection.answered, sent_at_s=sent_at_s)
                    raise
                ended = partial(selection.answered, sent_at_s=sent_at_s)
                return response
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
        """One try of a write; tells an unknown outcome from a certain one."""
        with self._channels.use(address) as endpoint:
            await _connect(endpoint, deadline_s)
            try:
                return await self._call(endpoint, method, request, deadline_s)
            except DeadlineExceeded as error:
                raise DeadlineExceeded(
                    f"{error.message}; the write may or may not have been done",
                    reason=error.reason,
                    metadata=error.metadata,
                ) from error
            except Unavailable as error:
                # A commit that failed may have reached the disk, as may a write whose answer was lost.
                if errors.from_server(error) and error.reason != "COMMIT_FAILED":
                    raise
                raise OutcomeUnknown(
                    f"the write may or may not have been done: {address} was lost before it answered"
                    f" ({error.message})",
                    reason="OUTCOME_UNKNOWN",
                    metadata=error.metadata,
                    attempts={address: error.message},
                ) from error

    async def _call(
        self,
        endpoint: Endpoint,
        method: Method[Request, Response],
        request: Request,
        deadline_s: float,
    ) -> Response:
        """One RPC, its errors translated."""
        try:
            return await method(endpoint)(request, timeout=max(0.0, deadline_s - time.monotonic()))
        except grpc.aio.AioRpcError as error:
            failure = errors.from_rpc_error(error)
            if isinstance(failure, DeadlineExceeded) and not errors.from_server(failure):
                failure = DeadlineExceeded(f"{endpoint.address} did not answer in time")
            raise failure from error
        except asyncio.CancelledError:
            # Closing a channel cancels its calls; the caller's task itself was not cancelled.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise ClientClosed("the client was closed during the call") from None
            raise

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


def _nobody_answered(
    problem: str, said: Mapping[str, str], nobody: str, timeout_s: float, sent: int
) -> Unavailable:
    tried = "; ".join(f"{address}: {message}" for address, message in said.items())
    bound = f"within {timeout_s:g} s" if sent < MAX_ATTEMPTS else f"in {sent} attempts"
    return Unavailable(
        f"{problem} {bound}; {f'tried {tried}' if tried else nobody}",
        reason="NO_NODE_AVAILABLE",
        attempts=said,
    )
