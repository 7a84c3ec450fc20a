"""How fresh the replica is: what it shows, compared with what the writer had acknowledged.

A process that was stopped finds old heartbeats in its buffers and must not take itself for fresh; and the
clocks of two machines cannot be compared. So the replica asks the writer for its head: an answer to a
question that was sent at the time t tells of every write that was acknowledged before t, and once those are
shown, the replica is fresh as of t on its own clock, however long answer and entries took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agentmem.core.log import Position

# Answers whose head is not shown yet; beyond that every second one is forgotten.
MAX_UNREACHED_HEADS = 128


@dataclass(frozen=True, slots=True)
class Head:
    """What the writer had acknowledged before ``asked_at_s``: what is up to ``revision`` of the epoch."""

    asked_at_s: float
    epoch: int
    revision: int


class Freshness:
    """Of one part of the replica, the store or the view: as of when it is fresh.

    Args:
        position: the store's. Revisions of different epochs cannot be compared.
        revision: what the part shows.
    """

    def __init__(self, position: Callable[[], Position], revision: Callable[[], int]) -> None:
        self._position = position
        self._revision = revision
        self._epoch = 0
        self._as_of_s: float | None = None
        self._unreached: deque[Head] = deque()

    def learn(self, head: Head) -> None:
        """The writer answered."""
        if self._unreached and self._unreached[-1].epoch > head.epoch:
            return
        self._unreached.append(head)
        if len(self._unreached) > MAX_UNREACHED_HEADS:
            # The oldest, which is shown first, and the newest, which a read may wait for, are kept.
            self._unreached = deque(list(self._unreached)[::2])

    @property
    def as_of_s(self) -> float | None:
        """Every write acknowledged before then is shown, on the clock of ``boot_time_s``; None: not known."""
        # In this order: what was shown before is of the epoch that is read after it, or of an earlier one.
        revision = self._revision()
        epoch = self._position().epoch
        if epoch != self._epoch:
            # What the writer of another epoch said is not about this history.
            self._epoch, self._as_of_s = epoch, None
        while self._unreached:
            head = self._unreached[0]
            if head.epoch > epoch or (head.epoch == epoch and head.revision > revision):
                break
            if head.epoch == epoch:
                self._as_of_s = head.asked_at_s
            self._unreached.popleft()
        return self._as_of_s

    def is_as_of(self, time_s: float) -> bool:
        """Whether every write that was acknowledged before the time is shown."""
        # Once: the store may begin another epoch between two looks.
        as_of_s = self.as_of_s
        return as_of_s is not None and as_of_s >= time_s

    def head_as_of(self, time_s: float) -> Head | None:
        """What has to be shown to be fresh as of the time; None when the writer has to be asked."""
        return next((head for head in self._unreached if head.asked_at_s >= time_s), None)
