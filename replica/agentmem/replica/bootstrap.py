"""Bootstrap: a copy of the writer's store, for a replica whose place is no longer in the log.

The copy is made ready beside the store of the replica and takes its place when the node is opened again; see
``DataDirectory.install_snapshot``.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import grpc

from agentmem.core.checksums import crc32c
from agentmem.core.data_directory import DISCARDS_FILE, STORE_FILE, sync
from agentmem.core.errors import DataLoss
from agentmem.core.layout import FORMAT_VERSION
from agentmem.replica.writer_link import WriterLink
from agentmem.v1 import replication_pb2

RETRY_WAIT_S = 0.5
# The writer first makes the copy, and says nothing meanwhile.
HEADER_TIMEOUT_S = 600.0
# A chunk that takes longer is on its way over a slow line, perhaps: the next attempt gets twice the time.
SILENCE_TIMEOUT_S = 30.0
MAX_SILENCE_TIMEOUT_S = 960.0
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_logger = logging.getLogger(__name__)


class SnapshotRefused(Exception):
    """The writer's copy is not one that this replica may take."""


async def fetch_snapshot(
    link: WriterLink, folder: Path, cluster_id: bytes, *, discards: Sequence[str] = ()
) -> None:
    """Fetches a copy of the writer's store into a folder that holds nothing else; tries until it is there.

    A transfer that is cut off goes on where it was, and one that finds no room when there is some. What
    arrives is checked chunk by chunk and as a whole, and is on disk when this returns.

    Args:
        cluster_id: of the cluster that the replica belongs to; empty for any.
        discards: folders beside the store that belong to what it replaces, and go with it.

    Raises:
        SnapshotRefused: the copy is of another cluster or of another store format.
    """
    await asyncio.to_thread(_prepare, folder)
    transfer = _Transfer(link, folder / f"{STORE_FILE}.partial", cluster_id)
    said = ""
    before_bytes = 0
    while not await transfer.attempt():
        if transfer.problem != said:
            _logger.warning("the snapshot is not whole yet, trying on: %s", transfer.problem)
            said = transfer.problem
        # An attempt that brought something is followed by the next at once.
        if transfer.size_bytes <= before_bytes:
            await asyncio.sleep(RETRY_WAIT_S)
        before_bytes = transfer.size_bytes
    await asyncio.to_thread(_finish, transfer.file, folder, discards)


def _prepare(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _finish(file: Path, folder: Path, discards: Sequence[str]) -> None:
    if discards:
        # Before the copy is ready, so that it never takes the store's place without.
        (folder / DISCARDS_FILE).write_text("\n".join(discards))
        sync(folder / DISCARDS_FILE)
    sync(file)
    file.rename(folder / STORE_FILE)
    sync(folder)


class _Transfer:
    """One copy on its way, over as many calls as it takes."""

    def __init__(self, link: WriterLink, file: Path, cluster_id: bytes) -> None:
        self.file = file
        self.problem = ""
        self.size_bytes = 0
        self._silence_timeout_s = SILENCE_TIMEOUT_S
        self._link = link
        self._cluster_id = cluster_id
        self._header: replication_pb2.SnapshotHeader | None = None
        self._digest = hashlib.sha256()

    def _begin_anew(self) -> None:
        self._header, self.size_bytes = None, 0
        self._digest = hashlib.sha256()
        self.file.unlink(missing_ok=True)

    async def attempt(self) -> bool:
        """Takes what a call gives; says whether the copy is whole."""
        snapshot_id = self._header.snapshot_id if self._header else ""
        stream = self._link.replication.FetchSnapshot(
            replication_pb2.FetchSnapshotRequest(snapshot_id=snapshot_id, offset=self.size_bytes)
        )
        try:
            await self._read(stream)
        except grpc.aio.AioRpcError as error:
            self.problem = f"{error.code().name}: {error.details()}"
            if error.code() == grpc.StatusCode.NOT_FOUND:
                self._begin_anew()
            return False
        except TimeoutError:
            self.problem = "the writer is silent"
            self._silence_timeout_s = min(self._silence_timeout_s * 2, MAX_SILENCE_TIMEOUT_S)
            return False
        except DataLoss as error:
            self.problem = error.message
            return False
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self.problem = f"there is no room for it: {error.strerror}"
            return False
        finally:
            stream.cancel()
        return self._is_whole()

    async def _read(
        self,
        stream: grpc.aio.UnaryStreamCall[
            replication_pb2.FetchSnapshotRequest, replication_pb2.FetchSnapshotResponse
        ],
    ) -> None:
        timeout_s = HEADER_TIMEOUT_S
        while True:
            frame = await asyncio.wait_for(stream.read(), timeout_s)
            if frame is grpc.aio.EOF:
                return
            if not isinstance(frame, replication_pb2.FetchSnapshotResponse):
                # What gRPC gives for bytes that cannot be parsed.
                raise DataLoss("CORRUPT_SNAPSHOT", "a frame arrived damaged")
            timeout_s = self._silence_timeout_s
            if frame.WhichOneof("frame") == "header":
                self._check(frame.header)
                self._header = frame.header
                continue
            chunk = frame.chunk
            if chunk.offset != self.size_bytes or crc32c(chunk.data) != chunk.crc32c:
                raise DataLoss("CORRUPT_SNAPSHOT", f"the chunk at {chunk.offset} arrived damaged")
            await asyncio.to_thread(self._append, chunk.data)

    def _append(self, data: bytes) -> None:
        with open(self.file, "ab") as file:
            # Of a chunk for which there was no room, a part may be there.
            file.truncate(self.size_bytes)
            file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def _check(self, header: replication_pb2.SnapshotHeader) -> None:
        if header.format != FORMAT_VERSION:
            raise SnapshotRefused(
                f"the writer's store has format {header.format}; this release has {FORMAT_VERSION}"
            )
        if self._cluster_id and header.position.cluster_id != self._cluster_id:
            raise SnapshotRefused(
                f"this replica belongs to cluster {self._cluster_id.hex()}, the writer to "
                f"{header.position.cluster_id.hex()}"
            )

    def _is_whole(self) -> bool:
        if self._header is None or self.size_bytes < self._header.size_bytes:
            self.problem = f"it ended at {self.size_bytes} bytes"
            return False
        if self._digest.digest() != self._header.sha256 or self.file.stat().st_size != self.size_bytes:
            self.problem = "what arrived is not what the writer copied: SHA-256 differs"
            self._begin_anew()
            return False
        return True
