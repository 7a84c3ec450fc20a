"""The proxy does to a connection what it is asked to, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from calls import Memory, add, get
from cluster import Cluster, Stubs, wait_until
from fault_proxy import DATA, FaultProxy, Faults, Frame, Ruling, Then, flipped, take_messages

from agentmem.v1 import cluster_pb2, reader_pb2, writer_pb2

ENDLESS_BYTES = 100 * 1024**2


@contextmanager
def stubs_behind(proxy: FaultProxy) -> Iterator[Stubs]:
    stubs = Stubs(proxy.address)
    yield stubs
    stubs.channel.close()


@contextmanager
def echo_server() -> Iterator[str]:
    """Sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

        def echo(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(65536):
                        connection.sendall(data)
                except ConnectionError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def connected(proxy: FaultProxy) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_messages_are_put_together_from_frames() -> None:
    first, second = b"\0\0\0\0\5hello", b"\0\0\0\0\0"
    unfinished = bytearray()
    assert take_messages(unfinished, first[:3]) == []
    assert take_messages(unfinished, first[3:] + second + first[:7]) == [b"hello", b""]
    assert take_messages(unfinished, first[7:]) == [b"hello"]
    assert not unfinished


def test_frames_and_messages_of_real_calls_are_seen(shared_cluster: Cluster, namespace: str) -> None:
    asked: list[Frame] = []
    answered: list[Frame] = []

    def faults(number: int) -> Faults:
        return Faults(to_client=answered.append, to_server=asked.append)

    # Larger than a frame, so that its message is spread over several.
    content = "x" * 250_000
    with FaultProxy(shared_cluster.writer.address, faults) as proxy:
        with stubs_behind(proxy) as stubs:
            add(stubs, namespace, Memory(id="large", content=content))
            answer = get(stubs, namespace, "large")
        assert proxy.accepted == 1
    for frames, kind in ((asked, writer_pb2.AddMemoriesRequest), (answered, reader_pb2.GetMemoriesResponse)):
        (message,) = [
            message for frame in frames for message in frame.messages if content.encode() in message
        ]
        assert kind.FromString(message).memories[0].content == content
        assert sum(frame.kind == DATA for frame in frames) > 2
    assert reader_pb2.GetMemoriesResponse.FromString(message) == answer


def test_a_flipped_bit_and_a_cut_come_where_they_are_asked(shared_cluster: Cluster) -> None:
    def spoil(frame: Frame) -> Ruling | None:
        if not frame.messages:
            return None
        at = frame.raw.index(b"writer")
        return Ruling(flipped(frame.raw, 8 * at), Then.CLOSE, pause_s=1.0)

    request = cluster_pb2.GetTopologyRequest()
    with (
        FaultProxy(shared_cluster.writer.address, lambda number: Faults(to_client=spoil)) as proxy,
        stubs_behind(proxy) as stubs,
    ):
        watch = stubs.cluster.WatchTopology(cluster_pb2.WatchTopologyRequest(), timeout=10)
        assert b"vriter" in next(iter(watch)).SerializeToString()
        with pytest.raises(grpc.RpcError) as cut:
            next(iter(watch))
        assert cut.value.code() == grpc.StatusCode.UNAVAILABLE
        proxy.faults = lambda number: Faults()

        def is_well() -> bool:
            try:
                topology = stubs.cluster.GetTopology(request, timeout=10, wait_for_ready=True).topology
            except grpc.RpcError:
                return False  # it was sent on the connection that was cut
            assert b"vriter" not in topology.SerializeToString()
            return True

        wait_until(is_well, "the next connection works")


@pytest.mark.parametrize("reset", [True, False])
def test_connections_end_with_a_reset_or_in_order(reset: bool) -> None:
    with echo_server() as address, FaultProxy(address) as proxy, connected(proxy) as line:
        line.sendall(b"hello")
        assert line.recv(100) == b"hello"
        proxy.cut(reset=reset)
        if reset:
            with pytest.raises(ConnectionResetError):
                line.recv(100)
        else:
            assert line.recv(100) == b""


def test_a_slow_line_is_slow_and_loses_nothing() -> None:
    sent = bytes(range(256)) * 160
    with (
        echo_server() as address,
        FaultProxy(address, lambda number: Faults(delay_s=0.1, bytes_per_s=200_000)) as proxy,
        connected(proxy) as line,
    ):
        began_s = time.monotonic()
        line.sendall(sent)
        received = bytearray()
        while len(received) < len(sent):
            received += line.recv(65536)
        assert received == sent
        # 0.1 s there and back, and the pieces one after the other.
        assert time.monotonic() - began_s > 0.2 + len(sent) / 200_000 / 2


def test_a_half_open_connection_says_nothing_and_stays() -> None:
    with echo_server() as address, FaultProxy(address) as proxy, connected(proxy) as line:
        line.sendall(b"hello")
        assert line.recv(100) == b"hello"
        proxy.swallow()
        proxy.faults = lambda number: Faults(is_mute=True)
        with connected(proxy) as mute:
            for each in (line, mute):
                each.sendall(b"still there?")
                each.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    each.recv(100)


def test_a_line_that_is_not_read_holds_its_sender_back() -> None:
    with echo_server() as address, FaultProxy(address) as proxy, connected(proxy) as line:
        proxy.stop_reading()
        line.settimeout(0.2)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < ENDLESS_BYTES:
                sent += line.send(bytes(65536))
        assert sent < ENDLESS_BYTES
        line.settimeout(10)
        proxy.go_on()
        received = 0
        while received < sent:
            received += len(line.recv(65536))
        assert received == sent


def test_a_refused_connection() -> None:
    with echo_server() as address, FaultProxy(address) as proxy:
        proxy.refuse()

        def refused() -> bool:
            try:
                connected(proxy).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(refused, "connections are refused")
        proxy.accept()
        with connected(proxy) as line:
            line.sendall(b"hello")
            assert line.recv(100) == b"hello"


def test_a_rule_that_fails_fails_the_test() -> None:
    def fail(frame: Frame) -> Ruling | None:
        raise ValueError("a mistake in a rule")

    with echo_server() as address:
        proxy = FaultProxy(address, lambda number: Faults(to_client=fail))
        with connected(proxy) as line:
            line.sendall(bytes(9))
            assert line.recv(100) == b""
        with pytest.raises(ValueError, match="a mistake"):
            proxy.__exit__(None, None, None)
