"""Views of the past: namespaces as they were at some moment, built when a search asks for it, and kept.

Of one process at the most one is built at a time, in a thread of its own. A build that has begun goes on when
who asked for it has given up: who asks again finds it.

What is kept is compared with the log before each use: what retention and purges have removed, or an import of
old versions has changed, is built again, or refused as a list of that moment is.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType

from agentmem.core.errors import ResourceExhausted, Unavailable
from agentmem.core.filters import Condition, Kind
from agentmem.core.history import Moment, check_history, commit_time_us
from agentmem.core.log import Operation, decode_entry
from agentmem.core.measurements import Lookups
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.store import Store
from agentmem.core.times import timestamp_us
from agentmem.replica.past_namespace import (
    MAX_PAST_BYTES,
    Interval,
    PastBuilder,
    PastMovedError,
    PastNamespace,
)
from agentmem.replica.view import NamespaceView, View
from agentmem.v1 import filter_pb2

MAX_KEPT_NAMESPACES = 16
MAX_KEPT_BYTES = MAX_PAST_BYTES
MAX_WAITING_BUILDS = 16
# What was written between two uses of a past is looked through, up to so much: some 100 ms.
MAX_COMPARED_OPERATIONS = 20_000
# A build is begun again when the store moves under it, as by a purge.
MAX_BUILDS_AGAIN = 3
RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class PastView:
    """What a search of the past sees.

    Attributes:
        view: one namespace, none when it was never written to; its revision and epoch are those up to which
            writes have been looked at.
        time_us: of the moment; for a revision, when it was committed.
        source: what the view was made of; None when it is the present.
    """

    view: View
    time_us: int
    source: PastNamespace | None


@dataclass(slots=True)
class _Kept:
    """A namespace of the past, and up to where the log was compared with it."""

    past: PastNamespace
    compared_revision: int
    compared_epoch: int


_Key = tuple[str, bool, int]
_BuildKey = tuple[str, int | None, int | None, bool]


class PastViews:
    """Any thread may ask.

    Args:
        present: the newest view.
    """

    def __init__(self, store: Store, present: Callable[[], View]) -> None:
        self._store = store
        self._present = present
        self._is_stopping = False
        self._builder = PastBuilder(store, self._check_going_on)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="past")
        # Held while the log is compared. The least recently used come first.
        self._kept_lock = threading.Lock()
        self.lookups = Lookups()
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        # Held for moments, by the event loop too. Reentrant: a build may be done before it has its callback.
        self._builds_lock = threading.RLock()
        self._builds: dict[_BuildKey, Future[PastView]] = {}

    def close(self) -> None:
        """Drops the builds that wait, and ends the one that runs soon."""
        self._is_stopping = True
        self._executor.shutdown(wait=False, cancel_futures=True)

    def find(self, name: str, moment: Moment, *, needs_text: bool) -> PastView | None:
        """The namespace at a moment of the past, when it need not be built.

        Raises FailedPrecondition (``HISTORY_PRUNED``).
        """
        view = self._present()
        with self._store.read() as transaction:
            space = transaction.namespace(name)
            check_history(space, moment)
            time_us = _time_us(transaction, moment)
            if space is None:
                return PastView(View(view.revision, view.epoch), time_us, None)
            known = view.namespaces.get(name)
            if known is not None and _is_present(transaction, known, view, moment):
                now = replace(known, keeps_expired=moment.time_us is None)
                return PastView(replace(view, namespaces=MappingProxyType({name: now})), time_us, None)
            with self._kept_lock:
                kept = self._find_kept(transaction, name, moment)
                self.lookups.count(kept is not None)
        if kept is None or (needs_text and kept.past.text is None):
            return None
        return self._seen(kept.past, kept.compared_revision, kept.compared_epoch, time_us)

    async def build(self, name: str, moment: Moment, *, needs_text: bool, wait_s: float) -> PastView:
        """The namespace at a moment of the past, once it is built.

        Raises:
            FailedPrecondition: ``HISTORY_PRUNED``.
            ResourceExhausted: ``PAST_TOO_LARGE`` or ``TOO_MANY_VERSIONS``; ``OVERLOADED``, too many builds
                wait already.
            Unavailable: ``PAST_NOT_READY``, it takes longer than ``wait_s``, and goes on.
        """
        key = (name, moment.revision, moment.time_us, needs_text)
        with self._builds_lock:
            future = self._builds.get(key)
            if future is None:
                if len(self._builds) >= MAX_WAITING_BUILDS:
                    raise ResourceExhausted(
                        "OVERLOADED",
                        f"{len(self._builds)} indexes of the past wait to be built",
                        retry_after_s=RETRY_AFTER_S,
                    )
                future = self._builds[key] = self._executor.submit(self._build, name, moment, needs_text)
                future.add_done_callback(lambda done: self._forget_build(key))
        waited = asyncio.wrap_future(future)
        # The error is for those who still wait.
        waited.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.wait_for(asyncio.shield(waited), wait_s)
        except TimeoutError:
            raise Unavailable(
                "PAST_NOT_READY",
                "the index of that moment is being built: ask again",
                retry_after_s=RETRY_AFTER_S,
                field="as_of",
            ) from None

    def _forget_build(self, key: _BuildKey) -> None:
        with self._builds_lock:
            self._builds.pop(key, None)

    def _check_going_on(self) -> None:
        if self._is_stopping:
            raise Unavailable("SHUTTING_DOWN", "this node is shutting down")

    # In the thread that builds

    def _build(self, name: str, moment: Moment, needs_text: bool) -> PastView:
        for _ in range(MAX_BUILDS_AGAIN):
            # What an earlier build has left for this one.
            past = self._find_past(name, moment)
            try:
                past = past or self._builder.build(name, moment)
                if past is not None and needs_text and past.text is None:
                    past = self._builder.with_text(past)
            except PastMovedError:
                continue
            with self._store.read() as transaction:
                time_us = _time_us(transaction, moment)
            if past is None:
                view = self._present()
                return PastView(View(view.revision, view.epoch), time_us, None)
            self._keep(past)
            return self._seen(past, past.built_revision, past.built_epoch, time_us)
        raise Unavailable(
            "PAST_NOT_READY",
            f"what it is built from was removed meanwhile, {MAX_BUILDS_AGAIN} times: ask again",
            retry_after_s=RETRY_AFTER_S,
            field="as_of",
        )

    def _find_past(self, name: str, moment: Moment) -> PastNamespace | None:
        with self._store.read() as transaction, self._kept_lock:
            kept = self._find_kept(transaction, name, moment)
        return None if kept is None else kept.past

    def _keep(self, past: PastNamespace) -> None:
        with self._kept_lock:
            self._kept[_key(past)] = _Kept(past, past.built_revision, past.built_epoch)
            self._kept.move_to_end(_key(past))
            while (
                len(self._kept) > MAX_KEPT_NAMESPACES
                or sum(kept.past.size_bytes for kept in self._kept.values()) > MAX_KEPT_BYTES
            ):
                self._kept.popitem(last=False)

    # With the lock on what is kept

    def _find_kept(self, transaction: ReadTransaction, name: str, moment: Moment) -> _Kept | None:
        """What is kept for a moment, and is still what the store has."""
        by_time = moment.time_us is not None
        point = moment.time_us if moment.time_us is not None else moment.revision
        assert point is not None
        for key, kept in list(self._kept.items()):
            past = kept.past
            if past.name != name or past.by_time != by_time or point not in past.moments:
                continue
            compared = _compared(transaction, kept)
            if compared is None:
                del self._kept[key]
                continue
            position = transaction.position
            kept.past = compared
            if position.revision > kept.compared_revision:
                kept.compared_revision, kept.compared_epoch = position.revision, position.epoch
            if point in compared.moments:
                self._kept.move_to_end(key)
                return kept
        return None

    def _seen(self, past: PastNamespace, revision: int, epoch: int, time_us: int) -> PastView:
        namespaces = MappingProxyType({past.name: past.namespace})
        return PastView(View(revision, epoch, namespaces, past.text), time_us, past)


def _key(past: PastNamespace) -> _Key:
    return past.name, past.by_time, past.moments.first


def _time_us(transaction: ReadTransaction, moment: Moment) -> int:
    if moment.time_us is not None:
        return moment.time_us
    assert moment.revision is not None
    return commit_time_us(transaction, moment.revision)


def _is_present(transaction: ReadTransaction, namespace: NamespaceView, view: View, moment: Moment) -> bool:
    """Whether the namespace has not changed since the moment, as far as the view shows."""
    if moment.revision is not None:
        return namespace.changed_revision <= moment.revision <= view.revision
    assert moment.time_us is not None
    if transaction.has_ended_since(namespace.state.number, moment.time_us):
        return False
    later = Condition("update_time", Kind.TIME, filter_pb2.OPERATOR_GT, (moment.time_us,))
    return not namespace.facets.matching(later, namespace.live, namespace.facet_rows, namespace.memories)


def _compared(transaction: ReadTransaction, kept: _Kept) -> PastNamespace | None:
    """What is kept, for the moments that the log since then leaves it; None when it leaves none."""
    past, since = kept.past, kept.compared_revision
    newest = transaction.revision
    if since == newest:
        return past
    if not 0 < transaction.first_log_revision <= since + 1:
        return None
    number = past.namespace.state.number
    operations = 0
    for revision, value in transaction.log_values(since + 1):
        entry = decode_entry(value, revision)[0]
        operations += 1 + len(entry.operations)
        if operations > MAX_COMPARED_OPERATIONS:
            return None
        if any(change.name == past.name for change in entry.namespaces):
            return None  # another model may be one of the changes
        for operation in entry.operations:
            if operation.namespace_number != number:
                continue
            end = _end(transaction, past, operation)
            if end <= past.moments.first:
                return None
            past = replace(past, moments=Interval(past.moments.first, end))
    return past


def _end(transaction: ReadTransaction, past: PastNamespace, operation: Operation) -> int:
    """Where an operation puts the end of the moments."""
    first, end = past.moments.first, past.moments.end
    if operation.kind in (Operation.KIND_PUT, Operation.KIND_DELETE):
        if not past.by_time:
            return end
        # An import may bring versions of earlier times. Of one that was removed since, that is not known.
        record = transaction.record(operation.ordinal)
        return first if record is None else min(end, timestamp_us(record.memory.update_time))
    is_needed = any(
        ordinal in past.needed or ordinal > past.newest_ordinal for ordinal in operation.removed_ordinals
    )
    return first if is_needed else end
