"""Entries that the indexer takes from memory: no more than fit, and the same as the store has."""

from __future__ import annotations

from agentmem.core.log import LogEntry
from agentmem.core.shipping import AppliedEntry
from agentmem.replica.applied_entries import AppliedEntries


def applied(revision: int, size_bytes: int = 10) -> AppliedEntry:
    return AppliedEntry(LogEntry(revision=revision), {}, size_bytes)


def test_an_entry_is_given_once_and_older_ones_are_forgotten() -> None:
    entries = AppliedEntries()
    kept = [applied(revision) for revision in range(1, 7)]
    entries.extend(kept[:4])
    assert entries.take(2) is kept[1]
    assert entries.take(1) is None
    assert entries.take(2) is None
    entries.extend(kept[4:])
    assert [entries.take(revision) for revision in (3, 4, 5, 6, 7)] == [*kept[2:], None]


def test_what_does_not_fit_is_left_to_the_store_and_there_is_room_again_later() -> None:
    entries = AppliedEntries(max_bytes=25)
    entries.extend([applied(1), applied(2), applied(3), applied(4, 5)])
    assert [entries.take(revision) is not None for revision in (1, 2, 3, 4)] == [True, True, False, True]
    entries.extend([applied(5, 25)])
    assert entries.take(5) is not None
