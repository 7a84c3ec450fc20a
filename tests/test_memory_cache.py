"""Memories that are kept once they were read: how many, and not beyond their removal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memories import NAMESPACE, make_memory

from agentmem.core.memory_bytes import memories_bytes
from agentmem.core.memory_cache import _ENTRY_BYTES, MAX_SHARE, MemoryCache
from agentmem.core.store import Change, Removal, Store

MIB = 1024 * 1024
COUNT = int(1 / MAX_SHARE)
SIZE_BYTES = 500


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", map_size_bytes=16 * MIB, max_map_size_bytes=16 * MIB)
    store.commit(
        lambda transaction: transaction.append([Change(make_memory("a")), Change(make_memory("b"))], 1)
    )
    yield store
    store.close()


def read(store: Store, *ordinals: int) -> list[bytes | None]:
    with store.read() as transaction:
        space = transaction.namespace(NAMESPACE)
        return list(memories_bytes(transaction, space, ordinals, store.memories))


def remove(store: Store, ordinal: int, purged_id: str) -> None:
    removal = Removal(NAMESPACE, (ordinal,), purged_id=purged_id)
    store.commit(lambda transaction: transaction.append([removal], 2))


def test_the_longest_unused_make_room() -> None:
    memory = bytes(SIZE_BYTES - _ENTRY_BYTES)
    cache = MemoryCache(COUNT * SIZE_BYTES)
    for ordinal in range(COUNT):
        cache.keep(ordinal, memory, 1)
    assert cache.size_bytes == COUNT * SIZE_BYTES
    assert cache.find([0]) == [memory]
    cache.keep(COUNT, memory, 1)
    assert cache.find([0, 1, COUNT]) == [memory, None, memory]
    assert cache.size_bytes == COUNT * SIZE_BYTES
    cache.keep(COUNT + 1, memory + b"x", 1)  # more than its share
    assert cache.find([COUNT + 1]) == [None]
    assert (cache.lookups.hits, cache.lookups.misses) == (3, 2)


def test_nothing_is_kept_when_there_is_no_room() -> None:
    cache = MemoryCache(0)
    cache.keep(1, b"", 1)
    assert (cache.find([1]), cache.size_bytes) == ([None], 0)


def test_what_was_read_once_is_answered_from_memory(store: Store) -> None:
    first = read(store, 1, 2, 3)
    assert first[2] is None
    assert first[0] is not None
    assert store.memories.find([1, 2, 3]) == first
    assert read(store, 1, 2, 3) == first
    assert store.lookups()[("memories", "hit")] == 4


@pytest.mark.parametrize("purged_id", ["a", ""])
def test_what_was_removed_is_forgotten_with_its_commit(store: Store, purged_id: str) -> None:
    (_, kept) = read(store, 1, 2)
    remove(store, 1, purged_id)
    assert store.memories.find([1, 2]) == [None, kept]
    assert read(store, 1, 2) == [None, kept]
    assert store.memories.size_bytes == len(kept or b"") + _ENTRY_BYTES


def test_what_an_old_snapshot_still_shows_is_not_kept(store: Store) -> None:
    with store.read() as transaction:
        space = transaction.namespace(NAMESPACE)
        remove(store, 1, "a")
        (shown,) = memories_bytes(transaction, space, [1], store.memories)
    assert shown is not None
    assert store.memories.find([1]) == [None]
    assert read(store, 1) == [None]
