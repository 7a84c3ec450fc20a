"""How new the answer to a read must be.

client.search("demo", "tea", consistency=at_least(added))
client.list("demo", consistency=at_least(added) & max_staleness(2))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Protocol

from agentmem.client import values
from agentmem.client.errors import invalid_field
from agentmem.v1 import consistency_pb2

_MAX_UINT64 = 2**64 - 1


@dataclass(frozen=True)
class Position:
    """A revision of the history that leads to an epoch; epoch 0: it was not told."""

    epoch: int = 0
    revision: int = 0


NOWHERE = Position()


class ReadResult(Protocol):
    """The answer to a read."""

    @property
    def applied_revision(self) -> int: ...
    @property
    def epoch(self) -> int: ...


class WriteResult(Protocol):
    """The answer to a write."""

    @property
    def revision(self) -> int: ...
    @property
    def epoch(self) -> int: ...


@dataclass(frozen=True)
class Consistency:
    """What an answer must show. Conditions combine with ``&``; without any ("eventual") a node answers from
    what it has.

    Attributes:
        at_least: every write up to this position.
        max_staleness: every write that was acknowledged longer ago than this, whatever the clocks say.
        strong: every write that was acknowledged before the read began.
    """

    at_least: Position = NOWHERE
    max_staleness: timedelta | None = None
    strong: bool = False

    def __and__(self, other: Consistency) -> Consistency:
        if not isinstance(other, Consistency):
            return NotImplemented
        bounds = [each for each in (self.max_staleness, other.max_staleness) if each is not None]
        return Consistency(
            at_least=later(self.at_least, other.at_least),
            max_staleness=min(bounds, default=None),
            strong=self.strong or other.strong,
        )


EVENTUAL = Consistency()
STRONG = Consistency(strong=True)


def at_least(point: int | ReadResult | WriteResult) -> Consistency:
    """The answer shows every write up to a revision, or all that an earlier answer showed or did.

    With the answer itself a revision that a promotion left behind is noticed: RevisionLost.
    """
    if isinstance(point, int) and not isinstance(point, bool):
        return Consistency(Position(0, values.integer("consistency", point, low=0, high=_MAX_UINT64)))
    revision = getattr(point, "applied_revision", getattr(point, "revision", None))
    epoch = getattr(point, "epoch", None)
    if not isinstance(revision, int) or not isinstance(epoch, int):
        raise invalid_field("consistency", f"at_least needs a revision or a result, not {values.kind(point)}")
    return Consistency(Position(epoch, revision))


def max_staleness(length: timedelta | float) -> Consistency:
    """The answer shows every write that was acknowledged longer ago than this: a timedelta, or seconds."""
    return Consistency(max_staleness=values.to_timedelta(values.duration("consistency", length)))


def later(known: Position, seen: Position) -> Position:
    """The one of two positions that implies the other.

    In one history a later epoch has no lower revision. Where it has, a promotion left the higher one behind:
    that one is kept, so that the next read with it finds out.
    """
    older, newer = (known, seen) if known.epoch <= seen.epoch else (seen, known)
    return newer if newer.revision >= older.revision else older


def are_of_one_history(positions: Iterable[Position]) -> bool:
    """Whether one history may have all of the positions.

    Not if a later epoch has a lower revision: what that epoch began behind, it left behind.
    """
    revisions = [each.revision for each in sorted(positions, key=lambda each: each.epoch) if each.epoch]
    return all(before <= after for before, after in pairwise(revisions))


def checked(value: object) -> Consistency:
    """A consistency that was given by a caller."""
    if not isinstance(value, Consistency):
        raise invalid_field(
            "consistency",
            f"must be EVENTUAL, STRONG, at_least(...), max_staleness(...), not {values.kind(value)}",
        )
    return value


def to_proto(wanted: Consistency) -> consistency_pb2.Consistency | None:
    """The message; None for EVENTUAL."""
    if wanted == EVENTUAL:
        return None
    message = consistency_pb2.Consistency(
        min_revision=wanted.at_least.revision, min_epoch=wanted.at_least.epoch, strong=wanted.strong
    )
    if wanted.max_staleness is not None:
        message.max_staleness.CopyFrom(values.duration("consistency", wanted.max_staleness))
    return message
