"""Replicas that follow a writer over a way full of faults, and what has to be true of them in the end.

Each function runs one scenario in a folder and raises AssertionError when a promise is broken; tests run them
small, ``make chaos`` large.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from calls import Memory, add, floats, update
from cluster import Cluster, Node, Stubs, wait_until
from fault_proxy import FaultProxy, Faults, Frame, Ruling, Then, flipped
from google.protobuf.message import DecodeError
from store_scan import Scan, check_level, check_scan, scan

from agentmem.core.log import decode_entry
from agentmem.core.store import Store
from agentmem.v1 import reader_pb2, replication_pb2, writer_pb2

NAMESPACE = "ns"
# The feed ships at least one entry in a frame, and so no more than one.
ONE_ENTRY_FRAMES = ("--max-frame-bytes", "1")
FLAGS = ("--embedder", "none")
MIB = 1024**2
CONVERGENCE_TIMEOUT_S = 100.0
CUT_PAUSE_S = 0.004


def shipped(message: bytes) -> list[replication_pb2.ShippedEntry]:
    """The entries of a message to a replica; none if it is anything else.

    The messages of other calls on the connection parse as well, but have no entries with a log value.
    """
    try:
        response = replication_pb2.SubscribeResponse.FromString(message)
    except DecodeError:
        return []
    return [entry for entry in response.entries.entries if entry.log_value]


def asked_revision(message: bytes) -> int | None:
    """The revision that a Subscribe begins behind; None if the message is anything else."""
    try:
        request = replication_pb2.SubscribeRequest.FromString(message)
    except DecodeError:
        return None
    return request.position.revision if request.replica_id and request.address else None


def write_mixed(stubs: Stubs, entries: int, prefix: str = "m") -> int:
    """Writes that many log entries: adds, some with embedding, updates, deletions; the last revision."""
    live: list[str] = []
    revision = 0
    for number in range(entries):
        if number % 5 == 3:
            memory = Memory(id=live[number // 2 % len(live)], content=f"changed {number}")
            revision = update(stubs, NAMESPACE, memory, "content").revision
        elif number % 11 == 9:
            ids = [live.pop(number // 3 % len(live)), live.pop()]
            request = writer_pb2.DeleteMemoriesRequest(namespace=NAMESPACE, ids=ids)
            revision = stubs.writer.DeleteMemories(request).revision
        else:
            names = [f"{prefix}{number}.{part}" for part in range(3 if number % 7 == 6 else 1)]
            live += names
            memories = [Memory(id=name, content=f"added as {name}") for name in names]
            if number % 2:
                memories[0].embedding, memories[0].embedding_model = floats(1, number, 0.5), "drawn"
            revision = add(stubs, NAMESPACE, *memories).revision
    return revision


def begin_replica(cluster: Cluster, address: str, *flags: str) -> Node:
    """A replica that reaches its writer at the address; the caller waits until it is ready."""
    name = f"replica-{len(cluster.replicas) + 1}"
    replica = Node(
        "agentmem.replica", cluster.path / name, *("--node-id", name, "--writer", address, *FLAGS, *flags)
    )
    cluster.replicas.append(replica)
    return replica


def wait_applied(cluster: Cluster, revision: int, timeout_s: float = CONVERGENCE_TIMEOUT_S) -> None:
    """Returns when every replica of the cluster has told the writer that it has the revision."""
    names = {f"replica-{number + 1}" for number in range(len(cluster.replicas))}

    def told() -> bool:
        there = {node.id for node in cluster.topology().nodes if node.applied_revision >= revision}
        return names <= there

    wait_until(told, f"{sorted(names)} have revision {revision}", timeout_s)


def head_revision(stubs: Stubs) -> int:
    """The writer's newest revision."""
    request = reader_pb2.GetStatsRequest(namespace=NAMESPACE)
    return stubs.reader.GetStats(request).store.log_last_revision


@contextmanager
def stopped_store(data_dir: Path) -> Iterator[Store]:
    """The store of a process that has ended."""
    store = Store(data_dir / "store", map_size_bytes=64 * MIB, max_map_size_bytes=1024 * MIB)
    try:
        yield store
    finally:
        store.close()


def check_equal_stores(cluster: Cluster, *, whole_logs: bool = True) -> Scan:
    """Ends the cluster and compares its stores; see ``check_equal_nodes``."""
    return check_equal_nodes(cluster.writer, cluster.replicas, whole_logs=whole_logs)


