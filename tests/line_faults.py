"""Replicas behind lines that are slow, half-open, stalled, or broken at random; see stream_faults.py."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from calls import Memory, add
from cluster import Cluster, Node, Stubs, wait_until
from fault_proxy import FaultProxy, Faults, Frame, Ruling, Then, flipped
from stream_faults import (
    FLAGS,
    NAMESPACE,
    begin_replica,
    check_equal_stores,
    head_revision,
    wait_applied,
    write_mixed,
)

from agentmem.v1 import reader_pb2

CONTENT_BYTES = 200 * 1024
SLOW_LINE_BYTES_PER_S = 50_000
LINE_DELAY_S = 0.2


def write_bytes(stubs: Stubs, size_bytes: int, chance: random.Random) -> int:
    """Writes at least that many bytes of content that cannot be compressed; returns the last revision."""
    revision = 0
    for _ in range(0, size_bytes, 5 * CONTENT_BYTES):
        memories = [Memory(content=chance.randbytes(CONTENT_BYTES // 2).hex()) for _ in range(5)]
        revision = add(stubs, NAMESPACE, *memories).revision
    return revision


def half_open_late_and_slow(folder: Path, *, slow_bytes: int) -> None:
    """Replicas behind a connection that dies silently, one that is late, and one that is slow: all converge.

    Of the first, the next connection is accepted and never answered, too. To the last, one frame of
    ``slow_bytes`` is on its way.
    """
    with Cluster(folder, replicas=0, writer_flags=FLAGS) as cluster, ExitStack() as stack:
        stubs = Stubs(cluster.writer.address)
        write_mixed(stubs, 20)
        half_open, late, slow = (
            stack.enter_context(FaultProxy(cluster.writer.address, lambda number, faults=faults: faults))  # type: ignore[misc]
            for faults in (
                Faults(),
                Faults(delay_s=LINE_DELAY_S),
                Faults(bytes_per_s=SLOW_LINE_BYTES_PER_S),
            )
        )
        for proxy in (half_open, late, slow):
            begin_replica(cluster, proxy.address)
        for replica in cluster.replicas:
            replica.wait_ready()
        accepted = half_open.accepted
        half_open.faults = lambda number: Faults(is_mute=number == accepted)
        half_open.swallow()
        write_mixed(stubs, 20, "behind.")
        contents = ["x" * min(CONTENT_BYTES, slow_bytes - at) for at in range(0, slow_bytes, CONTENT_BYTES)]
        revision = add(stubs, NAMESPACE, *(Memory(content=content) for content in contents)).revision
        wait_applied(cluster, revision)
        assert half_open.accepted >= accepted + 2, "the dead connections are still in use"
        stubs.channel.close()
        check_equal_stores(cluster)


def anonymous_bytes(node: Node) -> int:
    """The memory of a process that is its own, without the pages of its files."""
    for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc: this needs Linux")


@dataclass(slots=True)
class Growth:
    """By how many bytes the writer's own memory grew while so many were written."""

    written_bytes: int
    control_bytes: int  # without replicas
    grown_bytes: int  # with replicas that take nothing
    log_bytes: int  # of the writer's log, at most, meanwhile


