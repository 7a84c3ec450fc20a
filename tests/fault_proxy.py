"""A way to a node that a test can spoil: a TCP proxy that knows HTTP/2 frames and the gRPC messages in them.

Each connection gets ``Faults`` of its own. A rule of a direction is shown one HTTP/2 frame after the other
and says what is passed on instead, and how the connection goes on; so a fault comes at an exact place:

    def cut_behind_the_first_message(frame: Frame) -> Ruling | None:
        return Ruling(frame.raw, Then.RESET) if frame.messages else None

    with FaultProxy(address, lambda number: Faults(to_client=cut_behind_the_first_message)) as proxy:
        ...  # clients use proxy.address
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

HEADER_BYTES = 9
PREFACE_BYTES = 24
DATA = 0
PADDED = 0x8
PIECE_BYTES = 16 * 1024
# What is on its way in a direction, with a delay and without.
MAX_LATE_PIECES = 256
MAX_PIECES = 4
SOCKET_BUFFER_BYTES = 64 * 1024
CLOSE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One HTTP/2 frame.

    Attributes:
        number: in its direction of its connection, from 0.
        kind: its type; DATA is 0.
        raw: all its bytes, the header of nine first.
        messages: the gRPC messages whose last byte is in it, without their five bytes of framing.
    """

    number: int
    kind: int
    stream_id: int
    raw: bytes
    messages: tuple[bytes, ...]


