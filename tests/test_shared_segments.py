"""Replicas of a host that share sealed vectors: built and kept once, and nothing that is not their own."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from calls import Memory, add, floats
from cluster import Cluster, Stubs, wait_until
from memories import NAMESPACE, Replica, by_user, make_memory, segment_rows, unit_vectors
from scraping import scrape

from agentmem.core.layout import KEY
from agentmem.core.store import Change, Removal, WriteTransaction
from agentmem.replica.adoption import coverage
from agentmem.replica.facets import Facets
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.row_codes import RowCodes
from agentmem.replica.sealing_job import Job
from agentmem.replica.segment import Segment, write_segment
from agentmem.replica.segment_files import FloatRows, file_sha256, read_sidecar
from agentmem.replica.vectors import Part
from agentmem.v1 import memory_pb2

DIMENSION = 32
COUNT = 700
SEAL_ROWS = 500
FILES = ("ordinals.u64", "rows.f32")
HOLDS_LOCK = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""

Inode = tuple[int, int]


def fill(replica: Replica, rows: FloatRows, first: int = 1) -> int:
    numbers = range(first, first + len(rows))
    memories = [make_memory(str(n), f"memory {n}", user_id=str(n % 10)) for n in numbers]
    return replica.put(memories, rows)


def check(replica: Replica, rows: FloatRows, dead: frozenset[int] = frozenset()) -> None:
    """Searches find what is near and live, and each once."""
    view = replica.indexer.view
    alive = np.array([n for n in range(1, len(rows) + 1) if n not in dead])
    for query in unit_vectors(10, DIMENSION, seed=5):
        cosines = rows[alive - 1] @ query
        expected = [str(n) for n in alive[np.argsort(-cosines)][:10]]
        assert replica.search(view, vector=query, mode="semantic") == expected
        of_one = alive[alive % 10 == 3]
        expected = [str(n) for n in of_one[np.argsort(-(rows[of_one - 1] @ query))][:10]]
        assert replica.search(view, vector=query, mode="semantic", node=by_user("3")) == expected


def inodes(folder: Path) -> set[Inode]:
    """Of the rows and ordinals of finished segments below a folder."""
    found = [path for path in folder.glob("**/*") if path.name in FILES]
    return {
        (path.stat().st_dev, path.stat().st_ino) for path in found if (path.parent / "segment.json").exists()
    }


def segments(replica: Replica) -> set[Inode]:
    return inodes(replica.index_path / "segments")


def outcomes(replica: Replica) -> dict[str, float]:
    return {result: value for (result,), value in replica.indexer.builds.outcomes.counts().items()}


def sealed_rows(replica: Replica, count: int) -> None:
    replica.wait_for(lambda view: sum(segment_rows(view)) == count)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica that has sealed ``COUNT`` rows, and that no test may harm."""
    path = tmp_path_factory.mktemp("first")
    with Replica(path, seal_rows=SEAL_ROWS, shared_segments=path / "shared") as replica:
        fill(replica, unit_vectors(COUNT, DIMENSION))
        sealed_rows(replica, COUNT)
        wait_until(lambda: inodes(path / "shared") == segments(replica), "what it built is shared")
        yield replica


@pytest.fixture
def shared(first: Replica, tmp_path: Path) -> Path:
    """What the first replica shares, in a folder of the test's own."""
    path = tmp_path / "shared"
    shutil.copytree(first.index_path.parent / "shared", path, copy_function=os.link)
    return path


def second(first: Replica, tmp_path: Path, shared: Path, *changes: Change | Removal) -> Replica:
    """A replica with the store of the first, and some changes."""
    path = tmp_path / "second"
    (path / "store").mkdir(parents=True)
    first.store.copy(path / "store")
    replica = Replica(path, seal_rows=SEAL_ROWS, shared_segments=shared)
    if changes:
        replica.store.commit(lambda transaction: transaction.append(changes, 1))
    return replica


def tombstone(number: int) -> Change:
    return Change(memory_pb2.Memory(namespace=NAMESPACE, id=str(number), version=2), is_tombstone=True)


