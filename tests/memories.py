"""What the tests of the indexes are made of: memories, filters, unit vectors, and a store with an indexer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from agentmem.core.filters import Filter, compile_filter
from agentmem.core.records import FloatVector
from agentmem.core.store import Change, Store, WriteTransaction
from agentmem.core.times import now_us
from agentmem.replica.indexer import DEFAULT_SEAL_ROWS, Indexer
from agentmem.replica.search import Mode, SearchQuery, search
from agentmem.replica.segment_files import FloatRows
from agentmem.replica.view import View
from agentmem.v1 import filter_pb2, memory_pb2

MIB = 1024 * 1024
DEADLINE_S = 30.0
NAMESPACE = "tests"

Scalar = str | float | bool


def make_memory(
    memory_id: str,
    content: str = "nothing of note",
    *,
    namespace: str = NAMESPACE,
    version: int = 1,
    user_id: str = "",
    session_id: str = "",
    tags: Sequence[str] = (),
    importance: float = 0.0,
    metadata: dict[str, Scalar | list[Scalar]] | None = None,
    event_time_us: int = 0,
) -> memory_pb2.Memory:
    """A memory as the server stores it."""
    memory = memory_pb2.Memory(
        namespace=namespace,
        id=memory_id,
        content=content,
        type=memory_pb2.MEMORY_TYPE_EPISODIC,
        version=version,
        user_id=user_id,
        session_id=session_id,
        tags=tags,
        importance=importance,
    )
    memory.event_time.FromMicroseconds(event_time_us)
    memory.create_time.FromMicroseconds(1_700_000_000_000_000)
    memory.update_time.FromMicroseconds(1_700_000_000_000_000)
    for key, value in (metadata or {}).items():
        memory.metadata[key].CopyFrom(metadata_value(value))
    return memory


def metadata_value(value: Scalar | list[Scalar]) -> memory_pb2.MetadataValue:
    if isinstance(value, list):
        items = [metadata_value(item) for item in value]
        return memory_pb2.MetadataValue(list_value=memory_pb2.MetadataList(values=items))
    if isinstance(value, bool):
        return memory_pb2.MetadataValue(bool_value=value)
    if isinstance(value, str):
        return memory_pb2.MetadataValue(string_value=value)
    return memory_pb2.MetadataValue(number_value=value)


def condition(field: str, operator: int, *values: Scalar, times_us: Sequence[int] = ()) -> filter_pb2.Filter:
    """A filter of one condition; ``times_us`` are further values."""
    message = filter_pb2.Condition(field=field, operator=operator)  # type: ignore[arg-type]
    for value in values:
        if isinstance(value, bool):
            message.values.add(bool_value=value)
        elif isinstance(value, str):
            message.values.add(string_value=value)
        else:
            message.values.add(number_value=value)
    for time_us in times_us:
        message.values.add().time_value.FromMicroseconds(time_us)
    return filter_pb2.Filter(condition=message)


def by_user(user_id: str) -> Filter:
    compiled = compile_filter(condition("user_id", filter_pb2.OPERATOR_EQ, user_id))
    assert compiled is not None
    return compiled


def unit_vectors(count: int, dimension: int = 32, seed: int = 1) -> FloatRows:
    """Random directions around the same few, as embeddings are: float32 [count, dimension]."""
    centres = np.random.default_rng(0).standard_normal((64, dimension))
    random = np.random.default_rng(seed)
    rows = centres[random.integers(0, 64, count)] + random.standard_normal((count, dimension))
    unit: FloatRows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


class Replica:
    """A store that is written to directly, and the indexer that follows it; to be used with ``with``.

    Args:
        store: one that is there already, and is left open.
    """

    def __init__(
        self,
        path: Path,
        *,
        seal_rows: int = DEFAULT_SEAL_ROWS,
        store: Store | None = None,
        shared_segments: Path | None = None,
    ) -> None:
        self.index_path = path / "indexes"
        self.views: list[View] = []
        self._failures: list[BaseException] = []
        self._changed = threading.Condition()
        self._owns_store = store is None
        self.store = store or Store(path / "store", map_size_bytes=64 * MIB, max_map_size_bytes=512 * MIB)
        self.store.found_cluster()
        self.indexer = Indexer(
            self.store,
            self.index_path,
            seal_rows=seal_rows,
            shared_segments=shared_segments,
            on_publish=lambda view: self._note(self.views, view),
            on_failure=lambda error: self._note(self._failures, error),
        )

    def _note(self, notes: list[Any], note: object) -> None:
        with self._changed:
            notes.append(note)
            self._changed.notify_all()

    def __enter__(self) -> Replica:
        self.indexer.start()
        self.wait_for(lambda view: True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.indexer.stop()
        if self._owns_store:
            self.store.close()

    def put(self, memories: Sequence[memory_pb2.Memory], vectors: FloatRows | None = None) -> int:
        """Writes memories in one commit; returns its revision and does not wait for the indexer."""
        revision = self.write(memories, vectors)
        self.indexer.notify()
        return revision

    def write(self, memories: Sequence[memory_pb2.Memory], vectors: FloatRows | None = None) -> int:
        """As ``put``; the indexer hears nothing of it."""

        def write(transaction: WriteTransaction) -> int:
            changes = []
            for row, memory in enumerate(memories):
                vector: FloatVector | None = None if vectors is None else vectors[row]
                changes.append(Change(memory, vector))
            return transaction.append(changes, 1)

        return self.store.commit(write)

    def delete(self, ids: Sequence[str], namespace: str = NAMESPACE) -> int:
        def write(transaction: WriteTransaction) -> int:
            changes = []
            for memory_id in ids:
                tombstone = memory_pb2.Memory(namespace=namespace, id=memory_id, version=2)
                changes.append(Change(tombstone, is_tombstone=True))
            return transaction.append(changes, 1)

        revision = self.store.commit(write)
        self.indexer.notify()
        return revision

    def wait_for(self, holds: Callable[[View], bool]) -> View:
        """The newest view, once the condition holds for it."""
        with self._changed:
            arrived = self._changed.wait_for(
                lambda: self._failures or (self.views and holds(self.views[-1])), DEADLINE_S
            )
            if self._failures:
                raise self._failures[0]
            assert arrived, f"nothing like it within {DEADLINE_S} s"
            return self.views[-1]

    def wait_for_revision(self, revision: int) -> View:
        return self.wait_for(lambda view: view.revision >= revision)

    def wait_for_failure(self) -> BaseException:
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self._failures), DEADLINE_S)
            return self._failures[0]

    def ids(self, ordinals: Sequence[int]) -> list[str]:
        with self.store.read() as transaction:
            found = [transaction.record(ordinal) for ordinal in ordinals]
        return [record.memory.id for record in found if record is not None]

    def search(
        self,
        view: View,
        text: str = "",
        vector: FloatVector | None = None,
        *,
        mode: Mode = "hybrid",
        node: Filter | None = None,
        top_k: int = 10,
        namespace: str = NAMESPACE,
    ) -> list[str]:
        """The ids of the hits, best first."""
        hits = search(view, SearchQuery(namespace, text, vector, mode, node, top_k, now_us()))
        return self.ids([hit.ordinal for hit in hits])


def segment_rows(view: View, namespace: str = NAMESPACE) -> list[int]:
    """How many rows each segment of a namespace has."""
    known = view.namespaces.get(namespace)
    if known is None or known.vectors is None:
        return []
    return [len(part.rows) for part in known.vectors.segments]
