"""A replica of a modelled store: it gets the log whenever and in whatever pieces, and is compared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from drawn_requests import NAMESPACES
from modelled_store import ModelledStore, listed, open_store
from store_scan import check_level, check_scan, live_memories, scan

from agentmem.core.errors import AgentMemError
from agentmem.core.shipping import VectorsReplacedError
from agentmem.core.store import Store, WriteTransaction
from agentmem.v1 import reader_pb2, replication_pb2

MAX_KEPT_ENTRIES = 8


class ModelledReplica:
    """Follows the store; entries may be on their way to it while the store goes on."""

    def __init__(self, writer: ModelledStore, path: Path) -> None:
        self._writer = writer
        self._path = path
        self._on_the_way: list[replication_pb2.ShippedEntry] = []
        self._applied: list[replication_pb2.ShippedEntry] = []
        self._copies = 0
        self.store = self._empty()

    @property
    def revision(self) -> int:
        return self.store.position().revision

    def _empty(self) -> Store:
        self._copies += 1
        store = open_store(self._path / str(self._copies))
        position = self._writer.store.position()
        store.commit(lambda transaction: transaction.adopt_cluster(position.cluster_id))
        return store

    def start_over(self) -> None:
        """From an empty store."""
        self._drop()
        self.store = self._empty()

    def start_from_copy(self) -> None:
        """From a copy of the writer's store."""
        self._drop()
        self._copies += 1
        path = self._path / str(self._copies)
        path.mkdir(parents=True)
        self._writer.store.copy(path)
        self.store = open_store(path)

    def _drop(self) -> None:
        self.store.close()
        shutil.rmtree(self._path / str(self._copies))
        self._on_the_way.clear()
        self._applied.clear()

    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self._path / str(self._copies))

    def receive(self, max_bytes: int) -> None:
        """The next frame of the log as it is now. One that the log has no more comes as a whole copy."""
        behind = self.revision + len(self._on_the_way)
        with self._writer.store.read() as transaction:
            is_trimmed = transaction.first_log_revision > behind + 1
            try:
                frame = transaction.shipped_entries(behind, max_bytes)
            except VectorsReplacedError:
                is_trimmed = True
        if is_trimmed:
            self.start_from_copy()
        else:
            self._on_the_way += frame

    def apply(self, count: int) -> None:
        """What came first, in one commit."""
        entries, self._on_the_way = self._on_the_way[:count], self._on_the_way[count:]
        self._apply(entries)
        self._applied = (self._applied + entries)[-MAX_KEPT_ENTRIES:]

    def apply_again(self, count: int) -> None:
        """Entries that are there already change nothing."""
        before = scan(self.store).rows
        self._apply(self._applied[-count:])
        assert scan(self.store).rows == before

    def _apply(self, entries: Sequence[replication_pb2.ShippedEntry]) -> None:
        def work(transaction: WriteTransaction) -> None:
            for entry in entries:
                transaction.apply(entry)

        self.store.commit(work)

    def catch_up(self) -> None:
        while self.revision < self._writer.model.revision:
            self.receive(max_bytes=500)
            self.apply(len(self._on_the_way))
        self.check()

    def follow_step_by_step(self) -> None:
        """Entry by entry, and right at each."""
        while self.revision < self._writer.model.revision:
            self.receive(max_bytes=1)
            self.apply(1)
            self.check()

    def check(self) -> None:
        """What it shows is what the writer showed at its revision, but for what was removed since."""
        found = scan(self.store)
        revision = self.revision
        is_level = revision == self._writer.model.revision
        check_scan(found, is_level=is_level)
        if is_level:
            check_level(found, scan(self._writer.store))
            return
        expected = self._writer.model.live_at[revision]
        live = live_memories(found)
        for place, version in expected.items():
            assert version.is_gone or place in live, place
        for place, shown in live.items():
            version = expected[place]
            assert shown[0] == version.memory, place
            # What is gone since came without the embedding that took the place of another.
            assert shown[1] == version.embedding(revision)[0] or (version.is_gone and not shown[1]), place

    def check_as_of(self, revision: int) -> None:
        """An earlier state: right as far as it is shown."""
        revision = min(revision, self.revision)
        expected = self._writer.model.live_at[revision]
        for namespace in NAMESPACES:
            try:
                found = listed(self.store, namespace, self._writer.now_us, reader_pb2.AsOf(revision=revision))
            except AgentMemError as error:
                if error.reason != "HISTORY_PRUNED":
                    raise
                continue
            shown = {memory.id: memory for memory in found}
            for (name, memory_id), version in expected.items():
                if name == namespace:
                    assert version.is_gone or memory_id in shown
            for memory_id, memory in shown.items():
                version = expected[namespace, memory_id]
                wanted = version.shown(self.revision)
                if version.is_gone and version.replaced and not memory.embedding:
                    # It is gone since, and came without the embedding that took the place of another.
                    wanted.embedding, wanted.embedding_model = b"", ""
                assert memory == wanted