def test_replicas_of_a_host_build_once_and_keep_one_copy(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    rows = unit_vectors(2 * COUNT, DIMENSION)
    with Cluster(tmp_path / "cluster", replicas=0) as cluster, Stubs(cluster.writer.address) as writer:
        for _ in range(2):
            cluster.begin_replica("--seal-rows", str(SEAL_ROWS), "--shared-segments", str(shared))
        for replica in cluster.replicas:
            replica.wait_ready()

        def folders() -> list[set[Inode]]:
            return [inodes(replica.data_dir / "indexes" / "segments") for replica in cluster.replicas]

        before: set[Inode] = set()
        for begin in range(0, len(rows), COUNT):
            memories = [
                Memory(id=str(n), content=f"memory {n}", embedding=floats(*rows[n].tolist()))
                for n in range(begin, begin + COUNT)
            ]
            add(writer, NAMESPACE, *memories)

            def one_copy(before: set[Inode] = before) -> bool:
                ours, theirs = folders()
                return ours == theirs == inodes(shared) and bool(ours - before)

            wait_until(one_copy, "both have the same files, new ones, and no others are shared", 60.0)
            before = folders()[0]

        def results(result: str) -> float:
            found = [scrape(replica) for replica in cluster.replicas]
            return sum(each.value("agentmem_index_builds_total", agentmem_result=result) for each in found)

        wait_until(lambda: results("ok") == results("adopted") >= 2, "each segment was built once")


def test_a_replica_that_comes_later_builds_nothing(first: Replica, tmp_path: Path, shared: Path) -> None:
    rows = unit_vectors(COUNT + 10, DIMENSION)
    rows[:COUNT] = unit_vectors(COUNT, DIMENSION)
    more = [
        Change(make_memory(str(n), f"memory {n}", user_id=str(n % 10)), rows[n - 1])
        for n in range(COUNT + 1, COUNT + 6)
    ]
    with second(first, tmp_path, shared, tombstone(7), tombstone(9), *more) as replica:
        sealed_rows(replica, COUNT)
        assert segments(replica) == segments(first)
        assert outcomes(replica) == {"adopted": 1.0}
        (folder,) = (replica.index_path / "segments").iterdir()
        assert read_sidecar(folder).replaces == []  # names of its own
        replica.delete(["11"])
        replica.wait_for_revision(fill(replica, rows[COUNT + 5 :], first=COUNT + 6))
        check(replica, rows, frozenset({7, 9, 11}))
    # Opened from the own folder, as any other, also when nothing is shared any more.
    shutil.rmtree(shared)
    with Replica(tmp_path / "second", seal_rows=SEAL_ROWS) as replica:
        assert segment_rows(replica.views[0]) == [COUNT]
        assert segments(replica) == segments(first)


def test_a_turn_ends_with_its_process(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    with Replica(tmp_path / "first", seal_rows=SEAL_ROWS, shared_segments=shared) as replica:
        folder = shared / replica.store.position().cluster_id.hex()
        folder.mkdir(parents=True)
        command = [sys.executable, "-c", HOLDS_LOCK, str(folder / "LOCK")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            (folder / "1-0-9-0.linking").mkdir()  # what it was about to share
            rows = unit_vectors(COUNT, DIMENSION)
            replica.wait_for_revision(fill(replica, rows))
            check(replica, rows)
            sealer = replica.indexer._sealer
            wait_until(lambda: sealer.wait_s() > 0, "the replica waits for its turn")
            assert not outcomes(replica)
            holder.kill()
        sealed_rows(replica, COUNT)
        check(replica, rows)
        assert outcomes(replica) == {"ok": 1.0}
        assert not list(folder.glob("*.linking"))


def test_a_damaged_segment_is_not_adopted_and_goes(
    first: Replica, tmp_path: Path, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = shutil.copytree(shared, tmp_path / "damaged")
    shutil.copytree(own, tmp_path / "holder", copy_function=os.link)
    (index,) = own.glob("*/*/index.*")
    with index.open("r+b") as file:
        file.seek(index.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with second(first, tmp_path, own) as replica:
        sealed_rows(replica, COUNT)
        check(replica, unit_vectors(COUNT, DIMENSION))
        assert not segments(replica) & inodes(tmp_path / "holder")
        wait_until(lambda: inodes(own) == segments(replica), "only what is whole is shared")
    assert any("fails its checksum" in record.message for record in caplog.records)


@pytest.mark.parametrize("name", ["codes.i8", "scales.f32"])
def test_rows_that_are_coded_wrong_are_not_adopted(
    first: Replica, tmp_path: Path, shared: Path, name: str
) -> None:
    """A scan would not find what is near by its codes; the checksum does not tell."""
    own = shutil.copytree(shared, tmp_path / "own")
    (folder,) = own.glob("*/*-*")
    before = file_sha256(folder / name)
    with (folder / name).open("r+b") as file:
        file.seek(-4, os.SEEK_END)  # of the scales it is the residual
        file.write(bytes(4))
    sidecar = folder / "segment.json"
    sidecar.write_text(sidecar.read_text().replace(before, file_sha256(folder / name)))
    shutil.copytree(own, tmp_path / "holder", copy_function=os.link)
    with second(first, tmp_path, own) as replica:
        sealed_rows(replica, COUNT)
        check(replica, unit_vectors(COUNT, DIMENSION))
        assert not segments(replica) & inodes(tmp_path / "holder")


def test_what_was_purged_is_not_adopted_and_goes(first: Replica, tmp_path: Path, shared: Path) -> None:
    with second(first, tmp_path, shared, Removal(NAMESPACE, (7,), purged_id="7")) as replica:
        sealed_rows(replica, COUNT - 1)
        check(replica, unit_vectors(COUNT, DIMENSION), frozenset({7}))
        assert not segments(replica) & segments(first)
        wait_until(lambda: inodes(shared) == segments(replica), "what was purged is not shared")


def test_what_cannot_be_compared_is_not_adopted(
    first: Replica, tmp_path: Path, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def damage(transaction: WriteTransaction) -> None:
        value = bytearray(transaction._transaction.get(b"vectors", KEY.pack(7)) or b"")
        value[-1] ^= 1
        transaction._transaction.put(b"vectors", KEY.pack(7), bytes(value))

    replica = second(first, tmp_path, shared, tombstone(7))
    replica.store.commit(damage)
    with replica:
        sealed_rows(replica, COUNT - 1)
        check(replica, unit_vectors(COUNT, DIMENSION), frozenset({7}))
        assert not segments(replica) & segments(first)
    assert any("cannot be compared" in record.message for record in caplog.records)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_rows_of_another_history_are_not_adopted(
    first: Replica, tmp_path: Path, shared: Path, is_deleted: bool
) -> None:
    """Of a store that was put back, and gave its ordinals and revisions a second time."""
    rows = unit_vectors(COUNT, DIMENSION)
    rows[8] = -rows[8]
    path = tmp_path / "second"
    with Replica(path, seal_rows=10 * COUNT) as replica:
        # The folder is for its cluster, too.
        cluster_id = replica.store.position().cluster_id.hex()
        fill(replica, rows)
        if is_deleted:
            replica.delete(["9"])
    (folder,) = shared.iterdir()
    folder.rename(shared / cluster_id)
    with Replica(path, seal_rows=SEAL_ROWS, shared_segments=shared) as replica:
        sealed_rows(replica, COUNT - is_deleted)
        check(replica, rows, frozenset({9} if is_deleted else ()))
        assert not segments(replica) & segments(first)


def test_what_nobody_has_goes(first: Replica, tmp_path: Path, shared: Path) -> None:
    left = shutil.copytree(shared, tmp_path / "left")
    for folder, is_kept in ((shared, True), (left, False)):
        with Replica(tmp_path / "other", shared_segments=folder):
            assert bool(list(folder.glob("*/*-*"))) == is_kept


def test_a_folder_that_is_of_no_use_costs_a_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = tmp_path / "shared"
    shared.touch()
    rows = unit_vectors(2 * COUNT, DIMENSION)
    with Replica(tmp_path / "first", seal_rows=SEAL_ROWS, shared_segments=shared) as replica:
        fill(replica, rows[:COUNT])
        sealed_rows(replica, COUNT)
        fill(replica, rows[COUNT:], first=COUNT + 1)
        sealed_rows(replica, 2 * COUNT)
        check(replica, rows)
    said = [record for record in caplog.records if "segments are not shared" in record.message]
    assert [record.levelno for record in said] == [logging.WARNING]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no second file system")
def test_another_file_system_costs_a_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = Path("/dev/shm") / f"agentmem-{tmp_path.parent.name}-{tmp_path.name}"
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("the tests are on it")
    try:
        with Replica(tmp_path / "first", seal_rows=SEAL_ROWS, shared_segments=shared) as replica:
            fill(replica, unit_vectors(COUNT, DIMENSION))
            sealed_rows(replica, COUNT)
            check(replica, unit_vectors(COUNT, DIMENSION))
        assert [record for record in caplog.records if "segments are not shared" in record.message]
        assert not list(shared.glob("*/*-*"))
    finally:
        shutil.rmtree(shared)


def job(tmp_path: Path, tail: list[int], sealed: list[list[int]], live: list[int], ending: int) -> Job:
    """A job with segments, of which the first ``ending`` are to end; rows mean nothing."""
    parts = []
    for number, ordinals in enumerate(sealed):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = unit_vectors(len(ordinals), 4)
        np.array(ordinals, dtype="<u8").tofile(folder / "ordinals.u64")
        rows.astype("<f4").tofile(folder / "rows.f32")
        write_segment(folder, dimension=4, replaces=[])
        segment = Segment.open(folder)
        none = np.empty(0, dtype=np.int64)
        parts.append(Part(segment.ordinals, rows, segment.codes, none, number, segment))
    none_dead = np.empty(0, dtype=np.int64)
    tail_rows = unit_vectors(len(tail), 4)
    codes = RowCodes.of(tail_rows)
    tail_part = Part(np.array(tail, dtype=np.uint64), tail_rows, codes, none_dead, len(sealed))
    return Job(
        namespace=NAMESPACE,
        number=1,
        dimension=4,
        space=0,
        parts=(*parts[:ending], tail_part),
        beside=tuple(parts[ending:]),
        live=OrdinalSet(live),
        facets=Facets(),
    )


@pytest.mark.parametrize(
    ("tail", "sealed", "dead", "ending", "offered", "expected"),
    [
        ([1, 2, 3, 4], [], [], 0, [1, 2, 3], ([], 3)),
        ([1, 2, 3, 4], [], [2], 0, [1, 3, 4], ([], 4)),
        # It lacks one of the tail.
        ([1, 2, 3, 4], [], [], 0, [1, 3, 4], None),
        ([1, 2, 4], [], [], 0, [1, 3, 4], None),
        # It has one that lives, and that no part has.
        ([1, 2, 4], [], [], 0, [1, 2, 3], None),
        # A fifth of it is dead.
        ([1, 2, 3, 4, 5], [], [2], 0, [1, 2, 3, 4, 5], None),
        ([9, 10], [[1, 2, 3, 4, 5]], [], 1, [1, 2, 3, 4, 5, 9], (["0"], 9)),
        # It leaves the segment alone, or takes it though that was not asked for.
        ([9, 10], [[1, 2, 3, 4, 5]], [], 1, [9, 10], ([], 10)),
        ([9, 10], [[1, 2, 3, 4, 5]], [], 0, [1, 2, 3, 4, 5, 9, 10], (["0"], 10)),
        # It has half of a segment.
        ([9, 10], [[1, 2, 3, 4, 5]], [], 0, [4, 5, 9, 10], None),
        ([9, 10], [[1, 2, 3, 4, 5]], [], 0, [4, 5, 6, 7, 8, 9, 10], None),
        # What would change nothing, merges two, or leaves out the dead.
        ([], [[1, 2, 3]], [], 1, [1, 2, 3], None),
        ([], [[1, 2, 3], [4, 5, 6]], [], 0, [1, 2, 3, 4, 5, 6], (["0", "1"], 6)),
        ([], [[1, 2, 3, 4]], [2], 1, [1, 3, 4], (["0"], 4)),
    ],
)
def test_what_a_segment_takes_the_place_of(
    tmp_path: Path,
    tail: list[int],
    sealed: list[list[int]],
    dead: list[int],
    ending: int,
    offered: list[int],
    expected: tuple[list[str], int] | None,
) -> None:
    live = [ordinal for ordinal in range(1, 11) if ordinal not in dead]
    found = coverage(job(tmp_path, tail, sealed, live, ending), np.array(offered, dtype=np.uint64))
    assert (None if found is None else (found.replaced, found.last_ordinal)) == expected
