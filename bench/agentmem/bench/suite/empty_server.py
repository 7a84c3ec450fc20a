"""An empty gRPC call: what any call costs, whatever it does. Other calls are compared with it.

    python -m agentmem.bench.suite.empty_server

prints where it serves, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

import grpc

METHOD = "/agentmem.bench.Empty/Call"
_SERVICE, _, _NAME = METHOD[1:].partition("/")
_STOP_TIMEOUT_S = 10.0


class EmptyServer:
    """The server in a process of its own."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            raise RuntimeError(f"the empty server did not start: exit code {self._process.wait()}")
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class EmptyClient:
    """Calls it over one channel, as grpc.aio's own stubs do."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(METHOD)

    async def call(self, number: int) -> None:
        """One empty call; raises grpc.aio.AioRpcError."""
        await self._call(b"")

    async def close(self) -> None:
        await self._channel.close()


async def _answer(request: bytes, context: Any) -> bytes:
    return b""


async def _serve() -> None:
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {_NAME: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(_serve())
