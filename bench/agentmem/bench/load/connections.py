"""The generator's connections: each a TCP connection of its own, in turn to each host."""

import asyncio
from collections.abc import Iterable

import grpc
import grpc.aio

from agentmem.bench.load.durations import show_duration
from agentmem.bench.load.errors import LoadError
from agentmem.bench.load.options import Options

Arguments = list[tuple[str, str | int]]


def channel_arguments(options: Options) -> Arguments:
    arguments: Arguments = [
        # Otherwise channels with the same target share one connection.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    if options.authority:
        arguments.append(("grpc.default_authority", options.authority))
    if options.cname:
        arguments.append(("grpc.ssl_target_name_override", options.cname))
    if options.keepalive_ns:
        arguments.append(("grpc.keepalive_time_ms", max(options.keepalive_ns // 10**6, 1)))
        arguments.append(("grpc.keepalive_permit_without_calls", 1))
    return arguments


def credentials(options: Options) -> grpc.ChannelCredentials | None:
    """None for plaintext. Raises LoadError naming the file that cannot be read."""
    if options.insecure:
        return None

    def read(path: str, option: str) -> bytes | None:
        if not path:
            return None
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise LoadError(f"{option}: {error}") from error

    return grpc.ssl_channel_credentials(
        read(options.cacert, "cacert"), read(options.key, "key"), read(options.cert, "cert")
    )


def blocking_channel(options: Options) -> grpc.Channel:
    """A channel to the first host, for what is asked before the run."""
    secure = credentials(options)
    if secure is None:
        return grpc.insecure_channel(options.hosts[0], channel_arguments(options))
    return grpc.secure_channel(options.hosts[0], secure, channel_arguments(options))


async def open_channels(options: Options, numbers: Iterable[int]) -> tuple[list[grpc.aio.Channel], list[int]]:
    """Connected channels with the index of the host of each. Raises LoadError when a host does not answer."""
    secure, arguments = credentials(options), channel_arguments(options)
    compression = grpc.Compression.Gzip if options.enable_compression else None
    channels, endpoints = [], []
    for number in numbers:
        endpoint = number % len(options.hosts)
        host = options.hosts[endpoint]
        if secure is None:
            channel = grpc.aio.insecure_channel(host, arguments, compression)
        else:
            channel = grpc.aio.secure_channel(host, secure, arguments, compression)
        channels.append(channel)
        endpoints.append(endpoint)
    for channel, endpoint in zip(channels, endpoints, strict=True):
        try:
            await asyncio.wait_for(channel.channel_ready(), options.connect_timeout_ns / 1e9 or None)
        except TimeoutError as error:
            for one in channels:
                await one.close()
            timeout = show_duration(options.connect_timeout_ns)
            raise LoadError(f"host: no connection to {options.hosts[endpoint]} within {timeout}") from error
    return channels, endpoints
