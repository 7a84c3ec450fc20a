"""The facets on disk: a restart with them answers as one without, and they are of the store or not used."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cluster import wait_until
from memories import NAMESPACE, Replica, Scalar, condition, make_memory, unit_vectors

from agentmem.core.filters import compile_filter
from agentmem.core.store import Store
from agentmem.replica import facet_snapshot
from agentmem.replica.facet_snapshot import MIN_MEMORIES, SNAPSHOT_FILE, position_at
from agentmem.replica.ordinals import ordinal_array
from agentmem.replica.view import View
from agentmem.v1 import filter_pb2, memory_pb2

COUNT = MIN_MEMORIES + 200
DIMENSION = 8
NOW_US = 1_800_000_000_000_000
FILTERS = [
    condition("id", filter_pb2.OPERATOR_EQ, "m7"),
    condition("user_id", filter_pb2.OPERATOR_EQ, "user 3"),
    condition("user_id", filter_pb2.OPERATOR_EXISTS),
    condition("session_id", filter_pb2.OPERATOR_PREFIX, "s1"),
    condition("tags", filter_pb2.OPERATOR_IN, "red", "green"),
    condition("metadata.flag", filter_pb2.OPERATOR_EQ, True),
    condition("metadata.flag", filter_pb2.OPERATOR_EQ, 1.0),
    condition("metadata.flag", filter_pb2.OPERATOR_EQ, "1"),
    condition("metadata.only", filter_pb2.OPERATOR_EXISTS),
    condition("importance", filter_pb2.OPERATOR_LT, 0.25),
    condition("event_time", filter_pb2.OPERATOR_GTE, times_us=[1_700_000_000_000_900]),
    condition("expire_time", filter_pb2.OPERATOR_EXISTS),
    condition("embedding_model", filter_pb2.OPERATOR_EXISTS),
    condition("version", filter_pb2.OPERATOR_EQ, 1.0),
]


def memory(number: int) -> memory_pb2.Memory:
    random = np.random.default_rng(number)
    metadata: dict[str, Scalar | list[Scalar]] = {"flag": (True, 1.0, "1", False)[number % 4]}
    if number == 600:
        metadata["only"] = "here"
    made = make_memory(
        f"m{number}",
        f"word{number % 50} and {number}",
        user_id=f"user {number % 7}" if number % 5 else "",
        session_id=f"s{random.integers(0, 30)}" if number % 3 else "",
        tags=["red", "green", "blue"][: number % 4],
        importance=float(random.random()),
        metadata=metadata,
        event_time_us=1_700_000_000_000_000 + number,
    )
    if number % 11 == 0:
        made.expire_time.FromMicroseconds(NOW_US + (number - COUNT // 2))
    return made


def filled(replica: Replica) -> int:
    replica.put([memory(number) for number in range(COUNT)], unit_vectors(COUNT, DIMENSION))
    return replica.delete([f"m{number}" for number in range(0, COUNT, 9)])


def answers(replica: Replica, view: View) -> list[object]:
    """What a view says to all kinds of questions."""
    namespace = view.namespaces[NAMESPACE]
    facets, live, rows = namespace.facets, namespace.live, namespace.facet_rows
    everything = ordinal_array(live)
    found: list[object] = [view.revision, everything.tolist()]
    found += [list(namespace.matching(compile_filter(each), NOW_US)) for each in FILTERS]
    found += [sorted(facets.counts(field, live)) for field in ("user_id", "session_id", "tags")]
    found.append(facets.time_span("event_time", live, rows))
    for ordinal in everything[::40].tolist():
        near = facets.beside(np.array([ordinal], dtype=np.uint64), 2, live, live, rows)
        found.append(list(near))
    query = unit_vectors(1, DIMENSION, seed=3)[0]
    found.append(replica.search(view, "word7 word9", query))
    found.append(replica.search(view, vector=query, mode="semantic", top_k=50))
    return found


def stopped(path: Path) -> Path:
    """A replica's folder after a good end; returns its snapshot."""
    with Replica(path) as replica:
        replica.wait_for_revision(filled(replica))
    snapshot = path / "indexes" / SNAPSHOT_FILE
    assert snapshot.exists()
    return snapshot


