"""Replicas that begin from a snapshot while the writer writes on, over a way full of faults."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from calls import Memory, add
from cluster import Cluster, Node, Stubs, wait_until
from fault_proxy import Faults, Frame, Ruling, Then, flipped
from google.protobuf.message import DecodeError
from stream_faults import CUT_PAUSE_S, FLAGS, NAMESPACE, check_equal_stores, wait_applied

from agentmem.core.checksums import crc32c
from agentmem.v1 import reader_pb2, replication_pb2

CHUNK_BYTES = 8 * 1024
MAX_LOG_BYTES = 1000
WRITER_FLAGS = (*FLAGS, "--max-log-bytes", str(MAX_LOG_BYTES), "--max-frame-bytes", str(CHUNK_BYTES))


def chunk_of(message: bytes) -> replication_pb2.SnapshotChunk | None:
    """The piece of a snapshot that a message is; None if it is anything else."""
    try:
        chunk = replication_pb2.FetchSnapshotResponse.FromString(message).chunk
    except DecodeError:
        return None
    return chunk if chunk.data and crc32c(chunk.data) == chunk.crc32c else None


class Writes:
    """Small writes, one after the other, until stopped."""

    def __init__(self, address: str) -> None:
        self.revision = 0
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        stubs = Stubs(self._address)
        number = 0
        while not self._stop.is_set():
            number += 1
            # Bounded content, so that the store grows slowly.
            self.revision = add(stubs, NAMESPACE, Memory(id=f"w{number}", content="written on")).revision
            self._stop.wait(0.005)  # the pace of the writes
        stubs.channel.close()

    def __enter__(self) -> Writes:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stop.set()
        self._thread.join()


def trimmed(stubs: Stubs, revision: int) -> bool:
    """Whether the writer's log begins behind the revision."""
    stats = stubs.reader.GetStats(reader_pb2.GetStatsRequest(namespace=NAMESPACE))
    return stats.store.log_first_revision > revision + 1


@contextmanager
def trimmed_cluster(folder: Path, *, size_bytes: int = 200_000) -> Iterator[Cluster]:
    """A writer whose log does not reach back to its first entries; all is level in the end."""
    with Cluster(folder, replicas=0, writer_flags=WRITER_FLAGS) as cluster:
        fill(cluster, size_bytes)
        yield cluster
        check_equal_stores(cluster, whole_logs=False)


def fill(cluster: Cluster, size_bytes: int) -> None:
    """Writes that much content, and small entries until those before them are trimmed."""
    stubs = Stubs(cluster.writer.address)
    chance = random.Random(size_bytes)
    contents = [chance.randbytes(2000).hex() for _ in range(0, size_bytes, 4000)]
    revision = add(stubs, NAMESPACE, *(Memory(content=content) for content in contents)).revision
    for number in range(20):
        add(stubs, NAMESPACE, Memory(content=f"small {number}"))
    wait_until(lambda: trimmed(stubs, revision), "the log is trimmed")
    stubs.channel.close()


def begin(
    cluster: Cluster,
    address: str,
    *,
    module: str = "agentmem.replica",
    environment: Mapping[str, str] | None = None,
) -> Node:
    """A replica that reaches its writer at the address; the caller waits until it is ready."""
    name = f"replica-{len(cluster.replicas) + 1}"
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    replica = Node(
        module,
        cluster.path / name,
        *("--node-id", name, "--writer", address, *FLAGS),
        environment={"PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
    )
    cluster.replicas.append(replica)
    return replica


def partial_bytes(replica: Node) -> int:
    """How much of a snapshot has arrived."""
    file = replica.data_dir / "snapshot" / "data.mdb.partial"
    return file.stat().st_size if file.exists() else 0


@dataclass(slots=True)
class Transfer:
    """What was asked for and sent of snapshots.

    Attributes:
        copies: the ids of the copies that were sent, in their order.
        resumed_at: the offsets at which a call went on with a copy.
        size_bytes: of the newest copy.
        sent_bytes: of chunks, as often as each was sent, in part or whole.
        faulty_at: the offsets of the chunks behind which was cut, or in which a bit was flipped.
    """

    copies: list[str] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    size_bytes: int = 0
    sent_bytes: int = 0
    faulty_at: list[int] = field(default_factory=list)

    def note_asked(self, frame: Frame) -> Ruling | None:
        """A rule for the direction to the writer that changes nothing."""
        for message in frame.messages:
            try:
                request = replication_pb2.FetchSnapshotRequest.FromString(message)
            except DecodeError:
                continue
            # Other requests begin with the id of a replica.
            if request.snapshot_id and not request.snapshot_id.startswith("replica-"):
                self.resumed_at.append(request.offset)
        return None

    def note_sent(self, frame: Frame) -> list[replication_pb2.SnapshotChunk]:
        """The chunks that end in the frame."""
        for message in frame.messages:
            try:
                header = replication_pb2.FetchSnapshotResponse.FromString(message).header
            except DecodeError:
                continue
            if len(header.sha256) == 32:
                self.size_bytes = header.size_bytes
                if header.snapshot_id not in self.copies:
                    self.copies.append(header.snapshot_id)
        chunks = [chunk for message in frame.messages if (chunk := chunk_of(message)) is not None]
        self.sent_bytes += sum(len(chunk.data) for chunk in chunks)
        return chunks

    def cut_behind_each_chunk(self, number: int) -> Faults:
        """Each connection ends behind a chunk, or within the next one, by FIN or RST in turns."""
        has_passed = False

        def rule(frame: Frame) -> Ruling | None:
            nonlocal has_passed
            chunks = self.note_sent(frame)
            if not chunks:
                return None
            then = Then.RESET if number % 4 < 2 else Then.CLOSE
            if has_passed:
                return Ruling(frame.raw[: len(frame.raw) // 2], then, CUT_PAUSE_S)
            has_passed = True
            self.faulty_at.append(chunks[-1].offset)
            return Ruling(frame.raw, then, CUT_PAUSE_S) if number % 2 else None

        return Faults(to_client=rule, to_server=self.note_asked)

    def flip_in_each_third_chunk(self, chance: random.Random) -> Faults:
        """One bit of the content of a chunk changes, each time it comes first."""
        chunks = 0

        def rule(frame: Frame) -> Ruling | None:
            nonlocal chunks
            for chunk in self.note_sent(frame):
                chunks += 1
                if chunks % 3 == 0 and chunk.offset not in self.faulty_at:
                    self.faulty_at.append(chunk.offset)
                    at = frame.raw.index(chunk.data[-200:]) + chance.randrange(len(chunk.data[-200:]))
                    return Ruling(flipped(frame.raw, 8 * at + chance.randrange(8)))
            return None

        return Faults(to_client=rule, to_server=self.note_asked)


def finish(cluster: Cluster, revision: int) -> None:
    """Returns when all replicas are ready and have the revision."""
    for replica in cluster.replicas:
        if not replica.address:
            replica.wait_ready()
    wait_applied(cluster, revision)
