"""The frames of the writer's stream that have come and wait to be applied.

While one is synced to the disk the next ones come; together they are applied with one sync. What waits is
bounded: then gRPC's flow control holds the writer back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TypeAlias

import grpc

from agentmem.core.errors import DataLoss
from agentmem.v1 import replication_pb2

# Below both, the next frame is read: so it is one frame more at the most.
MAX_WAITING_FRAMES = 1024
MAX_WAITING_BYTES = 4 * 1024 * 1024

Frame: TypeAlias = replication_pb2.SubscribeResponse
Stream: TypeAlias = grpc.aio.UnaryStreamCall[replication_pb2.SubscribeRequest, Frame]


class Frames:
    """Reads a stream in a task of its own until ``close``."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._frames: deque[Frame] = deque()
        self._waiting_bytes = 0
        self._end: BaseException | None = None
        self._has_ended = False
        self._moved = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    def hurry(self) -> None:
        """Says that somebody waits for what comes: it is taken without a lull."""
        self._is_urgent.set()

    async def take(self, timeout_s: float, lull_s: float = 0.0) -> list[Frame]:
        """All that wait, in their order; at least one, but when the stream has ended.

        Args:
            lull_s: for so long more may gather, while it is entries that nobody waits for.

        Raises:
            TimeoutError: nothing came for so long.
            DataLoss: something came that is no frame. What came before it was taken before.
            grpc.aio.AioRpcError, asyncio.CancelledError: what the stream ended with.
        """
        while not self._frames and not self._has_ended:
            self._moved.clear()
            # Not wait_for: that makes a task, for each commit.
            async with asyncio.timeout(timeout_s):
                await self._moved.wait()
        if not self._frames and self._end is not None:
            raise self._end
        if lull_s > 0 and not self._is_urgent.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(lull_s):
                    await self._is_urgent.wait()
        self._is_urgent.clear()
        taken = list(self._frames)
        self._frames.clear()
        self._waiting_bytes = 0
        self._has_room.set()
        return taken

    def close(self) -> None:
        """Ends the stream."""
        self._stream.cancel()
        self._task.cancel()

    async def _read(self) -> None:
        try:
            while True:
                frame = await self._stream.read()
                if frame is grpc.aio.EOF:
                    break
                if not isinstance(frame, Frame):
                    # What gRPC gives for bytes that cannot be parsed.
                    raise DataLoss("MALFORMED_FRAME", "it is not a message")
                self._frames.append(frame)
                self._waiting_bytes += frame.ByteSize()
                if frame.WhichOneof("frame") != "entries" or frame.entries.is_awaited:
                    self.hurry()
                self._moved.set()
                while len(self._frames) >= MAX_WAITING_FRAMES or self._waiting_bytes >= MAX_WAITING_BYTES:
                    self.hurry()
                    self._has_room.clear()
                    await self._has_room.wait()
        except BaseException as error:  # told to who takes
            self._end = error
        self._has_ended = True
        self.hurry()
        self._moved.set()
