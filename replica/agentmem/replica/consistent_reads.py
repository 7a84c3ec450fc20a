"""Reads that must show something: they wait for it, for a moment, as long as it can still come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from agentmem.core.consistency import Demand, check_not_lost, replica_stale
from agentmem.core.errors import ResourceExhausted
from agentmem.core.store import Store
from agentmem.replica.follower import Follower
from agentmem.replica.freshness import Freshness
from agentmem.replica.membership import Reporter

MAX_WAITING_READS = 1024
RETRY_AFTER_S = 0.2


@dataclass(frozen=True, slots=True)
class Part:
    """What a read is answered from: the store or the view.

    Attributes:
        name: for messages.
        revision: what it shows now.
        hurry: makes it show soon what the store has, for a reader that waits.
    """

    name: str
    revision: Callable[[], int]
    freshness: Freshness
    hurry: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class _Lack:
    """What a read waits for.

    Attributes:
        needs_writer: whether it is in the writer alone so far.
        needs_answer: whether the writer has to be asked first what it is.
    """

    field: str
    message: str
    needs_writer: bool
    needs_answer: bool = False


class ConsistentReads:
    """Belongs to one event loop."""

    def __init__(self, store: Store, follower: Follower, reporter: Reporter) -> None:
        self._store = store
        self._follower = follower
        self._reporter = reporter
        self._waiting = 0

    async def reach(self, part: Part, demand: Demand, wait_s: float) -> None:
        """Returns when the part shows what is demanded.

        Raises:
            FailedPrecondition: ``REVISION_LOST``, a promotion left the revision behind.
            Unavailable: ``REPLICA_STALE``, it does not within ``wait_s``, or cannot while the writer is away.
            ResourceExhausted: ``OVERLOADED``, too many reads wait already.
        """
        if self._lack(part, demand) is None:
            return
        if self._waiting >= MAX_WAITING_READS:
            raise ResourceExhausted(
                "OVERLOADED",
                f"{self._waiting} reads wait for what they must show",
                retry_after_s=RETRY_AFTER_S,
            )
        self._waiting += 1
        try:
            await self._wait(part, demand, time.monotonic() + wait_s)
        finally:
            self._waiting -= 1

    async def _wait(self, part: Part, demand: Demand, ends_s: float) -> None:
        has_asked = False
        while True:
            seen = self._follower.progress.count
            lack = self._lack(part, demand)
            if lack is None:
                return
            left_s = ends_s - time.monotonic()
            is_out_of_reach = lack.needs_writer and not self._follower.is_connected
            if left_s <= 0 or is_out_of_reach or (lack.needs_answer and has_asked):
                raise replica_stale(lack.field, lack.message, part.revision())
            if lack.needs_answer and demand.as_of_s is not None:
                # One that begins now: the read itself may be older than the last report.
                await self._reporter.ask_writer(demand.as_of_s, left_s)
                has_asked = True
            else:
                if lack.needs_writer:
                    self._follower.hurry()
                else:
                    part.hurry()
                await self._follower.progress.wait_beyond(seen, left_s)

    def _lack(self, part: Part, demand: Demand) -> _Lack | None:
        with self._store.read() as transaction:
            position = transaction.position
            check_not_lost(transaction, demand)
        if position.epoch < demand.min_epoch:
            # Its revisions may be of a history that was left behind.
            return _Lack(
                "consistency.min_epoch",
                f"this replica is in epoch {position.epoch}, not yet in {demand.min_epoch}",
                needs_writer=True,
            )
        revision = part.revision()
        if revision < demand.min_revision:
            return _Lack(
                "consistency.min_revision",
                f"this replica's {part.name} is at revision {revision}, not yet at {demand.min_revision}",
                needs_writer=position.revision < demand.min_revision,
            )
        if demand.as_of_s is None or part.freshness.is_as_of(demand.as_of_s):
            return None
        head = part.freshness.head_as_of(demand.as_of_s)
        if head is None:
            message = f"this replica does not know whether its {part.name} is new enough"
            return _Lack(demand.fresh_field, message, needs_writer=True, needs_answer=True)
        return _Lack(
            demand.fresh_field,
            f"this replica's {part.name} is at revision {part.revision()}, the writer at {head.revision}",
            needs_writer=(position.epoch, position.revision) < (head.epoch, head.revision),
        )
