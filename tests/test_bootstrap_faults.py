"""A replica that needs a snapshot gets one, whatever happens to the transfer, and is level in the end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from bootstrap_faults import (
    CHUNK_BYTES,
    WRITER_FLAGS,
    Transfer,
    Writes,
    begin,
    fill,
    finish,
    partial_bytes,
    trimmed_cluster,
)
from cluster import Cluster, wait_until
from disk_shim import Fault, NoShim, build_shim, shim_environment
from fault_proxy import FaultProxy, Faults, Frame, Ruling, Then
from stopping_replica import STAGES
from stream_faults import check_equal_stores

# So that a transfer takes some seconds.
SLOW = Faults(bytes_per_s=150_000)


def snapshots_taken(log: list[str]) -> int:
    return sum("taking a snapshot" in line for line in log)


def test_a_transfer_that_is_cut_behind_each_chunk_goes_on(tmp_path: Path) -> None:
    transfer = Transfer()
    with trimmed_cluster(tmp_path) as cluster, FaultProxy(cluster.writer.address) as proxy:
        with Writes(cluster.writer.address) as writes:
            proxy.faults = transfer.cut_behind_each_chunk
            begin(cluster, proxy.address).wait_ready()
        finish(cluster, writes.revision)
    assert len(transfer.copies) == 1, "it began anew"
    assert transfer.resumed_at == sorted(transfer.resumed_at)
    # It was cut behind each chunk, and what came again is at most one chunk for each cut.
    chunks = range(0, transfer.size_bytes, CHUNK_BYTES)
    assert set(transfer.resumed_at) >= set(chunks[1:])
    assert len(chunks) > 10
    assert transfer.sent_bytes <= transfer.size_bytes + len(transfer.faulty_at) * CHUNK_BYTES


def test_a_flipped_bit_in_a_chunk_is_noticed_and_fetched_again(tmp_path: Path) -> None:
    transfer = Transfer()
    faults = transfer.flip_in_each_third_chunk(random.Random("chunks"))
    with trimmed_cluster(tmp_path) as cluster, FaultProxy(cluster.writer.address) as proxy:
        with Writes(cluster.writer.address) as writes:
            proxy.faults = lambda number: faults
            replica = begin(cluster, proxy.address)
            replica.wait_ready()
        finish(cluster, writes.revision)
        assert snapshots_taken(list(replica.log)) == 1
    # It asked again from a chunk that was changed, and from nowhere else.
    assert len(transfer.resumed_at) > 1
    assert set(transfer.resumed_at) <= set(transfer.faulty_at)
    assert len(transfer.copies) == 1


def test_a_writer_that_is_killed_during_a_transfer_makes_another_copy(tmp_path: Path) -> None:
    transfer = Transfer()

    def begin_only(frame: Frame) -> Ruling | None:
        transfer.note_sent(frame)
        return Ruling(frame.raw, Then.SWALLOW) if transfer.sent_bytes > 5 * CHUNK_BYTES else None

    def note_sent(frame: Frame) -> None:
        transfer.note_sent(frame)

    with (
        trimmed_cluster(tmp_path) as cluster,
        FaultProxy(cluster.writer.address, lambda number: Faults(begin_only, transfer.note_asked)) as proxy,
    ):
        replica = begin(cluster, proxy.address)
        wait_until(lambda: partial_bytes(replica) >= 5 * CHUNK_BYTES, "a part has arrived")
        cluster.writer.kill()
        proxy.faults = lambda number: Faults(note_sent, transfer.note_asked)
        proxy.cut()
        cluster.writer.restart()
        replica.wait_ready()
        with Writes(cluster.writer.address) as writes:
            wait_until(lambda: writes.revision > 0, "writes go on")
        finish(cluster, writes.revision)
    # It asked for the rest, which is not there any more, and then for another copy.
    assert len(transfer.resumed_at) >= 1
    assert len(transfer.copies) == 2


def test_a_replica_that_is_killed_during_a_transfer_begins_anew(tmp_path: Path) -> None:
    with (
        trimmed_cluster(tmp_path) as cluster,
        FaultProxy(cluster.writer.address, lambda number: SLOW) as proxy,
    ):
        replica = begin(cluster, proxy.address)
        wait_until(lambda: partial_bytes(replica) > 5 * CHUNK_BYTES, "a part has arrived")
        replica.kill()
        proxy.faults = lambda number: Faults()
        with Writes(cluster.writer.address) as writes:
            replica.restart()
        finish(cluster, writes.revision)


def test_replicas_that_are_killed_while_they_take_the_snapshot_in(tmp_path: Path) -> None:
    with trimmed_cluster(tmp_path) as cluster:
        for stage in STAGES:
            # One after the other, as there are two copies at a time.
            replica = begin(
                cluster,
                cluster.writer.address,
                module="stopping_replica",
                environment={"STAGE": stage, "STOPPED": str(tmp_path / stage)},
            )
            wait_until(lambda replica=replica: replica.process.poll() is not None, f"{stage}: it is killed")  # type: ignore[misc]
            assert (tmp_path / stage).exists(), "".join(replica.log)
            replica.kill()
        with Writes(cluster.writer.address) as writes:
            for replica in cluster.replicas:
                replica._start()
            for replica in cluster.replicas:
                replica.wait_ready()
        finish(cluster, writes.revision)
        for replica in cluster.replicas:
            assert not {path.name for path in replica.data_dir.iterdir()} & {"snapshot", "store.replaced"}


def test_a_transfer_goes_on_when_a_full_disk_has_room_again(tmp_path: Path) -> None:
    try:
        library = build_shim(tmp_path)
    except NoShim as error:
        pytest.skip(str(error))
    trigger = tmp_path / "trigger"
    environment = shim_environment(library, tmp_path / "trace", Fault("FULL"), trigger)
    del environment["DISK_TRACE"]
    with (
        trimmed_cluster(tmp_path) as cluster,
        FaultProxy(cluster.writer.address, lambda number: SLOW) as proxy,
    ):
        replica = begin(cluster, proxy.address, environment=environment)
        wait_until(lambda: partial_bytes(replica) > 2 * CHUNK_BYTES, "a part has arrived")
        trigger.touch()
        wait_until(lambda: any("no room" in line for line in replica.log), "the disk is full")
        assert replica.process.poll() is None
        trigger.unlink()
        with Writes(cluster.writer.address) as writes:
            replica.wait_ready()
        finish(cluster, writes.revision)
        # What is there is right: the transfer went on, and did not begin anew.
        assert snapshots_taken(list(replica.log)) == 1
        assert "SHA-256" not in "".join(replica.log)


def test_a_log_that_is_trimmed_further_still_reaches_back_to_the_snapshot(tmp_path: Path) -> None:
    """Under writes that never pause, for a new replica and for one that is far behind."""
    with (
        Cluster(tmp_path, replicas=0, writer_flags=WRITER_FLAGS) as cluster,
        FaultProxy(cluster.writer.address) as proxy,
    ):
        behind = begin(cluster, proxy.address)
        behind.wait_ready()
        behind.kill()
        fill(cluster, 200_000)
        # The transfer takes longer than the log is kept otherwise: some seconds of some hundred writes.
        proxy.faults = lambda number: SLOW
        with Writes(cluster.writer.address) as writes:
            behind._start()
            begin(cluster, proxy.address)
            for replica in cluster.replicas:
                replica.wait_ready()
            finish(cluster, writes.revision)
        finish(cluster, writes.revision)
        assert [snapshots_taken(list(replica.log)) for replica in cluster.replicas] == [1, 1]
        check_equal_stores(cluster, whole_logs=False)