class Then(enum.Enum):
    """How a connection goes on."""

    GO_ON = enum.auto()
    CLOSE = enum.auto()  # both ends get a FIN
    RESET = enum.auto()  # both ends get a RST
    SWALLOW = enum.auto()  # open, but nothing comes through any more, in either direction


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is passed on in place of a frame, and what comes after it, a little later if need be.

    (gRPC forgets messages that nobody has taken yet when the connection ends.)
    """

    data: bytes
    then: Then = Then.GO_ON
    pause_s: float = 0.0


# None passes the frame on as it is.
Rule = Callable[[Frame], Ruling | None]


@dataclass(frozen=True, slots=True)
class Faults:
    """What one connection suffers.

    Attributes:
        to_client, to_server: the rule for the frames of a direction.
        delay_s: how late everything arrives, in both directions.
        bytes_per_s: how fast the line is, in each direction; None for as fast as it can.
        is_mute: it is accepted and never answered.
    """

    to_client: Rule | None = None
    to_server: Rule | None = None
    delay_s: float = 0.0
    bytes_per_s: float | None = None
    is_mute: bool = False


NO_FAULTS = Faults()


class FaultProxy:
    """Listens on a free port of loopback and leads to a node, through faults.

    Attributes:
        address: for those who shall suffer.
        faults: of the connection with a number, counted from 0; may be changed for later connections.
        target: the node's address; may be changed for later connections.
    """

    def __init__(self, target: str, faults: Callable[[int], Faults] = lambda number: NO_FAULTS) -> None:
        self.target = target
        self.faults = faults
        self._connections: set[_Connection] = set()
        # Of rules: raised again at the end.
        self._errors: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted = 0
        self._loop = asyncio.new_event_loop()
        self._readable = asyncio.Event()
        self._readable.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.accept()
        self.address = f"127.0.0.1:{self._port}"

    @property
    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return self._accepted

    def cut(self, *, reset: bool = True) -> None:
        """Ends all connections that there are."""

        async def cut() -> None:
            for connection in list(self._connections):
                connection.end(reset=reset)

        self._run(cut())

    def swallow(self) -> None:
        """From now on nothing comes through the connections that there are; they stay open."""

        async def swallow() -> None:
            for connection in self._connections:
                connection.is_swallowing = True

        self._run(swallow())

    def stop_reading(self) -> None:
        """Takes nothing from either end of any connection, until ``go_on``: who sends is held back."""

        async def stop() -> None:
            self._readable.clear()

        self._run(stop())

    def go_on(self) -> None:
        async def go_on() -> None:
            self._readable.set()

        self._run(go_on())

    def refuse(self) -> None:
        """Refuses new connections, until ``accept``."""

        async def refuse() -> None:
            assert self._server is not None
            # Not wait_closed, which waits for the connections.
            self._server.close()

        self._run(refuse())

    def accept(self) -> None:
        """Takes connections, on the same port as ever."""

        async def accept() -> None:
            # A callback and not a coroutine, lest asyncio complains of those that are cancelled at the end.
            self._server = await asyncio.start_server(
                self._begin, "127.0.0.1", self._port, limit=SOCKET_BUFFER_BYTES
            )
            self._port = self._server.sockets[0].getsockname()[1]

        self._run(accept())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CLOSE_TIMEOUT_S)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        faults = self.faults(self._accepted)
        self._accepted += 1
        near = _End(reader, writer)
        connection = _Connection(near, faults, self._readable)
        self._connections.add(connection)
        try:
            await connection.run(self.target)
        except Exception as problem:
            self._errors.append(problem)
        finally:
            connection.end(reset=False)
            self._connections.discard(connection)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def close() -> None:
            assert self._server is not None
            self._server.close()
            for connection in list(self._connections):
                connection.end(reset=True)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._run(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)
        self._loop.close()
        if self._errors and error is None:
            raise self._errors[0]


@dataclass(slots=True)
class _End:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __post_init__(self) -> None:
        # Who is not read from is to notice soon, and what was written is to be out before the next step.
        tcp = self.writer.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.writer.transport.set_write_buffer_limits(high=0)

    def close(self, *, reset: bool) -> None:
        if self.writer.transport.is_closing():
            return
        if reset:
            tcp = self.writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()


class _Connection:
    """A client's connection and the one to the node. Belongs to the loop of the proxy."""

    def __init__(self, near: _End, faults: Faults, readable: asyncio.Event) -> None:
        self.is_swallowing = faults.is_mute
        self._near = near
        self._far: _End | None = None
        self._faults = faults
        self._readable = readable

    async def run(self, target: str) -> None:
        if not self._faults.is_mute:
            host, _, port = target.rpartition(":")
            try:
                self._far = _End(*await asyncio.open_connection(host, int(port)))
            except OSError:
                self.end(reset=True)
                return
        else:
            # Nobody is there to read it.
            while await self._near.reader.read(PIECE_BYTES):
                pass
            return
        far = self._far
        ways = [
            asyncio.create_task(self._pass_on(self._near, far, self._faults.to_server, PREFACE_BYTES)),
            asyncio.create_task(self._pass_on(far, self._near, self._faults.to_client, 0)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            ends = await asyncio.gather(*ways, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def end(self, *, reset: bool) -> None:
        for each in (self._near, self._far):
            if each is not None:
                each.close(reset=reset)

    async def _pass_on(self, source: _End, sink: _End, rule: Rule | None, preface_bytes: int) -> None:
        """Returns, or fails, when the connection is to end."""
        pieces: asyncio.Queue[tuple[float, Ruling]] = asyncio.Queue(
            MAX_LATE_PIECES if self._faults.delay_s else MAX_PIECES
        )
        sending = asyncio.create_task(self._send(pieces, sink))
        loop = asyncio.get_running_loop()
        try:
            split = _Splitter(source.reader) if rule else None
            while not sending.done():
                await self._readable.wait()
                if split is None or rule is None:
                    data = await source.reader.read(PIECE_BYTES)
                    ruling = Ruling(data, Then.GO_ON if data else Then.CLOSE)
                elif preface_bytes:
                    ruling, preface_bytes = Ruling(await source.reader.readexactly(preface_bytes)), 0
                else:
                    frame = await split.next()
                    ruling = rule(frame) or Ruling(frame.raw)
                await pieces.put((loop.time() + self._faults.delay_s, ruling))
                if ruling.then in (Then.CLOSE, Then.RESET):
                    break
            await sending
        except (OSError, asyncio.IncompleteReadError):
            await pieces.put((0.0, Ruling(b"", Then.CLOSE)))
            with contextlib.suppress(OSError):
                await sending
        finally:
            sending.cancel()

    async def _send(self, pieces: asyncio.Queue[tuple[float, Ruling]], sink: _End) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, ruling = await pieces.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            for start in range(0, len(ruling.data), PIECE_BYTES):
                if not self.is_swallowing:
                    piece = ruling.data[start : start + PIECE_BYTES]
                    sink.writer.write(piece)
                    await sink.writer.drain()
                    if self._faults.bytes_per_s:
                        await asyncio.sleep(len(piece) / self._faults.bytes_per_s)
            if ruling.pause_s:
                await asyncio.sleep(ruling.pause_s)
            if ruling.then is Then.SWALLOW:
                self.is_swallowing = True
            elif ruling.then is not Then.GO_ON and not self.is_swallowing:
                self.end(reset=ruling.then is Then.RESET)
                return


@dataclass(slots=True)
class _Splitter:
    """Reads the frames of one direction, and puts messages together from the frames of each stream."""

    reader: asyncio.StreamReader
    _number: int = 0
    _unfinished: dict[int, bytearray] = field(default_factory=dict)

    async def next(self) -> Frame:
        header = await self.reader.readexactly(HEADER_BYTES)
        size_bytes = int.from_bytes(header[:3], "big")
        kind, flags = header[3], header[4]
        stream_id = int.from_bytes(header[5:], "big") & 0x7FFFFFFF
        payload = await self.reader.readexactly(size_bytes)
        messages: tuple[bytes, ...] = ()
        if kind == DATA:
            assert not flags & PADDED, "gRPC does not pad"
            messages = tuple(take_messages(self._unfinished.setdefault(stream_id, bytearray()), payload))
        frame = Frame(self._number, kind, stream_id, header + payload, messages)
        self._number += 1
        return frame


def take_messages(unfinished: bytearray, payload: bytes) -> list[bytes]:
    """The gRPC messages that are whole with the payload behind what was unfinished; keeps the rest there."""
    unfinished += payload
    messages = []
    while len(unfinished) >= 5:
        size_bytes = int.from_bytes(unfinished[1:5], "big")
        if len(unfinished) < 5 + size_bytes:
            break
        messages.append(bytes(unfinished[5 : 5 + size_bytes]))
        del unfinished[: 5 + size_bytes]
    return messages


def flipped(data: bytes, bit: int) -> bytes:
    """The data with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
