"""The gRPC server that writer and replica are built on: errors, health, reflection, an orderly end."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc_health.v1 import _async as health_async
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_async
from grpc_reflection.v1alpha import reflection, reflection_pb2

from agentmem.core.call_metrics import CallMetrics, ObservedCall
from agentmem.core.errors import InvalidArgument, answerable

MAX_REQUEST_BYTES = 32 * 1024 * 1024
# More than a request, so that what one request wrote fits one frame to a replica, made embeddings included.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
KEEPALIVE_INTERVAL_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000
# A replica hears from its writer each second. A connection on which nothing comes, not even the answer to a
# ping, is dead, and a call on it would wait: it is given up after the sum of these.
REPLICA_KEEPALIVE_INTERVAL_MS = 3_000
REPLICA_KEEPALIVE_TIMEOUT_MS = 3_000
REPLICA_WINDOW_BYTES = 2 * 1024 * 1024
# A new connection has to be made within the first; attempts wait at most the second.
CONNECT_TIMEOUT_MS = 3_000
MAX_RECONNECT_WAIT_MS = 2_000
# Peers may ping this often; grpc's own limit of five minutes would cut those that watch a quiet stream.
MIN_PING_INTERVAL_MS = 2_000
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"

# Of a replica's channel to its writer.
CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", REPLICA_KEEPALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", REPLICA_KEEPALIVE_TIMEOUT_MS),
    # Without this a ping may stay without an answer for a minute, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", REPLICA_KEEPALIVE_TIMEOUT_MS),
    # grpc's probes of the line are pings, too; while the answer to one is missing, it sends no other. What
    # they are for, how much may be on its way, is set instead.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", REPLICA_WINDOW_BYTES),
    # grpc's own waits grow to two minutes, for which a writer that is there again would not be found.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_WAIT_MS),
    # The nodes of a cluster are neighbours; the proxy for the web is not on the way to them.
    ("grpc.enable_http_proxy", 0),
)
_SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two processes on one port would each get half of the calls.
    ("grpc.so_reuseport", 0),
)

# Takes the method of a call and its metadata.
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
CallCheck: TypeAlias = Callable[[str, Metadata], None]


class ListenError(Exception):
    """The address cannot be listened on."""


class _ObservedServices:
    """Registers methods so that each call is counted, timed, and ended with a Status when it raised.

    No interceptor: grpc looks each call up anew for those, which costs as much as a fifth of an empty call.

    Args:
        calls: what is counted.
        check_call: called with the method and the metadata of each call; may raise.
    """

    def __init__(self, server: grpc.aio.Server, calls: CallMetrics, check_call: CallCheck | None) -> None:
        self._server = server
        self._calls = calls
        self._check_call = check_call

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Generated code registers each method twice, for servers that know but one of the ways."""

    def add_registered_method_handlers(self, service_name: str, handlers: Mapping[str, Any]) -> None:
        observed = {name: self._observed(f"/{service_name}/{name}", each) for name, each in handlers.items()}
        # Not as registered ones: for each call that comes, grpc would wait anew for the next of every method.
        generic = grpc.method_handlers_generic_handler(service_name, observed)
        self._server.add_generic_rpc_handlers((generic,))

    def _observed(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        parse = handler.request_deserializer
        if handler.request_streaming:

            async def collect(messages: AsyncIterator[bytes], context: Any) -> bytes:
                call, metadata = self._begin(method, context, is_stream=True)

                async def requests() -> AsyncIterator[Any]:
                    async for data in messages:
                        self._check(method, metadata)
                        yield _parsed(parse, data)

                try:
                    answer: Message = await handler.stream_unary(requests(), context)
                    call.status = "OK"
                    return answer.SerializeToString()
                except Exception as error:
                    await _abort(context, error, call)
                finally:
                    call.end(context)

            return grpc.stream_unary_rpc_method_handler(collect)
        if not handler.response_streaming:

            async def unary(data: bytes, context: Any) -> bytes:
                call, metadata = self._begin(method, context, is_stream=False)
                try:
                    self._check(method, metadata)
                    call.request = _parsed(parse, data)
                    answer: Message | bytes = await handler.unary_unary(call.request, context)
                    call.status = "OK"
                    # Some put their answers together from stored bytes.
                    return answer if isinstance(answer, bytes) else answer.SerializeToString()
                except Exception as error:
                    await _abort(context, error, call)
                finally:
                    call.end(context)

            return grpc.unary_unary_rpc_method_handler(unary)

        async def stream(data: bytes, context: Any) -> AsyncIterator[bytes]:
            call, metadata = self._begin(method, context, is_stream=True)
            try:
                self._check(method, metadata)
                async for response in handler.unary_stream(_parsed(parse, data), context):
                    # As above.
                    yield response if isinstance(response, bytes) else response.SerializeToString()
                call.status = "OK"
            except Exception as error:
                await _abort(context, error, call)
            finally:
                call.end(context)

        return grpc.unary_stream_rpc_method_handler(stream)

    def _begin(self, method: str, context: Any, *, is_stream: bool) -> tuple[ObservedCall, Metadata]:
        metadata = context.invocation_metadata()
        return self._calls.begin(method, metadata, is_stream=is_stream), metadata

    def _check(self, method: str, metadata: Metadata) -> None:
        if self._check_call is not None:
            self._check_call(method, metadata)


def _parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """The request. Fields that this release does not know are refused: ignoring one may mean the opposite."""
    try:
        request = parse(data)
    except DecodeError as error:
        raise InvalidArgument("MALFORMED_REQUEST", f"the request cannot be parsed: {error}") from error
    request.DiscardUnknownFields()
    # Mostly the bytes come back as they were; where they do not, such as for maps, sizes tell.
    if request.SerializeToString() != data and request.ByteSize() != parse(data).ByteSize():
        raise InvalidArgument("UNKNOWN_FIELD", "the request has a field that this release does not know")
    return request


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], error: Exception, call: ObservedCall
) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        call.status = "UNKNOWN"
        raise error
    answer = answerable(error, call.method)
    call.status, call.reason = answer.code.name, answer.reason
    status: status_pb2.Status = answer.to_status()
    await context.abort(
        answer.code,
        answer.message,
        trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),),
    )


