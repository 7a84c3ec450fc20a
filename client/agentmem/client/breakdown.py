"""What a replica counts in its indexes, and how large and fresh these are, as callers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from agentmem.client import values
from agentmem.client.models import MemoryType, memory_type_from_proto
from agentmem.v1 import reader_pb2


@dataclass(frozen=True)
class OwnerCounts:
    """How many users, agents or sessions there are, and the 20 with the most memories, most first."""

    distinct: int
    largest: Mapping[str, int]


@dataclass(frozen=True)
class Breakdown:
    """The live memories of a namespace by what they are; what has expired counts until it is deleted.

    Attributes:
        searchable_revision: every write up to this revision is counted.
        types: those that there are.
        oldest_event_time, newest_event_time: None without memories.
    """

    searchable_revision: int
    memories: int
    types: Mapping[MemoryType, int]
    users: OwnerCounts
    agents: OwnerCounts
    sessions: OwnerCounts
    oldest_event_time: datetime | None
    newest_event_time: datetime | None


@dataclass(frozen=True)
class IndexStats:
    """The indexes of the replica that answered. Rows of ended memories are dead until they are cleared away.

    Attributes:
        applied_revision, searchable_revision: what the store has, and what the indexes show.
        store_staleness, search_staleness: gets and lists, and searches, show every write that was
            acknowledged longer ago than this; None when it is not known.
        text_documents, text_bytes: of the text index, which is one for all namespaces.
        facet_rows, dead_facet_rows: of the namespace, what filters look at.
        tail_rows, dead_tail_rows, tail_bytes: vectors that are compared one by one, in memory.
        segments, segment_rows, dead_segment_rows, segment_bytes: vectors with a forest, on disk.
    """

    applied_revision: int
    searchable_revision: int
    store_staleness: timedelta | None
    search_staleness: timedelta | None
    text_documents: int
    text_bytes: int
    facet_rows: int
    dead_facet_rows: int
    tail_rows: int
    dead_tail_rows: int
    tail_bytes: int
    segments: int
    segment_rows: int
    dead_segment_rows: int
    segment_bytes: int


def breakdown_from_proto(message: reader_pb2.NamespaceBreakdown) -> Breakdown:
    """What a replica counted."""
    has_times = message.HasField("oldest_event_time")
    return Breakdown(
        searchable_revision=message.searchable_revision,
        memories=message.memories,
        types={memory_type_from_proto(each.type): each.memories for each in message.types},
        users=_owners_from_proto(message.users),
        agents=_owners_from_proto(message.agents),
        sessions=_owners_from_proto(message.sessions),
        oldest_event_time=values.to_datetime(message.oldest_event_time) if has_times else None,
        newest_event_time=values.to_datetime(message.newest_event_time) if has_times else None,
    )


def _owners_from_proto(message: reader_pb2.OwnerCounts) -> OwnerCounts:
    return OwnerCounts(message.distinct, {each.name: each.memories for each in message.largest})


def index_stats_from_proto(message: reader_pb2.IndexStats) -> IndexStats:
    """The sizes that a replica sent."""
    return IndexStats(
        applied_revision=message.applied_revision,
        searchable_revision=message.searchable_revision,
        store_staleness=(
            values.to_timedelta(message.store_staleness) if message.HasField("store_staleness") else None
        ),
        search_staleness=(
            values.to_timedelta(message.search_staleness) if message.HasField("search_staleness") else None
        ),
        text_documents=message.text_documents,
        text_bytes=message.text_bytes,
        facet_rows=message.facet_rows,
        dead_facet_rows=message.dead_facet_rows,
        tail_rows=message.tail_rows,
        dead_tail_rows=message.dead_tail_rows,
        tail_bytes=message.tail_bytes,
        segments=message.segments,
        segment_rows=message.segment_rows,
        dead_segment_rows=message.dead_segment_rows,
        segment_bytes=message.segment_bytes,
    )