def test_a_restart_with_it_answers_as_one_without(tmp_path: Path) -> None:
    snapshot = stopped(tmp_path)
    written = snapshot.stat().st_ino
    with Replica(tmp_path) as replica:
        with_it = answers(replica, replica.views[0])
        assert snapshot.stat().st_ino == written  # else it would have been deleted
    assert snapshot.stat().st_ino == written
    snapshot.unlink()
    with Replica(tmp_path) as replica:
        assert answers(replica, replica.views[0]) == with_it


def test_what_came_later_is_applied_from_the_log(tmp_path: Path) -> None:
    snapshot = stopped(tmp_path)
    store = Store(tmp_path / "store", map_size_bytes=1 << 26, max_map_size_bytes=1 << 29)
    behind = Replica(tmp_path, store=store)  # whose indexer is not started
    changed = [memory(number) for number in (1, 2, COUNT, COUNT + 1)]
    for each in changed[:2]:
        each.version, each.user_id = 2, "user 99"
    behind.write(changed, unit_vectors(4, DIMENSION, seed=9))
    revision = behind.delete(["m4", "m600"])
    store.close()
    with Replica(tmp_path) as replica:
        assert replica.views[0].revision == revision - 2
        caught_up = answers(replica, replica.wait_for_revision(revision))
    assert snapshot.exists()  # written again at the end
    shutil.rmtree(tmp_path / "indexes")
    with Replica(tmp_path) as replica:
        assert answers(replica, replica.views[0]) == caught_up


def test_it_goes_with_the_next_change_and_names_nothing_deleted(tmp_path: Path) -> None:
    snapshot = stopped(tmp_path)
    assert b'"m7"' in snapshot.read_bytes()
    assert b"metadata.only" in snapshot.read_bytes()
    with Replica(tmp_path) as replica:
        revision = replica.delete(["m7", "m600"])
        replica.wait_for_revision(revision)
        assert not snapshot.exists()
    data = snapshot.read_bytes()
    assert b'"m7"' not in data
    assert b'"here"' not in data
    assert b"metadata.only" not in data


def test_it_is_written_when_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facet_snapshot, "IDLE_S", 0.0)
    with Replica(tmp_path) as replica:
        replica.wait_for_revision(filled(replica))
        written = tmp_path / "indexes" / SNAPSHOT_FILE
        wait_until(written.exists, "the facets are written down")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_a_damaged_one_is_not_used(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = stopped(tmp_path)
    with Replica(tmp_path) as replica:
        expected = answers(replica, replica.views[0])
    damage(snapshot)
    with caplog.at_level(logging.WARNING), Replica(tmp_path) as replica:
        assert answers(replica, replica.views[0]) == expected
    assert any("built again from the store" in record.message for record in caplog.records)


def test_one_of_another_history_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The store is put back to before some changes, and others come in their place."""
    with Replica(tmp_path) as replica:
        replica.wait_for_revision(filled(replica))
    shutil.copytree(tmp_path / "store", tmp_path / "before")
    with Replica(tmp_path) as replica:
        replica.wait_for_revision(replica.delete(["m1"]))
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "before").rename(tmp_path / "store")
    store = Store(tmp_path / "store", map_size_bytes=1 << 26, max_map_size_bytes=1 << 29)
    Replica(tmp_path, store=store).delete(["m2"])
    store.close()
    with caplog.at_level(logging.WARNING), Replica(tmp_path) as replica:
        live = replica.ids(list(replica.views[0].namespaces[NAMESPACE].live))
        assert "m1" in live
        assert "m2" not in live
    assert any("another place than any in the log" in record.message for record in caplog.records)


def test_a_place_that_the_log_has_no_longer(tmp_path: Path) -> None:
    with Replica(tmp_path) as replica:
        revision = replica.wait_for_revision(filled(replica)).revision
        with replica.store.read() as transaction:
            now = position_at(transaction, revision)
            assert now == transaction.position
            before = position_at(transaction, revision - 1)
            assert before is not None
            assert before.chain_hash != transaction.position.chain_hash
            assert position_at(transaction, revision + 1) is None
        replica.store.commit(
            lambda writing: writing.trim_log(
                max_bytes=0, before_us=0, keep_from_revision=revision, limit=1000
            )
        )
        with replica.store.read() as transaction:
            assert position_at(transaction, revision - 1) is None
            assert position_at(transaction, revision) == transaction.position
