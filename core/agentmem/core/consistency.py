"""How new the answer to a read must be: what a request demands, and the errors when it cannot be had."""

from __future__ import annotations

from dataclasses import dataclass

from agentmem.core.errors import FailedPrecondition, Unavailable, invalid_field
from agentmem.core.store import ReadTransaction
from agentmem.core.times import boot_time_s, duration_us
from agentmem.v1 import consistency_pb2

# 100 years, as of a ttl.
MAX_STALENESS_US = 100 * 365 * 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Demand:
    """What the answer to a read must show.

    Attributes:
        min_revision: every write up to this revision; 0 for no such demand.
        min_epoch: of the history that leads to this epoch; 0 when that was not told.
        as_of_s: every write that was acknowledged before this moment, on the clock of ``boot_time_s``; None
            for no such demand.
        fresh_field: the field of the request that ``as_of_s`` comes from.
    """

    min_revision: int = 0
    min_epoch: int = 0
    as_of_s: float | None = None
    fresh_field: str = ""


def demand_of(consistency: consistency_pb2.Consistency) -> Demand | None:
    """The demand of a read that begins now; None when any answer will do.

    ``strong`` is a staleness of nothing: fresh as of the beginning of the read.

    Raises:
        InvalidArgument: ``max_staleness`` is negative, or more than 100 years.
    """
    staleness_s, field = None, ""
    if consistency.HasField("max_staleness"):
        staleness_us = duration_us(consistency.max_staleness)
        if not 0 <= staleness_us <= MAX_STALENESS_US:
            raise invalid_field("consistency.max_staleness", "must be 0 to 100 years")
        staleness_s, field = staleness_us / 1_000_000, "consistency.max_staleness"
    if consistency.strong:
        staleness_s, field = 0.0, "consistency.strong"
    if staleness_s is None and not consistency.min_revision and not consistency.min_epoch:
        return None
    return Demand(
        min_revision=consistency.min_revision,
        min_epoch=consistency.min_epoch,
        as_of_s=None if staleness_s is None else boot_time_s() - staleness_s,
        fresh_field=field,
    )


def check_not_lost(transaction: ReadTransaction, demand: Demand) -> None:
    """Raises FailedPrecondition (``REVISION_LOST``) when a promotion left the demanded revision behind."""
    if not demand.min_revision or not demand.min_epoch:
        return
    common_revision = transaction.common_revision(demand.min_epoch, demand.min_revision)
    if common_revision is not None:
        raise revision_lost(demand, transaction.position.epoch, common_revision)


def revision_lost(demand: Demand, epoch: int, common_revision: int) -> FailedPrecondition:
    """The error for a revision that is not in the history that goes on.

    Args:
        epoch: of the node that answers.
        common_revision: the newest revision that both histories have.
    """
    return FailedPrecondition(
        "REVISION_LOST",
        f"revision {demand.min_revision} is not in the history that leads to epoch {epoch}; it goes up to "
        f"revision {common_revision}",
        field="consistency.min_revision",
        epoch=str(epoch),
        common_revision=str(common_revision),
    )


def replica_stale(field: str, message: str, applied_revision: int) -> Unavailable:
    """The error of a replica that does not show what is demanded: another node may."""
    return Unavailable("REPLICA_STALE", message, field=field, applied_revision=str(applied_revision))
