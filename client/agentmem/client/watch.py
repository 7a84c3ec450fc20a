"""Following the topology: a stream from one node, and when it breaks, from another."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import grpc

from agentmem.client import selection, topology
from agentmem.client.channels import CONNECT_TIMEOUT_S, Channels
from agentmem.client.errors import ClientClosed, Unavailable
from agentmem.client.topology import Topology
from agentmem.v1 import cluster_pb2

# A node has to send its first topology within this time.
FIRST_ANSWER_TIMEOUT_S = 5.0
# Nodes send it every two seconds.
SILENCE_TIMEOUT_S = 5.0
CANCEL_AGAIN_S = 0.5
# A stream that breaks sooner counts as a failure; after a round of failures there is a wait.
STEADY_S = 1.0
FIRST_WAIT_S = 0.1
MAX_WAIT_S = 2.0


class TopologyWatch:
    """The last known topology, kept up to date by one background task and in use while no node answers."""

    def __init__(
        self,
        channels: Channels,
        contact_points: Sequence[str],
        *,
        rng: random.Random,
        on_change: Callable[[Topology | None, Topology], None],
    ) -> None:
        self._channels = channels
        self._contact_points = contact_points
        self._rng = rng
        self._on_change = on_change
        self._known: Topology | None = None
        # What each node asked said last, by address; at most one entry for each node of the last round.
        self._errors: dict[str, str] = {}
        # Set, and replaced by a new one, at each change.
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begins to follow, on the running event loop. Does nothing the second time."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="agentmem topology watch")
            # Those who wait shall hear of its end too.
            self._task.add_done_callback(lambda _: self._wake())

    async def close(self) -> None:
        """Stops following; whoever waits gets ClientClosed."""
        self._closed = True
        # Once is not enough: gRPC may take the cancellation for one of the call, and raise the call's error.
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_AGAIN_S)
        self._wake()

    async def current(self, deadline_s: float) -> Topology:
        """The last known topology; waits for the first one until the deadline (of time.monotonic).

        Raises:
            Unavailable: no node sent one in time.
            ClientClosed: the watch was closed.
        """
        while True:
            if self._closed:
                raise ClientClosed("the client is closed")
            if self._task is not None and self._task.done():
                self._task.result()
            if self._known is not None:
                return self._known
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                said = "; ".join(f"{address}: {error}" for address, error in self._errors.items())
                raise Unavailable(
                    f"no node sent the topology of the cluster in time; {said or 'none has answered yet'}",
                    reason="NO_NODE_AVAILABLE",
                    attempts=self._errors,
                )
            await self.wait_for_change(remaining_s)

    async def wait_for_change(self, timeout_s: float) -> None:
        """Returns when the topology changes, or after the time given."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self) -> None:
        failures = 0
        last = ""
        while True:
            order = topology.watch_order(self._known, self._contact_points, last)
            self._errors = {address: self._errors[address] for address in order if address in self._errors}
            for address in order:
                last = address
                if await self._follow(address):
                    failures = 0
                    break
            else:
                wait_s = selection.backoff_s(failures, first_s=FIRST_WAIT_S, cap_s=MAX_WAIT_S, rng=self._rng)
                failures += 1
                await asyncio.sleep(wait_s)

    async def _follow(self, address: str) -> bool:
        """Follows one node until it breaks; whether that went well for a while."""
        with self._channels.use(address) as endpoint:
            if not await endpoint.connected(CONNECT_TIMEOUT_S):
                self._errors[address] = "could not connect"
                return False
            started_s = time.monotonic()
            call = endpoint.cluster.WatchTopology(cluster_pb2.WatchTopologyRequest())
            try:
                async with asyncio.timeout(FIRST_ANSWER_TIMEOUT_S):
                    response = await call.read()
                while isinstance(response, cluster_pb2.WatchTopologyResponse):
                    self._accept(topology.from_proto(response.topology))
                    self._errors.pop(address, None)
                    async with asyncio.timeout(SILENCE_TIMEOUT_S):
                        response = await call.read()
                self._errors[address] = "ended the stream"
            except TimeoutError:
                self._errors[address] = "sent no topology in time"
                return False
            except grpc.aio.AioRpcError as error:
                self._errors[address] = f"{error.code().name}: {error.details()}"
            except topology.Refused as refusal:
                self._errors[address] = str(refusal)
                return False
            finally:
                call.cancel()
            return time.monotonic() - started_s >= STEADY_S

    def _accept(self, received: Topology) -> None:
        before, self._known = self._known, topology.updated(self._known, received)
        if self._known != before:
            self._on_change(before, self._known)
            self._wake()
