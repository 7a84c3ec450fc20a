"""As of when a replica is fresh, by what the writer answered; and what may wait for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentmem.core.consistency import Demand, demand_of
from agentmem.core.deadlines import ANSWER_MARGIN_S, allowed_wait_s
from agentmem.core.errors import ResourceExhausted, Unavailable
from agentmem.core.log import EMPTY_CHAIN_HASH, Position
from agentmem.core.standing import StandingFile
from agentmem.core.store import Store
from agentmem.core.times import boot_time_s
from agentmem.replica import consistent_reads
from agentmem.replica.consistent_reads import ConsistentReads, Part
from agentmem.replica.follower import Follower
from agentmem.replica.freshness import MAX_UNREACHED_HEADS, Freshness, Head
from agentmem.replica.membership import Reporter
from agentmem.replica.writer_link import WriterLink
from agentmem.v1 import consistency_pb2

MIB = 1024**2


class Shown:
    """What a part of a replica shows, and the epoch of its store."""

    def __init__(self, revision: int = 0, epoch: int = 1) -> None:
        self.revision, self.epoch = revision, epoch
        self.freshness = Freshness(self._position, lambda: self.revision)

    def _position(self) -> Position:
        return Position(b"c" * 16, self.epoch, self.revision, EMPTY_CHAIN_HASH)


def test_it_is_fresh_as_of_the_question_once_it_shows_the_answer() -> None:
    shown = Shown(revision=5)
    assert shown.freshness.as_of_s is None
    assert not shown.freshness.is_as_of(0.0)
    for asked_at_s, revision in ((10.0, 5), (11.0, 7), (12.0, 7), (13.0, 9)):
        shown.freshness.learn(Head(asked_at_s, 1, revision))
    assert shown.freshness.as_of_s == 10.0
    assert shown.freshness.head_as_of(11.5) == Head(12.0, 1, 7)
    assert shown.freshness.head_as_of(13.5) is None
    for revision, fresh_as_of_s in ((6, 10.0), (7, 12.0), (8, 12.0), (9, 13.0)):
        shown.revision = revision
        assert shown.freshness.as_of_s == fresh_as_of_s
        assert shown.freshness.is_as_of(fresh_as_of_s)
        assert not shown.freshness.is_as_of(fresh_as_of_s + 0.001)


def test_another_epoch_may_begin_between_two_looks() -> None:
    epochs = iter((1, 2, 2))
    freshness = Freshness(lambda: Position(b"c" * 16, next(epochs), 5, EMPTY_CHAIN_HASH), lambda: 5)
    freshness.learn(Head(10.0, 1, 5))
    assert freshness.is_as_of(9.0)
    assert not freshness.is_as_of(9.0)


def test_an_answer_of_another_epoch_says_nothing_of_this_history() -> None:
    shown = Shown(revision=5, epoch=2)
    shown.freshness.learn(Head(10.0, 1, 5))
    assert shown.freshness.as_of_s is None
    # Of a later one: it will, once the store is in that.
    shown.freshness.learn(Head(11.0, 3, 4))
    assert shown.freshness.as_of_s is None
    shown.freshness.learn(Head(12.0, 2, 5))
    assert shown.freshness.as_of_s is None
    shown.epoch = 3
    assert shown.freshness.as_of_s == 11.0
    # What is known of one history does not hold in the next.
    shown.epoch = 4
    assert shown.freshness.as_of_s is None


def test_answers_that_are_not_shown_for_long_are_bounded() -> None:
    shown = Shown()
    for number in range(10 * MAX_UNREACHED_HEADS):
        shown.freshness.learn(Head(float(number), 1, number + 1))
        # Both ends are there: what is shown next, and what a read just asked for.
        assert shown.freshness.head_as_of(0.0) == Head(0.0, 1, 1)
        assert shown.freshness.head_as_of(float(number)) == Head(float(number), 1, number + 1)
        assert len(shown.freshness._unreached) <= MAX_UNREACHED_HEADS
    shown.revision = 600
    as_of_s = shown.freshness.as_of_s
    assert as_of_s is not None
    assert as_of_s < 600


def test_a_demand_is_about_the_beginning_of_the_read() -> None:
    assert demand_of(consistency_pb2.Consistency()) is None
    before_s = boot_time_s()
    strong = demand_of(consistency_pb2.Consistency(strong=True))
    stale = consistency_pb2.Consistency(min_revision=7, min_epoch=2)
    stale.max_staleness.FromSeconds(10)
    combined = demand_of(stale)
    stale.strong = True
    both = demand_of(stale)
    after_s = boot_time_s()
    assert strong is not None
    assert combined is not None
    assert both is not None
    assert strong.as_of_s is not None
    assert combined.as_of_s is not None
    assert both.as_of_s is not None
    assert before_s <= strong.as_of_s <= both.as_of_s <= after_s
    assert before_s <= combined.as_of_s + 10 <= after_s
    assert (combined.min_revision, combined.min_epoch) == (both.min_revision, both.min_epoch) == (7, 2)
    assert combined.fresh_field == "consistency.max_staleness"
    assert both.fresh_field == "consistency.strong"


class Call:
    """The context of a call, as far as it is asked."""

    def __init__(self, remaining_s: float | None) -> None:
        self._remaining_s = remaining_s

    def time_remaining(self) -> float | None:
        return self._remaining_s


@pytest.mark.parametrize(
    ("remaining_s", "expected_s"),
    [(None, 0.5), (60.0, 0.5), (0.3, 0.3 - ANSWER_MARGIN_S), (ANSWER_MARGIN_S, 0.0), (-1.0, 0.0)],
)
def test_a_call_waits_within_its_deadline(remaining_s: float | None, expected_s: float) -> None:
    context: Any = Call(remaining_s)
    assert allowed_wait_s(context, 0.5) == pytest.approx(expected_s)


def test_reads_that_wait_are_bounded_and_without_a_writer_do_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistent_reads, "MAX_WAITING_READS", 2)

    async def scenario() -> None:
        store = Store(tmp_path / "store", map_size_bytes=16 * MIB, max_map_size_bytes=16 * MIB)
        store.found_cluster()
        standing = StandingFile(tmp_path, "replica", b"", 1)
        link = WriterLink(standing, "127.0.0.1:9")
        try:
            follower = Follower(
                store, link, replica_id="r", address="localhost:1", on_applied=lambda entries: None
            )
            revision = 0
            part = Part("store", lambda: revision, Freshness(store.position, lambda: revision))
            reporter = Reporter(
                link,
                follower,
                replica_id="r",
                searchable_revision=lambda: 0,
                on_serving=lambda: None,
                store_freshness=part.freshness,
                view_freshness=part.freshness,
            )
            reads = ConsistentReads(store, follower, reporter)
            ahead = Demand(min_revision=1)
            with pytest.raises(Unavailable) as refused:
                await reads.reach(part, ahead, wait_s=3600)  # no writer: nothing will come
            assert refused.value.reason == "REPLICA_STALE"
            follower.is_connected = True
            with pytest.raises(Unavailable) as refused:
                await reads.reach(part, ahead, wait_s=0)
            waiting = [asyncio.create_task(reads.reach(part, ahead, wait_s=3600)) for _ in range(2)]
            await asyncio.sleep(0)  # they begin
            with pytest.raises(ResourceExhausted) as overloaded:
                await reads.reach(part, ahead, wait_s=3600)
            assert (overloaded.value.reason, overloaded.value.retry_after_s) == ("OVERLOADED", 0.2)
            await reads.reach(part, Demand(min_revision=0, min_epoch=1), wait_s=0)  # needs no place
            # One goes away, and its place is free; the other one gets what it waits for.
            waiting[0].cancel()
            await asyncio.wait(waiting[:1])
            waiting.append(asyncio.create_task(reads.reach(part, ahead, wait_s=3600)))
            await asyncio.sleep(0)
            revision = 1
            follower.progress.notify()
            await asyncio.gather(*waiting[1:])
        finally:
            await link.close()
        store.close()

    asyncio.run(scenario())
