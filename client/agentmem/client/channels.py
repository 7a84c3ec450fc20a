"""The network: one gRPC channel for each address, kept while it is wanted or in use."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import grpc

from agentmem.v1 import cluster_pb2_grpc, reader_pb2_grpc, replication_pb2_grpc, writer_pb2_grpc

# How long a connection may take before the node counts as unreachable.
CONNECT_TIMEOUT_S = 2.0

_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # A restarted node is noticed within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1000)),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Retries go to other nodes, of which a channel knows nothing; no DNS record shall bring in its own.
    ("grpc.service_config_disable_resolution", 1),
    # The nodes of a cluster are neighbours; the proxy for the web is not on the way to them.
    ("grpc.enable_http_proxy", 0),
)


class Endpoint:
    """A node's address with its channel and stubs. Made on the event loop that uses it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self.reader = reader_pb2_grpc.ReaderServiceStub(self.channel)
        self.writer = writer_pb2_grpc.WriterServiceStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(self.channel)
        self.replication = replication_pb2_grpc.ReplicationServiceStub(self.channel)
        self.users = 0

    async def connected(self, timeout_s: float) -> bool:
        """Whether there is a connection, after waiting for one if need be.

        Asked before a call is sent, for what is not sent is surely not done.
        """
        # An unconnected channel is idle, and the question itself makes it connect.
        state = self.channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
                    await self.channel.wait_for_state_change(state)
                    state = self.channel.get_state(try_to_connect=True)
        except TimeoutError:
            return False
        return state is grpc.ChannelConnectivity.READY


class Channels:
    """The channels of one client, by address."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = frozenset(wanted)
        self._endpoints: dict[str, Endpoint] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Channels({', '.join(sorted(self._endpoints))})"

    @contextmanager
    def use(self, address: str) -> Iterator[Endpoint]:
        """The channel of an address, which stays open at least as long as it is in use."""
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            endpoint = self._endpoints[address] = Endpoint(address)
        endpoint.users += 1
        try:
            yield endpoint
        finally:
            endpoint.users -= 1
            self._close_unless_needed(endpoint)

    def want(self, addresses: Collection[str]) -> None:
        """Keeps these channels from now on; the others are closed as soon as nobody uses them."""
        self._wanted = frozenset(addresses)
        for endpoint in tuple(self._endpoints.values()):
            self._close_unless_needed(endpoint)

    async def close(self) -> None:
        """Closes every channel at once; calls that are on their way are cancelled."""
        endpoints = tuple(self._endpoints.values())
        self._wanted = frozenset()
        self._endpoints.clear()
        await asyncio.gather(*(endpoint.channel.close(None) for endpoint in endpoints), *self._closing)

    def _close_unless_needed(self, endpoint: Endpoint) -> None:
        if endpoint.users or endpoint.address in self._wanted:
            return
        # Not there when the client itself was closed meanwhile.
        if self._endpoints.pop(endpoint.address, None) is not None:
            task = asyncio.create_task(endpoint.channel.close(None))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
