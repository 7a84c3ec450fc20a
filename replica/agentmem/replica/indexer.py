"""The indexer: follows the replica's own store and publishes views of it.

One thread. At the start it builds a view of the store at its newest revision, from the indexes on disk as
far as they are good and from the store for the rest; then it follows the store's log from there. A view
holds all indexes at the same revision. The folder holds nothing that the store does not: it may be deleted
at any time while the process is not running.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from agentmem.core.layout import NamespaceState
from agentmem.core.measurements import Histogram
from agentmem.core.shipping import AppliedEntry
from agentmem.core.store import Store
from agentmem.core.turns import Turns
from agentmem.replica.applied_entries import AppliedEntries
from agentmem.replica.facet_snapshot import MIN_MEMORIES, FacetSnapshot, SnapshotFile, position_at
from agentmem.replica.index_directory import IndexDirectory
from agentmem.replica.indexes import Indexes
from agentmem.replica.machine_costs import measured_costs
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, ordinal_set
from agentmem.replica.sealing import Sealer
from agentmem.replica.sealing_schedule import SealingSchedule
from agentmem.replica.segment import Segment
from agentmem.replica.shared_segments import SharedSegments
from agentmem.replica.text import TextIndex
from agentmem.replica.view import View

DEFAULT_SEAL_ROWS = 10_000
# About 25 ms of work: what a write waits when it comes just behind a large import.
MAX_BATCH_OPERATIONS = 256
LOAD_CHUNK_MEMORIES = 10_000
# Between two views, so that under steady writes one shows many of them; and what the last one took, at least.
# When idle, the next change is shown at once.
MIN_PUBLISH_PAUSE_S = 0.02

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
        loop: that gets its turns beside the threads of the indexer.

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
        loop: asyncio.AbstractEventLoop | None = None,
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
        self._loop = loop
        self._turns = Turns(loop)
        self._costs = measured_costs()
        self._text: TextIndex | None = None
        shared = None if shared_segments is None else SharedSegments(shared_segments, store)
        self._sealer = Sealer(self._directory.segments, self.notify, vector_index, shared, Turns(loop))
        self._sealing = SealingSchedule(self._sealer, seal_rows)
        self.builds = self._sealer.builds
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
        self._turns.begin()
        try:
            indexes = self._load()
            text = indexes.text
            is_loaded = not self._is_stopping
            while not self._is_stopping:
                is_behind = self._apply_batch(indexes)
                indexes.changed.update(self._sealing.advance(indexes.namespaces))
                text.take_up()
                if self._is_due(indexes):
                    self._publish(indexes)
                if text.wait_s() == 0:
                    text.begin_commit()
                if not is_behind:
                    if self._snapshot.wait_s() == 0 and not self._has_changes(indexes):
                        self._write_snapshot(indexes)
                    self._wait(indexes)
            if is_loaded and text.is_changed:
                text.commit()
            if is_loaded and self._snapshot.wait_s() is not None:
                self._write_snapshot(indexes)
        except BaseException as error:  # reported to the process, which ends
            self._on_failure(error)
        finally:
            self._sealer.stop()
            if self._text is not None:
                self._text.close()

    def _wait(self, indexes: Indexes) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._is_notified or self._is_stopping, self._wait_s(indexes))
            # What comes before the next view is due is applied at once with that.
            self._wake.wait_for(
                lambda: self._is_hurried or self._is_stopping,
                min(MIN_PUBLISH_PAUSE_S, self._next_view_at_s - time.monotonic()),
            )
            self._is_notified = False

    def _wait_s(self, indexes: Indexes) -> float | None:
        waits_s = []
        has_changes = self._has_changes(indexes)
        if has_changes and not indexes.incomplete:
            waits_s.append(max(0.0, self._next_view_at_s - time.monotonic()))
        text_s = indexes.text.wait_s()
        if text_s is not None:
            waits_s.append(text_s)
        sealing_s = self._sealing.wait_s()
        if sealing_s is not None:
            waits_s.append(sealing_s)
        snapshot_s = self._snapshot.wait_s()
        if snapshot_s is not None and not has_changes:
            waits_s.append(snapshot_s)
        return min(waits_s, default=None)

    def _write_snapshot(self, indexes: Indexes) -> None:
        """Writes the facets down, so that a restart need not make them of all records."""
        namespaces = {name: (each.state, each.facet_parts) for name, each in indexes.namespaces.items()}
        with self._store.read() as transaction:
            position = position_at(transaction, indexes.revision)
        memories = sum(len(each.live) for each in indexes.namespaces.values())
        worth_it = memories >= MIN_MEMORIES and not indexes.incomplete
        self._snapshot.write(position, namespaces if worth_it else None)

    # Starting

    def _load(self) -> Indexes:
        """Builds the first view and publishes it."""
        with self._store.read() as transaction:
            position = transaction.position
            states = dict(transaction.namespaces())
            self._directory.prepare(position.cluster_id if position.revision else b"")
            snapshot = self._snapshot.read(transaction, states)
            if snapshot is None:
                live = np.fromiter(transaction.live_ordinals(), dtype=np.uint64)
                live.sort()
                revision, epoch = position.revision, position.epoch
            else:
                live = snapshot.live
                revision, epoch = snapshot.revision, snapshot.epoch
            newest_ordinal = transaction.newest_ordinal
        self._text = TextIndex(self._directory.text, self.notify, Turns(self._loop))
        indexes = Indexes(
            self._store,
            self._text,
            self._sealer,
            self._sealing,
            self._costs,
            states=states,
            revision=revision,
            epoch=epoch,
        )
        segments = self._open_segments(states, newest_ordinal)
        self._load_memories(indexes, live, segments, snapshot)
        for name, opened in segments.items():
            for segment in opened:
                indexes.namespaces[name].add_segment(segment)
        self._sealing.note(*indexes.namespaces)
        if not self._is_stopping and not indexes.incomplete:  # else not everything was loaded
            self._publish(indexes)
        return indexes

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
        indexes: Indexes,
        live: OrdinalArray,
        segments: dict[str, list[Segment]],
        snapshot: FacetSnapshot | None,
    ) -> None:
        in_segments = OrdinalSet().union(
            *(ordinal_set(segment.ordinals) for opened in segments.values() for segment in opened)
        )
        in_text = indexes.text.keep_only(live)
        if snapshot is not None:
            live = _restore(snapshot, indexes, in_text, in_segments)
        # The records of a revision are never changed, so several short transactions read what one would.
        for start in range(0, len(live), LOAD_CHUNK_MEMORIES):
            with self._store.read() as transaction:
                for ordinal in live[start : start + LOAD_CHUNK_MEMORIES].tolist():
                    if self._is_stopping:
                        return
                    indexes.put_stored(
                        transaction,
                        ordinal,
                        with_text=ordinal not in in_text,
                        with_vector=ordinal not in in_segments,
                        with_facets=snapshot is None,
                    )
            if indexes.text.is_changed:
                indexes.text.commit()

    # Following

    def _apply_batch(self, indexes: Indexes) -> bool:
        """Applies the next entries of the log; says whether there are more."""
        operations = 0
        with self._store.read() as transaction:
            position = transaction.position
            if position.revision:
                self._directory.claim(position.cluster_id)
            while indexes.revision < position.revision and operations < MAX_BATCH_OPERATIONS:
                if not operations:
                    self._snapshot.forget()
                applied = self._applied.take(indexes.revision + 1)
                entry = transaction.log_entry(indexes.revision + 1) if applied is None else applied.entry
                indexes.apply(transaction, entry, applied)
                operations += len(entry.operations)
            return indexes.revision < position.revision

    # Publishing

    def _has_changes(self, indexes: Indexes) -> bool:
        is_newer = indexes.revision != self._view.revision
        return bool(indexes.changed) or is_newer or indexes.text.has_committed

    def _is_due(self, indexes: Indexes) -> bool:
        if indexes.incomplete:
            return False
        return self._has_changes(indexes) and (self._is_hurried or time.monotonic() >= self._next_view_at_s)

    def _publish(self, indexes: Indexes) -> None:
        began_s = time.monotonic()
        # Whoever asks from now on may need what comes later.
        self._is_hurried = False
        namespaces = dict(self._view.namespaces)
        for name in indexes.changed:
            namespaces[name] = indexes.namespaces[name].view()
        indexes.changed.clear()
        self._view = View(
            indexes.revision, indexes.epoch, MappingProxyType(namespaces), indexes.text.searcher()
        )
        ended_s = time.monotonic()
        self._next_view_at_s = ended_s + max(MIN_PUBLISH_PAUSE_S, ended_s - began_s)
        self.publish_durations.record(ended_s - began_s)
        self._on_publish(self._view)


def _restore(
    snapshot: FacetSnapshot, indexes: Indexes, in_text: OrdinalSet, in_segments: OrdinalSet
) -> OrdinalArray:
    """Takes up the facets; returns the memories that the other indexes on disk lack."""
    lacking = OrdinalSet()
    for name, facets in snapshot.facets.items():
        namespace = indexes.namespaces[name]
        namespace.restore(facets)
        lacking |= namespace.live - in_text
        if namespace.state.dimension:
            lacking |= namespace.live - in_segments
    return ordinal_array(lacking)
