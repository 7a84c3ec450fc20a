"""Vectors: exact where it is promised, near enough where segments are, and never wrong about what is live."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Collection
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from memories import Replica, by_user, make_memory, segment_rows, unit_vectors

from agentmem.core.layout import NamespaceState
from agentmem.core.records import FloatVector
from agentmem.replica.namespace_index import SETTLED_TAIL_ROWS, SETTLING_S, NamespaceIndex
from agentmem.replica.namespace_vectors import NamespaceVectors
from agentmem.replica.ordinals import OrdinalSet, ordinal_array
from agentmem.replica.planner import DEFAULT_COSTS, Costs, Segments
from agentmem.replica.segment import KINDS, Segment, write_segment
from agentmem.replica.segment_files import FloatRows, SegmentError, read_sidecar
from agentmem.replica.vectors import VectorView

DIMENSION = 32
SEAL_ROWS = 500
# Small segments are used only where scoring rows is dear.
DEAR = Costs(scan=100.0, gather=100.0)
TENTH = "1"  # user of every tenth memory


def exact(rows: FloatRows, query: FloatVector, allowed: list[int], top_k: int) -> list[int]:
    """Ordinals of the nearest rows by plain computation; ordinal n has row n - 1."""
    cosines = {ordinal: float(rows[ordinal - 1] @ query) for ordinal in allowed}
    return sorted(allowed, key=lambda ordinal: (-cosines[ordinal], -ordinal))[:top_k]


def segment_on_disk(folder: Path, ordinals: list[int], rows: FloatRows, kind: str = "annoy") -> Segment:
    folder.mkdir()
    np.array(ordinals, dtype="<u8").tofile(folder / "ordinals.u64")
    rows.astype("<f4").tofile(folder / "rows.f32")
    write_segment(folder, dimension=rows.shape[1], kind=kind, replaces=[])
    return Segment.open(folder)


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.1, 0.01, 0.001])
def test_recall_of_segments(tmp_path: Path, share: float, kind: str) -> None:
    count = 10_000
    rows = unit_vectors(count + 200, 64)
    live = OrdinalSet(range(1, count + 201))
    vectors = NamespaceVectors(64)
    for start in (0, count // 2):
        ordinals = list(range(start + 1, start + count // 2 + 1))
        segment = segment_on_disk(tmp_path / f"1-{start}", ordinals, rows[start : start + count // 2], kind)
        vectors.add_segment(segment, live)
    for ordinal in range(count + 1, count + 201):
        vectors.add(ordinal, rows[ordinal - 1])
    random = np.random.default_rng(4)
    allowed = live if share == 1.0 else OrdinalSet(o for o in live if random.random() < share)
    view = vectors.view(DEAR)
    wanted = ordinal_array(allowed)
    assert isinstance(view.estimate(10, wanted, len(live)).plan, Segments) or share < 0.1
    assert recall(view, rows, allowed, live) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 41])
def test_a_segment_of_few_rows(tmp_path: Path, count: int, kind: str) -> None:
    rows = unit_vectors(count, 16, seed=1)
    segment = segment_on_disk(tmp_path / "few", list(range(1, count + 1)), rows, kind)
    found = segment.nearest(rows[0], 10, effort=1.0).tolist()
    assert 0 in found
    assert len(found) == len(set(found))
    # Inverted lists leave out what is the furthest in every part.
    assert len(found) >= min(10, count) - (kind == "ivf")


@pytest.mark.parametrize("count", [1, 3, 2000])
def test_a_segment_of_rows_that_are_all_the_same(tmp_path: Path, count: int) -> None:
    rows = np.repeat(unit_vectors(1, 16, seed=1), count, axis=0)
    segment = segment_on_disk(tmp_path / "same", list(range(1, count + 1)), rows, "ivf")
    assert len(segment.nearest(rows[0], 10, effort=1.0)) >= min(10, count)
    even = np.arange(0, count, 2)
    found = segment.nearest_of(unit_vectors(1, 16, seed=2)[0], 10, even)
    assert len(found) >= min(10, len(even))
    assert not (found % 2).any()


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
    view = vectors.view(DEAR)
    assert isinstance(view.estimate(10, ordinal_array(allowed), len(live)).plan, Segments)
    hits = view.search(query, 10, allowed, live)
    assert len(hits.ordinals) == 10
    assert not nearest & set(hits.ordinals.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_recall_when_a_filter_leaves_out_what_is_near(tmp_path: Path, kind: str) -> None:
    """What lies far from a question lies there in no order that a forest knows."""
    random = np.random.default_rng(8)
    clusters, size, dimension = 200, 40, 64
    centres = random.standard_normal((clusters, dimension))
    of_cluster = np.repeat(np.arange(clusters), size)
    rows = centres[of_cluster] + 0.7 * random.standard_normal((clusters * size, dimension))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    live = OrdinalSet(range(1, len(rows) + 1))
    vectors = NamespaceVectors(dimension)
    segment = segment_on_disk(tmp_path / "1-1", list(live), rows, kind)
    vectors.add_segment(segment, live)
    half = [ordinal for ordinal in live if of_cluster[ordinal - 1] % 2]
    wanted = ordinal_array(OrdinalSet(half))
    view = vectors.view(DEAR)
    assert isinstance(view.estimate(10, wanted, len(live)).plan, Segments)
    found = 0
    for cluster in range(0, 80, 2):
        query = (centres[cluster] / np.linalg.norm(centres[cluster])).astype(np.float32)
        hits = view.search(query, 10, OrdinalSet(half), live)
        found += len(set(hits.ordinals.tolist()).intersection(exact(rows, query, half, 10)))
    assert found >= 0.95 * 40 * 10


def test_recall_when_all_that_matches_is_about_as_far(tmp_path: Path) -> None:
    """What codes of a few bits cannot tell apart is compared exactly."""
    rows = unit_vectors(6000, 64)
    live = OrdinalSet(range(1, len(rows) + 1))
    vectors = NamespaceVectors(64)
    segment = segment_on_disk(tmp_path / "1-1", list(live), rows, "ivf")
    segment.search_ns = segment.filtered_ns = 1.0
    vectors.add_segment(segment, live)
    view = vectors.view(DEAR)
    plans = []
    for query in rows[:20]:
        order = np.argsort(rows @ query) + 1
        for half in (order[3000:], order[:3000]):
            hits = view.search(query, 10, OrdinalSet(half.tolist()), live)
            assert hits.ordinals.tolist()[:5] == exact(rows, query, half.tolist(), 5)
            plans.append(hits.how)
    assert any("rows that match" in plan for plan in plans[::2])
    assert {*plans[1::2]} == {"exact scan of the matching rows"}


def test_what_inverted_lists_leave_out_is_found(tmp_path: Path) -> None:
    """Of two rows, that whose code is the least like the question in every part."""
    near, far = unit_vectors(2, 16, seed=1), -unit_vectors(2, 16, seed=1)
    first = segment_on_disk(tmp_path / "1-1", [1, 2], near, "ivf")
    left_out = [row for row in (0, 1) if len(first.nearest_of(near[row], 2, np.arange(2))) < 2]
    assert left_out
    live = OrdinalSet([1, 2, 3, 4])
    vectors = NamespaceVectors(16)
    for segment in (first, segment_on_disk(tmp_path / "1-2", [3, 4], far, "ivf")):
        segment.search_ns = segment.filtered_ns = 1.0  # it is hopeless, and would not be asked
        vectors.add_segment(segment, live)
    view, allowed = vectors.view(Costs(1e9, 1e9)), OrdinalSet([1, 2, 3])
    plan = view.estimate(2, ordinal_array(allowed), 4).plan
    assert isinstance(plan, Segments)
    assert plan.pushes_down
    for row in left_out:
        hits = view.search(near[row], 2, allowed, live)
        assert hits.ordinals.tolist() == exact(np.concatenate([near, far]), near[row], [1, 2, 3], 2)


@pytest.mark.parametrize("gap", [1, 100])  # near each other, a table finds them; far apart, halving
def test_rows_of_a_segment_in_any_order(tmp_path: Path, gap: int) -> None:
    rows = unit_vectors(600, DIMENSION)
    order = np.random.default_rng(3).permutation(500)
    vectors = NamespaceVectors(DIMENSION)
    live = OrdinalSet(range(gap, 600 * gap + 1, gap))
    ordinals = [(int(row) + 1) * gap for row in order]
    vectors.add_segment(segment_on_disk(tmp_path / "1-1", ordinals, rows[order]), live)
    for row in range(500, 600):
        vectors.add((row + 1) * gap, rows[row])
    for row in (0, 77, 499, 510):
        vectors.drop((row + 1) * gap)
        live.remove((row + 1) * gap)
    view = vectors.view()
    query = unit_vectors(1, DIMENSION, seed=5)[0]
    ranked = np.argsort(-(rows @ query))
    for wanted in ([1], [40, 41, 42, 43, 44], [499, 550], [*range(300, 590)], [0, 510], [*range(600)]):
        allowed = OrdinalSet((row + 1) * gap for row in wanted) & live
        found = view.search(query, 1000, allowed, live)
        assert found.ordinals.tolist() == [(row + 1) * gap for row in ranked if (row + 1) * gap in allowed]
    asked = np.arange(1, 700 * gap + 1, dtype=np.uint64)
    cosines = view.cosines(query, asked)
    has_row = np.isin(asked, (np.arange(600) + 1) * gap)
    assert not np.isnan(cosines[has_row]).any()
    assert np.isnan(cosines[~has_row]).all()
    np.testing.assert_allclose(cosines[has_row], rows @ query, atol=1e-5)


def test_the_planner_hears_how_far_apart_the_matching_rows_stand(tmp_path: Path) -> None:
    """In the segment, whatever the order in which they were written."""
    owners, each = 8, 2048
    order = np.arange(owners * each).reshape(each, owners).T.ravel()  # of owners who wrote in turns
    rows = unit_vectors(owners * each, DIMENSION)
    vectors = NamespaceVectors(DIMENSION)
    live = OrdinalSet(range(1, len(order) + 1))
    vectors.add_segment(segment_on_disk(tmp_path / "1-1", (order + 1).tolist(), rows[order]), live)
    view = vectors.view()

    def exactly_ns(matching: npt.NDArray[np.int64]) -> float:
        return view.estimate(1, np.sort(matching + 1).astype(np.uint64), len(order)).exact_ns

    together, apart = order[:each], order[::owners]
    assert exactly_ns(together) == pytest.approx(each * DIMENSION * DEFAULT_COSTS.scan, rel=0.1)
    assert exactly_ns(apart) == pytest.approx(each * DIMENSION * DEFAULT_COSTS.gather, rel=0.1)


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


def test_a_tail_that_nothing_is_added_to_is_sealed(tmp_path: Path) -> None:
    count = SETTLED_TAIL_ROWS + 1
    rows = unit_vectors(count, DIMENSION)
    with Replica(tmp_path, seal_rows=10 * count) as replica:
        fill(replica, rows)
        replica.wait_for(lambda view: sum(segment_rows(view)) == count)
        check(replica, rows)


def test_when_a_tail_is_sealed() -> None:
    namespace = NamespaceIndex("tests", NamespaceState(number=1), lambda ordinals: [])
    rows = unit_vectors(SETTLED_TAIL_ROWS + 1, DIMENSION)
    for ordinal, row in enumerate(rows, start=1):
        assert namespace.settled_at_s(10_000) is None
        namespace.put(ordinal, make_memory(str(ordinal)), row)
    before_s = time.monotonic()
    namespace.view()
    at_s = namespace.settled_at_s(10_000)
    assert at_s is not None
    assert at_s >= before_s + SETTLING_S
    assert namespace.sealing_job(10_000) is None
    assert namespace.sealing_job(SETTLED_TAIL_ROWS) is not None


def test_rows_of_one_owner_stand_together(tmp_path: Path) -> None:
    """A user's in one piece, an agent's of that user in one piece of it, and a session's in one of these."""
    count = 1200
    random = np.random.default_rng(12)
    owners = [tuple(f"{draw}" if draw else "" for draw in random.integers(0, 4, 3)) for _ in range(count)]
    memories = [make_memory(f"m{n}", user_id=who[0], session_id=who[2]) for n, who in enumerate(owners)]
    for memory, who in zip(memories, owners, strict=True):
        memory.agent_id = who[1]
    with Replica(tmp_path, seal_rows=SEAL_ROWS) as replica:
        replica.put(memories, unit_vectors(count, DIMENSION))
        view = replica.wait_for(lambda view: sum(segment_rows(view)) == count)
        vectors = view.namespaces["tests"].vectors
        assert vectors is not None
        (part,) = vectors.segments
    stand = [(*owners[ordinal - 1], ordinal) for ordinal in part.ordinals.tolist()]
    for depth in (1, 2, 3):
        seen = [each[:depth] for each in stand]
        pieces = 1 + sum(before != after for before, after in pairwise(seen))
        assert pieces == len(set(seen))
    assert all(a[3] < b[3] for a, b in pairwise(stand) if a[:3] == b[:3])


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
    (path,) = folder.glob("index.*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def flip_code_byte(folder: Path) -> None:
    path = folder / "codes.i8"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def lower_residual(folder: Path) -> None:
    path = folder / "scales.f32"
    scales = np.fromfile(path, dtype="<f4")
    scales[-1] = 0
    scales.tofile(path)


def cut_rows(folder: Path) -> None:
    path = folder / "rows.f32"
    os.truncate(path, path.stat().st_size - 4)


def lose_ordinals(folder: Path) -> None:
    (folder / "ordinals.u64").unlink()


def garble_sidecar(folder: Path) -> None:
    (folder / "segment.json").write_text("{}")


def make_format_newer(folder: Path) -> None:
    sidecar = folder / "segment.json"
    sidecar.write_text(sidecar.read_text().replace('"format": 3', '"format": 4'))


def exchange_rows(folder: Path) -> None:
    """Files that are whole, but do not belong together: what the self-test is for."""
    rows = unit_vectors((folder / "rows.f32").stat().st_size // DIMENSION // 4, DIMENSION, seed=77)
    before = Segment.open(folder).sidecar.sha256["rows.f32"]
    rows.tofile(folder / "rows.f32")
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    write_segment(other, dimension=DIMENSION, kind=read_sidecar(folder).index, replaces=[])
    after = Segment.open(other).sidecar.sha256["rows.f32"]
    shutil.rmtree(other)
    sidecar = folder / "segment.json"
    sidecar.write_text(sidecar.read_text().replace(before, after))


DAMAGES = [
    flip_index_byte,
    flip_code_byte,
    lower_residual,
    cut_rows,
    lose_ordinals,
    garble_sidecar,
    make_format_newer,
    exchange_rows,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_refused(tmp_path: Path, damage: Callable[[Path], None], kind: str) -> None:
    segment_on_disk(tmp_path / "1-1", list(range(1, 501)), unit_vectors(500, DIMENSION), kind)
    damage(tmp_path / "1-1")
    with pytest.raises(SegmentError):
        Segment.open(tmp_path / "1-1")


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
