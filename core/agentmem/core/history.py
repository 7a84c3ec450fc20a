"""Which version of a memory a read is about: the newest, or the one of an earlier state of the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agentmem.core.errors import FailedPrecondition, ResourceExhausted
from agentmem.core.layout import IdState, NamespaceState
from agentmem.core.log import decode_entry
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.records import Record
from agentmem.core.times import timestamp_us
from agentmem.core.validation import check_time
from agentmem.v1 import memory_pb2, reader_pb2

# Of one read: about half a second.
MAX_WALKED_VERSIONS = 50_000


@dataclass(frozen=True, slots=True)
class Moment:
    """A state of the store: now, after a revision, or after every commit up to a time.

    With both, it is that of the time as the store had it after the revision: later imports may bring versions
    of earlier times.

    Attributes:
        now_us: what has expired by then is not there any more, when neither of the others is set.
    """

    now_us: int
    revision: int | None = None
    time_us: int | None = None

    @property
    def is_now(self) -> bool:
        return self.revision is None and self.time_us is None


def moment_of(as_of: reader_pb2.AsOf, now_us: int) -> Moment:
    """The moment that a request asks for; now, when it says nothing. Raises InvalidArgument."""
    point = as_of.WhichOneof("point")
    if point == "revision":
        return Moment(now_us, revision=as_of.revision)
    if point == "time":
        check_time(as_of.time, "as_of.time")
        return Moment(now_us, time_us=timestamp_us(as_of.time))
    return Moment(now_us)


def is_expired(memory: memory_pb2.Memory, at_us: int) -> bool:
    """Whether its time is over."""
    return memory.HasField("expire_time") and timestamp_us(memory.expire_time) <= at_us


def next_update_us(newest: memory_pb2.Memory, time_us: int) -> int:
    """The update_time of the version behind the newest one, written at ``time_us``.

    Never before that of the newest, which may come from a store whose clock is ahead: the order of versions
    is the order of their times, and the order in which they end.
    """
    return max(time_us, timestamp_us(newest.update_time))


@dataclass(slots=True)
class Walk:
    """How many versions a read has looked at on its way into the past."""

    versions: int = 0

    def step(self) -> None:
        """Raises ResourceExhausted (``TOO_MANY_VERSIONS``) when the read has gone on for too long."""
        self.versions += 1
        if self.versions > MAX_WALKED_VERSIONS:
            raise ResourceExhausted(
                "TOO_MANY_VERSIONS",
                f"more than {MAX_WALKED_VERSIONS} versions were written since as_of: ask for fewer memories",
                field="as_of",
            )


def version_at(
    transaction: ReadTransaction, state: IdState, moment: Moment, walk: Walk
) -> tuple[int, Record] | None:
    """The version that was live at the moment, with its ordinal; None when there was none.

    Raises:
        FailedPrecondition: ``HISTORY_PRUNED``, retention has removed it.
        ResourceExhausted: ``TOO_MANY_VERSIONS``, see Walk.
    """
    if moment.is_now:
        if state.deleted:
            return None
        record = transaction.named_record(state.ordinal)
        return None if is_expired(record.memory, moment.now_us) else (state.ordinal, record)
    found = newest_written(transaction, state, moment, walk)
    if found is None or found[1].is_tombstone:
        return None
    # After a revision, an expired memory is there until the commit that swept it.
    expired = moment.time_us is not None and is_expired(found[1].memory, moment.time_us)
    return None if expired else found


def newest_written(
    transaction: ReadTransaction,
    state: IdState,
    moment: Moment,
    walk: Walk,
    on_later: Callable[[int, Record], None] = lambda ordinal, record: None,
) -> tuple[int, Record] | None:
    """The newest version up to a moment of the past, with its ordinal; it may be a tombstone.

    None when the memory was first written later. ``on_later`` gets each version that was written later.
    Raises as ``version_at``.
    """
    earlier = 0
    for ordinal, record in transaction.versions(state.ordinal):
        walk.step()
        if _is_written(record, moment):
            return ordinal, record
        on_later(ordinal, record)
        earlier = record.previous_ordinal
    if earlier:
        raise _pruned("retention has removed the version of a memory of that time")
    return None


def _is_written(record: Record, moment: Moment) -> bool:
    if moment.revision is not None and record.revision > moment.revision:
        return False
    return moment.time_us is None or timestamp_us(record.memory.update_time) <= moment.time_us


def commit_time_us(transaction: ReadTransaction, revision: int) -> int:
    """When a revision was committed, microseconds since 1970; 0 for a revision before the first.

    When its entry is no longer in the log, it is the time of the newest version up to it, whose ordinal is
    looked for by halves: ordinals and revisions ascend together.
    """
    value = transaction.log_value(revision)
    if value is not None:
        return decode_entry(value, revision)[0].time_us
    low, high = 0, transaction.newest_ordinal
    time_us = 0
    while low < high:
        middle = (low + high + 1) // 2
        found = transaction.next_record(middle)
        if found is None or found[1].revision > revision:
            high = middle - 1
        else:
            low, time_us = found[0], timestamp_us(found[1].memory.update_time)
    return time_us


def check_history(space: NamespaceState | None, moment: Moment) -> None:
    """Raises FailedPrecondition (``HISTORY_PRUNED``) when deleted memories of that moment are forgotten."""
    # Without a start all is kept, and times before 1970 are below 0.
    if space is None or moment.is_now or not space.history_start:
        return
    too_early = moment.revision is not None and moment.revision < space.history_start
    if too_early or (moment.time_us is not None and moment.time_us < space.history_start_us):
        raise _pruned(f"the history of the namespace is complete from revision {space.history_start} on")


def _pruned(problem: str) -> FailedPrecondition:
    return FailedPrecondition("HISTORY_PRUNED", f"as_of reaches too far back: {problem}", field="as_of")
