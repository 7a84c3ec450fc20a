"""Vectors: exact where it is promised, near enough where segments are, and never wrong about what is live."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
from memories import Replica, by_user, make_memory, segment_rows, unit_vectors

from agentmem.core.records import FloatVector
from agentmem.replica.annoy_segment import AnnoySegment, FloatRows, SegmentError, write_segment
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.planner import Segments, Statistics, plan
from agentmem.replica.vectors import NamespaceVectors, VectorView

DIMENSION = 32
SEAL_ROWS = 500
TENTH = "1"  # user of every tenth memory


def exact(rows: FloatRows, query: FloatVector, allowed: list[int], top_k: int) -> list[int]:
    """Ordinals of the nearest rows by plain computation; ordinal n has row n - 1."""
    cosines = {ordinal: float(rows[ordinal - 1] @ query) for ordinal in allowed}
    return sorted(allowed, key=lambda ordinal: (-cosines[ordinal], -ordinal))[:top_k]


def segment_on_disk(folder: Path, ordinals: list[int], rows: FloatRows) -> AnnoySegment:
    folder.mkdir()
    np.array(ordinals, dtype="<u8").tofile(folder / "ordinals.u64")
    rows.astype("<f4").tofile(folder / "rows.f32")
    write_segment(folder, dimension=rows.shape[1], trees=24, seed=1, replaces=[])
    return AnnoySegment.open(folder)


def recall(view: VectorView, rows: FloatRows, allowed: OrdinalSet, live: OrdinalSet) -> float:
    found = wanted = 0
    for query in unit_vectors(40, rows.shape[1], seed=9):
        hits = view.search(query, 10, allowed, live)
        expected = exact(rows, query, list(allowed), 10)
        assert len(hits.ordinals) == len(expected)
        assert all(ordinal in allowed for ordinal in hits.ordinals.tolist())
        np.testing.assert_allclose(
            hits.cosines, [rows[o - 1] @ query for o in hits.ordinals.tolist()], atol=1e-5
        )
        found += len(set(hits.ordinals.tolist()) & set(expected))
        wanted += len(expected)
    return found / wanted


@pytest.mark.parametrize("matching", [0, 1, 7, 60, 900, 1000])
def test_the_tail_is_exact(matching: int) -> None:
    rows = unit_vectors(1000, DIMENSION)
    vectors = NamespaceVectors(DIMENSION)
    for ordinal, row in enumerate(rows, start=1):
        vectors.add(ordinal, row)
    random = np.random.default_rng(matching)
    live = OrdinalSet(range(1, 1001))
    allowed = OrdinalSet((random.permutation(1000)[:matching] + 1).tolist())
    for query in unit_vectors(10, DIMENSION, seed=2):
        hits = vectors.view().search(query, 10, allowed, live)
        assert hits.ordinals.tolist() == exact(rows, query, list(allowed), 10)


def test_equal_vectors_come_newest_first() -> None:
    vectors = NamespaceVectors(DIMENSION)
    (row,) = unit_vectors(1, DIMENSION)
    for ordinal in range(1, 101):
        vectors.add(ordinal, row)
    live = OrdinalSet(range(1, 101))
    assert vectors.view().search(row, 3, live, live).ordinals.tolist() == [100, 99, 98]


def test_dropped_rows_are_gone_and_views_stay_as_they_were() -> None:
    rows = unit_vectors(5000, DIMENSION)
    vectors = NamespaceVectors(DIMENSION)
    for ordinal, row in enumerate(rows, start=1):
        vectors.add(ordinal, row)
    live = OrdinalSet(range(1, 5001))
    before, live_before = vectors.view(), live.copy()
    for ordinal in range(1, 4001):  # so many that the tail is copied meanwhile
        vectors.drop(ordinal)
        live.remove(ordinal)
    after = vectors.view()
    assert len(after.tail.rows) < 2500
    for query in unit_vectors(5, DIMENSION, seed=3):
        for view, alive in ((before, live_before), (after, live)):
            hits = view.search(query, 10, alive, alive)
            assert hits.ordinals.tolist() == exact(rows, query, list(alive), 10)


def test_a_vector_of_another_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="has 8 components, not 32"):
        NamespaceVectors(DIMENSION).add(1, unit_vectors(1, 8)[0])


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.1, 0.01, 0.001])
def test_recall_of_segments(tmp_path: Path, share: float) -> None:
    count = 10_000
    rows = unit_vectors(count + 200, 64)
    live = OrdinalSet(range(1, count + 201))
    vectors = NamespaceVectors(64)
    for start in (0, count // 2):
        ordinals = list(range(start + 1, start + count // 2 + 1))
        segment = segment_on_disk(tmp_path / f"1-{start}", ordinals, rows[start : start + count // 2])
        vectors.add_segment(segment, live)
    for ordinal in range(count + 1, count + 201):
        vectors.add(ordinal, rows[ordinal - 1])
    random = np.random.default_rng(4)
    allowed = live if share == 1.0 else OrdinalSet(o for o in live if random.random() < share)
    assert recall(vectors.view(), rows, allowed, live) >= 0.95


def test_segments_alone_are_used_and_never_return_too_few(tmp_path: Path) -> None:
    """The rows nearest to the query do not match the filter: the forest has to look further."""
    rows = unit_vectors(4000, DIMENSION)
    query = rows[0]
    nearest = set(exact(rows, query, list(range(1, 4001)), 800))
    vectors = NamespaceVectors(DIMENSION)
    live = OrdinalSet(range(1, 4001))
    segment = segment_on_disk(tmp_path / "1-1", list(range(1, 4001)), rows)
    vectors.add_segment(segment, live)
    allowed = live - OrdinalSet(nearest)
    assert isinstance(plan(Statistics(10, len(allowed), len(live), 0, 4000, segment.forest_rows)), Segments)
    hits = vectors.view().search(query, 10, allowed, live)
    assert len(hits.ordinals) == 10
    assert not nearest & set(hits.ordinals.tolist())


def test_recall_when_a_filter_leaves_out_what_is_near(tmp_path: Path) -> None:
    """What lies far from a question lies there in no order that a forest knows."""
    random = np.random.default_rng(8)
    clusters, size, dimension = 200, 40, 64
    centres = random.standard_normal((clusters, dimension))
    of_cluster = np.repeat(np.arange(clusters), size)
    rows = centres[of_cluster] + 0.7 * random.standard_normal((clusters * size, dimension))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    live = OrdinalSet(range(1, len(rows) + 1))
    vectors = NamespaceVectors(dimension)
    segment = segment_on_disk(tmp_path / "1-1", list(live), rows)
    vectors.add_segment(segment, live)
    half = [ordinal for ordinal in live if of_cluster[ordinal - 1] % 2]
    chosen = plan(Statistics(10, len(half), len(live), 0, len(rows), segment.forest_rows))
    assert isinstance(chosen, Segments)
    found = 0
    for cluster in range(0, 80, 2):
        query = (centres[cluster] / np.linalg.norm(centres[cluster])).astype(np.float32)
        hits = vectors.view().search(query, 10, OrdinalSet(half), live)
        found += len(set(hits.ordinals.tolist()).intersection(exact(rows, query, half, 10)))
    assert found >= 0.95 * 40 * 10


# Through the indexer: store, builder process, restart.


def fill(replica: Replica, rows: FloatRows) -> int:
    """One commit: the memory of ordinal n has n as its id and row n - 1; every tenth is TENTH's."""
    memories = [
        make_memory(str(n), f"memory {n}", user_id=str(int(n % 10 == 0))) for n in range(1, len(rows) + 1)
    ]
    return replica.put(memories, rows)


