"""A namespace as it was at a moment of the past, built from the store for searches of that moment.

It is made of the same parts as a view of the present, so that filters, modes and ranking are the very same.
What is built once answers for every moment between two changes of the namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from agentmem.core.errors import ResourceExhausted
from agentmem.core.history import Moment, Walk, check_history, newest_written
from agentmem.core.layout import NamespaceState
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.records import Record, unit_vector
from agentmem.core.store import Store
from agentmem.core.times import timestamp_us
from agentmem.replica.namespace_index import NamespaceIndex, memories_of
from agentmem.replica.ordinals import OrdinalSet, ordinal_array
from agentmem.replica.text import TextIndex, TextSearcher
from agentmem.replica.view import NamespaceView

# One transaction reads no more, so that none stays open for long.
CHUNK_RECORDS = 512
# Versions, deletions among them, that the build may have to look at: some seconds.
MAX_PAST_VERSIONS = 1_000_000
# What a namespace of the past takes in memory.
MAX_PAST_BYTES = 512 * 1024 * 1024
# Of a memory, besides its vector: postings, columns, ordinals, …
ROW_BYTES = 1024
# Of its text: tokens, positions, …, for each byte of content.
TEXT_BYTES_PER_BYTE = 5

_FOR_EVER = 2**63 - 1


class PastMovedError(Exception):
    """The store has removed or changed what was being read: the build has to begin again."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The moments that a state of a namespace was there for: revisions, or microseconds since 1970.

    Attributes:
        first: included.
        end: not included.
    """

    first: int
    end: int

    def __contains__(self, point: int) -> bool:
        return self.first <= point < self.end


@dataclass(frozen=True, slots=True)
class PastNamespace:
    """What a namespace was at some moments of the past.

    Attributes:
        moments: writes that come later may put an end to them when they are times.
        by_time: whether ``moments`` are times and not revisions.
        built_revision, built_epoch: of the store that it was built from.
        needed: ordinals whose removal from the store changes the answer for these moments.
        newest_ordinal: of the store then; the removal of a later one changes the answer, too.
        text: None until a search needs it.
        size_bytes: what it takes in memory, about.
        content_bytes: of all its memories.
    """

    name: str
    by_time: bool
    moments: Interval
    built_revision: int
    built_epoch: int
    needed: OrdinalSet
    newest_ordinal: int
    namespace: NamespaceView
    text: TextSearcher | None
    size_bytes: int
    content_bytes: int


class PastBuilder:
    """Builds namespaces of the past. Any thread may.

    Args:
        check_going_on: called for each chunk; what it raises ends the build.
    """

    def __init__(self, store: Store, check_going_on: Callable[[], None]) -> None:
        self._store = store
        self._check_going_on = check_going_on

    def build(self, name: str, moment: Moment) -> PastNamespace | None:
        """The namespace at the moment, without its text; None when the store does not know it.

        Raises:
            FailedPrecondition: ``HISTORY_PRUNED``, as a list of that moment.
            ResourceExhausted: ``PAST_TOO_LARGE``, or ``TOO_MANY_VERSIONS`` as a list of that moment.
            PastMovedError: see there.
        """
        with self._store.read() as transaction:
            position = transaction.position
            space = transaction.namespace(name)
            newest_ordinal = transaction.newest_ordinal
        if space is None:
            return None
        if space.versions > MAX_PAST_VERSIONS:
            raise too_large(f"the namespace has {space.versions} versions, of {MAX_PAST_VERSIONS} at most")
        if moment.time_us is not None:
            # What is written while this goes on is not in it.
            moment = replace(moment, revision=position.revision)
        versions = self._versions_at(name, space, moment)
        namespace = self._namespace(name, space, versions.live, by_time=moment.time_us is not None)
        by_time = moment.time_us is not None
        bounds = (-_FOR_EVER, _FOR_EVER) if by_time else (0, position.revision + 1)
        return PastNamespace(
            name=name,
            by_time=by_time,
            moments=versions.interval(*bounds),
            built_revision=position.revision,
            built_epoch=position.epoch,
            needed=versions.needed,
            newest_ordinal=newest_ordinal,
            namespace=namespace,
            text=None,
            size_bytes=versions.size_bytes,
            content_bytes=versions.content_bytes,
        )

    def with_text(self, past: PastNamespace) -> PastNamespace:
        """The same with its text.

        Raises:
            ResourceExhausted: ``PAST_TOO_LARGE``.
            PastMovedError: see there.
        """
        size_bytes = past.size_bytes + TEXT_BYTES_PER_BYTE * past.content_bytes
        _check_size(size_bytes, len(past.namespace.live))
        text = TextIndex(None)
        try:
            for _, ordinal, record in self._records(past.namespace.live):
                text.add(past.namespace.state.number, ordinal, record.memory.content)
            text.commit()
            return replace(past, text=text.searcher(), size_bytes=size_bytes)
        finally:
            text.close()

    def _versions_at(self, name: str, space: NamespaceState, moment: Moment) -> _Versions:
        """Which versions there were at a moment; ids are read as a list reads them."""
        versions = _Versions(by_time=moment.time_us is not None, row_bytes=ROW_BYTES + 4 * space.dimension)
        after = ""
        while True:
            self._check_going_on()
            with self._store.read() as transaction:
                check_history(transaction.namespace(name), moment)
                chunk = list(islice(transaction.ids(name, after), CHUNK_RECORDS))
                for memory_id, state in chunk:
                    found = newest_written(transaction, state, moment, Walk(), versions.add_later)
                    if found is not None:
                        versions.add(*found)
                    after = memory_id
            _check_size(versions.size_bytes, len(versions.live))
            if len(chunk) < CHUNK_RECORDS:
                return versions

    def _namespace(
        self, name: str, space: NamespaceState, live: OrdinalSet, *, by_time: bool
    ) -> NamespaceView:
        index = NamespaceIndex(name, space, memories_of(self._store, of_the_past=True))
        checked: ReadTransaction | None = None
        for transaction, ordinal, record in self._records(live):
            if transaction is not checked:
                now, checked = transaction.namespace(name), transaction
                known = space.space, space.dimension, space.model
                if now is None or (now.space, now.dimension, now.model) != known:
                    raise PastMovedError
            vector = transaction.vector(space, ordinal)
            index.put(ordinal, record.memory, None if vector is None else unit_vector(vector))
        return replace(index.view(), keeps_expired=not by_time)

    def _records(self, live: OrdinalSet) -> Iterator[tuple[ReadTransaction, int, Record]]:
        """The records at the ordinals, ascending, each with the transaction that it was read in."""
        ordinals = ordinal_array(live)
        for start in range(0, len(ordinals), CHUNK_RECORDS):
            self._check_going_on()
            with self._store.read() as transaction:
                for ordinal in ordinals[start : start + CHUNK_RECORDS].tolist():
                    record = transaction.record(ordinal)
                    if record is None:
                        raise PastMovedError
                    yield transaction, ordinal, record


class _Versions:
    """What there was at a moment, as it is found out memory by memory.

    Attributes:
        live: versions that were the newest of their memory, those whose time was over among them.
        needed: these, the tombstones of that moment, and what came later.
        size_bytes: what a view of them takes, without their text.
    """

    def __init__(self, *, by_time: bool, row_bytes: int) -> None:
        self._by_time = by_time
        self._row_bytes = row_bytes
        self._newest: int | None = None
        self._next: int | None = None
        self.live = OrdinalSet()
        self.needed = OrdinalSet()
        self.size_bytes = 0
        self.content_bytes = 0

    def _point(self, record: Record) -> int:
        return timestamp_us(record.memory.update_time) if self._by_time else record.revision

    def add(self, ordinal: int, record: Record) -> None:
        """What was the newest version of a memory at the moment."""
        point = self._point(record)
        self._newest = point if self._newest is None else max(self._newest, point)
        self.needed.add(ordinal)
        if not record.is_tombstone:
            self.live.add(ordinal)
            content_bytes = len(record.memory.content.encode())
            self.content_bytes += content_bytes
            self.size_bytes += self._row_bytes

    def add_later(self, ordinal: int, record: Record) -> None:
        """A version of after the moment."""
        point = self._point(record)
        self._next = point if self._next is None else min(self._next, point)
        self.needed.add(ordinal)

    def interval(self, first: int, end: int) -> Interval:
        """The moments within these bounds that had these versions."""
        return Interval(
            first if self._newest is None else max(first, self._newest),
            end if self._next is None else min(end, self._next),
        )


def _check_size(size_bytes: int, memories: int) -> None:
    if size_bytes > MAX_PAST_BYTES:
        raise too_large(
            f"{memories} memories of that moment take {size_bytes} bytes, of {MAX_PAST_BYTES} at most"
        )


def too_large(problem: str) -> ResourceExhausted:
    """The error for a namespace that has more than a search of its past is made for."""
    return ResourceExhausted(
        "PAST_TOO_LARGE",
        f"searches as of then need an index of their own, and {problem}: list with as_of instead",
        field="as_of",
    )