def stall(folder: Path, *, written_bytes: int, max_log_bytes: int = 10_000) -> Growth:
    """Replicas that take nothing, one stopped and one behind a stalled line, cost the writer nothing.

    It goes on accepting writes, its memory and its log stay as they are, and when the replicas go on, whose
    place in the log is gone by then, they come level from a snapshot.
    """
    chance = random.Random("stall")
    flags = (*FLAGS, "--max-log-bytes", str(max_log_bytes))
    with Cluster(folder, replicas=0, writer_flags=flags) as cluster:
        stubs = Stubs(cluster.writer.address)

        def log_bytes() -> int:
            request = reader_pb2.GetStatsRequest(namespace=NAMESPACE)
            return stubs.reader.GetStats(request).store.log_bytes

        write_bytes(stubs, written_bytes // 4, chance)
        before = anonymous_bytes(cluster.writer)
        write_bytes(stubs, written_bytes, chance)
        control_bytes = anonymous_bytes(cluster.writer) - before
        with FaultProxy(cluster.writer.address) as proxy:
            begin_replica(cluster, proxy.address)
            begin_replica(cluster, cluster.writer.address)
            for replica in cluster.replicas:
                replica.wait_ready()
            # Both follow, and have taken what there is.
            wait_applied(cluster, write_bytes(stubs, CONTENT_BYTES, chance))
            proxy.stop_reading()
            cluster.replicas[1].pause()
            before = anonymous_bytes(cluster.writer)
            last_revision = write_bytes(stubs, written_bytes, chance)
            grown_bytes = anonymous_bytes(cluster.writer) - before
            # Small entries, of which the log would hold many.
            for number in range(2 * max_log_bytes // 100):
                last_revision = add(stubs, NAMESPACE, Memory(id=f"small{number}", content="x")).revision
            wait_until(lambda: log_bytes() <= max_log_bytes, "the log is trimmed all the same")
            kept_bytes = log_bytes()
            cluster.replicas[1].resume()
            proxy.go_on()
            proxy.cut()
            wait_applied(cluster, last_revision)
        for replica in cluster.replicas:
            assert "taking a snapshot" in "".join(replica.log)
        stubs.channel.close()
        check_equal_stores(cluster, whole_logs=False)
    return Growth(written_bytes, control_bytes, grown_bytes, kept_bytes)


class RandomFaults:
    """What each connection suffers, drawn from a seed: a cut, flipped bits, a slow or silent line."""

    def __init__(self, seed: str) -> None:
        self._seed = seed

    def __call__(self, number: int) -> Faults:
        chance = random.Random(f"{self._seed}/{number}")
        kind = chance.choices(("cut", "flip", "slow", "silent", "none"), (40, 40, 10, 3, 7))[0]
        frames = chance.randrange(300)
        delay_s = chance.choice((0.0, 0.0, 0.02))
        if kind == "slow":
            return Faults(delay_s=delay_s, bytes_per_s=chance.choice((100_000, 400_000)))
        if kind == "none":
            return Faults(delay_s=delay_s)

        def rule(frame: Frame) -> Ruling | None:
            if frame.number < frames:
                return None
            if kind == "flip":
                is_due = chance.random() < 0.05
                return Ruling(flipped(frame.raw, chance.randrange(8 * len(frame.raw)))) if is_due else None
            if kind == "silent":
                return Ruling(frame.raw, Then.SWALLOW)
            rest = frame.raw[: chance.randrange(len(frame.raw) + 1)]
            return Ruling(rest, chance.choice((Then.CLOSE, Then.RESET)))

        # Of what is sent to the writer, positions and reports, some is broken, too.
        to_server = rule if chance.random() < 0.2 else None
        return Faults(None if to_server else rule, to_server, delay_s)


def fuzz(folder: Path, *, seconds: float, seed: str) -> int:
    """Random faults while writes go on; then none, and all is level. Returns how many connections it took."""
    print(f"seed of the faults: {seed}")
    with Cluster(folder, replicas=0, writer_flags=(*FLAGS, "--max-frame-bytes", "3000")) as cluster:
        stubs = Stubs(cluster.writer.address)
        with FaultProxy(cluster.writer.address) as proxy:
            for _ in range(2):
                begin_replica(cluster, proxy.address)
            for replica in cluster.replicas:
                replica.wait_ready()
            wait_applied(cluster, write_mixed(stubs, 10))
            proxy.faults = RandomFaults(seed)
            proxy.cut()
            until_s = time.monotonic() + seconds
            rounds = 0
            while time.monotonic() < until_s:
                rounds += 1
                write_mixed(stubs, 20, f"w{rounds}.")
            proxy.faults = lambda number: Faults()
            proxy.cut()
            for number, replica in enumerate(cluster.replicas):
                assert replica.process.poll() is None, f"replica {number}: {''.join(replica.log)}"
            wait_applied(cluster, head_revision(stubs))
            connections = proxy.accepted
        stubs.channel.close()
        check_equal_stores(cluster)
    return connections
