"""What writes and reads answer, as callers see it, and the choices that they offer.

Revisions count the commits of the writer. An answer says of which epoch's history its revision is: the epoch
is higher after each promotion, and 0 when the server did not say. ``acknowledged`` is None unless more than
LOCAL was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agentmem.client import models, searching, values
from agentmem.client.acknowledgement import Acknowledged, acknowledged_from_proto
from agentmem.client.errors import ServerError, invalid_field
from agentmem.client.models import Memory
from agentmem.client.searching import SearchExplanation, SearchSignals
from agentmem.client.values import equal_to_base
from agentmem.v1 import reader_pb2, writer_pb2


class SearchMode(StrEnum):
    """How a search compares.

    HYBRID: by meaning and words. SEMANTIC: by meaning alone. TEXT: by words. FUZZY: by words that may be
    misspelt. EXACT: by a phrase, the words as they are, one behind the other.
    """

    HYBRID = "hybrid"
    SEMANTIC = "semantic"
    TEXT = "text"
    FUZZY = "fuzzy"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Fuzziness:
    """How far a word of a FUZZY search may be from one of the memory.

    Args:
        max_edits: 0 to 2 characters more, less, other, or neighbours changed about; by the length of each
            word when None.
        prefix: the last word may be the beginning of a longer one.
    """

    max_edits: int | None = None
    prefix: bool = False

    def to_proto(self) -> reader_pb2.Fuzziness:
        message = reader_pb2.Fuzziness(prefix=values.boolean("fuzziness.prefix", self.prefix))
        if self.max_edits is not None:
            message.max_edits = values.integer("fuzziness.max_edits", self.max_edits, low=0, high=2)
        return message


class DuplicatePolicy(StrEnum):
    """What an add does where a live memory of the same user_id, agent_id and content is there already.

    ADD: it is added beside it. SKIP: it is left out. MERGE: what is there gets the tags and metadata of both
    (the new value where both have a key), the larger importance, and the later expire_time, or none if one
    has none; session_id and embedding only where it had none.
    """

    ADD = "add"
    SKIP = "skip"
    MERGE = "merge"


class AddOutcome(StrEnum):
    """What became of one memory of an add. MERGED also when the merge changed nothing."""

    ADDED = "added"
    SKIPPED = "skipped"
    MERGED = "merged"


@dataclass(frozen=True)
class AddedMemory:
    """The id and version of the memory that was added, or that was there already.

    The version of an added one is 1, unless a memory with this id was deleted before: then it goes on from
    there.
    """

    id: str
    version: int
    outcome: AddOutcome


@dataclass(frozen=True)
class AddResult:
    """What was added, in the order given, and the revision of the commit."""

    memories: tuple[AddedMemory, ...]
    revision: int
    epoch: int = 0
    acknowledged: Acknowledged | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class UpdatedMemory(Memory):
    """The new version of a memory, and the revision of the commit. Equals the Memory that is read later."""

    revision: int
    epoch: int = 0
    acknowledged: Acknowledged | None = None

    def __eq__(self, other: object) -> bool:
        return equal_to_base(self, other, Memory)

    __hash__ = Memory.__hash__


@dataclass(frozen=True)
class PurgeReceipt:
    """What a purge removed for good.

    Attributes:
        revision: the last commit of the purge: a node that has applied it has removed all.
        time: when.
        ids_sha256: SHA-256 over the ids in the order of their bytes, each followed by a zero byte.
    """

    namespace: str
    revision: int
    time: datetime
    memory_count: int
    version_count: int
    ids_sha256: bytes


@dataclass(frozen=True)
class PurgeProgress:
    """How far one node is. ``applied``: what was purged is gone from its store and its searches."""

    node_id: str
    applied_revision: int
    applied: bool


@dataclass(frozen=True)
class PurgeStatus:
    """A receipt, and the nodes of the cluster that can be reached now: the writer and the replicas.

    A replica that is away carries the purge out before it serves again.
    """

    receipt: PurgeReceipt
    nodes: tuple[PurgeProgress, ...]


@dataclass(frozen=True)
class DeleteResult:
    """What was deleted.

    Attributes:
        deleted_ids: the ids that are gone now; of a deletion by filter the first 10,000.
        missing_ids: those that named no memory.
        revision: of the last commit.
        deleted_count: how many are gone now.
        receipt: of a purge that removed anything.
    """

    deleted_ids: tuple[str, ...]
    missing_ids: tuple[str, ...]
    revision: int
    deleted_count: int
    receipt: PurgeReceipt | None
    epoch: int = 0
    acknowledged: Acknowledged | None = None


@dataclass(frozen=True)
class GetResult:
    """The memories found, in the order asked for, and the ids of those that were not.

    ``applied_revision``: the answer shows every write up to this revision; so in every read.
    """

    memories: tuple[Memory, ...]
    missing_ids: tuple[str, ...]
    applied_revision: int
    epoch: int = 0


@dataclass(frozen=True)
class Page:
    """One page of a list. ``next_page_token`` is empty on the last; a page before it may be short."""

    memories: tuple[Memory, ...]
    next_page_token: str
    applied_revision: int
    epoch: int = 0


@dataclass(frozen=True)
class Hit:
    """A memory found by a search.

    ``score``: semantic: cosine, -1 to 1; text: BM25, above 0; hybrid: 0 to 1, to be compared within one
    search.
    """

    memory: Memory
    score: float
    # Of a search that was to explain.
    signals: SearchSignals | None = None


@dataclass(frozen=True)
class SearchResult:
    """The hits, best first."""

    hits: tuple[Hit, ...]
    applied_revision: int
    epoch: int = 0
    # Of a search that was to explain.
    explanation: SearchExplanation | None = None


_MODE_TO_PROTO = {
    SearchMode.HYBRID: reader_pb2.SEARCH_MODE_HYBRID,
    SearchMode.SEMANTIC: reader_pb2.SEARCH_MODE_SEMANTIC,
    SearchMode.TEXT: reader_pb2.SEARCH_MODE_TEXT,
    SearchMode.FUZZY: reader_pb2.SEARCH_MODE_FUZZY,
    SearchMode.EXACT: reader_pb2.SEARCH_MODE_EXACT,
}
_POLICY_TO_PROTO = {
    DuplicatePolicy.ADD: writer_pb2.DUPLICATE_POLICY_ADD,
    DuplicatePolicy.SKIP: writer_pb2.DUPLICATE_POLICY_SKIP,
    DuplicatePolicy.MERGE: writer_pb2.DUPLICATE_POLICY_MERGE,
}
_OUTCOME_FROM_PROTO = {
    writer_pb2.ADD_OUTCOME_ADDED: AddOutcome.ADDED,
    writer_pb2.ADD_OUTCOME_SKIPPED: AddOutcome.SKIPPED,
    writer_pb2.ADD_OUTCOME_MERGED: AddOutcome.MERGED,
}


def search_mode_to_proto(value: object) -> reader_pb2.SearchMode:
    """A search mode from itself or its name, as the API has it."""
    return _MODE_TO_PROTO[values.choice("mode", value, SearchMode)]


def fuzziness_to_proto(value: object) -> reader_pb2.Fuzziness | None:
    """A Fuzziness as the API has it; None for None."""
    if value is None:
        return None
    if not isinstance(value, Fuzziness):
        raise invalid_field("fuzziness", f"must be a Fuzziness, not {values.kind(value)}")
    return value.to_proto()


def duplicate_policy_to_proto(value: object) -> writer_pb2.DuplicatePolicy:
    """A policy from itself or its name, as the API has it."""
    return _POLICY_TO_PROTO[values.choice("on_duplicate", value, DuplicatePolicy)]


def add_result_from_proto(message: writer_pb2.AddMemoriesResponse) -> AddResult:
    """The answer to an add."""
    return AddResult(
        tuple(map(_added_from_proto, message.memories)),
        message.revision,
        message.epoch,
        acknowledged_from_proto(message),
    )


def _added_from_proto(message: writer_pb2.AddedMemory) -> AddedMemory:
    outcome = _OUTCOME_FROM_PROTO.get(message.outcome)
    if outcome is None:
        raise ServerError(
            f"the add of {message.id!r} had outcome {message.outcome}, which this client does not know"
        )
    return AddedMemory(message.id, message.version, outcome)


def updated_memory_from_proto(message: writer_pb2.UpdateMemoryResponse) -> UpdatedMemory:
    """The answer to an update."""
    return UpdatedMemory(
        **models.memory_from_proto(message.memory).__getstate__(),
        revision=message.revision,
        epoch=message.epoch,
        acknowledged=acknowledged_from_proto(message),
    )


def delete_result_from_proto(message: writer_pb2.DeleteMemoriesResponse) -> DeleteResult:
    """The answer to a deletion or a purge."""
    return DeleteResult(
        deleted_ids=tuple(message.deleted_ids),
        missing_ids=tuple(message.missing_ids),
        revision=message.revision,
        deleted_count=message.deleted_count,
        receipt=_receipt_from_proto(message.receipt) if message.HasField("receipt") else None,
        epoch=message.epoch,
        acknowledged=acknowledged_from_proto(message),
    )


def purge_status_from_proto(message: writer_pb2.GetPurgeReceiptResponse) -> PurgeStatus:
    """A receipt and who has carried it out."""
    nodes = (PurgeProgress(node.node_id, node.applied_revision, node.applied) for node in message.nodes)
    return PurgeStatus(_receipt_from_proto(message.receipt), tuple(nodes))


def _receipt_from_proto(message: writer_pb2.PurgeReceipt) -> PurgeReceipt:
    return PurgeReceipt(
        namespace=message.namespace,
        revision=message.revision,
        time=values.to_datetime(message.time),
        memory_count=message.memory_count,
        version_count=message.version_count,
        ids_sha256=message.ids_sha256,
    )


def get_result_from_proto(message: reader_pb2.GetMemoriesResponse) -> GetResult:
    """The answer to a get."""
    return GetResult(
        models.memories_from_proto(message.memories),
        tuple(message.missing_ids),
        message.applied_revision,
        message.epoch,
    )


def page_from_proto(message: reader_pb2.ListMemoriesResponse) -> Page:
    """One page of a list."""
    return Page(
        models.memories_from_proto(message.memories),
        message.next_page_token,
        message.applied_revision,
        message.epoch,
    )


def search_result_from_proto(message: reader_pb2.SearchMemoriesResponse) -> SearchResult:
    """The answer to a search."""
    if not message.HasField("explanation"):
        hits = tuple([Hit(models.memory_from_proto(hit.memory), hit.score) for hit in message.hits])
        return SearchResult(hits, message.applied_revision, message.epoch)
    explained = tuple(
        Hit(
            models.memory_from_proto(hit.memory),
            hit.score,
            searching.signals_from_proto(hit.signals) if hit.HasField("signals") else None,
        )
        for hit in message.hits
    )
    explanation = searching.explanation_from_proto(message.explanation)
    return SearchResult(explained, message.applied_revision, message.epoch, explanation)
