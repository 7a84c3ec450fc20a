"""Deletes and purges: by id in one commit, by filter in several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.errors import invalid_field
from agentmem.core.filters import Filter
from agentmem.core.history import is_expired
from agentmem.core.layout import IdState
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.reading import SCAN_CHUNK_RECORDS
from agentmem.core.store import Change, Removal, Store, WriteTransaction
from agentmem.core.times import now_us
from agentmem.core.validation import MAX_BATCH, check_ids, check_namespace
from agentmem.server.commands import current_memory
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.requests import RequestKey, first_outcome, outcome_of, request_key_of
from agentmem.server.retention import pruned, tombstone
from agentmem.server.writing import Write, attempted
from agentmem.v1 import memory_pb2, writer_pb2

# Of a deletion by filter: what one commit deletes, and what one search for more looks at.
MAX_DELETED_PER_COMMIT = 500
MAX_SCANNED_RECORDS = 5000
# Ids that an answer names; it stays below the 4 MiB that gRPC clients take.
MAX_NAMED_IDS = 10_000


def check_batch_of_deletions(batch: writer_pb2.BatchDeleteMemoriesRequest) -> None:
    """What its requests ask for together."""
    ids = sum(len(request.ids) for request in batch.requests)
    if ids > MAX_BATCH:
        raise invalid_field("requests", f"have {ids} ids; at most {MAX_BATCH} are allowed")


def check_deletions(
    requests: Sequence[writer_pb2.DeleteMemoriesRequest],
) -> list[Write[writer_pb2.DeleteMemoriesResponse] | Exception]:
    """The write of each request that names ids, or what is wrong with it."""
    return attempted(partial(_check_deletion, request) for request in requests)


def _check_deletion(
    request: writer_pb2.DeleteMemoriesRequest,
) -> Write[writer_pb2.DeleteMemoriesResponse]:
    namespace = request.namespace
    check_namespace(namespace)
    key = request_key_of("DeleteMemories", namespace, request.request_id, request)
    check_expected_version(request)
    if request.filter.WhichOneof("kind") is not None:
        raise invalid_field("filter", "is not for a batch: send the request alone")
    check_ids(request.ids, "ids")
    expected = request.expected_version if request.HasField("expected_version") else None
    command = DeleteById(namespace, list(request.ids), request.purge, expected, key, request.ByteSize())
    return Write(lambda _: command)


def check_expected_version(request: writer_pb2.DeleteMemoriesRequest) -> None:
    """Refuses an expected version of anything but one memory."""
    if request.HasField("expected_version") and len(request.ids) != 1:
        raise invalid_field("expected_version", "needs exactly one id")


class _Tally:
    """What a deletion has come to. Ids are counted in the order of their bytes."""

    def __init__(self) -> None:
        self.named_ids: list[str] = []
        self.count = 0
        self._version_count = 0
        self._digest = hashlib.sha256()

    def add(self, ids: Sequence[str], version_count: int) -> None:
        self.named_ids += ids[: MAX_NAMED_IDS - len(self.named_ids)]
        self.count += len(ids)
        self._version_count += version_count
        for memory_id in ids:
            self._digest.update(memory_id.encode() + b"\x00")

    def receipt(self, namespace: str, time_us: int) -> writer_pb2.PurgeReceipt:
        """Of a purge. ``WriteTransaction.append`` sets its revision."""
        receipt = writer_pb2.PurgeReceipt(
            namespace=namespace,
            memory_count=self.count,
            version_count=self._version_count,
            ids_sha256=self._digest.digest(),
        )
        receipt.time.FromMicroseconds(time_us)
        return receipt


@dataclass(frozen=True, slots=True)
class DeleteById:
    """Deletes or purges the memories that exist among the ids."""

    namespace: str
    ids: Sequence[str]
    is_purge: bool
    expected_version: int | None
    request: RequestKey | None
    size_bytes: int

    def run(self, transaction: WriteTransaction, time_us: int) -> writer_pb2.DeleteMemoriesResponse:
        first = first_outcome(self.request, transaction, time_us)
        if first:
            return writer_pb2.DeleteMemoriesResponse.FromString(first.response)
        if self.expected_version is not None:
            current_memory(transaction, self.namespace, self.ids[0], self.expected_version, time_us)
        deletion = _Deletion(transaction, self.namespace, self.is_purge, time_us)
        for memory_id in self.ids:
            deletion.add(memory_id)
        tally = _Tally()
        tally.add(sorted(deletion.ids, key=str.encode), deletion.version_count)
        response = writer_pb2.DeleteMemoriesResponse(
            deleted_ids=deletion.ids,
            missing_ids=deletion.missing_ids,
            deleted_count=len(deletion.ids),
        )
        receipt = tally.receipt(self.namespace, time_us) if self.is_purge and tally.count else None
        return _end(transaction, deletion.changes, time_us, response, receipt, self.request)


def _end(
    transaction: WriteTransaction,
    changes: Sequence[Change | Removal],
    time_us: int,
    response: writer_pb2.DeleteMemoriesResponse,
    receipt: writer_pb2.PurgeReceipt | None,
    request: RequestKey | None,
) -> writer_pb2.DeleteMemoriesResponse:
    """Writes an entry, if there is anything for it, and completes the response."""
    response.revision, response.epoch = transaction.revision, transaction.position.epoch
    if changes or receipt is not None or request is not None:
        response.revision += 1
        if receipt is not None:
            receipt.revision = response.revision
            response.receipt.CopyFrom(receipt)
        transaction.append(changes, time_us, request=outcome_of(request, response), receipt=receipt)
    return response


class _Deletion:
    """The changes that delete or purge memories of a namespace."""

    def __init__(self, transaction: WriteTransaction, namespace: str, is_purge: bool, time_us: int) -> None:
        self.ids: list[str] = []
        self.missing_ids: list[str] = []
        self.changes: list[Change | Removal] = []
        self.version_count = 0
        self._transaction = transaction
        self._namespace = namespace
        self._is_purge = is_purge
        self._time_us = time_us

    def add(self, memory_id: str, matcher: Filter | None = None) -> None:
        """Takes a memory in, if it is there and, with a filter, still matches."""
        state = self._transaction.id_state(self._namespace, memory_id)
        transaction = self._transaction
        if state is not None and self._is_purge:
            ordinals = _meant_versions(transaction, state, matcher)
            if ordinals is not None:
                self.ids.append(memory_id)
                self.changes.append(Removal(self._namespace, ordinals, purged_id=memory_id))
                self.version_count += len(ordinals)
                return
        elif state is not None:
            newest = _meant_memory(transaction, state, matcher, self._time_us)
            if newest is not None:
                self.ids.append(memory_id)
                self.changes.append(tombstone(newest, state, self._time_us))
                self.changes += pruned(transaction, self._namespace, state)
                return
        self.missing_ids.append(memory_id)


def _meant_versions(transaction: ReadTransaction, state: IdState, matcher: Filter | None) -> list[int] | None:
    """The versions of a memory, newest first, if a purge takes it."""
    versions = list(transaction.versions(state.ordinal))
    records = [record for _, record in versions]
    # A deletion tells nothing of its memory but the id; it counts when nothing else is kept.
    written = [record for record in records if not record.is_tombstone]
    if matcher is not None and not any(matcher.matches(record.memory) for record in written or records):
        return None
    return [ordinal for ordinal, _ in versions]


def _meant_memory(
    transaction: ReadTransaction, state: IdState, matcher: Filter | None, time_us: int
) -> memory_pb2.Memory | None:
    """The memory, if a deletion takes it."""
    if state.deleted:
        return None
    memory = transaction.named_record(state.ordinal).memory
    is_meant = not is_expired(memory, time_us) and (matcher is None or matcher.matches(memory))
    return memory if is_meant else None


@dataclass(frozen=True, slots=True)
class _DeleteMatching:
    """Deletes or purges those of the ids that still match; returns which, and how many versions it purged."""

    namespace: str
    ids: Sequence[str]
    matcher: Filter
    is_purge: bool
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> tuple[list[str], int]:
        deletion = _Deletion(transaction, self.namespace, self.is_purge, time_us)
        for memory_id in self.ids:
            deletion.add(memory_id, self.matcher)
        if deletion.changes:
            transaction.append(deletion.changes, time_us)
        return deletion.ids, deletion.version_count


@dataclass(frozen=True, slots=True)
class _EndDeletion:
    """Writes down what a deletion by filter came to."""

    namespace: str
    tally: _Tally
    is_purge: bool
    request: RequestKey | None
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> writer_pb2.DeleteMemoriesResponse:
        first = first_outcome(self.request, transaction, time_us)
        if first:
            return writer_pb2.DeleteMemoriesResponse.FromString(first.response)
        response = writer_pb2.DeleteMemoriesResponse(
            deleted_ids=self.tally.named_ids, deleted_count=self.tally.count
        )
        has_receipt = self.is_purge and self.tally.count
        receipt = self.tally.receipt(self.namespace, time_us) if has_receipt else None
        return _end(transaction, (), time_us, response, receipt, self.request)


async def delete_by_filter(
    store: Store,
    queue: CommitQueue,
    threads: BoundedThreads,
    namespace: str,
    matcher: Filter,
    *,
    is_purge: bool,
    request: RequestKey | None,
) -> writer_pb2.DeleteMemoriesResponse:
    """Deletes or purges what matches, commit by commit.

    A memory that is changed meanwhile is deleted if it still matches then. When the call is cut off, what was
    committed stays deleted, and the same request does the rest.
    """
    if request is not None:
        with store.read() as transaction:
            first = first_outcome(request, transaction, now_us())
        if first is not None:
            return writer_pb2.DeleteMemoriesResponse.FromString(first.response)
    tally = _Tally()
    after: str | None = ""
    while after is not None:
        ids, after = await threads.run(_find_matching, store, namespace, matcher, is_purge, after, now_us())
        if ids:
            deleted, version_count = await queue.submit(_DeleteMatching(namespace, ids, matcher, is_purge))
            tally.add(deleted, version_count)
    return await queue.submit(_EndDeletion(namespace, tally, is_purge, request))


def _find_matching(
    store: Store, namespace: str, matcher: Filter, is_purge: bool, after: str, time_us: int
) -> tuple[list[str], str | None]:
    """Some ids behind ``after`` that match, in order, and the id to go on behind; None at the end."""
    found: list[str] = []
    scanned = 0
    while scanned < MAX_SCANNED_RECORDS:
        with store.read() as transaction:
            chunk = list(islice(transaction.ids(namespace, after), SCAN_CHUNK_RECORDS))
            for memory_id, state in chunk:
                if len(found) == MAX_DELETED_PER_COMMIT:
                    return found, after
                after = memory_id
                meant = (
                    _meant_versions(transaction, state, matcher)
                    if is_purge
                    else _meant_memory(transaction, state, matcher, time_us)
                )
                if meant is not None:
                    found.append(memory_id)
        scanned += len(chunk)
        if len(chunk) < SCAN_CHUNK_RECORDS:
            return found, None
    return found, after