def check_equal_nodes(writer: Node, replicas: Sequence[Node], *, whole_logs: bool = True) -> Scan:
    """Ends the nodes and compares every row of each replica's store with the writer's.

    Args:
        whole_logs: whether each store has its log from the first entry on, chained to it; otherwise each
            trimmed its own, and what both have is compared.
    """
    assert [node.terminate() for node in (*replicas, writer)] == [0] * (len(replicas) + 1)
    with stopped_store(writer.data_dir) as store:
        original = scan(store)
    check_scan(original)
    for replica in replicas:
        with stopped_store(replica.data_dir) as store:
            copy = scan(store)
        check_scan(copy)
        check_level(copy, original)
        if whole_logs:
            assert copy.rows[b"log"] == original.rows[b"log"]
            assert len(copy.rows[b"log"]) == len(original.entries) > 0
            assert min(original.entries) == 1
    return original


@dataclass(slots=True)
class Cuts:
    """What came of a stream that was cut again and again.

    Attributes:
        connections: how many there were.
        asked: the revisions behind which the replica subscribed, in their order.
        passed: the revisions of the entries that were let through, in their order.
    """

    connections: int = 0
    asked: list[int] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)

    def note_asked(self, frame: Frame) -> Ruling | None:
        """A rule for the direction to the writer that changes nothing."""
        self.asked += [
            revision for message in frame.messages if (revision := asked_revision(message)) is not None
        ]
        return None


