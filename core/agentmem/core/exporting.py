"""Export: the versions of a namespace as of one revision, in frames that each take a short transaction."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from agentmem.core.filters import Filter
from agentmem.core.history import Moment, is_expired, version_at
from agentmem.core.layout import IdState
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.reading import SCAN_CHUNK_RECORDS, add_embedding
from agentmem.core.store import Store
from agentmem.v1 import reader_pb2

MAX_FRAME_BYTES = 256 * 1024
_ALL_ORDINALS = 2**64 - 1


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """What is exported.

    Attributes:
        moment: that of a revision which the store has.
        matcher: on the newest version; None for all memories, deleted ones too.
        newest_only: leaves out older versions and deleted memories.
    """

    namespace: str
    moment: Moment
    matcher: Filter | None
    newest_only: bool


@dataclass(frozen=True, slots=True)
class ExportPlace:
    """How far an export is: all ids before ``memory_id``, and of that its versions up to ``ordinal``."""

    memory_id: str = ""
    ordinal: int = 0


def export_frame(
    store: Store, query: ExportQuery, place: ExportPlace
) -> tuple[reader_pb2.ExportMemoriesResponse, ExportPlace | None]:
    """The versions behind a place, and the place behind them; None at the end."""
    response = reader_pb2.ExportMemoriesResponse(applied_revision=query.moment.revision)
    size_bytes = 0
    reached = place
    with store.read() as transaction:
        following = list(islice(transaction.ids(query.namespace, place.memory_id), SCAN_CHUNK_RECORDS))
        begun = transaction.id_state(query.namespace, place.memory_id) if place.memory_id else None
        chunk = [*([(place.memory_id, begun)] if begun is not None else []), *following]
        for memory_id, state in chunk:
            sent = place.ordinal if memory_id == place.memory_id else 0
            for ordinal in _ordinals(transaction, query, state):
                if ordinal <= sent:
                    continue
                if size_bytes > MAX_FRAME_BYTES:
                    return response, reached
                size_bytes += _add_version(transaction, response, ordinal)
                reached = ExportPlace(memory_id, ordinal)
            reached = ExportPlace(memory_id, _ALL_ORDINALS)
    return response, reached if following else None


def _ordinals(transaction: ReadTransaction, query: ExportQuery, state: IdState) -> list[int]:
    """The versions of one memory to be exported, oldest first."""
    if query.newest_only or query.matcher is not None:
        found = version_at(transaction, state, query.moment)
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
    record = transaction.named_record(ordinal)
    version = response.versions.add(memory=record.memory, kind=record.kind)
    add_embedding(transaction, ordinal, version.memory)
    return version.ByteSize()
