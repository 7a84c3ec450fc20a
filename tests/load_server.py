"""A server that knows what it was asked, and is slow or fails as told, for tests of the load generator."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection

from agentmem.bench.load.descriptors import compile_proto

PROTO = Path(__file__).parent / "data" / "load_test.proto"
SERVICE = "load.test.v1.EchoService"


@dataclass
class Received:
    """One call, as the server saw it."""

    texts: list[str]
    metadata: dict[str, str | bytes]
    arrived_s: float


@dataclass
class Behaviour:
    """What the server does with the calls, by their order of arrival from 0."""

    # The call that stops every call for a while: they wait for one another.
    stall_at: int | None = None
    stall_s: float = 0.0
    # While it is set, calls wait.
    held: bool = False
    failing: dict[int, grpc.StatusCode] = field(default_factory=dict)
    replies: int = 3


class LoadServer:
    """An asyncio server in a thread of its own."""

    def __init__(
        self, behaviour: Behaviour | None = None, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self._credentials = credentials
        self.received: list[Received] = []
        self.answered = 0
        self.under_way = 0
        self.most_under_way = 0
        self.address = ""
        self.files = compile_proto(str(PROTO), [])
        pool = DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(self.files).file:
            pool.AddSerializedFile(file.SerializeToString())
        self._pool = pool
        self.request = GetMessageClass(pool.FindMessageTypeByName("load.test.v1.EchoRequest"))
        self._response = GetMessageClass(pool.FindMessageTypeByName("load.test.v1.EchoResponse"))
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load-server")

    def __enter__(self) -> LoadServer:
        self._thread.start()
        assert self._started.wait(30.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(30.0)
        assert not self._thread.is_alive()

    def release(self) -> None:
        """Lets held calls go on."""
        self.behaviour.held = False
        self._loop.call_soon_threadsafe(self._free.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._ending, self._free, self._turn = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        server = grpc.aio.server()
        handlers: dict[str, Any] = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Repeat": grpc.unary_stream_rpc_method_handler(self._repeat),
            "Collect": grpc.stream_unary_rpc_method_handler(self._collect),
            "Converse": grpc.stream_stream_rpc_method_handler(self._converse),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        reflection.enable_server_reflection([SERVICE, reflection.SERVICE_NAME], server, self._pool)
        if self._credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", self._credentials)
        await server.start()
        self.address = f"127.0.0.1:{port}"
        self._started.set()
        await self._ending.wait()
        self._free.set()
        await server.stop(0)

    async def _note(self, messages: list[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """Notes the call, waits or fails as told, and says the answer."""
        number = len(self.received)
        texts = [self.request.FromString(message).text for message in messages]  # type: ignore[attr-defined]
        metadata = dict(context.invocation_metadata() or ())
        self.received.append(Received(texts, metadata, time.monotonic()))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if number in self.behaviour.failing:
                await context.abort(self.behaviour.failing[number], "as told")
            if self.behaviour.held:
                await self._free.wait()
            async with self._turn:
                if number == self.behaviour.stall_at:
                    await asyncio.sleep(self.behaviour.stall_s)
        finally:
            self.under_way -= 1
        self.answered += 1
        return self._response(text=",".join(texts)).SerializeToString()

    async def _echo(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return await self._note([request], context)

    async def _repeat(
        self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        answer = await self._note([request], context)
        for _ in range(self.behaviour.replies):
            yield answer

    async def _collect(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> bytes:
        return await self._note([request async for request in requests], context)

    async def _converse(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        answer = await self._note([request async for request in requests], context)
        yield answer
