"""The sweeper: ends what is over its time, as logged operations, a little at a time.

Expired memories are deleted, versions beyond the retention of their namespace removed, and the oldest entries
of the log trimmed. Everything goes through the commit queue, between the writes of callers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from agentmem.core.errors import AgentMemError
from agentmem.core.layout import NamespaceState
from agentmem.core.reading import SCAN_CHUNK_RECORDS
from agentmem.core.store import Store
from agentmem.server.commands import Command
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.retention import PruneByAge, PruneByCount, SweepExpired, TrimLog

SWEEP_INTERVAL_S = 1.0
# For those who fetch a snapshot, this much log is kept beyond what is kept anyway.
MAX_NEEDED_LOG_BYTES = 256 * 1024**2
ANY_AGE_US = 2**63
ANY_REVISION = 2**64 - 1

_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Look:
    """How far a look through the memories of a namespace is: all ids up to ``after``."""

    after: str = ""


class Sweeper:
    """Belongs to the event loop of the commit queue."""

    def __init__(
        self,
        store: Store,
        queue: CommitQueue,
        *,
        max_log_bytes: int,
        max_log_age_s: float,
        needed_revision: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Args:
        needed_revision: from which on the log is needed, for a while, although it may be over its bounds.
        """
        self._store = store
        self._queue = queue
        self._max_log_bytes = max_log_bytes
        self._max_log_age_us = int(max_log_age_s * 1_000_000)
        self._needed_revision = needed_revision
        with store.read() as transaction:
            retained = [(name, space) for name, space in transaction.namespaces() if _has_retention(space)]
        self._aging = {name for name, space in retained if space.max_version_age_us}
        # Namespaces whose memories are looked through for excess versions, and how far that is.
        self._counting = {name: _Look() for name, space in retained if space.max_versions}
        # By step, what held it up.
        self._said: dict[str, str] = {}

    def watch(self, namespace: str) -> None:
        """The settings of a namespace have changed."""
        with self._store.read() as transaction:
            space = transaction.namespace(namespace)
        self._aging.discard(namespace)
        self._counting.pop(namespace, None)
        if space is not None and space.max_version_age_us:
            self._aging.add(namespace)
        if space is not None and space.max_versions:
            self._counting[namespace] = _Look()

    async def run(self) -> None:
        """Sweeps once a second, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            await self.sweep()

    async def sweep(self) -> None:
        """Ends what is over its time now, as far as that can be done."""
        for step in (self._expire, self._prune_by_ages, self._prune_by_counts, self._trim_log):
            try:
                await step()
                self._said.pop(step.__name__, None)
            except AgentMemError as error:
                if error.reason in ("HANDING_OVER", "NOT_WRITER"):
                    return  # the next writer does it, or this one when it goes on
                # A full store or queue, or a damaged record. The other steps go on, reads leave out what has
                # expired all the same, and the next sweep tries again.
                if error.message != self._said.get(step.__name__):
                    _logger.error("the sweep could not end what is over its time: %s", error.message)
                    self._said[step.__name__] = error.message

    async def _expire(self) -> None:
        await self._repeat(SweepExpired())

    async def _prune_by_ages(self) -> None:
        for namespace in sorted(self._aging):
            await self._repeat(PruneByAge(namespace))

    async def _prune_by_counts(self) -> None:
        for namespace in sorted(self._counting):
            await self._prune_by_count(namespace)

    async def _trim_log(self) -> None:
        needed_revision = self._needed_revision()
        await self._repeat(
            TrimLog(
                max_bytes=self._max_log_bytes,
                max_age_us=self._max_log_age_us,
                keep_from_revision=ANY_REVISION if needed_revision is None else needed_revision,
            )
        )
        if needed_revision is not None:
            await self._repeat(
                TrimLog(
                    max_bytes=self._max_log_bytes + MAX_NEEDED_LOG_BYTES,
                    max_age_us=ANY_AGE_US,
                    keep_from_revision=ANY_REVISION,
                )
            )

    async def _repeat(self, command: Command[int]) -> None:
        """Submits a command until it finds nothing more. One that changes nothing costs no sync."""
        while await self._queue.submit(command):
            pass

    async def _prune_by_count(self, namespace: str) -> None:
        """Looks through all memories once; from then on each write prunes its own."""
        while (look := self._counting.get(namespace)) is not None:
            ids, after = await asyncio.to_thread(_over_count, self._store, namespace, look.after)
            if ids:
                await self._repeat(PruneByCount(namespace, ids))
            look.after = after
            # Another one, or none, when the settings were changed meanwhile.
            if not after and self._counting.get(namespace) is look:
                del self._counting[namespace]


def _over_count(store: Store, namespace: str, after: str) -> tuple[list[str], str]:
    """Among some ids behind ``after`` those with too many versions, and the last id seen; "" at the end."""
    with store.read() as transaction:
        space = transaction.namespace(namespace)
        chunk = list(islice(transaction.ids(namespace, after), SCAN_CHUNK_RECORDS))
    if space is None or not space.max_versions:
        return [], ""
    # A memory has at most as many versions as its newest one's number.
    found = [memory_id for memory_id, state in chunk if state.version > space.max_versions]
    return found, chunk[-1][0] if len(chunk) == SCAN_CHUNK_RECORDS else ""


def _has_retention(space: NamespaceState) -> bool:
    return bool(space.max_versions or space.max_version_age_us)
