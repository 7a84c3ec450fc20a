"""The newest entries in memory: the very bytes that the store would give, and only while these are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentmem.core.errors import AgentMemError, Unavailable
from agentmem.core.recent_entries import RecentEntries
from agentmem.core.store import Change, Removal, Store, WriteTransaction
from agentmem.server.reembedding import ReembedNamespace
from agentmem.v1 import memory_pb2, storage_pb2

MIB = 1024**2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "writer", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB)
    store.found_cluster()
    return store


def change(transaction: WriteTransaction, memory_id: str, *, dimension: int = 0, coming: int = 0) -> Change:
    state = transaction.id_state("ns", memory_id)
    return Change(
        memory_pb2.Memory(
            namespace="ns",
            id=memory_id,
            content=f"the content of {memory_id} " * 20,
            version=state.version + 1 if state else 1,
        ),
        np.full(dimension, dimension**-0.5, dtype=np.float32) if dimension else None,
        coming_vector=np.full(coming, coming**-0.5, dtype=np.float32) if coming else None,
    )


def put(store: Store, *ids: str, dimension: int = 4, coming: int = 0, request: bytes = b"") -> int:
    outcome = storage_pb2.RequestOutcome(key=request, fingerprint=request) if request else None
    return store.commit(
        lambda transaction: transaction.append(
            [change(transaction, each, dimension=dimension, coming=coming) for each in ids],
            1,
            request=outcome,
        )
    )


def stored(store: Store, after: int) -> list[bytes]:
    with store.read() as transaction:
        return [entry.SerializeToString() for entry in transaction.shipped_entries(after, MIB)]


def test_they_are_what_the_store_would_ship(store: Store) -> None:
    put(store, "a")
    put(store, "a", "b", request=b"0123456789abcdef")
    put(store, "c", dimension=0)
    with store.read() as transaction:
        state = transaction.id_state("ns", "b")
    assert state is not None
    tombstone = memory_pb2.Memory(namespace="ns", id="b", version=state.version + 1)
    store.commit(lambda transaction: transaction.append([Change(tombstone, is_tombstone=True)], 2))
    assert store.recent.after(0, MIB) == (stored(store, 0), 4)
    assert store.recent.after(3, MIB) == (stored(store, 3), 4)
    assert store.recent.after(4, MIB) == ([], 4)


def test_they_are_so_while_embeddings_are_replaced(store: Store) -> None:
    put(store, "a")
    begun = store.commit(lambda transaction: ReembedNamespace("ns", "next", 8, None).run(transaction, 2))
    assert store.recent.after(begun.revision - 1, MIB)[0] == []
    last = put(store, "a", "b", coming=8)
    assert store.recent.after(begun.revision, MIB) == (stored(store, begun.revision), last)
    assert b"".join(stored(store, begun.revision)).count(np.full(8, 8**-0.5, dtype=np.float32).tobytes()) == 2


def test_what_is_removed_is_no_longer_among_them(store: Store) -> None:
    put(store, "secret")
    put(store, "b")
    with store.read() as transaction:
        state = transaction.id_state("ns", "secret")
    assert state is not None
    purge = Removal("ns", [state.ordinal], purged_id="secret")
    revision = store.commit(lambda transaction: transaction.append([purge], 2))
    for cursor in range(revision + 1):
        assert store.recent.after(cursor, MIB)[0] == []
    assert b"secret" not in b"".join(stored(store, 0))
    last = put(store, "c")
    assert store.recent.after(revision - 1, MIB)[0] == []
    assert store.recent.after(revision, MIB) == (stored(store, revision), last)


def test_what_is_undone_never_comes_among_them(store: Store) -> None:
    put(store, "a")

    def fail(transaction: WriteTransaction) -> None:
        transaction.append([change(transaction, "b")], 1)
        raise Unavailable("TEST", "undone")

    with pytest.raises(AgentMemError):
        store.commit(fail)
    assert store.recent.after(1, MIB) == ([], 1)
    put(store, "c")
    assert store.recent.after(1, MIB) == (stored(store, 1), 2)


def test_they_are_without_gaps_and_bounded() -> None:
    recent = RecentEntries(max_bytes=30)
    recent.extend(2, [b"a" * 10, b"b" * 10])
    assert recent.after(0, 100) == ([b"a" * 10, b"b" * 10], 2)
    assert recent.after(0, 10) == ([b"a" * 10], 2)
    assert recent.after(0, 1) == ([b"a" * 10], 2)
    recent.extend(4, [b"c" * 10, b"d" * 10])
    assert recent.after(0, 100) == ([], 4)
    assert recent.after(1, 100) == ([b"b" * 10, b"c" * 10, b"d" * 10], 4)
    recent.extend(6, [b"f" * 10])
    assert recent.after(4, 100) == ([], 6)
    assert recent.after(5, 100) == ([b"f" * 10], 6)
    recent.extend(7, [b"g" * 31])
    assert recent.after(6, 100) == ([], 7)
    # A store that is behind, such as one that was restored.
    assert recent.after(8, 100) == ([], 7)
