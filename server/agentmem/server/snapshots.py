"""Snapshots: consistent copies of the store that are fetched over the network while it is written to.

Each copy is made by a process of its own, so that the long read it takes neither holds the interpreter nor
keeps the map of the writer from growing. It is kept for a while, so that a transfer that was cut off can go
on.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from agentmem.core.checksums import crc32c
from agentmem.core.errors import AgentMemError, NotFound, ResourceExhausted, invalid_field
from agentmem.core.layout import FORMAT_VERSION
from agentmem.v1 import cluster_pb2, replication_pb2

MAX_SNAPSHOTS = 2
KEEP_S = 600.0
# Whoever takes nothing for this long has to begin anew when another needs the place.
STALL_S = 60.0
RETRY_AFTER_S = 10.0


@dataclass(slots=True, eq=False)
class _Snapshot:
    header: replication_pb2.SnapshotHeader
    file: Path
    used_at_s: float
    readers: int = 0
    # Whether the log has to reach back to it.
    is_awaited: bool = True


class Snapshots:
    """The copies that there are. Belongs to one event loop."""

    def __init__(
        self, store_path: Path, directory: Path, *, chunk_bytes: int, revision: Callable[[], int]
    ) -> None:
        """``directory`` is for the copies alone; what an earlier process left there is removed.

        Args:
            revision: the newest in the store.
        """
        self._store_path = store_path
        self._revision = revision
        self._chunk_bytes = chunk_bytes
        self._directory = directory
        self._ready: dict[str, _Snapshot] = {}
        # The revisions at which copies were begun that are not ready yet.
        self._making: Counter[int] = Counter()
        shutil.rmtree(directory, ignore_errors=True)

    async def fetch(
        self, request: replication_pb2.FetchSnapshotRequest
    ) -> AsyncIterator[replication_pb2.FetchSnapshotResponse]:
        """The frames of a new copy, or of one that is still there, from an offset on.

        Raises:
            NotFound: ``SNAPSHOT_NOT_FOUND``, there is no such copy any more.
            ResourceExhausted: ``OVERLOADED``, as many copies as may be are in use; ``STORE_FULL``, there is
                no room for one.
        """
        snapshot = self._known(request) if request.snapshot_id else await self._make()
        snapshot.readers += 1
        try:
            yield replication_pb2.FetchSnapshotResponse(header=snapshot.header)
            offset = request.offset
            while offset < snapshot.header.size_bytes:
                snapshot.used_at_s = time.monotonic()
                data = await asyncio.to_thread(_read, snapshot.file, offset, self._chunk_bytes)
                chunk = replication_pb2.SnapshotChunk(offset=offset, data=data, crc32c=crc32c(data))
                yield replication_pb2.FetchSnapshotResponse(chunk=chunk)
                offset += len(data)
        finally:
            snapshot.readers -= 1
            snapshot.used_at_s = time.monotonic()

    def _known(self, request: replication_pb2.FetchSnapshotRequest) -> _Snapshot:
        snapshot = self._ready.get(request.snapshot_id)
        if snapshot is None:
            raise NotFound(
                "SNAPSHOT_NOT_FOUND", f"there is no snapshot {request.snapshot_id!r} any more: begin anew"
            )
        if request.offset > snapshot.header.size_bytes:
            raise invalid_field("offset", f"is behind the end at {snapshot.header.size_bytes}")
        return snapshot

    async def _make(self) -> _Snapshot:
        self._make_room()
        name = uuid.uuid4().hex
        folder = self._directory / name
        folder.mkdir(parents=True)
        begun_at_revision = self._revision()
        self._making[begun_at_revision] += 1
        try:
            header = await _copy(self._store_path, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._making[begun_at_revision] -= 1
        header.snapshot_id = name
        snapshot = self._ready[name] = _Snapshot(header, folder / "data.mdb", time.monotonic())
        return snapshot

    def needed_revision(self) -> int | None:
        """Where the log has to begin for those who are fetching a copy, or have just done so; None: anywhere.

        Without it, who has the copy might find that the log does not reach back to it, over and over again.
        """
        lately_s = time.monotonic() - STALL_S
        needed = [
            snapshot.header.position.revision
            for snapshot in self._ready.values()
            if snapshot.is_awaited and snapshot.used_at_s > lately_s
        ]
        return min([*needed, *+self._making], default=None)

    def came_level(self, began_at_revision: int) -> None:
        """Somebody who followed the log from the revision on has it all: a copy of it has served its end."""
        for snapshot in self._ready.values():
            if not snapshot.readers and snapshot.header.position.revision == began_at_revision:
                snapshot.is_awaited = False

    def _make_room(self) -> None:
        """Forgets the copy that nobody has read for longest, if there are too many."""
        if len(self._ready) + self._making.total() < MAX_SNAPSHOTS:
            return
        stalled_at_s = time.monotonic() - STALL_S
        idle = [
            name
            for name, snapshot in self._ready.items()
            if not snapshot.readers or snapshot.used_at_s < stalled_at_s
        ]
        if not idle:
            raise ResourceExhausted(
                "OVERLOADED",
                f"{MAX_SNAPSHOTS} snapshots are being made or fetched already",
                retry_after_s=RETRY_AFTER_S,
            )
        self._forget(min(idle, key=lambda name: self._ready[name].used_at_s))

    def _forget(self, name: str) -> None:
        snapshot = self._ready.pop(name)
        shutil.rmtree(snapshot.file.parent, ignore_errors=True)

    async def run(self) -> None:
        """Removes copies that nobody has asked for in a while, until cancelled."""
        while True:
            await asyncio.sleep(KEEP_S / 10)
            for name, snapshot in list(self._ready.items()):
                if not snapshot.readers and snapshot.used_at_s < time.monotonic() - KEEP_S:
                    self._forget(name)

    def close(self) -> None:
        """Removes all copies."""
        shutil.rmtree(self._directory, ignore_errors=True)


def _start_copier(store_path: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Not by the event loop: uvloop starts children by fork, in which gRPC crashes. This is by vfork."""
    command = (sys.executable, "-m", "agentmem.server.snapshot_copier", str(store_path), str(folder))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


async def _copy(store_path: Path, folder: Path) -> replication_pb2.SnapshotHeader:
    process = _start_copier(store_path, folder)
    ended = asyncio.create_task(asyncio.to_thread(process.communicate))
    try:
        output, errors = await asyncio.shield(ended)
    except BaseException:
        process.kill()
        # Until it has ended it may still be writing.
        await ended
        raise
    if process.returncode:
        problem = (errors.decode(errors="replace").strip() or "it was killed").splitlines()[-1]
        full = "No space left" in problem
        error = ResourceExhausted if full else AgentMemError
        raise error("STORE_FULL" if full else "SNAPSHOT_FAILED", f"the store cannot be copied: {problem}")
    document = json.loads(output)
    position = cluster_pb2.Position(
        cluster_id=bytes.fromhex(document["cluster_id"]),
        epoch=document["epoch"],
        revision=document["revision"],
        chain_hash=bytes.fromhex(document["chain_hash"]),
    )
    return replication_pb2.SnapshotHeader(
        position=position,
        size_bytes=document["size_bytes"],
        sha256=bytes.fromhex(document["sha256"]),
        format=FORMAT_VERSION,
    )


def _read(file: Path, offset: int, size_bytes: int) -> bytes:
    try:
        with open(file, "rb") as source:
            source.seek(offset)
            return source.read(size_bytes)
    except FileNotFoundError as error:
        raise NotFound("SNAPSHOT_NOT_FOUND", "the snapshot was taken away for another: begin anew") from error