def check(replica: Replica, rows: FloatRows, dead: Collection[int] = ()) -> None:
    """Searches with and without a filter find what is near and live."""
    view = replica.indexer.view
    alive = [ordinal for ordinal in range(1, len(rows) + 1) if ordinal not in dead]
    tenth = [ordinal for ordinal in alive if ordinal % 10 == 0]
    found = wanted = 0
    for query in unit_vectors(20, DIMENSION, seed=5):
        hits = replica.search(view, vector=query, mode="semantic")
        expected = [str(ordinal) for ordinal in exact(rows, query, alive, 10)]
        assert len(hits) == 10
        assert not {int(hit) for hit in hits}.intersection(dead)
        found += len(set(hits) & set(expected))
        wanted += 10
        filtered = replica.search(view, vector=query, mode="semantic", node=by_user(TENTH))
        assert filtered == [str(ordinal) for ordinal in exact(rows, query, tenth, 10)]
    assert found / wanted >= 0.95


def test_a_long_tail_is_sealed_and_mapped_after_a_restart(tmp_path: Path) -> None:
    rows = unit_vectors(2000, DIMENSION)
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        revision = fill(replica, rows)
        replica.wait_for(lambda view: view.revision >= revision and sum(segment_rows(view)) == 2000)
        check(replica, rows)
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        first = replica.views[0]
        assert first.revision == revision
        assert sum(segment_rows(first)) == 2000
        check(replica, rows)


