"""Backups: a copy of the writer's whole store, fetched while it is written to.

data.mdb       the store, an LMDB file
manifest.json  what it is; written last, so a folder without it is no backup
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from agentmem.client import selection, values
from agentmem.client.channels import Endpoint
from agentmem.client.errors import DataLoss, NotFound, Unavailable, invalid_field
from agentmem.client.routing import Router
from agentmem.v1 import replication_pb2

DATA_NAME = "data.mdb"
MANIFEST_NAME = "manifest.json"
_PARTIAL = ".partial"

# A copy that was cut off is gone on with this often without a byte coming; and begun anew this often, when
# the writer does not have it any more.
MAX_ATTEMPTS = 20
MAX_BEGINNINGS = 5
_FIRST_WAIT_S = 0.1
_MAX_WAIT_S = 2.0

# Called with the bytes that are there, and all of them. May go back when the copy begins anew.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Backup:
    """A backup, as its manifest.json has it.

    Attributes:
        format: of the store's layout.
        cluster_id, chain_hash, sha256: in hexadecimal; sha256 is that of data.mdb.
        revision: of the last commit that is in it.
    """

    format: int
    cluster_id: str
    epoch: int
    revision: int
    chain_hash: str
    size_bytes: int
    sha256: str


async def fetch_backup(
    router: Router, folder: object, *, timeout_s: float, on_progress: Progress | None
) -> Backup:
    """Makes a backup in an empty or new folder; leaves nothing there when it fails."""
    if not isinstance(folder, str | os.PathLike):
        raise invalid_field("folder", f"must be a path, not {values.kind(folder)}")
    path = Path(folder)
    is_new = await asyncio.to_thread(_claim, path)
    try:
        partial = path / (DATA_NAME + _PARTIAL)
        file = await asyncio.to_thread(partial.open, "xb")
        try:
            fetch = _Fetch(router, file, on_progress)
            header = await fetch.run(timeout_s)
            await asyncio.to_thread(_sync, file)
        finally:
            file.close()
        backup = _described(header)
        await asyncio.to_thread(_publish, path, backup)
    except BaseException:
        _discard(path, is_new)
        raise
    return backup


class _Fetch:
    """The copy as far as it has come."""

    def __init__(self, router: Router, file: BinaryIO, on_progress: Progress | None) -> None:
        self._router = router
        self._file = file
        self._on_progress = on_progress
        self._header: replication_pb2.SnapshotHeader | None = None
        self._digest = hashlib.sha256()
        self._offset = 0

    async def run(self, timeout_s: float) -> replication_pb2.SnapshotHeader:
        """Fetches everything; ``timeout_s`` is how long the writer may be out of reach at a time."""
        attempts = beginnings = 0
        while True:
            before = self._offset
            try:
                async with self._router.writer(timeout_s) as endpoint:
                    return await self._receive(endpoint)
            except NotFound as error:
                beginnings += 1
                if error.reason != "SNAPSHOT_NOT_FOUND" or beginnings == MAX_BEGINNINGS:
                    raise
                await asyncio.to_thread(self._begin_anew)
            except Unavailable as error:
                attempts = 1 if self._offset > before else attempts + 1
                if error.reason == "NO_NODE_AVAILABLE" or attempts == MAX_ATTEMPTS:
                    raise
                await asyncio.sleep(
                    selection.backoff_s(
                        attempts, first_s=_FIRST_WAIT_S, cap_s=_MAX_WAIT_S, rng=random.Random()
                    )
                )

    async def _receive(self, endpoint: Endpoint) -> replication_pb2.SnapshotHeader:
        """Fetches what is missing, as far as one call brings it."""
        request = replication_pb2.FetchSnapshotRequest(
            snapshot_id="" if self._header is None else self._header.snapshot_id, offset=self._offset
        )
        call = endpoint.replication.FetchSnapshot(request)
        try:
            while (frame := await self._router.received(endpoint.address, call)) is not None:
                if frame.WhichOneof("frame") == "header":
                    self._begin(frame.header)
                else:
                    await asyncio.to_thread(self._append, frame.chunk)
                self._tell()
        finally:
            call.cancel()
        if self._header is None or self._offset < self._header.size_bytes:
            raise Unavailable(
                f"{endpoint.address} ended the snapshot before its end", reason="SNAPSHOT_CUT_OFF"
            )
        if self._digest.digest() != self._header.sha256:
            raise _damaged("its SHA-256 is not that of the writer's copy")
        return self._header

    def _begin(self, header: replication_pb2.SnapshotHeader) -> None:
        if self._header is not None and header != self._header:
            raise _damaged("it was gone on with another snapshot")
        self._header = header

    def _append(self, chunk: replication_pb2.SnapshotChunk) -> None:
        end = self._offset + len(chunk.data)
        if self._header is None or chunk.offset != self._offset or end > self._header.size_bytes:
            raise _damaged(f"a chunk at {chunk.offset} came where {self._offset} was awaited")
        self._file.write(chunk.data)
        self._digest.update(chunk.data)
        self._offset = end

    def _begin_anew(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._header, self._digest, self._offset = None, hashlib.sha256(), 0

    def _tell(self) -> None:
        if self._on_progress is not None and self._header is not None:
            self._on_progress(self._offset, self._header.size_bytes)


def _damaged(problem: str) -> DataLoss:
    return DataLoss(f"the snapshot arrived damaged: {problem}", reason="SNAPSHOT_DAMAGED")


def _described(header: replication_pb2.SnapshotHeader) -> Backup:
    return Backup(
        format=header.format,
        cluster_id=header.position.cluster_id.hex(),
        epoch=header.position.epoch,
        revision=header.position.revision,
        chain_hash=header.position.chain_hash.hex(),
        size_bytes=header.size_bytes,
        sha256=header.sha256.hex(),
    )


def _claim(folder: Path) -> bool:
    """Makes the folder, if it is not there; says whether it did. Raises InvalidArgument when it is in use."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise invalid_field("folder", f"{str(folder)!r} is not a folder") from None
        if any(folder.iterdir()):
            raise invalid_field("folder", f"{str(folder)!r} is not empty") from None
        return False
    return True


def _publish(folder: Path, backup: Backup) -> None:
    """Gives the files their names, the manifest last."""
    os.rename(folder / (DATA_NAME + _PARTIAL), folder / DATA_NAME)
    _sync_folder(folder)
    with open(folder / (MANIFEST_NAME + _PARTIAL), "xb") as file:
        file.write(json.dumps(asdict(backup), indent=2).encode() + b"\n")
        _sync(file)
    os.rename(folder / (MANIFEST_NAME + _PARTIAL), folder / MANIFEST_NAME)
    _sync_folder(folder)


def _discard(folder: Path, is_new: bool) -> None:
    for name in (MANIFEST_NAME, DATA_NAME):
        for left in (folder / name, folder / (name + _PARTIAL)):
            left.unlink(missing_ok=True)
    if is_new:
        folder.rmdir()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
