"""Merging of duplicates, command by command on a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentmem.core.records import FloatVector
from agentmem.core.store import Store
from agentmem.server.commands import AddMemories
from agentmem.v1 import memory_pb2, writer_pb2

Memory = memory_pb2.Memory


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path, map_size_bytes=2**24, max_map_size_bytes=2**26)
    store.found_cluster()
    return store


def unit(dimension: int) -> FloatVector:
    return np.full(dimension, dimension**-0.5, dtype=np.float32)


def merge(
    store: Store, memories: dict[str, FloatVector | None], model: str = ""
) -> writer_pb2.AddMemoriesResponse:
    """Adds memories of the same content by their ids, with their embeddings."""
    command = AddMemories(
        namespace="ns",
        memories=[
            Memory(
                namespace="ns",
                id=memory_id,
                content="tea",
                embedding_model="" if vector is None else model,
            )
            for memory_id, vector in memories.items()
        ],
        vectors=list(memories.values()),
        on_duplicate=writer_pb2.DUPLICATE_POLICY_MERGE,
        request=None,
        size_bytes=0,
    )
    return store.commit(lambda transaction: command.run(transaction, 1))


def test_a_merge_that_brings_only_an_embedding_is_a_new_version(store: Store) -> None:
    merge(store, {"a": None})
    # Of no named model, so that no field of the memory tells of it.
    assert merge(store, {"b": unit(3)}).memories[0].version == 2
    with store.read() as transaction:
        state = transaction.id_state("ns", "a")
        assert state is not None
        space = transaction.namespace("ns")
        assert space is not None
        vector = transaction.vector(space, state.ordinal)
    assert vector is not None
    assert (vector == unit(3)).all()
    # And one that brings nothing is none.
    assert merge(store, {"c": unit(3)}).memories[0].version == 2
