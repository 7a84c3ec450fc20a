"""WatchMemories: every change once, in order, from any place on any node, or a refusal; never a gap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from memories import by_user, make_memory
from watched_log import WatchedLog, Watcher

from agentmem.core import changes, purged_ordinals
from agentmem.core.changes import ChangeReader, Place, PositionAhead, WatchQuery, start_place
from agentmem.core.errors import DataLoss, FailedPrecondition, InvalidArgument
from agentmem.core.filters import Filter
from agentmem.core.layout import KEY
from agentmem.core.purged_ordinals import PurgedOrdinals
from agentmem.core.store import Change, Removal, Store, WriteTransaction
from agentmem.v1 import memory_pb2, reader_pb2

WRITES = 150
MIB = 1024 * 1024
DEADLINE_S = 30.0
Memory = memory_pb2.Memory
Position = reader_pb2.WatchPosition
ADDED = reader_pb2.CHANGE_KIND_ADDED
UPDATED = reader_pb2.CHANGE_KIND_UPDATED
DELETED = reader_pb2.CHANGE_KIND_DELETED
EXPIRED = reader_pb2.CHANGE_KIND_EXPIRED
PURGED = reader_pb2.CHANGE_KIND_PURGED


@pytest.mark.parametrize("seed", range(4))
def test_a_watch_that_is_cut_again_and_again_tells_each_change_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # Small, so that steps end anywhere.
    monkeypatch.setattr(changes, "MAX_STEP_OPERATIONS", 3)
    monkeypatch.setattr(changes, "MAX_STEP_ENTRIES", 5)
    monkeypatch.setattr(purged_ordinals, "MAX_SEARCHED_ENTRIES", 7)
    log = WatchedLog(tmp_path, f"watch {seed}")
    filters: tuple[Filter | None, ...] = (None, by_user("ana"))
    watchers = [
        Watcher(log, matcher, skip_pruned=skip_pruned)
        for matcher in filters
        for skip_pruned in (False, True)
        for _ in range(2)
    ]
    for _ in range(WRITES):
        log.write()
        for replica in log.replicas:
            if log.random.random() < 0.3:
                log.replicate(replica)
        for watcher in watchers:
            if log.random.random() < 0.3:
                node, steps = log.random.randrange(3), log.random.randint(1, 4)
                watcher.watch(node, steps, to_the_end=log.random.random() < 0.5)
    for replica in log.replicas:
        while replica.position() != log.store.position():
            log.replicate(replica)
    for number, watcher in enumerate(watchers):
        # A pruned version ends a call, and there are not so many.
        assert any(watcher.watch(number % 3, 1000) for _ in range(WRITES))
        assert watcher.position.revision == log.store.position().revision
    # It was worth it: there was all that is hard to tell.
    assert sum(watcher.changes for watcher in watchers) > 300
    assert sum(watcher.pruned for watcher in watchers) > 0
    assert {kind for _, kind in log.removed.values()} == {3, 4}
    log.close()


# One store, step by step


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, map_size_bytes=16 * MIB, max_map_size_bytes=64 * MIB)
    store.found_cluster()
    yield store
    store.close()


def put(store: Store, *ids: str, version: int = 1) -> int:
    """Adds memories, or replaces them, in one commit."""
    written = [Change(make_memory(each, version=version)) for each in ids]
    return store.commit(lambda transaction: transaction.append(written, 1))


def reader_of(store: Store, position: Position, *, skip_pruned: bool = False) -> ChangeReader:
    with store.read() as transaction:
        place = start_place(transaction, position)
    return ChangeReader(store, WatchQuery("tests", skip_pruned=skip_pruned), place, PurgedOrdinals())


def trim(store: Store, keep_from_revision: int) -> None:
    def work(transaction: WriteTransaction) -> None:
        transaction.trim_log(max_bytes=0, before_us=0, keep_from_revision=keep_from_revision, limit=100)

    store.commit(work)


def test_a_trimmed_log_is_refused_and_never_skipped(store: Store) -> None:
    for number in range(10):
        put(store, f"m{number}", f"n{number}")
    behind = reader_of(store, Position(revision=3))
    inside = reader_of(store, Position(revision=4, operation=1))
    trim(store, keep_from_revision=6)
    # Before it begins, and when it has begun.
    for attempt in (
        lambda: reader_of(store, Position()),
        lambda: reader_of(store, Position(revision=4)),
        lambda: reader_of(store, Position(revision=5, operation=1)),
        behind.step,
        inside.step,
    ):
        with pytest.raises(FailedPrecondition) as refused:
            attempt()
        assert refused.value.reason == "HISTORY_PRUNED"
        assert refused.value.metadata["oldest_revision"] == "5"
    step = reader_of(store, Position(revision=5)).step()
    assert [change.memory.id for change in step.changes] == [
        f"{letter}{number}" for number in range(5, 10) for letter in "mn"
    ]


def test_a_gap_in_the_log_is_damage(store: Store) -> None:
    for number in range(4):
        put(store, f"m{number}")
    store.commit(lambda transaction: transaction._transaction.delete(b"log", KEY.pack(3)))
    reader = reader_of(store, Position())
    with pytest.raises(DataLoss, match="no entry at revision 3"):
        reader.step()


def test_a_position_behind_a_whole_entry_does_not_need_it(store: Store) -> None:
    put(store, "a", "b")
    put(store, "c")
    last = reader_of(store, Position()).step().changes[1].position
    assert (last.revision, last.operation) == (1, 0)
    trim(store, keep_from_revision=2)
    assert [change.memory.id for change in reader_of(store, last).step().changes] == ["c"]


def test_a_version_that_waits_for_its_removal_is_not_left_out(tmp_path: Path, store: Store) -> None:
    """A replica may lack a version before it has the entry that tells whether it was pruned or purged."""
    put(store, "pruned")
    put(store, "purged")
    put(store, "pruned", version=2)
    for removal in (Removal("tests", [1]), Removal("tests", [2], purged_id="purged")):
        store.commit(lambda transaction, removal=removal: transaction.append([removal], 1))  # type: ignore[misc]
    replica = Store(tmp_path / "replica", map_size_bytes=MIB, max_map_size_bytes=64 * MIB)
    replica.commit(lambda transaction: transaction.adopt_cluster(store.position().cluster_id))
    with store.read() as transaction:
        shipped = transaction.shipped_entries(0, MIB)

    def apply(transaction: WriteTransaction) -> None:
        transaction.apply(shipped.pop(0))

    for _ in range(3):
        replica.commit(apply)
    readers = [reader_of(replica, Position(revision=revision)) for revision in (0, 1)]
    for reader in readers:
        before = reader.place
        for _ in range(3):
            step = reader.step()
            assert (list(step.changes), step.place) == ([], before)
        assert step.is_level
        assert reader.has_gap
    replica.commit(apply)
    with pytest.raises(FailedPrecondition, match="retention"):
        readers[0].step()
    assert readers[1].step().place == before
    replica.commit(apply)
    step = readers[1].step()
    assert [change.kind for change in step.changes] == [UPDATED, PURGED]
    assert step.changes[0].memory.version == 2
    replica.close()


def test_a_version_that_went_with_its_own_entry_is_not_left_out(store: Store) -> None:
    written = [Change(make_memory("a", version=version)) for version in (1, 2)]
    changes: list[Change | Removal] = [*written, Removal("tests", [1])]
    store.commit(lambda transaction: transaction.append(changes, 1))
    reader = reader_of(store, Position())
    reader.step()
    with pytest.raises(FailedPrecondition, match="retention has removed"):
        reader.step()
    step = reader_of(store, Position(), skip_pruned=True).step()
    assert [(change.kind, change.memory.version) for change in step.changes] == [(UPDATED, 2)]


def test_too_many_purges_to_tell_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purged_ordinals, "MAX_PURGED_ORDINALS", 3)
    put(store, *"abcde")
    for ordinal, memory_id in enumerate("abcde", 1):
        removal = Removal("tests", [ordinal], purged_id=memory_id)
        store.commit(lambda transaction, removal=removal: transaction.append([removal], 1))  # type: ignore[misc]
    reader = reader_of(store, Position())
    reader.step()
    with pytest.raises(FailedPrecondition, match="more than 3 versions"):
        reader.step()
    step = reader_of(store, Position(), skip_pruned=True).step()
    assert [change.kind for change in step.changes] == [PURGED] * 5


def test_a_promotion_parts_positions(store: Store) -> None:
    put(store, "a")
    put(store, "b")
    store.commit(lambda transaction: transaction.begin_epoch(2, "writer-2", 1))
    put(store, "c")
    # (epoch, revision), and the epoch of the place, or why there is none.
    cases: Sequence[tuple[int, int, int | str]] = (
        (1, 2, 1),
        (0, 2, 1),
        (0, 4, 2),
        (2, 4, 2),
        (2, 2, 1),
        (1, 3, "REVISION_LOST"),
        (1, 9, "REVISION_LOST"),
    )
    with store.read() as transaction:
        for epoch, revision, expected in cases:
            after = Position(epoch=epoch, revision=revision)
            if isinstance(expected, int):
                assert start_place(transaction, after) == Place(expected, revision)
                continue
            with pytest.raises(FailedPrecondition) as lost:
                start_place(transaction, after)
            assert lost.value.reason == expected
            assert lost.value.metadata == {"epoch": "2", "common_revision": "2"}
        for ahead in (Position(epoch=3, revision=1), Position(epoch=2, revision=5), Position(revision=5)):
            with pytest.raises(PositionAhead):
                start_place(transaction, ahead)
        for beyond in (Position(revision=1, operation=2), Position(operation=1)):
            with pytest.raises(InvalidArgument, match=r"after\.operation"):
                start_place(transaction, beyond)
    step = reader_of(store, Position(epoch=1, revision=1)).step()
    assert [(each.position.epoch, each.memory.id) for each in step.changes] == [(1, "b"), (2, "c")]


def test_a_message_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_FRAME_BYTES", 5000)
    large = [Change(make_memory(f"m{number}", "x" * 2000)) for number in range(10)]
    store.commit(lambda transaction: transaction.append(large, 1))
    reader = reader_of(store, Position())
    sizes = []
    step = reader.step()
    while not step.is_level:
        sizes.append(len(step.changes))
        step = reader.step()
    assert [*sizes, len(step.changes)] == [3, 3, 3, 1]
