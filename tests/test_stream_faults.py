"""Whatever happens to the stream of the log, a replica is a prefix of it: no gap, and nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import Cluster, Stubs
from line_faults import fuzz, half_open_late_and_slow, stall
from relay import Change, Relay
from stream_faults import (
    FLAGS,
    MIB,
    ONE_ENTRY_FRAMES,
    PARTS,
    asked_revision,
    begin_replica,
    check_equal_stores,
    cut_at_every_frame,
    flip_bits,
    revision_of,
    shipped,
    wait_applied,
    write_mixed,
)

ENTRIES = 30


def test_a_stream_that_is_cut_at_every_frame_loses_and_repeats_nothing(tmp_path: Path) -> None:
    cuts = cut_at_every_frame(tmp_path, entries=150)
    assert cuts.connections > 75  # each ended behind an entry, or within the one after it
    assert len(cuts.passed) >= 150


def test_flipped_bits_are_noticed_and_not_applied(tmp_path: Path) -> None:
    flips = flip_bits(tmp_path, flips=50)
    flipped = [part for kind, _, part in flips.events if kind == "flip"]
    assert {part: flipped.count(part) for part in PARTS} == dict.fromkeys(PARTS, 10)


def test_half_open_late_and_slow_lines(tmp_path: Path) -> None:
    half_open_late_and_slow(tmp_path, slow_bytes=300_000)


def test_stalled_replicas_cost_the_writer_neither_memory_nor_log(tmp_path: Path) -> None:
    growth = stall(tmp_path, written_bytes=48 * MIB)
    print(growth)
    assert growth.grown_bytes < growth.written_bytes // 4 + max(0, growth.control_bytes)
    assert growth.log_bytes <= 10_000


def test_random_faults(tmp_path: Path) -> None:
    assert fuzz(tmp_path, seconds=3, seed="suite") > 2


@contextmanager
def relayed(folder: Path, *changes: Change) -> Iterator[tuple[Cluster, Stubs, list[Relay]]]:
    """A writer with some entries, and replicas that follow it through relays; all are level in the end."""
    with ExitStack() as stack:
        flags = (*FLAGS, *ONE_ENTRY_FRAMES)
        cluster = stack.enter_context(Cluster(folder, replicas=0, writer_flags=flags))
        stubs = Stubs(cluster.writer.address)
        write_mixed(stubs, ENTRIES)
        relays = [stack.enter_context(Relay(cluster.writer.address, change)) for change in changes]
        for relay in relays:
            begin_replica(cluster, relay.address)
        for replica in cluster.replicas:
            replica.wait_ready()
        wait_applied(cluster, ENTRIES)
        yield cluster, stubs, relays
        stubs.channel.close()
        check_equal_stores(cluster)


def behind(relay: Relay) -> list[int | None]:
    return [asked_revision(request) for request in relay.asked]


def test_entries_that_come_twice_are_ignored(tmp_path: Path) -> None:
    async def repeat(messages: AsyncIterator[bytes], number: int) -> AsyncIterator[bytes]:
        sent: list[bytes] = []
        async for message in messages:
            yield message
            if shipped(message):
                yield message
                sent.append(message)
                # Much older ones, too.
                yield sent[len(sent) // 2]

    with relayed(tmp_path, repeat) as (cluster, stubs, (relay,)):
        write_mixed(stubs, 5, "later.")
        wait_applied(cluster, ENTRIES + 5)
        assert behind(relay) == [0]  # one stream did it all


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Changes the first stream at one entry: it comes behind the next one, or not at all."""

    at: int
    is_late: bool

    async def __call__(self, messages: AsyncIterator[bytes], number: int) -> AsyncIterator[bytes]:
        held = b""
        async for message in messages:
            if number == 0 and [revision_of(entry) for entry in shipped(message)] == [self.at]:
                held = message
                continue
            yield message
            if held and self.is_late:
                yield held
                held = b""


def test_gaps_are_noticed_and_closed(tmp_path: Path) -> None:
    # Swapped with the next one, dropped, and the last one dropped.
    faults = [Spoiled(17, True), Spoiled(17, False), Spoiled(ENTRIES, False)]
    with relayed(tmp_path, *faults) as (cluster, _, relays):
        for fault, relay, replica in zip(faults, relays, cluster.replicas, strict=True):
            assert behind(relay) == [0, fault.at - 1]
            (refusal,) = [line for line in replica.log if "was refused" in line]
            assert "LOG_GAP" in refusal