class GrpcServer:
    """A server for some services, with health (per service) and reflection (v1 and v1alpha).

    Attributes:
        address: as listened on.
        calls: what is counted of calls.
        is_serving: what health says.
    """

    def __init__(self, listen: str, calls: CallMetrics, check_call: CallCheck | None = None) -> None:
        """Binds ``host:port``; port 0 takes a free one. Raises ListenError."""
        self.calls = calls
        self.grpc = grpc.aio.server(options=list(_SERVER_OPTIONS))
        self._services = _ObservedServices(self.grpc, calls, check_call)
        try:
            self.port: int = self.grpc.add_insecure_port(listen)
        except RuntimeError as error:
            raise ListenError(f"cannot listen on {listen}: is the port in use?") from error
        if not self.port:
            raise ListenError(f"cannot listen on {listen}: is the port in use?")
        self.address = f"{listen.rpartition(':')[0]}:{self.port}"
        self.is_serving = False
        self._health = health_async.HealthServicer()
        self._service_names: list[str] = []

    def add(self, register: Callable[[Any, Any], None], servicer: object) -> None:
        """Serves a service of ours; ``register`` is its generated ``add_..._to_server``."""
        register(servicer, self._services)

    async def start(self, service_names: Sequence[str]) -> None:
        """Starts serving what was added; health says NOT_SERVING until ``set_serving``."""
        self._service_names = list(service_names)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        names = (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME, REFLECTION_V1)
        servicer = reflection_async.ReflectionServicer(names)
        _add_reflection(servicer, self.grpc)
        await self.set_serving(False)
        await self.grpc.start()

    async def set_serving(self, serving: bool) -> None:
        """Sets the health of the process and of each of its services."""
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._service_names):
            await self._health.set(name, status)
        if serving and not self.is_serving:
            # What is here now stays. Else each full collection would look at all of it, for 10 to 20 ms.
            gc.unfreeze()
            gc.collect()
            gc.freeze()
        self.is_serving = serving

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, lets those in flight end within ``grace_s``, then cancels them."""
        self.is_serving = False
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(grace_s)


def _add_reflection(servicer: Any, server: grpc.aio.Server) -> None:
    """Registers reflection under both of its names.

    v1 has the messages of v1alpha under another package; grpcio ships v1alpha only and grpcurl asks v1 first.
    """
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, REFLECTION_V1):
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})]
        )
