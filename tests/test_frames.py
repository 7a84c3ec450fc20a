"""The frames of the writer's stream: which are taken together, and which at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import grpc
import pytest

from agentmem.replica.frames import MAX_WAITING_BYTES, Frame, Frames, Stream
from agentmem.v1 import replication_pb2

# Longer than any test takes: what waits for its end fails.
LULL_S = TIMEOUT_S = 60.0


class Sent:
    """In the place of gRPC's stream: what it has brought."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[object] = asyncio.Queue()

    async def read(self) -> object:
        frame = await self.frames.get()
        self.frames.task_done()
        return frame

    def cancel(self) -> bool:
        return True


def entries(revision: int, *, is_awaited: bool = False, value: bytes = b"") -> Frame:
    shipped = replication_pb2.ShippedEntry(log_value=value)
    return Frame(
        entries=replication_pb2.Entries(entries=[shipped], head_revision=revision, is_awaited=is_awaited)
    )


def large(revision: int) -> Frame:
    return entries(revision, value=bytes(MAX_WAITING_BYTES))


ENDS: dict[str, Callable[[], object]] = {
    "awaited": lambda: entries(3, is_awaited=True),
    "heartbeat": lambda: Frame(heartbeat=replication_pb2.Heartbeat(head_revision=3)),
    "no room": lambda: large(3),
    "end": lambda: grpc.aio.EOF,
    "hurry": lambda: None,
}


@pytest.mark.parametrize("ends", ENDS)
def test_entries_gather_until_somebody_waits_for_them(ends: str) -> None:
    async def run() -> None:
        sent = Sent()
        frames = Frames(cast(Stream, sent))
        taking = asyncio.create_task(frames.take(TIMEOUT_S, LULL_S))
        for revision in (1, 2):
            sent.frames.put_nowait(entries(revision))
        await sent.frames.join()
        await asyncio.sleep(0)
        assert not taking.done()
        if ends == "hurry":
            frames.hurry()
        else:
            sent.frames.put_nowait(ENDS[ends]())
        taken = await asyncio.wait_for(taking, TIMEOUT_S / 2)
        assert [frame.entries.head_revision for frame in taken[:2]] == [1, 2]
        assert len(taken) == 2 + (ends in ("awaited", "heartbeat", "no room"))
        if ends != "end":
            # It was for these alone.
            sent.frames.put_nowait(entries(4))
            assert [frame.entries.head_revision for frame in await frames.take(TIMEOUT_S, 0.001)] == [4]
            assert not frames._is_urgent.is_set()
        frames.close()

    asyncio.run(run())


def test_what_came_before_the_stream_ended_is_taken_before_the_end_is_told() -> None:
    async def run() -> None:
        sent = Sent()
        frames = Frames(cast(Stream, sent))
        sent.frames.put_nowait(entries(1))
        sent.frames.put_nowait(grpc.aio.EOF)
        assert len(await frames.take(TIMEOUT_S, LULL_S)) == 1
        assert await frames.take(TIMEOUT_S, LULL_S) == []
        frames.close()

    asyncio.run(run())
