"""What the indexes of a replica hold, how large they are, and how fresh."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from agentmem.core.filters import TYPE_NAMES
from agentmem.core.times import boot_time_s
from agentmem.replica.consistent_reads import Part
from agentmem.replica.facets import Facets
from agentmem.replica.index_directory import SEGMENTS_FOLDER, TEXT_FOLDER
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.view import NamespaceView, View
from agentmem.v1 import reader_pb2

MAX_LARGEST_OWNERS = 20


def breakdown(view: View, name: str) -> reader_pb2.NamespaceBreakdown:
    """The live memories of a namespace by type, owner and time; of none that the view knows, zeros."""
    result = reader_pb2.NamespaceBreakdown(searchable_revision=view.revision)
    namespace = view.namespaces.get(name)
    if namespace is None or not namespace.live:
        return result
    facets, live = namespace.facets, namespace.live
    result.memories = len(live)
    counts = dict(facets.counts("type", live))
    for number, type_name in sorted(TYPE_NAMES.items()):
        if type_name in counts:
            result.types.add(type=number, memories=counts[type_name])
    result.users.CopyFrom(_owners(facets, live, "user_id"))
    result.agents.CopyFrom(_owners(facets, live, "agent_id"))
    result.sessions.CopyFrom(_owners(facets, live, "session_id"))
    oldest_us, newest_us = facets.time_span("event_time", live, namespace.facet_rows)
    result.oldest_event_time.FromMicroseconds(oldest_us)
    result.newest_event_time.FromMicroseconds(newest_us)
    return result


def _owners(facets: Facets, live: OrdinalSet, field: str) -> reader_pb2.OwnerCounts:
    counts = facets.counts(field, live)
    counts.sort(key=lambda each: (-each[1], each[0]))
    return reader_pb2.OwnerCounts(
        distinct=len(counts),
        largest=[
            reader_pb2.OwnerCount(name=name, memories=memories)
            for name, memories in counts[:MAX_LARGEST_OWNERS]
        ],
    )


def index_stats(view: View, name: str, folder: Path) -> reader_pb2.IndexStats:
    """The sizes of the indexes.

    Args:
        folder: of the indexes.
    """
    result = reader_pb2.IndexStats(
        searchable_revision=view.revision,
        text_documents=0 if view.text is None else view.text.documents,
        text_bytes=folder_bytes(folder / TEXT_FOLDER),
    )
    namespace = view.namespaces.get(name)
    if namespace is not None:
        result.facet_rows = namespace.facet_rows
        result.dead_facet_rows = namespace.facet_rows - len(namespace.live)
        _add_vectors(result, namespace, folder / SEGMENTS_FOLDER)
    return result


def _add_vectors(result: reader_pb2.IndexStats, namespace: NamespaceView, folder: Path) -> None:
    vectors = namespace.vectors
    if vectors is None:
        return
    result.tail_rows, result.dead_tail_rows = len(vectors.tail.rows), len(vectors.tail.dead)
    result.tail_bytes = vectors.tail.rows.nbytes + vectors.tail.ordinals.nbytes
    for part in vectors.segments:
        assert part.segment is not None
        result.segments += 1
        result.segment_rows += len(part.rows)
        result.dead_segment_rows += len(part.dead)
        result.segment_bytes += folder_bytes(folder / part.segment.name)


def add_freshness(result: reader_pb2.IndexStats, store_part: Part, view_part: Part) -> None:
    """Adds how far the store is, and how fresh gets and searches are. For the event loop alone."""
    result.applied_revision = store_part.revision()
    for message, part in ((result.store_staleness, store_part), (result.search_staleness, view_part)):
        as_of_s = part.freshness.as_of_s
        if as_of_s is not None:
            message.FromMicroseconds(max(0, int((boot_time_s() - as_of_s) * 1_000_000)))


def folder_bytes(folder: Path) -> int:
    """The size of the files in a folder. Those that are replaced meanwhile may count or not."""
    size_bytes = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                size_bytes += entry.stat().st_size
    return size_bytes
