"""Asking and telling the other nodes of the cluster, each at its address, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import grpc

from agentmem.core.serving import CHANNEL_OPTIONS
from agentmem.v1 import cluster_pb2, cluster_pb2_grpc

PEER_TIMEOUT_S = 1.0

A = TypeVar("A")


async def ask_nodes(addresses: Iterable[str]) -> dict[str, cluster_pb2.GetNodeResponse]:
    """What each node says of itself, by address, without those that do not answer in time."""

    async def ask(channel: grpc.aio.Channel) -> cluster_pb2.GetNodeResponse:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        return await stub.GetNode(cluster_pb2.GetNodeRequest(), timeout=PEER_TIMEOUT_S)

    return await _answers(addresses, ask)


async def tell_nodes(
    addresses: Iterable[str], request: cluster_pb2.FollowWriterRequest
) -> dict[str, cluster_pb2.FollowWriterResponse]:
    """Tells each node of a writer; what it says to that, without those that do not answer in time."""

    async def tell(channel: grpc.aio.Channel) -> cluster_pb2.FollowWriterResponse:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        return await stub.FollowWriter(request, timeout=PEER_TIMEOUT_S)

    return await _answers(addresses, tell)


async def _answers(
    addresses: Iterable[str], call: Callable[[grpc.aio.Channel], Awaitable[A]]
) -> dict[str, A]:
    async def on(address: str) -> A | None:
        async with grpc.aio.insecure_channel(address, options=list(CHANNEL_OPTIONS)) as channel:
            try:
                return await call(channel)
            except grpc.aio.AioRpcError:
                return None  # away, or no node of this cluster: who asks goes by those that answer

    asked = list(dict.fromkeys(addresses))
    answers = zip(asked, await asyncio.gather(*map(on, asked)), strict=True)
    return {address: answer for address, answer in answers if answer is not None}
