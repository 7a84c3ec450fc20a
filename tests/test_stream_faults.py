"""Whatever happens to the stream of the log, a replica is a prefix of it: no gap, and nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
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
    assert fuzz(tmp_path, seconds=5, seed="suite") > 2


@contextmanager
def relayed(folder: Path, change: Change) -> Iterator[tuple[Cluster, Stubs, Relay]]:
    """A writer with some entries, which a replica follows through a relay; all are level in the end."""
    with Cluster(folder, replicas=0, writer_flags=(*FLAGS, *ONE_ENTRY_FRAMES)) as cluster:
        stubs = Stubs(cluster.writer.address)
        write_mixed(stubs, ENTRIES)
        with Relay(cluster.writer.address, change) as relay:
            replica = begin_replica(cluster, relay.address)
            wait_applied(cluster, ENTRIES)
            replica.wait_ready()
            yield cluster, stubs, relay
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

    with relayed(tmp_path, repeat) as (cluster, stubs, relay):
        write_mixed(stubs, 5, "later.")
        wait_applied(cluster, ENTRIES + 5)
        assert behind(relay) == [0]  # one stream did it all


@pytest.mark.parametrize("fault", ["swapped", "dropped", "the last one dropped"])
def test_a_gap_is_noticed_and_closed(tmp_path: Path, fault: str) -> None:
    at = ENTRIES if fault == "the last one dropped" else 17

    async def change(messages: AsyncIterator[bytes], number: int) -> AsyncIterator[bytes]:
        held = b""
        async for message in messages:
            if number == 0 and [revision_of(entry) for entry in shipped(message)] == [at]:
                held = message
                continue
            yield message
            if held and fault == "swapped":
                yield held
                held = b""

    with relayed(tmp_path, change) as (cluster, _, relay):
        assert behind(relay) == [0, at - 1]
        (refusal,) = [line for line in cluster.replicas[0].log if "was refused" in line]
        assert "LOG_GAP" in refusal
