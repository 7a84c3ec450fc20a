"""A relay that understands gRPC: it passes on the calls of replicas, and may change the stream of the log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

import grpc

SUBSCRIBE = "/agentmem.v1.ReplicationService/Subscribe"
STREAMS = (
    SUBSCRIBE,
    "/agentmem.v1.ReplicationService/FetchSnapshot",
    "/agentmem.v1.ClusterService/WatchTopology",
)
TIMEOUT_S = 10.0

# Gets the messages of one Subscribe, and the number of that call, from 0; gives those to be passed on.
Change = Callable[[AsyncIterator[bytes], int], AsyncIterator[bytes]]


class Relay(grpc.GenericRpcHandler):
    """Serves on a free port of loopback, as bytes, what the target serves.

    Attributes:
        asked: the requests of the Subscribe calls so far.
    """

    def __init__(self, target: str, change: Change) -> None:
        self.address = ""
        self.asked: list[bytes] = []
        self._change = change
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(target), self._loop).result(TIMEOUT_S)

    async def _start(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers([self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        method = str(handler_call_details.method)

        channel: Any = self._channel

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            messages: AsyncIterator[bytes] = channel.unary_stream(method)(request)
            if method == SUBSCRIBE:
                self.asked.append(request)
                messages = self._change(messages, len(self.asked) - 1)
            try:
                async for message in messages:
                    yield message
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")

        async def unary(request: bytes, context: Any) -> Any:
            try:
                return await channel.unary_unary(method)(request)
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")

        if method in STREAMS:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def stop() -> None:
            await self._server.stop(None)
            await self._channel.close()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()