def test_deleted_rows_of_segments_are_gone_and_worn_segments_rewritten(tmp_path: Path) -> None:
    rows = unit_vectors(1200, DIMENSION)
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        fill(replica, rows)
        replica.wait_for(lambda view: sum(segment_rows(view)) == 1200)
        few = set(range(1, 101))
        view = replica.wait_for_revision(replica.delete([str(n) for n in sorted(few)]))
        assert sum(segment_rows(view)) == 1200  # 8 % deleted
        check(replica, rows, few)
        many = set(range(1, 601))
        replica.delete([str(n) for n in sorted(many - few)])
        replica.wait_for(lambda view: sum(segment_rows(view)) == 600)
        check(replica, rows, many)
        left = {path.name for path in (replica.index_path / "segments").iterdir()}
        vectors = replica.indexer.view.namespaces["tests"].vectors
        assert vectors is not None
        assert left == {part.segment.name for part in vectors.segments if part.segment}


def test_updates_move_rows_to_the_tail(tmp_path: Path) -> None:
    rows = unit_vectors(1000, DIMENSION)
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        fill(replica, rows)
        replica.wait_for(lambda view: sum(segment_rows(view)) == 1000)
        # Memory 7 takes the place of memory 8 and the other way round.
        swapped = [make_memory("7", version=2), make_memory("8", version=2)]
        view = replica.wait_for_revision(replica.put(swapped, rows[[7, 6]]))
        assert replica.search(view, vector=rows[7], mode="semantic", top_k=1) == ["7"]
        assert replica.search(view, vector=rows[6], mode="semantic", top_k=1) == ["8"]


def flip_index_byte(folder: Path) -> None:
    path = folder / "index.annoy"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def cut_rows(folder: Path) -> None:
    path = folder / "rows.f32"
    os.truncate(path, path.stat().st_size - 4)


def lose_ordinals(folder: Path) -> None:
    (folder / "ordinals.u64").unlink()


def garble_sidecar(folder: Path) -> None:
    (folder / "segment.json").write_text("{}")


def make_format_newer(folder: Path) -> None:
    sidecar = folder / "segment.json"
    sidecar.write_text(sidecar.read_text().replace('"format": 1', '"format": 2'))


def exchange_rows(folder: Path) -> None:
    """Files that are whole, but do not belong together: what the self-test is for."""
    rows = unit_vectors((folder / "rows.f32").stat().st_size // DIMENSION // 4, DIMENSION, seed=77)
    before = AnnoySegment.open(folder).sidecar.sha256["rows.f32"]
    rows.tofile(folder / "rows.f32")
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    write_segment(other, dimension=DIMENSION, trees=1, seed=1, replaces=[])
    after = AnnoySegment.open(other).sidecar.sha256["rows.f32"]
    shutil.rmtree(other)
    sidecar = folder / "segment.json"
    sidecar.write_text(sidecar.read_text().replace(before, after))


DAMAGES = [flip_index_byte, cut_rows, lose_ordinals, garble_sidecar, make_format_newer, exchange_rows]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    segment_on_disk(tmp_path / "1-1", list(range(1, 501)), unit_vectors(500, DIMENSION))
    damage(tmp_path / "1-1")
    with pytest.raises(SegmentError):
        AnnoySegment.open(tmp_path / "1-1")


def test_damaged_and_unfinished_segments_are_rebuilt_from_the_store(tmp_path: Path) -> None:
    rows = unit_vectors(1200, DIMENSION)
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        fill(replica, rows)
        replica.wait_for(lambda view: sum(segment_rows(view)) == 1200)
    folders = list((tmp_path / "indexes" / "segments").iterdir())
    shutil.copytree(folders[0], folders[0].with_name("1-99.building"))
    folders[0].with_name("1-98").write_text("a file with the name of a segment")
    flip_index_byte(folders[0])
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        assert segment_rows(replica.views[0]) == []
        check(replica, rows)
        replica.wait_for(lambda view: sum(segment_rows(view)) == 1200)
        check(replica, rows)
        assert not list((tmp_path / "indexes" / "segments").glob("*.building"))
        assert not folders[0].with_name("1-98").exists()


def test_segments_of_another_store_are_not_used(tmp_path: Path) -> None:
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        fill(replica, unit_vectors(1000, DIMENSION, seed=20))
        replica.wait_for(lambda view: sum(segment_rows(view)) == 1000)
    shutil.rmtree(tmp_path / "store")
    rows = unit_vectors(400, DIMENSION, seed=21)
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        replica.wait_for_revision(fill(replica, rows))
        check(replica, rows)


def test_a_killed_builder_costs_no_answer_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = sys.executable
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nkill -9 $$\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    rows = unit_vectors(1200, DIMENSION)
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        replica.wait_for_revision(fill(replica, rows))
        check(replica, rows)
        monkeypatch.setattr(sys, "executable", real)
        replica.wait_for(lambda view: sum(segment_rows(view)) == 1200)
        check(replica, rows)
    failures = [record.message for record in caplog.records if "sealing vectors failed" in record.message]
    assert failures
    assert "status -9" in failures[0]
