"""What is new in the log, and whose it is: read once for all who wait for it.

A commit concerns one namespace as a rule. With a thousand watches it is read by one task, which wakes those
of that namespace; the others learn from it, without a look at the log, how far there was nothing for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.log import decode_entry
from agentmem.core.signals import Signal
from agentmem.core.store import Store

# What one look at the log reads: some ten milliseconds.
MAX_READ_ENTRIES = 1000
# Commits that come faster are read together.
MIN_READ_INTERVAL_S = 0.02
# The news of a store that is not changed; only an upper bound on how long the task sleeps.
RECHECK_S = 60.0


@dataclass(slots=True)
class Topic:
    """A namespace that somebody waits for news of.

    Attributes:
        news: notified when there may be something new in it, and at the end of the tail.
        number: of the namespace; 0 while it is not known to have any entries.
        changed_at: no entry behind this revision concerns it, as far as the tail was read. At first that of
            the store: what was there before somebody waited was perhaps not read.
    """

    number: int
    users: int = 0
    news: Signal = field(default_factory=Signal)
    changed_at: int = 0


@dataclass(frozen=True, slots=True)
class _News:
    """What some entries concern: by number the last revision, and the namespaces that begin there."""

    epoch: int
    revision: int
    changed_at: Mapping[int, int]
    numbers: Mapping[str, int]


class LogTail:
    """The entries since somebody began to wait. Belongs to one event loop.

    Attributes:
        epoch, revision: of the newest entry that was read.
        failure: what ended the reading; it begins again when nobody waits any more.
    """

    def __init__(self, store: Store, news: Signal, threads: BoundedThreads) -> None:
        self.epoch = self.revision = 0
        self.failure: Exception | None = None
        self._store = store
        self._news = news
        self._threads = threads
        self._topics: dict[str, Topic] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def topic(self, namespace: str) -> Iterator[Topic]:
        """News of a namespace, for the length of the ``with`` block."""
        if self._task is None:
            self._start()
        topic = self._topics.get(namespace)
        if topic is None:
            with self._store.read() as transaction:
                space = transaction.namespace(namespace)
                topic = Topic(space.number if space else 0, changed_at=transaction.revision)
            self._topics[namespace] = topic
        topic.users += 1
        try:
            yield topic
        finally:
            topic.users -= 1
            if not topic.users:
                del self._topics[namespace]
            if not self._topics:
                self._stop()

    def is_nothing_new(self, topic: Topic, after_revision: int) -> bool:
        """Whether it is known that no entry behind a revision, up to ``revision``, concerns the namespace."""
        return topic.changed_at <= after_revision

    def end(self) -> None:
        """Wakes everyone."""
        for topic in self._topics.values():
            topic.news.notify()

    def _start(self) -> None:
        position = self._store.position()
        self.failure = None
        self.epoch, self.revision = position.epoch, position.revision
        self._task = asyncio.create_task(self._run(), name="log tail")

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        try:
            while True:
                seen = self._news.count
                began_s = time.monotonic()
                while not self._take(await self._threads.run(_read, self._store, self.revision)):
                    continue
                await self._news.wait_beyond(seen, RECHECK_S)
                pause_s = began_s + MIN_READ_INTERVAL_S - time.monotonic()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
        except Exception as error:
            # For each who waits: none of them may go on as if there were no news.
            self.failure = error
            self.end()

    def _take(self, found: _News | None) -> bool:
        """Notes what was read; whether there was nothing more."""
        if found is None:
            return True
        self.epoch, self.revision = found.epoch, found.revision
        for name, number in found.numbers.items():
            if name in self._topics:
                self._topics[name].number = number
        for topic in self._topics.values():
            changed_at = found.changed_at.get(topic.number, 0)
            if changed_at:
                topic.changed_at = max(topic.changed_at, changed_at)
                topic.news.notify()
        return False


def _read(store: Store, after_revision: int) -> _News | None:
    """What is behind a revision, as far as one look goes; None when there is nothing."""
    epoch, reached = 0, after_revision
    changed_at: dict[int, int] = {}
    numbers: dict[str, int] = {}
    with store.read() as transaction:
        for revision, value in islice(transaction.log_values(after_revision + 1), MAX_READ_ENTRIES):
            entry = decode_entry(value, revision)[0]
            epoch, reached = entry.epoch, revision
            for change in entry.namespaces:
                numbers[change.name] = change.number
            for operation in entry.operations:
                changed_at[operation.namespace_number] = revision
    return _News(epoch, reached, changed_at, numbers) if epoch else None