class CutBehindAnEntry:
    """Lets one frame of entries through, and maybe half of the one after it, and ends the connection."""

    def __init__(self, cuts: Cuts, *, in_the_middle: bool, reset: bool, pause_s: float) -> None:
        self._cuts = cuts
        self._in_the_middle = in_the_middle
        self._then = Then.RESET if reset else Then.CLOSE
        self._pause_s = pause_s
        self._has_passed = False

    def __call__(self, frame: Frame) -> Ruling | None:
        revisions = [revision_of(entry) for message in frame.messages for entry in shipped(message)]
        if not revisions:
            return None
        if self._has_passed:
            return Ruling(frame.raw[: len(frame.raw) // 2], self._then, self._pause_s)
        assert len(revisions) == 1, "the writer is to send entries one by one"
        self._has_passed = True
        self._cuts.passed += revisions
        return None if self._in_the_middle else Ruling(frame.raw, self._then, self._pause_s)


def revision_of(entry: replication_pb2.ShippedEntry) -> int:
    return decode_entry(entry.log_value, 0)[0].revision


def cut_at_every_frame(folder: Path, *, entries: int) -> Cuts:
    """A stream that ends behind every entry, or within the one after it, by FIN or RST in turns.

    Of each connection at most one entry gets through, so that a replica that has them all has resumed behind
    each. Its log and its content are the writer's, and nothing came twice into effect.
    """
    cuts = Cuts()

    def faults(number: int) -> Faults:
        rule = CutBehindAnEntry(
            cuts,
            in_the_middle=number % 2 == 0,
            reset=number % 4 < 2,
            # Mostly as long as the replica needs to take it; at once, it is often lost and sent again.
            pause_s=0.0 if number % 20 < 4 else CUT_PAUSE_S,
        )
        return Faults(to_client=rule, to_server=cuts.note_asked)

    with Cluster(folder, replicas=0, writer_flags=(*FLAGS, *ONE_ENTRY_FRAMES)) as cluster:
        stubs = Stubs(cluster.writer.address)
        revision = write_mixed(stubs, entries)
        stubs.channel.close()
        assert revision == entries
        with FaultProxy(cluster.writer.address, faults) as proxy:
            replica = begin_replica(cluster, proxy.address)
            # The last entry has none behind it within which to cut.
            wait_until(
                lambda: (
                    revision in cuts.asked or (revision in cuts.passed and cuts.asked[-1] == revision - 1)
                ),
                f"revision {revision} is reached",
                CONVERGENCE_TIMEOUT_S,
            )
            proxy.faults = lambda number: Faults()
            proxy.cut()
            replica.wait_ready()
            wait_applied(cluster, revision)
            cuts.connections = proxy.accepted
        check_equal_stores(cluster)
    assert set(cuts.asked) >= set(range(entries)), "some boundary was not resumed from"
    assert cuts.asked == sorted(cuts.asked), "a replica lost what it had"
    return cuts


PARTS = ("log value", "record", "vector", "message framing", "frame header")


@dataclass(slots=True)
class Flips:
    """A rule that changes one bit in one of three frames of entries, so that the other two bring it on.

    Attributes:
        events: in their order, ("flip", the revision of the entry, the part) and ("asked", the revision
            behind which the replica subscribes, "").
    """

    chance: random.Random
    limit: int
    events: list[tuple[str, int, str]] = field(default_factory=list)
    _stream_id: int = 0
    _frames: int = 0
    _flips: int = 0

    @property
    def are_done(self) -> bool:
        return self._flips >= self.limit and self.events[-1][0] == "asked"

    def note_asked(self, frame: Frame) -> Ruling | None:
        for message in frame.messages:
            if (revision := asked_revision(message)) is not None:
                self.events.append(("asked", revision, ""))
                self._stream_id = frame.stream_id
        return None

    def __call__(self, frame: Frame) -> Ruling | None:
        entries = [(message, entry) for message in frame.messages for entry in shipped(message)]
        # What is still on its way on a stream that the replica has given up does not count.
        if frame.stream_id != self._stream_id or not entries:
            return None
        if self._flips >= self.limit or self.events[-1][0] == "flip":
            return None
        self._frames += 1
        if self._frames % 3:
            return None
        ((message, entry),) = entries
        part = PARTS[self._flips % len(PARTS)]
        places = part_places(part, frame.raw, message, entry)
        if not places:
            self._frames -= 1
            return None
        self._flips += 1
        self.events.append(("flip", revision_of(entry), part))
        return Ruling(flipped(frame.raw, self.chance.choice(places)))


def part_places(part: str, raw: bytes, message: bytes, entry: replication_pb2.ShippedEntry) -> list[int]:
    """The bits of a frame that are of a part of the one entry in it."""

    def bits(start: int, size_bytes: int) -> list[int]:
        return list(range(8 * start, 8 * (start + size_bytes)))

    contents = {
        "log value": [entry.log_value],
        "record": [record.record for record in entry.records if record.record],
        "vector": [record.vector for record in entry.records if record.vector],
    }
    if part in contents:
        return [bit for content in contents[part] for bit in bits(raw.index(content), len(content))]
    if part == "frame header":
        # Type, the end of the stream, and the stream without its first bit, which means nothing. (Lengths
        # that are too large are only noticed by the silence behind them, and so is gRPC's flag.)
        return [*bits(3, 1), 8 * 4, *bits(6, 3)]
    start = raw.index(message)
    head = replication_pb2.Entries(
        head_revision=replication_pb2.SubscribeResponse.FromString(message).entries.head_revision
    )
    # The tags and lengths of the protobuf message. Its last field does not matter: the head revision comes
    # again with each frame.
    inner = set(bits(start, len(message) - head.ByteSize()))
    for content in (each for known in contents.values() for each in known):
        inner -= set(bits(raw.index(content), len(content)))
    return sorted(inner)


def flip_bits(folder: Path, *, flips: int, seed: str = "flips") -> Flips:
    """A stream in which bits flip: each is noticed, the entry not applied, and sent again."""
    rule = Flips(random.Random(seed), flips)
    with Cluster(folder, replicas=0, writer_flags=(*FLAGS, *ONE_ENTRY_FRAMES)) as cluster:
        stubs = Stubs(cluster.writer.address)
        write_mixed(stubs, 30)
        with FaultProxy(cluster.writer.address, lambda number: Faults(rule, rule.note_asked)) as proxy:
            replica = begin_replica(cluster, proxy.address)
            written = 0
            deadline_s = time.monotonic() + CONVERGENCE_TIMEOUT_S
            while not rule.are_done:
                assert time.monotonic() < deadline_s, f"after {rule.events[-1]}: {''.join(replica.log)}"
                revision = write_mixed(stubs, 10, f"w{written}.")
                written += 1
            replica.wait_ready()
            wait_applied(cluster, revision)
        stubs.channel.close()
        check_equal_stores(cluster)
    for event, following in pairwise(rule.events):
        if event[0] == "flip":
            assert following[0] == "asked", f"{event} went unnoticed"
            # A frame that says it is the last of its stream may be whole.
            last = event[1] if event[2] == "frame header" else event[1] - 1
            assert following[1] <= last, f"{event} went unnoticed until {following}"
    return rule
