"""How a replica applies what its writer's stream brings, frame by frame."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import grpc
import pytest

from agentmem.core.standing import StandingFile
from agentmem.core.store import Change, Store, WriteTransaction
from agentmem.replica import frames
from agentmem.replica.follower import Follower
from agentmem.replica.writer_link import WriterLink
from agentmem.v1 import memory_pb2, replication_pb2, replication_pb2_grpc

MIB = 1024**2
ENTRIES = 30

Frame = replication_pb2.SubscribeResponse
Shipped = Sequence[replication_pb2.ShippedEntry]


class Line(replication_pb2_grpc.ReplicationServiceServicer):
    """A writer's line on which a test decides what comes in one frame.

    Attributes:
        asked: the revision behind which each stream began.
    """

    def __init__(self, heartbeat: Frame, script: Callable[[int], AsyncIterator[Frame]]) -> None:
        self.asked: list[int] = []
        self._heartbeat, self._script = heartbeat, script

    async def Subscribe(
        self, request: replication_pb2.SubscribeRequest, context: object
    ) -> AsyncIterator[Frame]:
        self.asked.append(request.position.revision)
        yield self._heartbeat
        async for frame in self._script(len(self.asked)):
            yield frame
        await asyncio.Event().wait()

    async def ReportProgress(self, request: object, context: object) -> NoReturn:
        raise NotImplementedError

    def FetchSnapshot(self, request: object, context: object) -> NoReturn:
        raise NotImplementedError


def written(path: Path) -> tuple[Store, list[replication_pb2.ShippedEntry]]:
    """A writer's store with some entries of one memory each, and these."""
    store = Store(path, map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB)
    store.found_cluster()
    for number in range(1, ENTRIES + 1):
        memory = memory_pb2.Memory(namespace="ns", id=f"m{number}", content=f"text {number}", version=1)

        def add(transaction: WriteTransaction, memory: memory_pb2.Memory = memory) -> int:
            return transaction.append([Change(memory)], 1)

        store.commit(add)
    with store.read() as transaction:
        return store, transaction.shipped_entries(0, 64 * MIB)


def one_entry(entry: replication_pb2.ShippedEntry) -> Frame:
    return Frame(entries=replication_pb2.Entries(entries=[entry], head_revision=ENTRIES))


@asynccontextmanager
async def following(
    tmp_path: Path, writer: Store, script: Callable[[int], AsyncIterator[Frame]]
) -> AsyncIterator[tuple[Store, Follower, Line]]:
    """A replica's store and what keeps it up with a line of the writer."""
    position = writer.position()
    heartbeat = replication_pb2.Heartbeat(cluster_id=position.cluster_id, epoch=1, head_revision=ENTRIES)
    line = Line(Frame(heartbeat=heartbeat), script)
    server = grpc.aio.server()
    replication_pb2_grpc.add_ReplicationServiceServicer_to_server(line, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    store = Store(tmp_path / "replica", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB)
    link = WriterLink(StandingFile(tmp_path, "replica", b"", 1), f"127.0.0.1:{port}")
    follower = Follower(store, link, replica_id="r", address="localhost:1", on_applied=lambda entries: None)
    task = asyncio.create_task(follower.run())
    try:
        yield store, follower, line
    finally:
        task.cancel()
        await asyncio.wait([task])
        await link.close()
        await server.stop(0)
        store.close()


async def applied(follower: Follower, revision: int) -> None:
    async with asyncio.timeout(20):
        while follower.applied_revision < revision:
            await follower.progress.wait_beyond(follower.progress.count, 0.1)


def run(scenario: Callable[[Store, Shipped], Coroutine[None, None, None]], tmp_path: Path) -> None:
    writer, shipped = written(tmp_path / "writer")
    try:
        asyncio.run(scenario(writer, shipped))
    finally:
        writer.close()


def test_what_came_during_a_commit_is_applied_with_the_next(tmp_path: Path) -> None:
    async def scenario(writer: Store, shipped: Shipped) -> None:
        all_sent, disk_is_free = asyncio.Event(), threading.Event()

        async def script(stream: int) -> AsyncIterator[Frame]:
            for entry in shipped:
                yield one_entry(entry)
            all_sent.set()

        async with following(tmp_path, writer, script) as (store, follower, line):
            while not follower.is_connected:
                await follower.progress.wait_beyond(follower.progress.count, 0.1)
            busy = asyncio.create_task(asyncio.to_thread(store.commit, lambda _: disk_is_free.wait(20)))
            await all_sent.wait()
            disk_is_free.set()
            await busy
            await applied(follower, ENTRIES)
            (sizes,) = follower.apply_sizes.distributions().values()
            assert sizes.total == ENTRIES
            assert sum(sizes.counts) < ENTRIES
            assert line.asked == [0]
            assert store.position() == writer.position()

    run(scenario, tmp_path)


def test_a_damaged_frame_takes_none_of_those_before_it_along(tmp_path: Path) -> None:
    async def scenario(writer: Store, shipped: Shipped) -> None:
        async def script(stream: int) -> AsyncIterator[Frame]:
            if stream > 1:
                for entry in shipped[3:]:
                    yield one_entry(entry)
                return
            damaged = replication_pb2.ShippedEntry()
            damaged.CopyFrom(shipped[3])
            damaged.log_value = damaged.log_value[:-1] + b"?"
            for entry in (*shipped[:3], damaged, *shipped[4:]):
                yield one_entry(entry)

        async with following(tmp_path, writer, script) as (store, follower, line):
            await applied(follower, ENTRIES)
            assert line.asked == [0, 3]
            assert store.position() == writer.position()

    run(scenario, tmp_path)


class Source:
    """A stream of frames; counts those that were read."""

    def __init__(self, shipped: Shipped) -> None:
        self.read_frames = 0
        self._shipped = shipped

    async def read(self) -> object:
        if self.read_frames == len(self._shipped):
            return grpc.aio.EOF
        self.read_frames += 1
        return one_entry(self._shipped[self.read_frames - 1])

    def cancel(self) -> None:
        """Nothing is on its way."""


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_WAITING_FRAMES", 4)

    async def scenario(writer: Store, shipped: Shipped) -> None:
        source, taken = Source(shipped), 0
        waiting = frames.Frames(source)  # type: ignore[arg-type]
        while more := await waiting.take(20):
            assert len(more) <= 4
            taken += len(more)
            assert source.read_frames <= taken + 4
        assert taken == ENTRIES
        waiting.close()

    run(scenario, tmp_path)
