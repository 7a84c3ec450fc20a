"""Export: the versions of a namespace as of one revision, in frames that each take a short transaction."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from agentmem.core.errors import Unavailable
from agentmem.core.filters import Filter
from agentmem.core.history import Moment, Walk, is_expired, version_at
from agentmem.core.layout import IdState
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.reading import SCAN_CHUNK_RECORDS, add_embedding
from agentmem.core.store import Store
from agentmem.v1 import reader_pb2

MAX_FRAME_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """What is exported.

    Attributes:
        moment: that of a revision which the store has.
        epoch: of the history that leads to the revision.
        matcher: on the newest version; None for all memories, deleted ones too.
        newest_only: leaves out older versions and deleted memories.
        space: the embedding space of the namespace when the export began; None when there was no namespace.
    """

    namespace: str
    moment: Moment
    matcher: Filter | None
    newest_only: bool
    epoch: int = 0
    space: int | None = None


@dataclass(frozen=True, slots=True)
class ExportPlace:
    """How far an export is: all ids up to ``memory_id``, of which the versions ``left`` are still to come."""

    memory_id: str = ""
    left: Sequence[int] = ()


def export_frame(
    store: Store, query: ExportQuery, place: ExportPlace
) -> tuple[reader_pb2.ExportMemoriesResponse, ExportPlace | None]:
    """The versions behind a place, and the place behind them; None at the end.

    Raises Unavailable (``EMBEDDINGS_REPLACED``) when the namespace has other embeddings than when it began.
    """
    response = reader_pb2.ExportMemoriesResponse(applied_revision=query.moment.revision, epoch=query.epoch)
    size_bytes = 0
    reached = place.memory_id
    with store.read() as transaction:
        state = transaction.namespace(query.namespace)
        if state is not None and query.space is not None and state.space != query.space:
            raise Unavailable(
                "EMBEDDINGS_REPLACED",
                f"the embeddings of namespace {query.namespace!r} were replaced meanwhile: export again",
            )
        following = list(islice(transaction.ids(query.namespace, place.memory_id), SCAN_CHUNK_RECORDS))
        # The versions of a memory are looked up once, however many frames they take.
        begun = [(place.memory_id, place.left)] if place.left else []
        states = ((memory_id, _ordinals(transaction, query, state)) for memory_id, state in following)
        for memory_id, ordinals in itertools.chain(begun, states):
            for index, ordinal in enumerate(ordinals):
                if size_bytes > MAX_FRAME_BYTES:
                    return response, ExportPlace(memory_id, ordinals[index:])
                size_bytes += _add_version(transaction, response, ordinal)
            reached = memory_id
    return response, ExportPlace(reached) if following else None


def _ordinals(transaction: ReadTransaction, query: ExportQuery, state: IdState) -> list[int]:
    """The versions of one memory to be exported, oldest first."""
    if query.newest_only or query.matcher is not None:
        found = version_at(transaction, state, query.moment, Walk())
        if found is None or is_expired(found[1].memory, query.moment.now_us):
            return []
        if query.matcher is not None and not query.matcher.matches(found[1].memory):
            return []
        if query.newest_only:
            return [found[0]]
    revision = query.moment.revision or 0
    newest_first = [
        ordinal for ordinal, record in transaction.versions(state.ordinal) if record.revision <= revision
    ]
    return newest_first[::-1]


def _add_version(
    transaction: ReadTransaction, response: reader_pb2.ExportMemoriesResponse, ordinal: int
) -> int:
    """Adds a version with its embedding; returns its size."""
    record = transaction.record(ordinal)
    if record is None:
        return 0  # pruned or purged since it was looked up
    version = response.versions.add(memory=record.memory, kind=record.kind)
    add_embedding(transaction, ordinal, version.memory)
    return version.ByteSize()
