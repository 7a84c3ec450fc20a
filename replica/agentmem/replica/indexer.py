"""The indexer: follows the replica's own store and publishes views of it.

One thread. At the start it builds a view of the store at its newest revision, from the indexes on disk as
far as they are good and from the store for the rest; then it follows the store's log from there. A view
holds all indexes at the same revision. The folder holds nothing that the store does not: it may be deleted
at any time while the process is not running.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from agentmem.core.embedding_spaces import after_step
from agentmem.core.errors import DataLoss
from agentmem.core.layout import NamespaceState
from agentmem.core.log import Operation
from agentmem.core.measurements import Histogram
from agentmem.core.records import FloatVector, checked_vector, has_components
from agentmem.core.shipping import AppliedEntry, VectorsReplacedError
from agentmem.core.store import ReadTransaction, Store
from agentmem.replica.applied_entries import AppliedEntries
from agentmem.replica.facet_snapshot import MIN_MEMORIES, FacetSnapshot, SnapshotFile, position_at
from agentmem.replica.index_directory import IndexDirectory
from agentmem.replica.machine_costs import measured_costs
from agentmem.replica.namespace_index import NamespaceIndex, memories_of
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set
from agentmem.replica.sealing import Sealer
from agentmem.replica.sealing_schedule import SealingSchedule
from agentmem.replica.segment import Segment
from agentmem.replica.shared_segments import SharedSegments
from agentmem.replica.stored_vectors import coming_vector, vector_at
from agentmem.replica.text import TextIndex
from agentmem.replica.view import View
from agentmem.v1 import storage_pb2

DEFAULT_SEAL_ROWS = 10_000
# About 25 ms of work: what a write waits when it comes just behind a large import.
MAX_BATCH_OPERATIONS = 256
LOAD_CHUNK_MEMORIES = 10_000
# Between two views, so that under steady writes one shows many of them; and what the last one took, at least.
# When idle, the next change is shown at once.
MIN_PUBLISH_PAUSE_S = 0.02

_KINDS = frozenset(Operation.Kind.values()) - {Operation.KIND_UNSPECIFIED}

_logger = logging.getLogger(__name__)


class Indexer:
    """Keeps ``view`` up with the store.

    Args:
        store: the replica's own store, opened by the caller.
        directory: of the indexes, for this store alone.
        seal_rows: a tail of more vectors than this is sealed into a segment.
        vector_index: the kind of index that segments get.
        shared_segments: where the replicas of the host share segments; None when they do not.
        on_publish: called in the indexer's thread with each new view.
        on_failure: called in the indexer's thread, once, with the error that ended it. ``view`` stays as it
            is and no longer moves.

    Attributes:
        publish_durations: see the table of metrics.
        builds: of segments.
    """

    def __init__(
        self,
        store: Store,
        directory: Path,
        *,
        seal_rows: int = DEFAULT_SEAL_ROWS,
        vector_index: str = "auto",
        shared_segments: Path | None = None,
        on_publish: Callable[[View], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._directory = IndexDirectory(directory)
        self._on_publish = on_publish
        self._on_failure = on_failure
        self._view = View()
        self.publish_durations = Histogram()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)
        self._wake = threading.Condition()
        self._is_notified = False
        self._is_hurried = False
        self._is_stopping = False
        self._applied = AppliedEntries()
        # From here on for the indexer's thread alone.
        self._text: TextIndex | None = None
        self._costs = measured_costs()
        shared = None if shared_segments is None else SharedSegments(shared_segments, store)
        self._sealer = Sealer(self._directory.segments, self.notify, vector_index, shared)
        self._sealing = SealingSchedule(self._sealer, seal_rows)
        self.builds = self._sealer.builds
        self._revision = 0
        self._epoch = 0
        self._namespaces: dict[str, NamespaceIndex] = {}
        self._names: dict[int, str] = {}  # of namespaces, by their numbers
        self._changed: set[str] = set()  # not yet in the view
        # Namespaces with embeddings that were replaced in the store before they came here: nothing is
        # published until their replacement has come, too.
        self._incomplete: set[str] = set()
        self._next_view_at_s = 0.0
        self._snapshot = SnapshotFile(self._directory.facet_snapshot)

    @property
    def view(self) -> View:
        """The newest view; an empty one at revision 0 before the first is published."""
        return self._view

    def start(self) -> None:
        self._thread.start()

    def notify(self) -> None:
        """Says that the store has moved on. Any thread may call it; it does not wait."""
        with self._wake:
            self._is_notified = True
            self._wake.notify()

    def take(self, entries: Sequence[AppliedEntry]) -> None:
        """Takes entries that the store has from now on. Any thread may call it; it does not wait."""
        self._applied.extend(entries)
        self.notify()

    def hurry(self) -> None:
        """Says that somebody waits for a view: the next one is published without the usual pause."""
        with self._wake:
            self._is_hurried = self._is_notified = True
            self._wake.notify()

    def stop(self) -> None:
        """Ends the thread and waits for it. Must not be called from it."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            text = self._load()
            is_loaded = not self._is_stopping
            while not self._is_stopping:
                is_behind = self._apply_batch(text)
                self._changed.update(self._sealing.advance(self._namespaces))
                text.take_up()
                if self._is_due(text):
                    self._publish(text)
                if text.wait_s() == 0:
                    text.begin_commit()
                if not is_behind:
                    if self._snapshot.wait_s() == 0 and not self._has_changes(text):
                        self._write_snapshot()
                    self._wait(text)
            if is_loaded and text.is_changed:
                text.commit()
            if is_loaded and self._snapshot.wait_s() is not None:
                self._write_snapshot()
        except BaseException as error:  # reported to the process, which ends
            self._on_failure(error)
        finally:
            self._sealer.stop()
            if self._text is not None:
                self._text.close()

    def _wait(self, text: TextIndex) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._is_notified or self._is_stopping, self._wait_s(text))
            # What comes before the next view is due is applied at once with that.
            self._wake.wait_for(
                lambda: self._is_hurried or self._is_stopping,
                min(MIN_PUBLISH_PAUSE_S, self._next_view_at_s - time.monotonic()),
            )
            self._is_notified = False

    def _wait_s(self, text: TextIndex) -> float | None:
        waits_s = []
        has_changes = self._has_changes(text)
        if has_changes and not self._incomplete:
            waits_s.append(max(0.0, self._next_view_at_s - time.monotonic()))
        text_s = text.wait_s()
        if text_s is not None:
            waits_s.append(text_s)
        sealing_s = self._sealing.wait_s()
        if sealing_s is not None:
            waits_s.append(sealing_s)
        snapshot_s = self._snapshot.wait_s()
        if snapshot_s is not None and not has_changes:
            waits_s.append(snapshot_s)
        return min(waits_s, default=None)

    def _write_snapshot(self) -> None:
        """Writes the facets down, so that a restart need not make them of all records."""
        namespaces = {name: (each.state, each.facet_parts) for name, each in self._namespaces.items()}
        with self._store.read() as transaction:
            position = position_at(transaction, self._revision)
        memories = sum(len(each.live) for each in self._namespaces.values())
        worth_it = memories >= MIN_MEMORIES and not self._incomplete
        self._snapshot.write(position, namespaces if worth_it else None)

    # Starting

    def _load(self) -> TextIndex:
        """Builds the first view and publishes it."""
        with self._store.read() as transaction:
            position = transaction.position
            states = dict(transaction.namespaces())
            self._directory.prepare(position.cluster_id if position.revision else b"")
            snapshot = self._snapshot.read(transaction, states)
            if snapshot is None:
                live = np.fromiter(transaction.live_ordinals(), dtype=np.uint64)
                live.sort()
                self._revision, self._epoch = position.revision, position.epoch
            else:
                live = snapshot.live
                self._revision, self._epoch = snapshot.revision, snapshot.epoch
            newest_ordinal = transaction.newest_ordinal
        text = self._text = TextIndex(self._directory.text, self.notify)
        segments = self._open_segments(states, newest_ordinal)
        self._load_memories(text, states, live, segments, snapshot)
        for name, opened in segments.items():
            for segment in opened:
                self._namespaces[name].add_segment(segment)
        self._sealing.note(*self._namespaces)
        if not self._is_stopping and not self._incomplete:  # else not everything was loaded
            self._publish(text)
        return text

    def _open_segments(
        self, states: dict[str, NamespaceState], newest_ordinal: int
    ) -> dict[str, list[Segment]]:
        """The good segments on disk by namespace, oldest first."""
        names = {state.number: name for name, state in states.items()}
        fitting: dict[str, list[Segment]] = {}
        for number, segments in self._sealer.open_segments().items():
            for segment in segments:
                name = names.get(number)
                # A store that was put back to an older state gives its ordinals a second time.
                if (
                    name is None
                    or segment.ordinals.max() > newest_ordinal
                    or segment.sidecar.dimension != states[name].dimension
                    or segment.sidecar.space != states[name].space
                ):
                    self._sealer.remove([segment.name])
                else:
                    fitting.setdefault(name, []).append(segment)
        return fitting

    def _load_memories(
        self,
        text: TextIndex,
        states: dict[str, NamespaceState],
        live: OrdinalArray,
        segments: dict[str, list[Segment]],
        snapshot: FacetSnapshot | None,
    ) -> None:
        self._namespaces = {
            name: NamespaceIndex(name, state, memories_of(self._store), self._costs)
            for name, state in states.items()
        }
        for namespace in self._namespaces.values():
            # Some did not change for long, but which is not in the records of what is live.
            namespace.changed_revision = self._revision
        self._changed.update(states)
        in_segments = OrdinalSet().union(
            *(ordinal_set(segment.ordinals) for opened in segments.values() for segment in opened)
        )
        in_text = text.keep_only(live)
        if snapshot is not None:
            live = self._restore(snapshot, in_text, in_segments)
        # The records of a revision are never changed, so several short transactions read what one would.
        for start in range(0, len(live), LOAD_CHUNK_MEMORIES):
            with self._store.read() as transaction:
                for ordinal in live[start : start + LOAD_CHUNK_MEMORIES].tolist():
                    if self._is_stopping:
                        return
                    self._put_stored(
                        transaction,
                        ordinal,
                        None if ordinal in in_text else text,
                        with_vector=ordinal not in in_segments,
                        has_facets=snapshot is not None,
                    )
            if text.is_changed:
                text.commit()

    def _restore(self, snapshot: FacetSnapshot, in_text: OrdinalSet, in_segments: OrdinalSet) -> OrdinalArray:
        """Takes up the facets; returns the memories that the other indexes on disk lack."""
        lacking = OrdinalSet()
        for name, facets in snapshot.facets.items():
            namespace = self._namespaces[name]
            namespace.restore(facets)
            lacking |= namespace.live - in_text
            if namespace.state.dimension:
                lacking |= namespace.live - in_segments
        return ordinal_array(lacking)

    # Following

    def _apply_batch(self, text: TextIndex) -> bool:
        """Applies the next entries of the log; says whether there are more."""
        operations = 0
        with self._store.read() as transaction:
            position = transaction.position
            if position.revision:
                self._directory.claim(position.cluster_id)
            while self._revision < position.revision and operations < MAX_BATCH_OPERATIONS:
                if not operations:
                    self._snapshot.forget()
                applied = self._applied.take(self._revision + 1)
                entry = transaction.log_entry(self._revision + 1) if applied is None else applied.entry
                for change in entry.namespaces:
                    self._change_namespace(transaction, change)
                for operation in entry.operations:
                    self._apply(transaction, operation, text, applied)
                operations += len(entry.operations)
                self._revision, self._epoch = entry.revision, entry.epoch
            return self._revision < position.revision

    def _apply(
        self,
        transaction: ReadTransaction,
        operation: Operation,
        text: TextIndex,
        applied: AppliedEntry | None,
    ) -> None:
        kind = operation.kind
        if kind not in _KINDS:
            raise DataLoss("UNKNOWN_OPERATION", f"the log has an operation of kind {kind}")
        namespace = self._numbered_namespace(transaction, operation.namespace_number)
        if kind == Operation.KIND_PUT:
            self._put_operation(transaction, namespace, operation, text, applied)
        elif kind == Operation.KIND_EMBED:
            vector = coming_vector(transaction, namespace.name, namespace.state, operation.ordinal)
            namespace.put_coming(operation.ordinal, vector)
        if kind in (Operation.KIND_EMBED, Operation.KIND_CLEAR):
            return
        revision = self._revision + 1  # of the entry that is being applied
        if namespace.changed_revision != revision:
            self._changed.add(namespace.name)
            self._sealing.note(namespace.name)
            namespace.changed_revision = revision
        for ordinal in (operation.replaced_ordinal, *operation.removed_ordinals):
            if ordinal and namespace.drop(ordinal):
                text.delete(ordinal)

    def _put_operation(
        self,
        transaction: ReadTransaction,
        namespace: NamespaceIndex,
        operation: Operation,
        text: TextIndex,
        applied: AppliedEntry | None,
    ) -> None:
        """Adds what a PUT has written: from memory, or what the store has of it now."""
        ordinal, state = operation.ordinal, namespace.state
        written = None if applied is None else applied.written.get(ordinal)
        if written is not None:
            memory, encoded = written
            vector = checked_vector(encoded) if has_components(encoded) else None
        else:
            record = transaction.record(ordinal)
            if record is None:
                return  # removed since, as a later entry says
            memory = record.memory
            vector = self._stored_vector(transaction, namespace, ordinal, operation)
        if state.space:
            # The store may have the next embeddings already.
            memory.embedding_model = "" if vector is None else state.model
        namespace.put(ordinal, memory, vector)
        if state.coming_space:
            namespace.put_coming(ordinal, coming_vector(transaction, namespace.name, state, ordinal))
        text.add(state.number, ordinal, memory.content)

    def _put_stored(
        self,
        transaction: ReadTransaction,
        ordinal: int,
        text: TextIndex | None,
        *,
        with_vector: bool,
        has_facets: bool,
    ) -> None:
        """Adds what the store had at the start.

        Args:
            text: None when it has the memory.
            has_facets: they are there already.
        """
        record = transaction.record(ordinal)
        if record is None:
            return  # removed since, as a later entry says
        memory = record.memory
        namespace = self._namespace(memory.namespace)
        vector = self._stored_vector(transaction, namespace, ordinal) if with_vector else None
        if not has_facets:
            namespace.put(ordinal, memory, vector)
        elif vector is not None:
            namespace.add_vector(ordinal, vector)
        state = namespace.state
        if state.coming_space:
            namespace.put_coming(ordinal, coming_vector(transaction, namespace.name, state, ordinal))
        if text is not None:
            text.add(state.number, ordinal, memory.content)

    def _stored_vector(
        self,
        transaction: ReadTransaction,
        namespace: NamespaceIndex,
        ordinal: int,
        operation: Operation | None = None,
    ) -> FloatVector | None:
        try:
            return vector_at(transaction, namespace.name, namespace.state, ordinal, operation)
        except VectorsReplacedError:
            self._incomplete.add(namespace.name)
            return None

    def _change_namespace(self, transaction: ReadTransaction, change: storage_pb2.NamespaceChange) -> None:
        known = self._namespaces.get(change.name)
        if known is None:
            state = NamespaceState(number=change.number)
            known = self._namespaces[change.name] = NamespaceIndex(
                change.name, state, memories_of(self._store), self._costs
            )
        self._changed.add(change.name)
        if change.reembedding == storage_pb2.REEMBEDDING_STEP_SWITCHED:
            self._switch_space(transaction, known, change)
        elif change.reembedding:
            known.state = after_step(known.state, change)
            if known.state.coming_space and change.reembedding == storage_pb2.REEMBEDDING_STEP_BEGUN:
                known.begin_space()
            elif not known.state.coming_space:
                known.end_space()
        elif change.dimension:
            known.state = replace(known.state, dimension=change.dimension, model=change.embedding_model)

    def _switch_space(
        self,
        transaction: ReadTransaction,
        namespace: NamespaceIndex,
        change: storage_pb2.NamespaceChange,
    ) -> None:
        state = after_step(namespace.state, change)
        now = transaction.namespace(namespace.name)
        self._incomplete.discard(namespace.name)
        if now is not None and now.space != state.space:
            # The store has even later ones. Else, what is missing was removed, as a later entry says.
            for ordinal in namespace.missing_coming():
                if transaction.record_checksum(ordinal) is not None:
                    self._incomplete.add(namespace.name)
                    break
        self._sealer.remove(namespace.switch_space(state))
        namespace.changed_revision = self._revision + 1
        self._sealing.note(namespace.name)

    def _numbered_namespace(self, transaction: ReadTransaction, number: int) -> NamespaceIndex:
        """Raises DataLoss when the log has no beginning of it."""
        name = self._names.get(number)
        if name is None:
            name = self._names[number] = transaction.namespace_name(number)
        return self._namespace(name)

    def _namespace(self, name: str) -> NamespaceIndex:
        """Raises DataLoss when the log has no beginning of it."""
        known = self._namespaces.get(name)
        if known is None:
            raise DataLoss("CORRUPT_NAMESPACES", f"the log has no beginning of the namespace {name!r}")
        return known

    # Publishing

    def _has_changes(self, text: TextIndex) -> bool:
        return bool(self._changed) or self._revision != self._view.revision or text.has_committed

    def _is_due(self, text: TextIndex) -> bool:
        if self._incomplete:
            return False
        return self._has_changes(text) and (self._is_hurried or time.monotonic() >= self._next_view_at_s)

    def _publish(self, text: TextIndex) -> None:
        began_s = time.monotonic()
        # Whoever asks from now on may need what comes later.
        self._is_hurried = False
        namespaces = dict(self._view.namespaces)
        for name in self._changed:
            namespaces[name] = self._namespaces[name].view()
        self._changed.clear()
        self._view = View(self._revision, self._epoch, MappingProxyType(namespaces), text.searcher())
        ended_s = time.monotonic()
        self._next_view_at_s = ended_s + max(MIN_PUBLISH_PAUSE_S, ended_s - began_s)
        self.publish_durations.record(ended_s - began_s)
        self._on_publish(self._view)
